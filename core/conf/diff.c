// SPDX-License-Identifier: Apache-2.0
#include "conf/diff.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "conf/app.h"
#include "conf/tables.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512 }; // longer than any option's name

struct diff {
    const struct diff_option *options;
    uint32_t n_options;
    struct conf_change *out;
    uint32_t max, n; // n: found
};

static unsigned weight(enum field_reload class)
{
    static const unsigned weights[] = {
        [RELOAD_NONE] = 0, [RELOAD_LIVE] = 1, [RELOAD_ROLLING] = 2, [RELOAD_SERVER] = 3};
    return weights[class];
}

// Where a change of that class is written; NULL: nowhere, all that is there weighs as much.
static struct conf_change *room(const struct diff *d, enum field_reload class)
{
    if (d->n < d->max)
        return &d->out[d->n];
    for (uint32_t i = d->max; i-- > 0;)
        if (weight(d->out[i].class) < weight(class))
            return &d->out[i];
    return NULL;
}

static void found(struct diff *d, const char *prefix, const char *name, enum field_reload class)
{
    struct conf_change *c = room(d, class);
    d->n++;
    if (!c)
        return;
    c->class = class;
    snprintf(c->name, sizeof c->name, "%s%s%s", prefix, *prefix ? "." : "", name);
}

/* ---- config ---- */

static const struct diff_option *find_option(const struct diff *d, const char *name)
{
    for (uint32_t i = 0; i < d->n_options; i++)
        if (strcmp(d->options[i].name, name) == 0)
            return &d->options[i];
    return NULL;
}

// Whether options lie below that key: "cache" of "cache.bytes".
static bool holds_options(const struct diff *d, const char *name)
{
    size_t n = strlen(name);
    for (uint32_t i = 0; i < d->n_options; i++)
        if (strncmp(d->options[i].name, name, n) == 0 && d->options[i].name[n] == '.')
            return true;
    return false;
}

static bool is_nothing(const cJSON *v)
{
    return !v || cJSON_IsNull(v);
}

// A scalar as the plugin reads it. NULL: it is none; else `room`, or the text itself.
static const char *scalar_text(const cJSON *v, char *room, size_t cap)
{
    if (cJSON_IsString(v))
        return v->valuestring;
    if (cJSON_IsBool(v))
        return cJSON_IsTrue(v) ? "true" : "false";
    if (!cJSON_IsNumber(v))
        return NULL;
    snprintf(room, cap, "%.17g", v->valuedouble);
    return room;
}

static bool same_number(const char *text, const cJSON *v)
{
    char *end;
    return cJSON_IsNumber(v) && *text && strtod(text, &end) == v->valuedouble && !*end;
}

static bool same_value(const cJSON *a, const cJSON *b)
{
    char room_a[32], room_b[32];
    if (is_nothing(a) || is_nothing(b))
        return is_nothing(a) && is_nothing(b);
    const char *text_a = scalar_text(a, room_a, sizeof room_a);
    const char *text_b = scalar_text(b, room_b, sizeof room_b);
    if (text_a && text_b)
        return strcmp(text_a, text_b) == 0 || same_number(text_a, b) || same_number(text_b, a);
    return cJSON_Compare(a, b, true);
}

static bool same_option(const struct diff_option *o, const cJSON *a, const cJSON *b)
{
    if (!o->fallback || (is_nothing(a) && is_nothing(b)) || (!is_nothing(a) && !is_nothing(b)))
        return same_value(a, b);
    cJSON *text = cJSON_CreateString(o->fallback), *tree = cJSON_Parse(o->fallback);
    const cJSON *said = is_nothing(a) ? b : a;
    bool same = same_value(said, text) || (tree && same_value(said, tree));
    cJSON_Delete(text);
    cJSON_Delete(tree);
    return same;
}

// What walk() compares: two objects, either may be NULL.
struct level {
    const cJSON *a, *b;
    int depth;
};

static void walk(struct diff *d, struct level at, char *path);

static void compare_key(struct diff *d, struct level at, const char *key, char *path)
{
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(at.a, key);
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(at.b, key);
    size_t len = strlen(path);
    snprintf(path + len, PATH_BYTES - len, "%s%s", len ? "." : "", key);
    const struct diff_option *o = find_option(d, path);
    bool maps = (is_nothing(a) || cJSON_IsObject(a)) && (is_nothing(b) || cJSON_IsObject(b));
    if (o) {
        if (!same_option(o, a, b))
            found(d, "config", path, o->live ? RELOAD_LIVE : RELOAD_ROLLING);
    } else if (maps && at.depth < DIFF_DEPTH_MAX && holds_options(d, path)) {
        walk(d, (struct level){a, b, at.depth + 1}, path);
    } else if (!same_value(a, b)) {
        found(d, "config", path, RELOAD_ROLLING);
    }
    path[len] = '\0';
}

// `path` is where they lie, in a buffer of PATH_BYTES.
static void walk(struct diff *d, struct level at, char *path)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, at.a) compare_key(d, at, v->string, path);
    cJSON_ArrayForEach(v, at.b)
    {
        if (!cJSON_GetObjectItemCaseSensitive(at.a, v->string))
            compare_key(d, at, v->string, path);
    }
}

uint32_t conf_diff_config(const cJSON *a, const cJSON *b, const struct diff_option *options,
                          uint32_t n_options, struct conf_change *out, uint32_t max)
{
    struct diff d = {.options = options, .n_options = n_options, .out = out, .max = max};
    char path[PATH_BYTES] = "";
    walk(&d, (struct level){a, b, 0}, path);
    return d.n;
}

// The array that conf_diff_config wants, of what an inspection says. Its texts are the JSON's.
static struct diff_option *read_options(const cJSON *list, uint32_t *ret_n)
{
    struct diff_option *all = xcalloc(DIFF_OPTIONS_MAX, sizeof *all);
    const cJSON *row;
    *ret_n = 0;
    cJSON_ArrayForEach(row, list)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "name"));
        const cJSON *flags = cJSON_GetObjectItemCaseSensitive(row, "flags");
        if (!name || *ret_n == DIFF_OPTIONS_MAX)
            continue;
        all[(*ret_n)++] = (struct diff_option){
            .name = name,
            .fallback = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "fallback")),
            .live = cJSON_IsNumber(flags) && ((uint32_t)flags->valuedouble & SV_LIVE)};
    }
    return all;
}

static void diff_config(struct diff *d, const struct conf_deployment *a,
                        const struct conf_deployment *b, const char *options_json)
{
    cJSON *list = options_json ? cJSON_Parse(options_json) : NULL;
    uint32_t n;
    struct diff_option *options = read_options(cJSON_IsArray(list) ? list : NULL, &n);
    char path[PATH_BYTES] = "";
    d->options = options;
    d->n_options = n;
    walk(d, (struct level){a->config, b->config, 0}, path);
    d->options = NULL;
    d->n_options = 0;
    xfree(options);
    cJSON_Delete(list);
}

/* ---- tables ---- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static const void *pointer_at(const void *obj, size_t offset)
{
    const void *p;
    memcpy(&p, (const char *)obj + offset, sizeof p);
    return p;
}

static bool flag_at(const void *obj, size_t one_more)
{
    return one_more && *((const bool *)obj + one_more - 1);
}

static bool same_tree(const struct yaml_node *a, const struct yaml_node *b);
static bool same_list(const struct field *f, const void *a, const void *b);

static bool same_field(const struct field *f, const void *a, const void *b)
{
    const char *at_a = (const char *)a + f->offset, *at_b = (const char *)b + f->offset;
    switch (f->type) {
    case FIELD_TEXT:
        return same_text(pointer_at(a, f->offset), pointer_at(b, f->offset));
    case FIELD_BOOL:
    case FIELD_WHOLE:
    case FIELD_BYTES:
    case FIELD_CHOICE:
        return memcmp(at_a, at_b, f->size) == 0;
    case FIELD_NUMBER:
    case FIELD_SECONDS: {
        double x, y;
        memcpy(&x, at_a, sizeof x);
        memcpy(&y, at_b, sizeof y);
        return x == y;
    }
    case FIELD_TREE:
        return same_tree(pointer_at(a, f->offset), pointer_at(b, f->offset));
    case FIELD_LIST:
        return same_list(f, a, b);
    case FIELD_TABLE:
        for (const struct field *inner = f->table->fields; inner->name; inner++)
            if (inner->type != FIELD_NONE && !same_field(inner, at_a, at_b))
                return false;
        return true;
    case FIELD_NONE:
        break;
    }
    return true;
}

static bool same_tree(const struct yaml_node *a, const struct yaml_node *b)
{
    struct buf x = {0}, y = {0};
    if (a)
        yaml_json(a, &x);
    if (b)
        yaml_json(b, &y);
    bool same = strcmp(buf_cstr(&x), buf_cstr(&y)) == 0;
    buf_finish(&x);
    buf_finish(&y);
    return same;
}

static uint32_t count_at(const struct field *f, const void *obj)
{
    uint32_t n;
    memcpy(&n, (const char *)obj + f->count, sizeof n);
    return n;
}

static bool same_list(const struct field *f, const void *a, const void *b)
{
    const char *items_a = pointer_at(a, f->offset), *items_b = pointer_at(b, f->offset);
    uint32_t n = count_at(f, a);
    if (n != count_at(f, b))
        return false;
    for (size_t i = 0; i < n; i++)
        for (const struct field *inner = f->table->fields; inner->name; inner++)
            if (inner->type != FIELD_NONE &&
                !same_field(inner, items_a + i * f->table->size, items_b + i * f->table->size))
                return false;
    return true;
}

// Tables nest as deep as tables.c writes them.
static void diff_table(struct diff *d, const struct field_table *t, const char *prefix,
                       const void *a, const void *b)
{
    for (const struct field *f = t->fields; f->name; f++) {
        if (f->type == FIELD_NONE || f->type == FIELD_TREE ||
            (f->type == FIELD_LIST && f->table == &conf_deployment_table) ||
            flag_at(a, f->unless) || flag_at(b, f->unless))
            continue;
        if (f->present && flag_at(a, f->present) != flag_at(b, f->present))
            found(d, prefix, f->name, f->reload);
        else if (f->present && !flag_at(a, f->present))
            continue;
        else if (f->type == FIELD_TABLE)
            diff_table(d, f->table, f->name, (const char *)a + f->offset,
                       (const char *)b + f->offset);
        else if (!same_field(f, a, b))
            found(d, prefix, f->name, f->reload);
    }
}

uint32_t conf_diff(const struct conf_app *a0, const struct conf_deployment *a,
                   const struct conf_app *b0, const struct conf_deployment *b,
                   const char *options_json, struct conf_change *out, uint32_t max)
{
    struct diff d = {.out = out, .max = max};
    struct conf_app app = *b0; // its `plugin` counts only as far as it is the deployment's
    app.plugin = a0->plugin;
    diff_table(&d, &conf_app_table, "", a0, &app);
    diff_table(&d, &conf_deployment_table, "", a, b);
    diff_config(&d, a, b, options_json);
    return d.n;
}

enum field_reload conf_diff_class(const struct conf_change *changes, uint32_t n)
{
    enum field_reload class = RELOAD_NONE;
    for (uint32_t i = 0; i < n; i++)
        if (weight(changes[i].class) > weight(class))
            class = changes[i].class;
    return class;
}

const char *conf_diff_word(enum field_reload class)
{
    static const char *const words[] = {[RELOAD_SERVER] = "restart of the server",
                                        [RELOAD_NONE] = "no replica touched",
                                        [RELOAD_LIVE] = "live",
                                        [RELOAD_ROLLING] = "rolling"};
    return words[class];
}
