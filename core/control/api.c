// SPDX-License-Identifier: Apache-2.0
#include "control/api.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/api_details.h"
#include "control/api_gate.h"
#include "control/desired.h"
#include "control/status.h"

#include <cjson/cJSON.h>

#include <limits.h>
#include <string.h>

static void on_head(void *ctx, struct http_msg *m);
static void on_request(void *ctx, struct http_msg *m);
static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin);
static void on_gone(void *ctx, struct http_msg *m, enum http_gone why);
static void on_drain(void *ctx, struct http_msg *m);
static void on_conn(void *ctx, int change, const char *refused_by);

const struct http_handler api_handler = {
    .on_head = on_head,
    .on_request = on_request,
    .on_body = on_body,
    .on_gone = on_gone,
    .on_drain = on_drain,
    .on_conn = on_conn,
};

#define APPS "/api/serve/applications"

// What a request is about, once it was let in.
struct call {
    struct control *control;
    struct http_msg *m;
    enum api_body body;
    const char *name; // what follows a route that ends with '/'
};

typedef void run_fn(const struct call *c);
static run_fn put_apps, get_apps, delete_apps, delete_app, dry_run, upgrade, get_status,
    get_healthz;

static const struct route {
    const char *method, *path; // ends with '/': a name follows
    run_fn *run;
    bool socket_only;
} routes[] = {
    {"GET", APPS, get_apps, false},
    {"PUT", APPS, put_apps, false},
    {"DELETE", APPS, delete_apps, false},
    {"DELETE", APPS "/", delete_app, false},
    {"POST", "/api/serve/dry-run", dry_run, false},
    {"POST", "/api/upgrade", upgrade, true},
    {"GET", "/status", get_status, false},
    {"GET", "/healthz", get_healthz, false},
};

static bool is_at(const struct route *r, const char *path, size_t n)
{
    size_t len = strlen(r->path);
    if (r->path[len - 1] == '/')
        return n > len && strncmp(path, r->path, len) == 0 && !memchr(path + len, '/', n - len);
    return n == len && strncmp(path, r->path, len) == 0;
}

// Bytes behind the route, without a slash at the end.
static size_t rest_len(const struct route *r, const char *path)
{
    size_t n = strlen(path), len = strlen(r->path);
    n -= n > 1 && path[n - 1] == '/';
    return n > len ? n - len : 0;
}

static void refuse_method(struct http_msg *m, const char *allowed)
{
    struct buf text = {0};
    http_error_json(&text, -405, NULL, NULL);
    http_reply_head(m, 405, "application/json", (int64_t)buf_len(&text), NULL);
    http_reply_header(m, "allow", allowed);
    http_reply_body(m, buf_head(&text), buf_len(&text));
    http_reply_end(m);
    buf_finish(&text);
}

// The route, or NULL when an error was answered.
static const struct route *find_route(const struct api *a, struct http_msg *m)
{
    const char *method = strcmp(m->method, "HEAD") == 0 ? "GET" : m->method;
    size_t n = strlen(m->path);
    struct buf allowed = {0};
    const struct route *found = NULL;
    n -= n > 1 && m->path[n - 1] == '/';
    for (size_t i = 0; i < ARRAY_LEN(routes) && !found; i++) {
        if (!is_at(&routes[i], m->path, n))
            continue;
        if (strcmp(routes[i].method, method) == 0)
            found = &routes[i];
        buf_printf(&allowed, "%s%s", buf_len(&allowed) ? ", " : "", routes[i].method);
    }
    if (!found && buf_len(&allowed))
        refuse_method(m, buf_cstr(&allowed));
    else if (!found)
        http_reply_error(m, SV_E_NOT_FOUND,
                         "There are /api/serve/applications/, /status and /healthz.", NULL, NULL,
                         0);
    else if (found->socket_only && a->tcp)
        http_reply_error(m, -403, "This is taken on the socket in the state folder alone.", NULL,
                         NULL, 0);
    else {
        buf_finish(&allowed);
        return found;
    }
    buf_finish(&allowed);
    return NULL;
}

static int let_in(const struct api *a, const struct http_msg *m, enum api_body *ret_body,
                  struct err *err)
{
    const struct api_caller who = {.tcp = a->tcp,
                                   .method = m->method,
                                   .host = m->host,
                                   .content_type = m->content_type,
                                   .origin = http_msg_header(m, "origin")};
    return api_gate(&who, ret_body, err);
}

// Whatever the head alone decides is answered before a body is read.
static void on_head(void *ctx, struct http_msg *m)
{
    const struct api *a = ctx;
    enum api_body body;
    struct err err;
    if (let_in(a, m, &body, &err) < 0)
        http_reply_error(m, err.code, err.msg, NULL, NULL, 0);
    else
        find_route(a, m);
}

static void on_request(void *ctx, struct http_msg *m)
{
    const struct api *a = ctx;
    struct call call = {.control = a->control, .m = m};
    const struct route *r = find_route(a, m);
    CHECK(r && let_in(a, m, &call.body, NULL) == 0); // or on_head would have answered
    call.name = arena_strndup(m->arena, m->path + strlen(r->path), rest_len(r, m->path));
    r->run(&call);
}

static void reply(struct http_msg *m, const char *type, const char *text)
{
    http_reply_head(m, 200, type, (int64_t)strlen(text), NULL);
    http_reply_body(m, text, strlen(text));
    http_reply_end(m);
}

// 200 with nothing to say, or the error.
static void reply_done(struct http_msg *m, int rc, const struct err *err)
{
    if (rc < 0)
        http_reply_error(m, rc, err->msg, NULL, NULL, 0);
    else
        reply(m, "application/json", "{}\n");
}

// `path` of the query in room[0, cap), "" without one.
static int read_path(const struct http_msg *m, char *room, size_t cap, struct err *err)
{
    const sv_req query = {.query = m->query};
    *room = '\0';
    int n = sv_query(&query, "path", room, cap);
    if (n > 0 && (room[0] != '/' || strlen(room) != (size_t)n))
        return err_set(err, SV_E_INVALID, "path '%.200s' is no absolute path", room);
    if (n < 0 && strstr(m->query, "path=")) // too long, or of another name
        return err_set(err, SV_E_INVALID,
                       "the query is not path=/ABSOLUTE/PATH of at most %zu bytes", cap - 1);
    return 0;
}

static int read_text(const struct call *c, char *room, size_t cap, struct deploy_text *ret,
                     struct err *err)
{
    int rc = read_path(c->m, room, cap, err);
    if (rc < 0)
        return rc;
    *ret = (struct deploy_text){.text = buf_len(&c->m->body) ? buf_head(&c->m->body) : "",
                                .n = buf_len(&c->m->body),
                                .path = room,
                                .json = c->body == API_BODY_JSON};
    return 0;
}

static void put_apps(const struct call *c)
{
    char path[PATH_MAX];
    struct deploy_text text;
    struct err err;
    int rc = read_text(c, path, sizeof path, &text, &err);
    if (rc == 0)
        rc = desired_put(c->control, &text, &err);
    reply_done(c->m, rc, &err);
}

static void dry_run(const struct call *c)
{
    char path[PATH_MAX];
    struct deploy_text text;
    struct buf json = {0};
    struct err err;
    int rc = read_text(c, path, sizeof path, &text, &err);
    if (rc == 0)
        rc = desired_dry_run(c->control, &text, &json, &err);
    if (rc < 0)
        reply_done(c->m, rc, &err);
    else
        reply(c->m, "application/json", buf_cstr(&json));
    buf_finish(&json);
}

static void get_apps(const struct call *c)
{
    char *text = api_details(c->control);
    reply(c->m, "application/json", text);
    xfree(text);
}

static void delete_apps(const struct call *c)
{
    struct err err;
    reply_done(c->m, desired_delete(c->control, NULL, &err), &err);
}

static void delete_app(const struct call *c)
{
    struct err err;
    reply_done(c->m, desired_delete(c->control, c->name, &err), &err);
}

static void upgrade(const struct call *c)
{
    cJSON *j = cJSON_ParseWithLength(buf_head(&c->m->body), buf_len(&c->m->body));
    const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "path"));
    struct err err;
    int rc = path && *path == '/'
                 ? control_upgrade(c->control, path, &err)
                 : err_set(&err, SV_E_INVALID, "the body is not {\"path\": \"/ABSOLUTE/PATH\"}");
    cJSON_Delete(j);
    reply_done(c->m, rc, &err);
}

static void get_status(const struct call *c)
{
    char *text = status_text(c->control);
    reply(c->m, "application/json", text);
    xfree(text);
}

static void get_healthz(const struct call *c)
{
    reply(c->m, "text/plain", "ok\n");
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx, (void)m, (void)p, (void)n, (void)text, (void)fin; // bodies are buffered
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx, (void)m, (void)why;
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx, (void)m;
}

static void on_conn(void *ctx, int change, const char *refused_by)
{
    (void)ctx, (void)change, (void)refused_by;
}
