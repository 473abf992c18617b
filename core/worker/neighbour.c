// SPDX-License-Identifier: Apache-2.0
#include "worker/neighbour.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "obs/log.h"
#include "worker/answer.h"
#include "worker/hub.h"

#include <unistd.h>

static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static int take_frame(struct neighbour *n, const struct wire_frame *f, struct err *err);
static int take_submit(struct neighbour *n, const struct wire_frame *f, struct err *err);
static int take_body(struct hub *h, struct request *r, const struct wire_frame *f, struct err *err);
static int take_counts(struct neighbour *n, const struct wire_frame *f, struct err *err);

void neighbour_attach(struct hub *h, const struct wire_attach *a, int own_fd)
{
    static const struct link_ops ops = {.on_frame = on_frame, .on_closed = on_closed};
    struct neighbour *n = xcalloc(1, sizeof *n);
    struct err err = {0};
    n->hub = h;
    list_init(&n->stalled);
    n->child_id = a->child_id;
    n->ingress = a->role == ROLE_INGRESS;
    int peer = n->ingress ? slots_join(&h->slots) : 0;
    if (peer < 0) {
        LOGE("%s is ingress %d of this worker: no room for it", a->name, SLOTS_PEERS + 1);
        close(own_fd);
        xfree(n);
        return;
    }
    n->peer = (uint32_t)peer;
    list_push(&h->neighbours, &n->node);
    if (link_open(&n->link, &h->loop, &h->turn, own_fd, ROLE_WORKER, h->orders.replica, &ops, n,
                  &err) < 0)
        hub_die(h, 1, "link to %s: %s", a->name, err.msg);
    neighbour_state(n);
}

void neighbour_state(struct neighbour *n)
{
    struct hub *h = n->hub;
    wire_put_state(&n->link.out, 0, 0,
                   &(struct wire_state){.state = h->state,
                                        .in_flight = h->in_flight,
                                        .progress = h->progress,
                                        .text = h->text});
    n->dirty = true;
}

void neighbour_free_later(struct neighbour *n, int page_slot)
{
    if (n->n_frees == n->cap_frees) {
        n->cap_frees = n->cap_frees ? n->cap_frees * 2 : 16;
        n->frees = xrealloc(n->frees, n->cap_frees * sizeof *n->frees);
    }
    n->frees[n->n_frees++] =
        (struct free_at){.at = n->link.out_sent + buf_len(&n->link.out), .slot = page_slot};
}

void neighbour_flush(struct neighbour *n)
{
    if (n->dirty)
        link_flush(&n->link);
    n->dirty = false;
    uint32_t done = 0;
    while (done < n->n_frees && n->frees[done].at <= n->link.out_sent)
        page_request_free(n->hub->page, n->frees[done++].slot);
    if (done) {
        n->n_frees -= done;
        memmove(n->frees, n->frees + done, n->n_frees * sizeof *n->frees);
    }
}

static void on_free(struct link *l)
{
    struct neighbour *n = l->ctx;
    xfree(n->frees);
    xfree(n);
}

static void leave(struct neighbour *n)
{
    struct hub *h = n->hub;
    size_t pos = 0;
    n->gone = true;
    list_remove(&n->node);
    change_forget(h, n);
    for (uint32_t i = 0; i < n->n_frees; i++)
        page_request_free(h->page, n->frees[i].slot);
    if (n->ingress) {
        struct request **mine = xcalloc(h->in_flight + 1, sizeof *mine);
        uint32_t count = 0;
        for (struct request *r; (r = map_next(&h->requests, &pos, NULL));)
            if (r->from == n)
                mine[count++] = r;
        for (uint32_t i = 0; i < count; i++)
            answer_abandon(h, mine[i]);
        xfree(mine);
        slots_leave(&h->slots, n->peer);
    }
    link_close(&n->link, on_free);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct neighbour *n = l->ctx;
    if (err)
        LOGW("link to %s: %s", l->peer_name, err->msg);
    leave(n);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct neighbour *n = l->ctx;
    struct err err = {0};
    if (n->gone || take_frame(n, f, &err) >= 0)
        return;
    LOGE("%s broke the protocol: %s; the link is closed", l->peer_name, err.msg);
    leave(n);
}

static int take_frame(struct neighbour *n, const struct wire_frame *f, struct err *err)
{
    struct hub *h = n->hub;
    struct wire_drain drain;
    int rc;
    if (!n->ingress) {
        if (f->head.kind == WIRE_orders)
            return change_take(h, n, f, err);
        if (f->head.kind != WIRE_drain)
            return 0;
        if ((rc = wire_get_drain(f, &drain, err)) >= 0)
            drain_begin(h, drain.deadline_ns
                               ? drain.deadline_ns
                               : clock_now_ns() +
                                     (uint64_t)(h->orders.shutdown_timeout_s * (double)NS_PER_S));
        return rc;
    }
    if (f->head.kind == WIRE_submit)
        return take_submit(n, f, err);
    if (f->head.kind == WIRE_want || f->head.kind == WIRE_give)
        return take_counts(n, f, err);
    struct request *r = map_get(&h->requests, f->head.id);
    if (!r || r->from != n)
        return 0; // it is over; the neighbour did not know yet
    struct wire_cancel cancel;
    struct wire_window window;
    switch (f->head.kind) {
    case WIRE_body:
        return take_body(h, r, f, err);
    case WIRE_cancel:
        if ((rc = wire_get_cancel(f, &cancel, err)) >= 0)
            hub_cancel(h, r, (enum wire_why)cancel.why);
        return rc;
    case WIRE_window:
        if ((rc = wire_get_window(f, &window, err)) < 0)
            return rc;
        r->window += window.bytes;
        if (r->window > WIRE_WINDOW)
            return err_set(err, SV_E_INVALID, "a window of %llu bytes; at most %d",
                           (unsigned long long)r->window, WIRE_WINDOW);
        answer_pump(h, r);
        return 0;
    default:
        return 0;
    }
}

static int take_counts(struct neighbour *n, const struct wire_frame *f, struct err *err)
{
    struct hub *h = n->hub;
    struct wire_want want;
    struct wire_give give;
    int rc;
    if (f->head.kind == WIRE_want) {
        if ((rc = wire_get_want(f, &want, err)) >= 0)
            slots_want(&h->slots, n->peer, want.count, want.deadline_ns, clock_now_ns());
        return rc;
    }
    if ((rc = wire_get_give(f, &give, err)) < 0)
        return rc;
    if (!slots_give(&h->slots, n->peer, give.count, clock_now_ns()))
        return err_set(err, SV_E_INVALID, "gave back %u slots, more than it was lent", give.count);
    return 0;
}

/* ---- requests ---- */

static const char *copy(struct request *r, const char *s)
{
    return arena_strdup(&r->arena, s);
}

static uint32_t request_flags(uint32_t wire)
{
    return (wire & WIRE_WEBSOCKET ? SV_REQ_WEBSOCKET : 0) |
           (wire & WIRE_WANTS_STREAM ? SV_REQ_WANTS_STREAM : 0);
}

static void fill(struct request *r, const struct wire_frame *f, const struct wire_submit *m)
{
    struct engine *e = r->engine;
    sv_req *pub = &r->pub;
    char *headers = arena_alloc(&r->arena, m->headers.n + 1);
    if (m->headers.n)
        memcpy(headers, m->headers.p, m->headers.n);
    r->headers = (struct bytes){headers, m->headers.n};
    r->name = copy(r, m->request_id);
    *pub = (sv_req){.size = sizeof *pub,
                    .flags = request_flags(f->head.flags),
                    .host = &e->host.pub,
                    .id = f->head.id,
                    .method = copy(r, m->method),
                    .path = copy(r, m->path),
                    .query = copy(r, m->query),
                    .content_type = copy(r, m->content_type),
                    .body = "",
                    .deadline_ns = m->deadline_ns,
                    .priority = m->priority,
                    .attempt = m->attempt,
                    .tenant = copy(r, m->tenant)};
    r->pieces_count = f->head.flags & (WIRE_STREAM_IN | WIRE_WEBSOCKET);
    if (f->head.flags & WIRE_WEBSOCKET) {
        r->emit.form = EMIT_WEBSOCKET;
        r->streams = true;
    } else if (e->plan.flags & SV_PLAN_STREAM_IN && e->plugin.d.input && e->plugin.d.submit) {
        // Whatever the ingress believes: in an update it knows the plan of one version alone.
        r->streams = true;
        pub->flags |= SV_REQ_STREAM_IN;
    }
    r->item = (struct batch_item){.arrived_ns = clock_now_ns(),
                                  .deadline_ns = m->deadline_ns,
                                  .priority = m->priority,
                                  .cost = 1};
}

static void refuse(struct neighbour *n, uint64_t id, int code)
{
    slots_end(&n->hub->slots, n->peer);
    wire_put_refused(&n->link.out, id, 0, &(struct wire_refused){.code = code});
    n->dirty = true;
}

static int take_whole(struct hub *h, struct request *r, struct bytes body, bool fin)
{
    if (buf_len(&r->body) + body.n > h->orders.max_body) {
        request_close(r, SV_E_TOO_LARGE, "The body is larger than max_body_bytes.");
        return 0;
    }
    buf_put(&r->body, body.p, body.n);
    if (!fin) {
        answer_pump(h, r); // the window goes back
        return 0;
    }
    r->whole = true;
    r->pub.body = buf_cstr(&r->body);
    r->pub.body_len = buf_len(&r->body);
    hub_queue(h, r);
    return 0;
}

// Its first pieces come with SUBMIT when the ingress had the whole body.
static void take_stream(struct hub *h, struct request *r, struct bytes body, bool fin)
{
    hub_queue(h, r);
    r->whole = fin;
    if ((fin || body.n) && request_input(r, body.p, body.n, fin ? SV_FIN : 0, (uint32_t)body.n))
        list_push(&h->mails, &r->mail.node);
}

static int take_submit(struct neighbour *n, const struct wire_frame *f, struct err *err)
{
    struct hub *h = n->hub;
    struct wire_submit m;
    int rc = wire_get_submit(f, &m, err);
    if (rc < 0)
        return rc;
    if (!wire_kv_valid(m.headers))
        return err_set(err, SV_E_INVALID, "the headers of a request are malformed");
    if (map_get(&h->requests, f->head.id))
        return err_set(err, SV_E_INVALID, "request %016llx is here already",
                       (unsigned long long)f->head.id);
    if (!slots_submit(&h->slots, n->peer))
        return err_set(err, SV_E_INVALID, "a request without a grant");
    int slot = h->drain.phase > DRAIN_GRANTS ? -1 : page_request_take(h->page, f->head.id);
    if (slot < 0) {
        refuse(n, f->head.id, SV_E_UNAVAILABLE);
        return 0;
    }
    struct request *r = request_create(&h->engine);
    r->page_slot = slot;
    r->from = n;
    r->peer = n->peer;
    fill(r, f, &m);
    map_put(&h->requests, f->head.id, r);
    atomic_store_explicit(&h->page->in_flight, ++h->in_flight, memory_order_relaxed);
    r->held = (uint32_t)m.body.n;
    r->took = r->streams ? 0 : r->held;
    if (f->head.flags & WIRE_WEBSOCKET && !h->engine.plugin.d.submit)
        request_close(r, SV_E_UNSUPPORTED, "This plugin takes no websockets.");
    else if (!r->streams)
        return take_whole(h, r, m.body, f->head.flags & WIRE_FIN);
    else
        take_stream(h, r, m.body, f->head.flags & WIRE_FIN);
    return 0;
}

static uint32_t input_flags(uint32_t wire)
{
    return (wire & WIRE_FIN ? SV_FIN : 0) | (wire & WIRE_TEXT ? SV_TEXT : 0);
}

// What a frame of the body takes of the window; the ingress counts in the same way.
static uint32_t weight(const struct request *r, const struct wire_frame *f)
{
    return f->head.size + (r->pieces_count ? WIRE_PIECE : 0);
}

// A piece for input(); websocket messages are put together first.
static int take_input(struct hub *h, struct request *r, const struct wire_frame *f)
{
    const char *p = f->payload;
    size_t n = f->head.size;
    bool websocket = r->pub.flags & SV_REQ_WEBSOCKET;
    uint32_t owed = weight(r, f);
    if (!h->engine.plugin.d.input || r->state == RS_OVER) {
        r->took += owed;
        answer_pump(h, r);
        return 0;
    }
    if (websocket && (f->head.flags & WIRE_MORE || buf_len(&r->assembly))) {
        if (buf_len(&r->assembly) + n > h->orders.max_body) {
            log_line(LOG_WARN, r->name, "a websocket message is larger than max_body_bytes (%llu)",
                     (unsigned long long)h->orders.max_body);
            hub_cancel(h, r, WHY_CLIENT_GONE);
            return 0;
        }
        buf_put(&r->assembly, p, n);
        if (f->head.flags & WIRE_MORE) {
            r->took += owed; // or a long message would wait for its own window
            answer_pump(h, r);
            return 0;
        }
        p = buf_head(&r->assembly);
        n = buf_len(&r->assembly);
    }
    r->whole = f->head.flags & WIRE_FIN;
    if (request_input(r, p, n, input_flags(f->head.flags), owed))
        list_push(&h->mails, &r->mail.node);
    buf_clear(&r->assembly);
    return 0;
}

static int take_body(struct hub *h, struct request *r, const struct wire_frame *f, struct err *err)
{
    r->held += weight(r, f);
    if (r->held > WIRE_WINDOW)
        return err_set(err, SV_E_INVALID, "%u bytes of a body in a window of %d", r->held,
                       WIRE_WINDOW);
    if (r->whole)
        return err_set(err, SV_E_INVALID, "more of a body that was whole");
    if (r->streams)
        return take_input(h, r, f);
    r->took += weight(r, f);
    if (r->state != RS_BODY || atomic_load(&r->cancelled))
        return 0;
    return take_whole(h, r, (struct bytes){f->payload, f->head.size}, f->head.flags & WIRE_FIN);
}
