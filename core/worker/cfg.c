// SPDX-License-Identifier: Apache-2.0
#include "worker/cfg.h"

#include "base/arena.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "worker/plugin.h"

#include <cjson/cJSON.h>

#include <ctype.h>
#include <stdlib.h>

enum { CFG_KEY_MAX = 512, CFG_DEPTH_MAX = 32 };

struct entry {
    const char *key;
    const char *text; // NULL: a container
    const char *json;
};

struct sv_cfg {
    struct arena arena;
    struct entry *entries; // owned, sorted by key
    size_t n, cap;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key);
}

static struct entry *add(struct sv_cfg *c, const char *key)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 32;
        c->entries = xrealloc(c->entries, c->cap * sizeof *c->entries);
    }
    c->entries[c->n] = (struct entry){.key = arena_strdup(&c->arena, key)};
    return &c->entries[c->n++];
}

static const char *printed(struct sv_cfg *c, const cJSON *v)
{
    char *text = cJSON_PrintUnformatted(v);
    const char *kept = arena_strdup(&c->arena, text ? text : "null");
    cJSON_free(text);
    return kept;
}

// `key` is the path so far, in a buffer of CFG_KEY_MAX.
static int add_tree(struct sv_cfg *c, const cJSON *object, char *key, int depth, struct err *err)
{
    size_t len = strlen(key);
    const cJSON *v;
    if (depth > CFG_DEPTH_MAX)
        return err_set(err, SV_E_INVALID, "config: nested deeper than %d", CFG_DEPTH_MAX);
    cJSON_ArrayForEach(v, object)
    {
        int n = snprintf(key + len, CFG_KEY_MAX - len, "%s%s", len ? "." : "", v->string);
        if (n < 0 || (size_t)n >= CFG_KEY_MAX - len)
            return err_set(err, SV_E_INVALID, "config: the key '%s...' is longer than %d bytes",
                           key, CFG_KEY_MAX - 1);
        if (!cJSON_IsNull(v)) {
            struct entry *e = add(c, key);
            e->json = printed(c, v);
            if (cJSON_IsString(v))
                e->text = arena_strdup(&c->arena, v->valuestring);
            else if (!cJSON_IsObject(v) && !cJSON_IsArray(v))
                e->text = e->json;
        }
        int rc = cJSON_IsObject(v) ? add_tree(c, v, key, depth + 1, err) : 0;
        if (rc < 0)
            return rc;
        key[len] = '\0';
    }
    return 0;
}

static const struct entry *find(const struct sv_cfg *c, const char *key)
{
    if (!c || !key || c->n == 0)
        return NULL;
    struct entry want = {.key = key};
    return bsearch(&want, c->entries, c->n, sizeof *c->entries, by_key);
}

static void sort(struct sv_cfg *c)
{
    if (c->n)
        qsort(c->entries, c->n, sizeof *c->entries, by_key);
}

static void add_fallbacks(struct sv_cfg *c, const struct plugin *p)
{
    size_t given = c->n;
    for (uint32_t i = 0; i < p->n_options; i++) {
        const sv_option *o = &p->options[i];
        struct sv_cfg there = *c;
        there.n = given;
        if (!o->fallback || find(&there, o->name))
            continue;
        struct entry *e = add(c, o->name);
        cJSON *v = cJSON_Parse(o->fallback);
        cJSON *text = cJSON_CreateString(o->fallback);
        bool tree = v && o->type == SV_JSON && (cJSON_IsObject(v) || cJSON_IsArray(v));
        bool bare = v && o->type != SV_STR && o->type != SV_PATH;
        e->json = printed(c, bare ? v : text);
        e->text = tree ? NULL : arena_strdup(&c->arena, o->fallback);
        cJSON_Delete(v);
        cJSON_Delete(text);
    }
    sort(c);
}

int cfg_create(const char *json, const struct plugin *p, struct sv_cfg **ret, struct err *err)
{
    cJSON *tree = cJSON_Parse(json && *json ? json : "{}");
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return err_set(err, SV_E_INVALID, "config: not a JSON object");
    }
    struct sv_cfg *c = xcalloc(1, sizeof *c);
    char key[CFG_KEY_MAX] = "";
    arena_init(&c->arena, 0);
    int rc = add_tree(c, tree, key, 0, err);
    cJSON_Delete(tree);
    if (rc < 0) {
        cfg_destroy(c);
        return rc;
    }
    sort(c);
    if (p)
        add_fallbacks(c, p);
    *ret = c;
    return 0;
}

void cfg_destroy(struct sv_cfg *c)
{
    if (!c)
        return;
    arena_finish(&c->arena);
    xfree(c->entries);
    xfree(c);
}

const char *cfg_str(const struct sv_cfg *c, const char *key, const char *fallback)
{
    const struct entry *e = find(c, key);
    return e && e->text ? e->text : fallback;
}

// "100 ms" -> "100ms", as the readers of units want it.
static const char *without_spaces(const char *s, char out[64])
{
    size_t n = 0;
    for (; *s && n < 63; s++)
        if (!isspace((unsigned char)*s))
            out[n++] = *s;
    out[n] = '\0';
    return out;
}

static int as_bool(const char *s)
{
    if (strcmp(s, "true") == 0)
        return 1;
    return strcmp(s, "false") == 0 ? 0 : -1;
}

int64_t cfg_int(const struct sv_cfg *c, const char *key, int64_t fallback)
{
    const char *s = cfg_str(c, key, NULL);
    char tight[64];
    int64_t v;
    double f;
    if (!s)
        return fallback;
    s = without_spaces(s, tight);
    if (as_bool(s) >= 0)
        return as_bool(s);
    if (str_to_i64(s, &v, NULL) == 0 || str_to_bytes(s, &v, NULL) == 0)
        return v;
    bool fits = str_to_f64(s, &f, NULL) == 0 && f > -9e18 && f < 9e18;
    return fits ? (int64_t)f : fallback;
}

double cfg_num(const struct sv_cfg *c, const char *key, double fallback)
{
    const char *s = cfg_str(c, key, NULL);
    char tight[64];
    double v;
    if (!s)
        return fallback;
    s = without_spaces(s, tight);
    if (as_bool(s) >= 0)
        return as_bool(s);
    if (str_to_f64(s, &v, NULL) == 0 || str_to_time(s, &v, NULL) == 0)
        return v;
    return fallback;
}

const char *cfg_json(const struct sv_cfg *c, const char *key)
{
    const struct entry *e = find(c, key);
    return e ? e->json : NULL;
}
