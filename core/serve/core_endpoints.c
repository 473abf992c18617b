// SPDX-License-Identifier: Apache-2.0
#include "serve/core_endpoints.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/map.h"
#include "http/http.h"
#include "obs/metrics.h"
#include "serve/dispatch.h"
#include "serve/registry.h"

#include <stdio.h>
#include <string.h>

enum { MODELS_LEN = sizeof "/v1/models" - 1 };

struct endpoint {
    const char *path, *type;
    int (*write)(const struct core_endpoints *c, struct buf *out); // the status
};

static int write_health(const struct core_endpoints *c, struct buf *out);
static int write_routes(const struct core_endpoints *c, struct buf *out);
static int write_nothing(const struct core_endpoints *c, struct buf *out);
static int write_version(const struct core_endpoints *c, struct buf *out);
static int write_metrics(const struct core_endpoints *c, struct buf *out);
static int write_models(const struct core_endpoints *c, struct buf *out);
static void put_text(struct buf *out, const char *text);
static void answer(struct http_msg *m, int status, const char *type, const struct buf *body);
static void answer_model(const struct core_endpoints *c, struct http_msg *m, const char *model);

static const struct endpoint endpoints[] = {
    {"/-/healthz", "text/plain; charset=utf-8", write_health},
    {"/-/routes", "application/json", write_routes},
    {"/health", "text/plain; charset=utf-8", write_nothing},
    {"/version", "application/json", write_version},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", write_metrics},
    {"/v1/models", "application/json", write_models},
};

static const struct endpoint *find(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++)
        if (strcmp(endpoints[i].path, path) == 0)
            return &endpoints[i];
    return NULL;
}

// The model in /v1/models/X, or NULL. An id may have slashes.
static const char *model_of(const char *path)
{
    bool is = strncmp(path, "/v1/models/", MODELS_LEN + 1) == 0 && path[MODELS_LEN + 1];
    return is ? path + MODELS_LEN + 1 : NULL;
}

bool core_endpoints_match(const char *path, size_t claimed)
{
    if (path[0] != '/')
        return false;
    switch (path[1]) { // most paths are decided by one byte
    case '-':
        return path[2] == '/' || path[2] == '\0';
    case 'h':
    case 'm':
    case 'v':
        if (model_of(path))
            return claimed < MODELS_LEN;
        return find(path) && claimed < strlen(path);
    default:
        return false;
    }
}

void core_endpoints_answer(const struct core_endpoints *c, struct http_msg *m, const char *path)
{
    const char *id = m->request_id;
    const struct endpoint *e = find(path);
    const char *model = model_of(path);
    if (!e && !model) {
        char text[512];
        snprintf(text, sizeof text, "Path '%.300s' not found. Ping /-/routes for available routes.",
                 m->path);
        http_reply_error(m, SV_E_NOT_FOUND, text, NULL, id, 0);
        return;
    }
    if (strcmp(m->method, "GET") != 0 && strcmp(m->method, "HEAD") != 0) {
        http_reply_error(m, -405, "this path answers GET and HEAD alone", NULL, id, 0);
        return;
    }
    if (model) {
        answer_model(c, m, model);
        return;
    }
    struct buf out = {0};
    int status = e->write(c, &out);
    answer(m, status, e->type, &out);
    buf_finish(&out);
}

static void answer(struct http_msg *m, int status, const char *type, const struct buf *body)
{
    http_reply_head(m, status, type, (int64_t)buf_len(body), m->request_id);
    if (buf_len(body))
        http_reply_body(m, buf_head(body), buf_len(body));
    http_reply_end(m);
}

static int write_health(const struct core_endpoints *c, struct buf *out)
{
    buf_puts(out, c->draining ? "draining" : "success");
    return c->draining ? 503 : 200;
}

static int write_routes(const struct core_endpoints *c, struct buf *out)
{
    const char *between = "";
    buf_puts(out, "{");
    for (uint32_t i = 0; c->snapshot && i < c->snapshot->n_apps; i++) {
        const struct snapshot_app *a = &c->snapshot->apps[i];
        if (!a->route_prefix)
            continue;
        buf_puts(out, between);
        char prefix[1024];
        bool root = strcmp(a->route_prefix, "/") == 0;
        snprintf(prefix, sizeof prefix, "%s%s", c->root_path,
                 root && c->root_path[0] ? "" : a->route_prefix);
        put_text(out, prefix);
        buf_puts(out, ":");
        put_text(out, a->name);
        between = ",";
    }
    buf_puts(out, "}");
    return 200;
}

static int write_nothing(const struct core_endpoints *c, struct buf *out)
{
    (void)c;
    (void)out;
    return 200;
}

static int write_version(const struct core_endpoints *c, struct buf *out)
{
    (void)c;
    buf_printf(out, "{\"version\":\"%s\"}", SALVER_VERSION);
    return 200;
}

static int write_metrics(const struct core_endpoints *c, struct buf *out)
{
    metrics_expose(out, c->pages, c->n_pages, c->fold);
    return 200;
}

// In the form of vLLM's model cards, so that clients of either read it.
static void put_model(struct buf *out, const struct snapshot_model *m)
{
    unsigned long long created = m->created_s;
    buf_puts(out, "{\"id\":");
    put_text(out, m->id);
    buf_printf(out,
               ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"salver\",\"root\":", created);
    put_text(out, m->root);
    buf_puts(out, ",\"parent\":null,\"max_model_len\":");
    if (m->max_model_len)
        buf_printf(out, "%u", m->max_model_len);
    else
        buf_puts(out, "null");
    buf_printf(out,
               ",\"permission\":[{\"id\":\"modelperm-%016llx\",\"object\":\"model_permission\","
               "\"created\":%llu,\"allow_create_engine\":false,\"allow_sampling\":true,"
               "\"allow_logprobs\":true,\"allow_search_indices\":false,\"allow_view\":true,"
               "\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,"
               "\"is_blocking\":false}]}",
               (unsigned long long)hash_bytes(m->id, strlen(m->id), 0), created);
}

static int write_models(const struct core_endpoints *c, struct buf *out)
{
    const char *between = "";
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; c->registry && i < c->registry->n; i++) {
        const struct registry_entry *e = &c->registry->entries[i];
        if (!registry_shows(e))
            continue;
        buf_puts(out, between);
        put_model(out, e->model);
        between = ",";
    }
    buf_puts(out, "]}");
    return 200;
}

static void answer_model(const struct core_endpoints *c, struct http_msg *m, const char *model)
{
    static const struct registry none;
    const struct registry *r = c->registry ? c->registry : &none;
    const struct registry_entry *e = registry_find(r, model, strlen(model));
    if (!e || !registry_shows(e)) {
        struct dispatch_refusal why;
        registry_unknown(r, model, strlen(model), &why);
        http_reply_error(m, why.code, why.text, why.param, m->request_id, 0);
        return;
    }
    struct buf out = {0};
    put_model(&out, e->model);
    answer(m, 200, "application/json", &out);
    buf_finish(&out);
}

static void put_text(struct buf *out, const char *text)
{
    buf_put_json(out, text, strlen(text));
}
