// SPDX-License-Identifier: Apache-2.0
#include "serve/snapshot.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stddef.h>
#include <string.h>

enum kind { K_STR, K_STR_OR_NULL, K_BOOL, K_U32, K_U64, K_SECONDS, K_STRS, K_MODELS };

struct field {
    const char *name;
    enum kind kind;
    size_t at;
    double max;    // of numbers
    bool optional; // absent: the member stays zero
};

#define FIELD(member, kind, max, optional)                                                         \
    {                                                                                              \
#member, kind, offsetof(struct snapshot_app, member), max, optional                        \
    }
#define F(member, kind, max)        FIELD(member, kind, max, false)
#define OPTIONAL(member, kind, max) FIELD(member, kind, max, true)
#define EXACT_MAX                   9007199254740992.0 // 2^53: whole numbers up to here are exact in JSON
static const struct field fields[] = {
    F(name, K_STR, 0),
    F(route_prefix, K_STR_OR_NULL, 0),
    F(deployment, K_STR, 0),
    F(workers, K_STRS, SNAPSHOT_WORKERS),
    F(stream_in, K_BOOL, 0),
    F(retry_safe, K_BOOL, 0),
    F(max_queued_requests, K_U32, 1e7),
    F(max_queued_bytes, K_U64, EXACT_MAX),
    F(max_ongoing_requests, K_U32, 1e6),
    F(max_body_bytes, K_U64, EXACT_MAX),
    F(max_response_buffer_bytes, K_U64, EXACT_MAX),
    F(graceful_shutdown_timeout_s, K_SECONDS, 1e7),
    F(status, K_STR, 0),
    F(message, K_STR, 0),
    F(models, K_MODELS, SNAPSHOT_MODELS),
    F(queue_gauge, K_STR_OR_NULL, 0),
    OPTIONAL(start_s, K_SECONDS, 1e7),
};

static int parse_root(const cJSON *root, struct snapshot *s, struct err *err);
static int parse_app(struct arena *a, const cJSON *o, struct snapshot_app *app, struct err *err);
static int parse_field(struct arena *a, const struct field *f, const cJSON *v,
                       struct snapshot_app *app, struct err *err);
static int parse_strs(struct arena *a, const struct field *f, const cJSON *v, const char ***ret,
                      uint32_t *ret_n, struct err *err);
static int parse_models(struct arena *a, const cJSON *v, struct snapshot_app *app, struct err *err);
static int check_prefix(const char *prefix, struct err *err);
static int check_twice(const struct snapshot *s, struct err *err);

int snapshot_parse(struct bytes text, struct snapshot *ret, struct err *err)
{
    if (text.n > SNAPSHOT_MAX)
        return err_set(err, SV_E_TOO_LARGE, "snapshot of %zu bytes: the limit is %d", text.n,
                       SNAPSHOT_MAX);
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text.p, text.n, &end, 0);
    if (!root)
        return err_set(err, SV_E_INVALID, "snapshot: not JSON at byte %td",
                       end ? end - text.p : (ptrdiff_t)0);
    struct snapshot s = {0};
    arena_init(&s.arena, 0);
    int rc = parse_root(root, &s, err);
    cJSON_Delete(root);
    if (rc < 0) {
        snapshot_finish(&s);
        return rc;
    }
    *ret = s;
    return 0;
}

void snapshot_finish(struct snapshot *s)
{
    arena_finish(&s->arena);
    *s = (struct snapshot){0};
}

static int parse_root(const cJSON *root, struct snapshot *s, struct err *err)
{
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(root, "version");
    const cJSON *apps = cJSON_GetObjectItemCaseSensitive(root, "apps");
    if (!cJSON_IsNumber(version) || version->valuedouble < 0 || version->valuedouble > EXACT_MAX)
        return err_set(err, SV_E_INVALID, "snapshot: 'version' must be a whole number");
    if (!cJSON_IsArray(apps) || cJSON_GetArraySize(apps) > SNAPSHOT_APPS)
        return err_set(err, SV_E_INVALID, "snapshot: 'apps' must be an array of at most %d",
                       SNAPSHOT_APPS);
    s->version = (uint64_t)version->valuedouble;
    s->apps = arena_alloc(&s->arena, ((size_t)cJSON_GetArraySize(apps) + 1) * sizeof *s->apps);
    const cJSON *o;
    cJSON_ArrayForEach(o, apps)
    {
        int rc = parse_app(&s->arena, o, &s->apps[s->n_apps], err);
        if (rc < 0) {
            err_ctx(err, "snapshot: application %u", s->n_apps);
            return rc;
        }
        s->n_apps++;
    }
    return check_twice(s, err);
}

static int parse_app(struct arena *a, const cJSON *o, struct snapshot_app *app, struct err *err)
{
    if (!cJSON_IsObject(o))
        return err_set(err, SV_E_INVALID, "is not an object");
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LEN(fields) && rc >= 0; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, fields[i].name);
        if (v)
            rc = parse_field(a, &fields[i], v, app, err);
        else if (!fields[i].optional)
            rc = err_set(err, SV_E_INVALID, "'%s' is missing", fields[i].name);
    }
    if (rc < 0)
        return rc;
    return app->route_prefix ? check_prefix(app->route_prefix, err) : 0;
}

static int parse_field(struct arena *a, const struct field *f, const cJSON *v,
                       struct snapshot_app *app, struct err *err)
{
    void *to = (char *)app + f->at;
    bool whole = cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= f->max;
    if (f->kind == K_STR_OR_NULL && cJSON_IsNull(v))
        return 0;
    switch (f->kind) {
    case K_STR_OR_NULL:
    case K_STR:
        if (!cJSON_IsString(v))
            return err_set(err, SV_E_INVALID, "'%s' must be a string", f->name);
        *(const char **)to = arena_strdup(a, v->valuestring);
        return 0;
    case K_BOOL:
        if (!cJSON_IsBool(v))
            return err_set(err, SV_E_INVALID, "'%s' must be true or false", f->name);
        *(bool *)to = cJSON_IsTrue(v);
        return 0;
    case K_U32:
    case K_U64:
        if (!whole || v->valuedouble != floor(v->valuedouble))
            return err_set(err, SV_E_INVALID, "'%s' must be a whole number from 0 to %.0f", f->name,
                           f->max);
        if (f->kind == K_U32)
            *(uint32_t *)to = (uint32_t)v->valuedouble;
        else
            *(uint64_t *)to = (uint64_t)v->valuedouble;
        return 0;
    case K_SECONDS:
        if (!whole)
            return err_set(err, SV_E_INVALID, "'%s' must be seconds from 0 to %.0f", f->name,
                           f->max);
        *(double *)to = v->valuedouble;
        return 0;
    case K_STRS:
        return parse_strs(a, f, v, &app->workers, &app->n_workers, err);
    case K_MODELS:
        return parse_models(a, v, app, err);
    }
    BUG("kind %d", (int)f->kind);
}

static int parse_strs(struct arena *a, const struct field *f, const cJSON *v, const char ***ret,
                      uint32_t *ret_n, struct err *err)
{
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) > (int)f->max)
        return err_set(err, SV_E_INVALID, "'%s' must be an array of at most %.0f strings", f->name,
                       f->max);
    const char **strs = arena_alloc(a, ((size_t)cJSON_GetArraySize(v) + 1) * sizeof *strs);
    uint32_t n = 0;
    const cJSON *s;
    cJSON_ArrayForEach(s, v)
    {
        if (!cJSON_IsString(s))
            return err_set(err, SV_E_INVALID, "'%s' must hold strings alone", f->name);
        strs[n++] = arena_strdup(a, s->valuestring);
    }
    *ret = strs;
    *ret_n = n;
    return 0;
}

static bool whole_number(const cJSON *v, double max)
{
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= max &&
           v->valuedouble == floor(v->valuedouble);
}

// Who knows it, where not all do.
static int parse_knowers(struct arena *a, const cJSON *model, struct snapshot_model *m,
                         struct err *err)
{
    static const struct field f = {"workers", K_STRS, 0, SNAPSHOT_WORKERS, true};
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(model, f.name);
    int rc = v ? parse_strs(a, &f, v, &m->workers, &m->n_workers, err) : 0;
    return rc < 0 ? err_ctx(err, "model '%s'", m->id) : 0;
}

static int parse_models(struct arena *a, const cJSON *v, struct snapshot_app *app, struct err *err)
{
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) > SNAPSHOT_MODELS)
        return err_set(err, SV_E_INVALID, "'models' must be an array of at most %d",
                       SNAPSHOT_MODELS);
    app->models = arena_alloc(a, ((size_t)cJSON_GetArraySize(v) + 1) * sizeof *app->models);
    const cJSON *m;
    cJSON_ArrayForEach(m, v)
    {
        const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "id"));
        const char *root = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "root"));
        const cJSON *len = cJSON_GetObjectItemCaseSensitive(m, "max_model_len");
        const cJSON *created = cJSON_GetObjectItemCaseSensitive(m, "created");
        if (!id || !root || !whole_number(len, UINT32_MAX) || !whole_number(created, EXACT_MAX))
            return err_set(err, SV_E_INVALID,
                           "model %u must have the texts 'id' and 'root' and the whole numbers "
                           "'max_model_len' and 'created'",
                           app->n_models);
        struct snapshot_model *to = &app->models[app->n_models++];
        *to = (struct snapshot_model){.id = arena_strdup(a, id),
                                      .root = arena_strdup(a, root),
                                      .max_model_len = (uint32_t)len->valuedouble,
                                      .created_s = (uint64_t)created->valuedouble};
        int rc = parse_knowers(a, m, to, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_prefix(const char *prefix, struct err *err)
{
    size_t n = strlen(prefix);
    if (prefix[0] != '/' || (n > 1 && prefix[n - 1] == '/'))
        return err_set(err, SV_E_INVALID,
                       "route_prefix '%s' must begin with a slash and not end with one", prefix);
    return 0;
}

static int check_twice(const struct snapshot *s, struct err *err)
{
    for (uint32_t i = 0; i < s->n_apps; i++)
        for (uint32_t j = 0; j < i; j++) {
            const struct snapshot_app *a = &s->apps[i], *b = &s->apps[j];
            if (strcmp(a->name, b->name) == 0)
                return err_set(err, SV_E_INVALID, "snapshot: two applications are named '%s'",
                               a->name);
            if (a->route_prefix && b->route_prefix && strcmp(a->route_prefix, b->route_prefix) == 0)
                return err_set(err, SV_E_INVALID,
                               "snapshot: '%s' and '%s' have the same prefix '%s'", b->name,
                               a->name, a->route_prefix);
        }
    return 0;
}
