// SPDX-License-Identifier: Apache-2.0
#include "serve/dispatch.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "http/http.h"
#include "serve/inflight.h"
#include "serve/peer.h"
#include "serve/request.h"
#include "serve/snapshot.h"

#include <stdio.h>
#include <string.h>

#define DISPATCH_PATIENCE_NS                                                                       \
    (60 * NS_PER_S)                  // what a WANT without a deadline means to a worker, too
#define DRAIN_SPAN_NS (5 * NS_PER_S) // the rate at which a queue drains is taken over 5 to 10 s
enum { RETRY_AFTER_MAX_S = 60, RETRY_START_MAX_S = 3600 };

static struct peer *choose(struct dispatch *d, const struct request *r);
static void submit(struct request *r, struct peer *p);
static void want(struct dispatch *d);
static void want_nothing(struct dispatch *d);
static void set_text(char **text, const char *to);
static bool same(const char *a, const char *b);
static void set_ongoing(struct dispatch *d, struct peer *p);
static void show_queue(struct dispatch *d);
static void call_if_first(struct dispatch *d);
static void count_drained(struct dispatch *d, uint64_t now);
static int retry_after_s(const struct dispatch *d);
static uint64_t next_random(struct dispatch *d);
static void refuse_waiting(struct dispatch *d);

void dispatch_create(struct inflight *all, const struct snapshot_app *app, struct dispatch **ret)
{
    struct dispatch *d = xcalloc(1, sizeof *d);
    d->all = all;
    d->random = os_random() | 1;
    d->name = xstrdup(app->name);
    d->drain.since_ns = clock_now_ns();
    queue_init(&d->queue, app->max_queued_requests, app->max_queued_bytes);
    load_add(&all->load, &d->load, d->name);
    dispatch_configure(d, app);
    *ret = d;
}

void dispatch_configure(struct dispatch *d, const struct snapshot_app *app)
{
    bool renamed = !d->deployment || !same(d->deployment, app->deployment) ||
                   !same(d->prefix, app->route_prefix);
    d->app = app;
    d->partial = false;
    for (uint32_t i = 0; i < app->n_models; i++)
        d->partial = d->partial || app->models[i].n_workers > 0;
    d->stream_in = app->stream_in;
    d->retry_safe = app->retry_safe;
    d->max_body_bytes = app->max_body_bytes;
    d->start_s = app->start_s;
    d->queue.cap = app->max_queued_requests;
    d->queue.cap_bytes = app->max_queued_bytes;
    set_text(&d->status, app->status);
    set_text(&d->message, app->message);
    if (renamed) {
        set_text(&d->deployment, app->deployment);
        set_text(&d->prefix, app->route_prefix);
        tally_init(&d->tally, d->all->page, d->name, d->deployment, d->prefix);
        for (uint32_t i = 0; i < d->n_peers; i++)
            set_ongoing(d, d->peers[i]);
    }
    tally_queue_gauge(&d->tally, app->n_models ? app->queue_gauge : NULL,
                      app->n_models ? app->models[0].id : NULL);
    show_queue(d);
    refuse_waiting(d);
    dispatch_pump(d);
}

void dispatch_close(struct dispatch *d)
{
    CHECK(!d->closed);
    d->closed = true;
    d->app = NULL;
    d->partial = false;
    load_remove(&d->load);
    d->load.queued++; // stays while we work on it
    while (d->n_peers)
        dispatch_leave(d, d->peers[0]);
    refuse_waiting(d);
    dispatch_done(d);
}

void dispatch_join(struct dispatch *d, struct peer *p)
{
    CHECK(!p->d && !p->dead);
    if (d->n_peers == PICK_MAX)
        return;
    p->d = d;
    d->peers[d->n_peers++] = p;
    set_ongoing(d, p);
    dispatch_pump(d);
}

void dispatch_leave(struct dispatch *d, struct peer *p)
{
    CHECK(p->d == d);
    for (uint32_t i = 0; i < d->n_peers; i++)
        if (d->peers[i] == p)
            d->peers[i] = d->peers[--d->n_peers];
    p->d = NULL;
    peer_let_go(p);
    if (p->ongoing)
        metrics_set(p->ongoing, 0);
    p->ongoing = NULL;
    refuse_waiting(d);
}

uint32_t dispatch_ready(const struct dispatch *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_peers; i++)
        n += peer_is_ready(d->peers[i]);
    return n;
}

bool dispatch_failed(const struct dispatch *d)
{
    return strcmp(d->status, "DEPLOY_FAILED") == 0 && dispatch_ready(d) == 0;
}

int dispatch_admits(const struct dispatch *d, struct dispatch_refusal *ret)
{
    static char text[1024];
    if (d->all->stopping) {
        *ret = (struct dispatch_refusal){SV_E_UNAVAILABLE, "the server is shutting down",
                                         OUTCOME_shutdown, 1, NULL};
        return ret->code;
    }
    if (d->closed) {
        *ret = (struct dispatch_refusal){SV_E_UNAVAILABLE, "the application was removed",
                                         OUTCOME_unavailable, 0, NULL};
        return ret->code;
    }
    if (dispatch_failed(d)) {
        snprintf(text, sizeof text, "application '%s' failed to deploy: %s", d->name, d->message);
        *ret = (struct dispatch_refusal){SV_E_UNAVAILABLE, text, OUTCOME_unavailable, 0, NULL};
        return ret->code;
    }
    // While requests wait nobody has a grant, so a full queue is the whole truth.
    if (d->queue.len > 0 && d->queue.len >= d->queue.cap) {
        snprintf(text, sizeof text,
                 "the queue of '%s' is full: %u requests wait (max_queued_requests %u); try again "
                 "later",
                 d->name, d->queue.len, d->queue.cap);
        *ret = (struct dispatch_refusal){SV_E_UNAVAILABLE, text, OUTCOME_queue_full,
                                         retry_after_s(d), NULL};
        return ret->code;
    }
    return 0;
}

int dispatch_add(struct dispatch *d, struct request *r, struct dispatch_refusal *ret)
{
    int rc = dispatch_admits(d, ret);
    if (rc < 0)
        return rc;
    struct peer *p = d->queue.len ? NULL : choose(d, r);
    if (p) {
        r->wait.seq = ++d->queue.seq; // its place, should it come back
        submit(r, p);
        return 0;
    }
    static struct err err;
    rc = queue_push(&d->queue, &r->wait, &err);
    if (rc < 0) {
        *ret = (struct dispatch_refusal){rc, err.msg, OUTCOME_queue_full, retry_after_s(d), NULL};
        return rc;
    }
    r->state = RQ_QUEUED;
    show_queue(d);
    call_if_first(d);
    dispatch_pump(d);
    return 0;
}

void dispatch_put_back(struct dispatch *d, struct request *r)
{
    queue_put_back(&d->queue, &r->wait);
    r->state = RQ_QUEUED;
    show_queue(d);
    call_if_first(d);
}

bool dispatch_open_elsewhere(const struct dispatch *d, const struct peer *but)
{
    for (uint32_t i = 0; i < d->n_peers; i++)
        if (d->peers[i] != but && peer_is_open(d->peers[i]))
            return true;
    return false;
}

void dispatch_remove(struct dispatch *d, struct request *r)
{
    CHECK(r->state == RQ_QUEUED);
    queue_remove(&d->queue, &r->wait);
    r->state = RQ_RESTING;
    show_queue(d);
}

void dispatch_begin(struct dispatch *d)
{
    d->load.queued++;
    load_changed(&d->all->load);
}

void dispatch_submitted(struct dispatch *d, int change)
{
    d->load.queued -= (uint32_t)change;
    d->load.ongoing += (uint32_t)change;
    load_changed(&d->all->load);
}

void dispatch_done(struct dispatch *d)
{
    CHECK(d->load.queued > 0);
    d->load.queued--;
    load_changed(&d->all->load);
    if (d->load.queued + d->load.ongoing > 0 || !d->closed)
        return;
    queue_finish(&d->queue);
    xfree(d->name);
    xfree(d->deployment);
    xfree(d->prefix);
    xfree(d->status);
    xfree(d->message);
    xfree(d);
}

void dispatch_pump(struct dispatch *d)
{
    if (!d->queue.len && !d->wanting)
        return;
    uint64_t now = clock_now_ns();
    struct queue_item *item;
    while ((item = queue_peek(&d->queue))) {
        struct request *r = CONTAINER_OF(item, struct request, wait);
        struct peer *p = choose(d, r);
        if (!p) {
            want(d);
            return;
        }
        dispatch_remove(d, r);
        count_drained(d, now);
        submit(r, p);
    }
    want_nothing(d);
}

// The model that it asks for, if not all workers know it.
static const struct snapshot_model *partly_known(const struct dispatch *d, const struct request *r)
{
    for (uint32_t i = 0; d->partial && r->model && i < d->app->n_models; i++) {
        const struct snapshot_model *m = &d->app->models[i];
        if (m->n_workers > 0 && strcmp(m->id, r->model) == 0)
            return m;
    }
    return NULL;
}

// model: of partly_known.
static bool can_take(const struct peer *p, const struct snapshot_model *model)
{
    bool knows = !model;
    for (uint32_t i = 0; !knows && i < model->n_workers; i++)
        knows = strcmp(model->workers[i], p->name) == 0;
    return knows && peer_is_open(p);
}

static struct peer *choose(struct dispatch *d, const struct request *r)
{
    const struct snapshot_model *model = partly_known(d, r);
    if (d->n_peers == 1)
        return can_take(d->peers[0], model) ? d->peers[0] : NULL;
    struct pick_choice choices[PICK_MAX];
    int avoid = PICK_NONE;
    for (uint32_t i = 0; i < d->n_peers; i++) {
        struct peer *p = d->peers[i];
        choices[i] = (struct pick_choice){can_take(p, model) ? p->grants : 0, p->load};
        if (p == r->avoid)
            avoid = (int)i;
    }
    int i = pick(choices, d->n_peers, avoid, next_random(d));
    return i == PICK_NONE ? NULL : d->peers[i];
}

static void submit(struct request *r, struct peer *p)
{
    CHECK(p->grants > 0);
    p->grants--;
    request_submit(r, p);
}

static void want(struct dispatch *d)
{
    // Without a deadline the age counts, so that ingresses which share a worker wait equally long.
    const struct request *r = CONTAINER_OF(queue_peek(&d->queue), struct request, wait);
    uint64_t deadline_ns = r->deadline_ns;
    if (!deadline_ns)
        deadline_ns = r->m->started_ns + DISPATCH_PATIENCE_NS;
    for (uint32_t i = 0; i < d->n_peers; i++)
        peer_want(d->peers[i], d->queue.len, deadline_ns);
    d->wanting = true;
}

// Each worker was told of all that waited: a slot that comes now would only be kept from others.
static void want_nothing(struct dispatch *d)
{
    for (uint32_t i = 0; i < d->n_peers; i++)
        peer_want_nothing(d->peers[i]);
    d->wanting = false;
}

// What waits without hope is told so, rather than left to its deadline.
static void refuse_waiting(struct dispatch *d)
{
    struct dispatch_refusal why;
    while (d->queue.len && dispatch_admits(d, &why) < 0 && why.outcome == OUTCOME_unavailable) {
        struct request *r = CONTAINER_OF(queue_peek(&d->queue), struct request, wait);
        request_fail(r, why.code, why.text, why.outcome, why.retry_after_s);
    }
}

static void set_text(char **text, const char *to)
{
    char *copy = xstrdup(to);
    xfree(*text);
    *text = copy;
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void set_ongoing(struct dispatch *d, struct peer *p)
{
    char labels[256];
    metrics_labels(labels, sizeof labels, "application", d->name, "deployment", d->deployment,
                   "replica", p->name, NULL);
    p->ongoing = metrics_core(d->all->page, M_ongoing, labels);
    metrics_set(p->ongoing, p->used);
}

static void show_queue(struct dispatch *d)
{
    tally_queue(&d->tally, d->queue.len, d->queue.bytes);
}

// Control starts a replica when it hears of this.
static void call_if_first(struct dispatch *d)
{
    if (d->queue.len > 1 || dispatch_ready(d) > 0)
        return;
    d->called_ns = clock_now_ns();
    load_call(&d->all->load, &d->load);
}

static void count_drained(struct dispatch *d, uint64_t now)
{
    if (now - d->drain.since_ns >= DRAIN_SPAN_NS) {
        bool idle = now - d->drain.since_ns >= 2 * DRAIN_SPAN_NS;
        d->drain.before = idle ? 0 : d->drain.left;
        d->drain.left = 0;
        d->drain.since_ns = now;
    }
    d->drain.left++;
}

// Where nobody is ready: until the start that was called for should be over.
static int until_started_s(const struct dispatch *d)
{
    double since_s = d->called_ns ? (double)(clock_now_ns() - d->called_ns) / (double)NS_PER_S : 0;
    double left_s = d->start_s - since_s;
    if (left_s < 1)
        return 1;
    return left_s < RETRY_START_MAX_S ? (int)(left_s + 0.999) : RETRY_START_MAX_S;
}

// How long the queue would take to drain as it did lately.
static int retry_after_s(const struct dispatch *d)
{
    if (d->start_s > 0 && dispatch_ready(d) == 0)
        return until_started_s(d);
    uint64_t span_ns = clock_now_ns() - d->drain.since_ns;
    if (d->drain.before)
        span_ns += DRAIN_SPAN_NS;
    double left = (double)(d->drain.left + d->drain.before);
    double wait_s =
        (double)d->queue.len * ((double)span_ns / (double)NS_PER_S) / (left > 0 ? left : 1);
    if (wait_s < 1)
        return 1;
    return wait_s < RETRY_AFTER_MAX_S ? (int)(wait_s + 0.999) : RETRY_AFTER_MAX_S;
}

static uint64_t next_random(struct dispatch *d)
{
    // xorshift64: spreading load needs no better.
    d->random ^= d->random << 13;
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    return d->random;
}
