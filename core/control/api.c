// SPDX-License-Identifier: Apache-2.0
#include "control/api.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/api_gate.h"
#include "control/status.h"

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

// What a request is about, once it was let in.
struct call {
    struct control *control;
    struct http_msg *m;
    enum api_body body;
    const char *rest; // of the path, where the route ends with '/'
};

typedef void run_fn(const struct call *c);
static run_fn get_healthz, get_status;

static const struct route {
    const char *method, *path; // ends with '/': a name follows
    run_fn *run;
    bool socket_only;
} routes[] = {
    {"GET", "/healthz", get_healthz, false},
    {"GET", "/status", get_status, false},
};

static bool is_at(const struct route *r, const char *path, size_t n)
{
    size_t len = strlen(r->path);
    if (r->path[len - 1] == '/')
        return n > len && strncmp(path, r->path, len) == 0 && !memchr(path + len, '/', n - len);
    return n == len && strncmp(path, r->path, len) == 0;
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
    call.rest = m->path + strlen(r->path);
    r->run(&call);
}

static void reply(struct http_msg *m, const char *type, const char *text)
{
    http_reply_head(m, 200, type, (int64_t)strlen(text), NULL);
    http_reply_body(m, text, strlen(text));
    http_reply_end(m);
}

static void get_healthz(const struct call *c)
{
    reply(c->m, "text/plain", "ok\n");
}

static void get_status(const struct call *c)
{
    char *text = status_text(c->control);
    reply(c->m, "application/json", text);
    xfree(text);
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
