// SPDX-License-Identifier: Apache-2.0
#include "serve/peer.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "serve/dispatch.h"
#include "serve/inflight.h"
#include "serve/request.h"
#include "wire/page.h"

#include <stdio.h>

static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static int take_frame(struct peer *p, const struct wire_frame *f, struct err *err);
static int take_grant(struct peer *p, const struct wire_frame *f, struct err *err);
static int take_recall(struct peer *p, const struct wire_frame *f, struct err *err);
static int take_state(struct peer *p, const struct wire_frame *f, struct err *err);
static int take_answer(struct peer *p, struct request *r, const struct wire_frame *f,
                       struct err *err);
static void die(struct peer *p, const struct err *fault);
static void on_free(struct link *l);

int peer_open(const struct peer_conf *c, int own_fd, const char *own_name, struct peer **ret,
              struct err *err)
{
    static const struct link_ops ops = {.on_frame = on_frame, .on_closed = on_closed};
    struct peer *p = xcalloc(1, sizeof *p);
    p->child_id = c->child_id;
    p->generation = c->generation;
    p->page = c->page;
    p->all = c->all;
    p->on_gone = c->on_gone;
    snprintf(p->name, sizeof p->name, "%s", c->name);
    list_init(&p->requests);
    int rc = link_open(&p->link, c->all->loop, c->all->turn, own_fd, ROLE_INGRESS, own_name, &ops,
                       p, err);
    if (rc < 0) {
        xfree(p);
        return err_ctx(err, "connecting with %s", c->name);
    }
    *ret = p;
    return 0;
}

void peer_close(struct peer *p)
{
    CHECK(list_empty(&p->requests));
    p->dead = true;
    link_close(&p->link, on_free);
}

bool peer_is_ready(const struct peer *p)
{
    if (p->dead || p->state != WS_READY)
        return false;
    if (!p->page)
        return true;
    // The page is ahead of the frames when the worker is about to leave.
    uint32_t state = atomic_load_explicit(&p->page->state, memory_order_relaxed);
    return state != WS_DRAINING && state != WS_FAILED;
}

bool peer_is_open(const struct peer *p)
{
    return p->grants > 0 && peer_is_ready(p);
}

void peer_want(struct peer *p, uint32_t count, uint64_t deadline_ns)
{
    if (!peer_is_ready(p) || (p->want_left > 0 && count < 2 * p->want_left))
        return;
    p->want_left = count;
    wire_put_want(&p->link.out, 0, 0,
                  &(struct wire_want){.count = count, .deadline_ns = deadline_ns});
    link_kick(&p->link);
}

void peer_want_nothing(struct peer *p)
{
    if (p->want_left == 0 || p->dead)
        return;
    p->want_left = 0;
    wire_put_want(&p->link.out, 0, 0, &(struct wire_want){.count = 0});
    link_kick(&p->link);
}

void peer_let_go(struct peer *p)
{
    peer_want_nothing(p);
    if (p->grants == 0 || p->dead)
        return;
    wire_put_give(&p->link.out, 0, 0, &(struct wire_give){.count = p->grants});
    p->grants = 0;
    link_kick(&p->link);
}

void peer_set_used(struct peer *p, int change)
{
    p->used += (uint32_t)change;
    p->load += (uint32_t)change;
    if (change < 0 && p->load == UINT32_MAX)
        p->load = 0;
    if (p->ongoing)
        metrics_set(p->ongoing, p->used);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct peer *p = l->ctx;
    struct err err = {0};
    if (p->dead || take_frame(p, f, &err) >= 0)
        return;
    LOGE("%s (child %llu) broke the protocol: %s; it gets nothing more", p->name,
         (unsigned long long)p->child_id, err.msg);
    die(p, &err);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct peer *p = l->ctx;
    if (p->dead)
        return;
    if (err)
        LOGW("link to %s (child %llu): %s", p->name, (unsigned long long)p->child_id, err->msg);
    die(p, err);
}

static void die(struct peer *p, const struct err *fault)
{
    p->dead = true;
    p->grants = p->want_left = 0;
    inflight_peer_died(p);
    p->on_gone(p, fault);
    link_close(&p->link, on_free);
}

static void on_free(struct link *l)
{
    xfree(l->ctx);
}

static int take_frame(struct peer *p, const struct wire_frame *f, struct err *err)
{
    switch (f->head.kind) {
    case WIRE_grant:
        return take_grant(p, f, err);
    case WIRE_recall:
        return take_recall(p, f, err);
    case WIRE_state:
        return take_state(p, f, err);
    case WIRE_head:
    case WIRE_data:
    case WIRE_end:
    case WIRE_refused:
    case WIRE_window: {
        struct request *r = inflight_get(p->all, f->head.id);
        // Another worker has it now, or it was never ours: nothing to do, but nothing to trust.
        return r && r->peer == p ? take_answer(p, r, f, err) : 0;
    }
    default:
        return 0;
    }
}

static int take_grant(struct peer *p, const struct wire_frame *f, struct err *err)
{
    struct wire_grant g;
    int rc = wire_get_grant(f, &g, err);
    if (rc < 0)
        return rc;
    if (g.count > PAGE_REQUESTS || p->grants + p->used + g.count > PAGE_REQUESTS)
        return err_set(err, SV_E_INVALID,
                       "grant of %u slots with %u granted and %u used (limit %d)", g.count,
                       p->grants, p->used, PAGE_REQUESTS);
    p->grants += g.count;
    p->want_left -= g.count < p->want_left ? g.count : p->want_left;
    p->load = g.in_flight > p->used ? g.in_flight : p->used;
    p->cap = g.cap;
    if (p->d)
        dispatch_pump(p->d);
    return 0;
}

static int take_recall(struct peer *p, const struct wire_frame *f, struct err *err)
{
    struct wire_recall m;
    int rc = wire_get_recall(f, &m, err);
    if (rc < 0)
        return rc;
    uint32_t n = m.count < p->grants ? m.count : p->grants;
    p->grants -= n;
    wire_put_give(&p->link.out, 0, 0, &(struct wire_give){.count = n});
    link_kick(&p->link);
    return 0;
}

static int take_state(struct peer *p, const struct wire_frame *f, struct err *err)
{
    struct wire_state m;
    int rc = wire_get_state(f, &m, err);
    if (rc < 0)
        return rc;
    // One that we don't know, from a newer worker, is not READY: that is all that counts here.
    p->state = m.state <= WS_DEGRADED ? (enum wire_status)m.state : WS_DEGRADED;
    p->want_left = 0; // a worker that was not ready may have forgotten it
    if (p->d)
        dispatch_pump(p->d);
    return 0;
}

static int take_answer(struct peer *p, struct request *r, const struct wire_frame *f,
                       struct err *err)
{
    int rc = 0;
    struct wire_window window;
    struct wire_refused refused;
    struct wire_end end;
    switch (f->head.kind) {
    case WIRE_head:
        return request_on_head(r, f, err);
    case WIRE_data:
        return request_on_data(r, f, err);
    case WIRE_window:
        if ((rc = wire_get_window(f, &window, err)) >= 0)
            request_on_window(r, window.bytes);
        return rc;
    case WIRE_refused:
        if ((rc = wire_get_refused(f, &refused, err)) >= 0)
            inflight_refused(r, refused.code);
        break;
    case WIRE_end:
        if ((rc = wire_get_end(f, &end, err)) >= 0)
            request_on_end(r, &end);
        break;
    default:
        BUG("frame kind %u", f->head.kind);
    }
    if (rc >= 0 && p->d)
        dispatch_pump(p->d);
    return rc;
}
