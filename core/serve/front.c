// SPDX-License-Identifier: Apache-2.0
#include "serve/front.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/mem.h"
#include "obs/log.h"
#include "serve/dispatch.h"
#include "serve/inflight.h"
#include "serve/peer.h"
#include "serve/request.h"

#include <stdio.h>
#include <string.h>

static void on_head(void *ctx, struct http_msg *m);
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
static struct dispatch *find_dispatch(const struct front *f, const char *name);
static void close_missing(struct front *f, const struct snapshot *next);
static void set_routes(struct front *f);
static void assign(struct front *f, struct peer *p);

static const struct http_handler handler = {
    .on_head = on_head,
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
    for (uint32_t i = 0; i < f->n_dispatches; i++)
        if (f->dispatches[i]->prefix)
            route_add(&f->routes, f->dispatches[i]->prefix, f->dispatches[i]);
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

static struct front_way find_way(struct front *f, const struct http_msg *m)
{
    const char *below = route_below(f->root_path, m->path), *rest = NULL;
    const struct route_entry *e = below ? route_find(&f->routes, below, &rest) : NULL;
    // The core answers also without the root path: probes and scrapers need not know it.
    const char *path = below ? below : m->path;
    if (core_endpoints_match(path, e ? e->len : 0))
        return (struct front_way){.path = path, .core = true};
    return e ? (struct front_way){.d = e->to, .path = rest} : (struct front_way){0};
}

/* ---- messages ---- */

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
    struct dispatch_refusal why;
    if (!way.d) {
        char text[512];
        snprintf(text, sizeof text, "Path '%.300s' not found. Ping /-/routes for available routes.",
                 m->path);
        why = (struct dispatch_refusal){SV_E_NOT_FOUND, text, OUTCOME_not_found, 0};
        refuse(f, &f->nowhere, m, &why);
        return;
    }
    m->body_limit = way.d->max_body_bytes;
    m->streaming = way.d->stream_in && !m->websocket;
    if (dispatch_admits(way.d, &why) < 0)
        refuse(f, &way.d->tally, m, &why);
}

static void on_request(void *ctx, struct http_msg *m)
{
    struct front *f = ctx;
    bool fresh = f->last.m == m && f->last.started_ns == m->started_ns && f->last.epoch == f->epoch;
    struct front_way way = fresh ? f->last.way : find_way(f, m);
    f->last.m = NULL;
    if (way.d) {
        request_begin(f->all, way.d, m, way.path);
        return;
    }
    if (way.core) {
        core_endpoints_answer(&f->core, m, way.path);
        return;
    }
    struct dispatch_refusal why = {SV_E_UNAVAILABLE, "the application was removed",
                                   OUTCOME_unavailable, 0}; // while its body arrived
    refuse(f, &f->nowhere, m, &why);
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx;
    if (m->user)
        request_client_body(m->user, p, n, text, fin);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx;
    if (m->user)
        request_on_gone(m->user, why == GONE_SLOW);
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    if (m->user)
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
    http_reply_error(m, why->code, why->text, NULL, id, why->retry_after_s);
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
    if (m && m->user)
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
