// SPDX-License-Identifier: Apache-2.0
#include "serve/front.h"

#include "abi/plugin.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "obs/log.h"
#include "serve/dispatch.h"
#include "serve/inflight.h"
#include "serve/model_field.h"
#include "serve/peer.h"
#include "serve/request.h"

#include <stdio.h>
#include <string.h>

// What a watched message's `user` points to, on its arena.
struct seek {
    size_t fed;   // bytes of the body that were looked at
    bool settled; // nothing that comes changes who gets it
    struct model_field field;
};

static void on_head(void *ctx, struct http_msg *m);
static void on_more(void *ctx, struct http_msg *m);
static void on_request(void *ctx, struct http_msg *m);
static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin);
static void on_gone(void *ctx, struct http_msg *m, enum http_gone why);
static void on_drain(void *ctx, struct http_msg *m);
static void on_sent(void *ctx, struct http_msg *m, size_t body_bytes);
static const char *on_bad(void *ctx, struct http_msg *m, const char *peer, int code);
static void on_conn(void *ctx, int change, const char *refused_by);
static struct front_way find_way(struct front *f, const struct http_msg *m);
static void refuse(struct front *f, struct tally *t, struct http_msg *m,
                   const struct dispatch_refusal *why);
static void begin_seek(const struct front *f, struct http_msg *m);
static void feed_seek(struct http_msg *m);
static void end_seek(struct front *f, struct http_msg *m, bool whole);
static struct dispatch *find_dispatch(const struct front *f, const char *name);
static void close_missing(struct front *f, const struct snapshot *next);
static void set_routes(struct front *f);
static void assign(struct front *f, struct peer *p);

static const struct http_handler handler = {
    .on_head = on_head,
    .on_more = on_more,
    .on_request = on_request,
    .on_body = on_body,
    .on_gone = on_gone,
    .on_drain = on_drain,
    .on_bad = on_bad,
    .on_conn = on_conn,
    .on_sent = on_sent,
};

void front_init(struct front *f, struct inflight *all, uint32_t place, const char *root_path)
{
    *f = (struct front){.all = all, .root_path = root_path};
    list_init(&f->peers);
    f->core.root_path = root_path;
    char text[16];
    snprintf(text, sizeof text, "%u", place);
    metrics_labels(f->ingress_label, sizeof f->ingress_label, "ingress", text, NULL);
    f->connections = metrics_core(all->page, M_connections, f->ingress_label);
    f->accepted = metrics_core(all->page, M_accepted, f->ingress_label);
    tally_init(&f->nowhere, all->page, "", "", NULL);
}

void front_finish(struct front *f)
{
    CHECK(!f->server && list_empty(&f->peers));
    for (uint32_t i = 0; i < f->n_dispatches; i++)
        dispatch_close(f->dispatches[i]);
    xfree(f->dispatches);
    route_finish(&f->routes);
    registry_finish(&f->registry);
    snapshot_finish(&f->snapshot);
}

int front_listen(struct front *f, int own_fd, const struct http_limits *limits, struct err *err)
{
    CHECK(!f->server);
    return http_server_create(f->all->loop, f->all->turn, own_fd, limits, &handler, f, &f->server,
                              err);
}

/* ---- routes ---- */

void front_set_snapshot(struct front *f, struct snapshot *own_snapshot)
{
    struct snapshot old = f->snapshot;
    close_missing(f, own_snapshot);
    f->dispatches = xrealloc(f->dispatches, (own_snapshot->n_apps + 1) * sizeof(struct dispatch *));
    for (uint32_t i = 0; i < own_snapshot->n_apps; i++) {
        struct dispatch *d = find_dispatch(f, own_snapshot->apps[i].name);
        if (d)
            dispatch_configure(d, &own_snapshot->apps[i]);
        else
            dispatch_create(f->all, &own_snapshot->apps[i], &f->dispatches[f->n_dispatches++]);
    }
    f->snapshot = *own_snapshot;
    *own_snapshot = (struct snapshot){0};
    f->has_snapshot = true;
    f->core.snapshot = &f->snapshot;
    f->core.registry = &f->registry;
    set_routes(f);
    list_for_each (n, &f->peers)
        assign(f, CONTAINER_OF(n, struct peer, node));
    snapshot_finish(&old);
}

void front_add_peer(struct front *f, struct peer *p)
{
    list_push(&f->peers, &p->node);
    assign(f, p);
}

void front_drop_peer(struct front *f, struct peer *p)
{
    (void)f;
    list_remove(&p->node);
    if (p->d)
        dispatch_leave(p->d, p);
}

static struct dispatch *find_dispatch(const struct front *f, const char *name)
{
    for (uint32_t i = 0; i < f->n_dispatches; i++)
        if (strcmp(f->dispatches[i]->name, name) == 0)
            return f->dispatches[i];
    return NULL;
}

static void close_missing(struct front *f, const struct snapshot *next)
{
    for (uint32_t i = 0; i < f->n_dispatches;) {
        struct dispatch *d = f->dispatches[i];
        uint32_t j = 0;
        while (j < next->n_apps && strcmp(next->apps[j].name, d->name) != 0)
            j++;
        if (j < next->n_apps) {
            i++;
            continue;
        }
        f->dispatches[i] = f->dispatches[--f->n_dispatches];
        f->epoch++;
        dispatch_close(d);
    }
}

static void set_routes(struct front *f)
{
    route_finish(&f->routes);
    registry_finish(&f->registry);
    f->body_limit = 0;
    for (uint32_t i = 0; i < f->snapshot.n_apps; i++) {
        const struct snapshot_app *a = &f->snapshot.apps[i];
        struct dispatch *d = find_dispatch(f, a->name);
        if (d->prefix)
            route_add(&f->routes, d->prefix, d);
        if (d->prefix && strcmp(d->prefix, "/") == 0)
            registry_set_root(&f->registry, d);
        for (uint32_t j = 0; j < a->n_models; j++)
            registry_add(&f->registry, &a->models[j], d, strcmp(a->status, "DEPLOY_FAILED") == 0);
        if (d->max_body_bytes > f->body_limit)
            f->body_limit = d->max_body_bytes;
    }
    registry_sort(&f->registry);
    f->epoch++;
}

// Gives the worker to the application that names it.
static void assign(struct front *f, struct peer *p)
{
    struct dispatch *to = NULL;
    for (uint32_t i = 0; i < f->snapshot.n_apps && !to; i++) {
        const struct snapshot_app *a = &f->snapshot.apps[i];
        for (uint32_t j = 0; j < a->n_workers && !to; j++)
            if (strcmp(a->workers[j], p->name) == 0)
                to = find_dispatch(f, a->name);
    }
    if (p->d == to)
        return;
    if (p->d)
        dispatch_leave(p->d, p);
    if (to)
        dispatch_join(to, p);
}

static bool goes_by_model(const char *path)
{
    switch (path[1]) { // most paths are decided by one byte
    case 'v':
        return strncmp(path, "/v1/", 4) == 0;
    case 't':
        return strcmp(path, "/tokenize") == 0;
    case 'd':
        return strcmp(path, "/detokenize") == 0;
    default:
        return false;
    }
}

static struct front_way find_way(struct front *f, const struct http_msg *m)
{
    const char *below = route_below(f->root_path, m->path), *rest = NULL;
    const struct route_entry *e = below ? route_find(&f->routes, below, &rest) : NULL;
    // The core answers also without the root path: probes and scrapers need not know it.
    const char *path = below ? below : m->path;
    if (core_endpoints_match(path, e ? e->len : 0))
        return (struct front_way){.path = path, .core = true};
    if (below && !(e && e->len) && goes_by_model(below) && f->registry.n_by_id)
        return (struct front_way){.path = below, .by_model = true};
    return e ? (struct front_way){.d = e->to, .path = rest} : (struct front_way){0};
}

/* ---- messages ---- */

// The request that a message has become, or NULL.
static struct request *request_of(const struct http_msg *m)
{
    return m->watched ? NULL : m->user;
}

static void on_head(void *ctx, struct http_msg *m)
{
    struct front *f = ctx;
    m->user = NULL;
    struct front_way way = find_way(f, m);
    f->last.m = m;
    f->last.started_ns = m->started_ns;
    f->last.epoch = f->epoch;
    f->last.way = way;
    if (way.core)
        return;
    if (way.by_model && !m->websocket && m->content_length != 0) {
        begin_seek(f, m);
        return;
    }
    struct dispatch_refusal why;
    char text[512];
    if (way.by_model) {
        way.d = registry_choose(&f->registry, NULL, &why);
    } else if (!way.d) {
        snprintf(text, sizeof text, "Path '%.300s' not found. Ping /-/routes for available routes.",
                 m->path);
        why = (struct dispatch_refusal){SV_E_NOT_FOUND, text, OUTCOME_not_found, 0, NULL};
    }
    if (!way.d) {
        refuse(f, &f->nowhere, m, &why);
        return;
    }
    f->last.way.d = way.d;
    m->body_limit = way.d->max_body_bytes;
    m->streaming = way.d->stream_in && !m->websocket;
    if (dispatch_admits(way.d, &why) < 0)
        refuse(f, &way.d->tally, m, &why);
}

static void on_request(void *ctx, struct http_msg *m)
{
    struct front *f = ctx;
    if (m->watched) {
        end_seek(f, m, true);
        return;
    }
    bool fresh = f->last.m == m && f->last.started_ns == m->started_ns && f->last.epoch == f->epoch;
    struct front_way way = fresh ? f->last.way : find_way(f, m);
    f->last.m = NULL;
    if (way.by_model && !way.d) { // since its head there are models
        begin_seek(f, m);
        feed_seek(m);
        end_seek(f, m, true);
        return;
    }
    if (way.d) {
        request_begin(f->all, way.d, m, way.path, NULL);
        return;
    }
    if (way.core) {
        core_endpoints_answer(&f->core, m, way.path);
        return;
    }
    struct dispatch_refusal why = {SV_E_UNAVAILABLE, "the application was removed",
                                   OUTCOME_unavailable, 0, NULL}; // while its body arrived
    refuse(f, &f->nowhere, m, &why);
}

/* ---- by model ---- */

static void begin_seek(const struct front *f, struct http_msg *m)
{
    struct seek *s = arena_alloc(m->arena, sizeof *s);
    s->fed = 0;
    s->settled = false;
    model_field_init(&s->field, m->content_type);
    m->user = s;
    m->watched = true;
    m->body_limit = f->body_limit;
}

static void feed_seek(struct http_msg *m)
{
    struct seek *s = m->user;
    size_t n = buf_len(&m->body);
    if (n > s->fed)
        model_field_feed(&s->field, buf_head(&m->body) + s->fed, n - s->fed);
    s->fed = n;
}

// Before the body is whole the search ends when nobody takes it, or somebody takes it in pieces.
static void on_more(void *ctx, struct http_msg *m)
{
    struct front *f = ctx;
    struct seek *s = m->user;
    struct dispatch_refusal why;
    if (s->settled)
        return;
    feed_seek(m);
    if (!s->field.done && !s->field.has)
        return;
    struct dispatch *d = registry_choose(&f->registry, &s->field, &why);
    bool streams = d && d->stream_in;
    if (!s->field.done && !streams)
        return; // another name may follow
    s->settled = true;
    if (!d || streams || dispatch_admits(d, &why) < 0)
        end_seek(f, m, false);
    else
        m->body_limit = d->max_body_bytes;
}

static void end_seek(struct front *f, struct http_msg *m, bool whole)
{
    const struct seek *s = m->user;
    struct dispatch_refusal why;
    struct dispatch *d = registry_choose(&f->registry, &s->field, &why);
    m->watched = false;
    m->user = NULL;
    char text[128];
    if (d && m->body_bytes > d->max_body_bytes) {
        snprintf(text, sizeof text, "the body is larger than %llu bytes (max_body_bytes)",
                 (unsigned long long)d->max_body_bytes);
        why = (struct dispatch_refusal){SV_E_TOO_LARGE, text, OUTCOME_error, 0, NULL};
        refuse(f, &d->tally, m, &why);
        return;
    }
    if (!d || dispatch_admits(d, &why) < 0) {
        refuse(f, d ? &d->tally : &f->nowhere, m, &why);
        return;
    }
    m->body_limit = d->max_body_bytes;
    bool streams = d->stream_in && !m->websocket;
    m->streaming = streams;
    const char *model = s->field.has ? arena_strndup(m->arena, s->field.text, s->field.n) : NULL;
    request_begin(f->all, d, m, route_below(f->root_path, m->path), model);
    if (streams && m->user)
        http_msg_stream(m);
    if (streams && m->user && whole)
        request_client_body(m->user, "", 0, false, true);
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx;
    if (request_of(m))
        request_client_body(m->user, p, n, text, fin);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx;
    if (request_of(m))
        request_on_gone(m->user, why == GONE_SLOW);
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    if (request_of(m))
        request_on_sent(m->user);
}

static void on_sent(void *ctx, struct http_msg *m, size_t body_bytes)
{
    (void)body_bytes;
    on_drain(ctx, m);
}

// Answers a message that never became a request.
static void refuse(struct front *f, struct tally *t, struct http_msg *m,
                   const struct dispatch_refusal *why)
{
    char made[17];
    inflight_new_id(f->all, made);
    const char *id = m->request_id ? m->request_id : made;
    tally_finish(t,
                 &(struct tally_done){.m = m,
                                      .request_id = id,
                                      .outcome = why->outcome,
                                      .status = http_error_of(why->code).status,
                                      .now_ns = clock_now_ns()},
                 f->all);
    http_reply_error(m, why->code, why->text, why->param, id, why->retry_after_s);
}

static struct page_metric *bad_requests(struct front *f, int status)
{
    for (uint32_t i = 0; i < f->n_bad; i++)
        if (f->bad[i].code == status)
            return f->bad[i].count;
    char labels[128];
    snprintf(labels, sizeof labels, "%s,code=\"%d\"", f->ingress_label, status);
    struct page_metric *count = metrics_core(f->all->page, M_bad_requests, labels);
    if (f->n_bad < FRONT_CODES) {
        f->bad[f->n_bad].code = status;
        f->bad[f->n_bad++].count = count;
    }
    return count;
}

// A message that became a request gets its line when on_gone ends it.
static const char *on_bad(void *ctx, struct http_msg *m, const char *peer, int code)
{
    struct front *f = ctx;
    int status = http_error_of(code).status;
    metrics_add(bad_requests(f, status), 1);
    if (m && request_of(m))
        return request_name(m->user);
    inflight_new_id(f->all, f->bad_id);
    const char *id = m && m->request_id ? m->request_id : f->bad_id;
    if (f->all->access_log) {
        log_access(&(struct log_access){.request_id = id,
                                        .client = peer,
                                        .method = m ? m->method : "",
                                        .path = m ? m->raw_path : "",
                                        .outcome = outcome_name(OUTCOME_error),
                                        .status = status});
        inflight_logged(f->all);
    }
    return id;
}

static void on_conn(void *ctx, int change, const char *refused_by)
{
    struct front *f = ctx;
    metrics_add(f->connections, change);
    if (change > 0)
        metrics_add(f->accepted, 1);
    if (change != 0)
        return;
    char labels[128];
    snprintf(labels, sizeof labels, "%s,limit=\"%s\"", f->ingress_label, refused_by);
    metrics_add(metrics_core(f->all->page, M_refused, labels), 1);
}
