// SPDX-License-Identifier: Apache-2.0
#include "worker/answer.h"

#include "base/clock.h"
#include "worker/hub.h"
#include "worker/neighbour.h"

enum {
    WINDOW_STEP = WIRE_WINDOW / 4, // bytes given back at once
    PAST_MAX = 8 << 20             // bytes in a blocked link from which small answers wait, too
};

static bool put_answer(struct request *r, struct neighbour *n);
static void put_data(struct request *r, struct neighbour *n, bool complete);
static void put_head(struct request *r, struct buf *out, bool complete);
static void put_end(struct request *r, struct buf *out);
static void leave(struct hub *h, struct request *r);

static void put_window(struct request *r, struct buf *out)
{
    if (r->took < WINDOW_STEP || r->whole)
        return;
    wire_put_window(out, r->pub.id, 0, &(struct wire_window){.bytes = r->took});
    r->held -= r->took;
    r->took = 0;
}

void answer_pump(struct hub *h, struct request *r)
{
    struct neighbour *n = r->from;
    bool over = false;
    list_remove(&r->stalled);
    pthread_mutex_lock(&r->lock);
    r->took += (uint32_t)r->in_done;
    r->in_done = 0;
    if (r->own) {
        warmup_hear(h, r);
    } else if (n && r->state != RS_OVER) {
        over = put_answer(r, n);
        if (!over)
            put_window(r, &n->link.out);
        n->dirty = true;
    }
    bool ended = r->ended, slow = r->slow && !ended;
    bool writable = r->again && !ended && r->emit.bytes <= r->high / 2;
    if (writable)
        r->again = false;
    pthread_mutex_unlock(&r->lock);
    if (slow && over) {
        hub_cancel(h, r, WHY_SLOW_READER);
        r->from = NULL;
    }
    if (writable)
        hub_mail(h, r, TODO_WRITABLE);
    if (ended && (over || !n) && r->state != RS_OVER)
        leave(h, r);
}

// True: END or REFUSED was written. The lock is held.
static bool put_answer(struct request *r, struct neighbour *n)
{
    struct buf *out = &n->link.out;
    bool complete = r->ended && r->code >= 0, websocket = r->emit.form == EMIT_WEBSOCKET;
    if (r->slow) {
        put_end(r, out);
        return true;
    }
    if (r->refused) {
        wire_put_refused(out, r->pub.id, 0, &(struct wire_refused){.code = r->code});
        return true;
    }
    if (atomic_load(&r->cancelled)) {
        if (r->ended)
            put_end(r, out);
        return r->ended;
    }
    bool begins = r->sent || complete || (websocket && r->accepted && !r->ended);
    if (!r->head_written && begins)
        put_head(r, out, complete);
    put_data(r, n, complete);
    if (!r->ended || !emit_empty(&r->emit))
        return false;
    put_end(r, out);
    return true;
}

static bool put_direct(void *ctx, uint64_t id, uint32_t flags, const char *p, size_t n)
{
    struct link *l = ctx;
    link_put_raw(l, WIRE_data, id, flags, p, n);
    return !link_blocked(l);
}

/*
 * A large answer waits here, where it lies, while the link is full: copied into the link's buffer
 * it would leave no sooner, and the window of every request at once is more than a cache holds.
 * Small ones go past it.
 */
static void put_data(struct request *r, struct neighbour *n, bool complete)
{
    struct emit_sink to = {.out = &n->link.out, .direct = put_direct, .ctx = &n->link};
    bool past = r->emit.bytes < EMIT_DIRECT_MIN && buf_len(&n->link.out) < PAST_MAX;
    if (!past && !link_blocked(&n->link))
        link_flush(&n->link); // small ones of one turn add up
    if (past || !link_blocked(&n->link))
        r->window -= emit_pump(&r->emit, &to, r->pub.id, r->window,
                               complete || r->emit.form == EMIT_SSE, complete);
    if (link_blocked(&n->link) && !emit_empty(&r->emit) && r->window > 0)
        list_push(&n->stalled, &r->stalled);
}

static void put_head(struct request *r, struct buf *out, bool complete)
{
    bool websocket = r->emit.form == EMIT_WEBSOCKET;
    r->head_written = true;
    wire_put_head(
        out, r->pub.id, 0,
        &(struct wire_head){.status = websocket   ? 101
                                      : r->status ? (uint32_t)r->status
                                                  : 200,
                            .content_length = complete && !websocket ? (int64_t)r->emit.bytes : -1,
                            .content_type =
                                r->content_type ? r->content_type : "application/octet-stream",
                            .headers = {r->out_headers.data ? buf_head(&r->out_headers) : "",
                                        buf_len(&r->out_headers)}});
}

// Why the core ended it, if it did.
static int code_of(const struct request *r, const char **ret_text)
{
    *ret_text = r->text ? r->text : "";
    if (!atomic_load(&r->cancelled))
        return r->code;
    switch (atomic_load(&r->why)) {
    case WHY_DEADLINE:
        *ret_text = "";
        return SV_E_TIMEOUT;
    case WHY_DRAIN:
        *ret_text = "The replica was stopped before the answer was complete.";
        return SV_E_UNAVAILABLE;
    case WHY_SLOW_READER:
        *ret_text = "The client reads too slowly (max_response_buffer_bytes).";
        return SV_E_CANCELLED;
    default:
        return SV_E_CANCELLED;
    }
}

static void put_end(struct request *r, struct buf *out)
{
    const char *text;
    int code = code_of(r, &text);
    wire_put_end(out, r->pub.id, 0,
                 &(struct wire_end){
                     .code = code,
                     .text = text,
                     .notes = {r->notes.data ? buf_head(&r->notes) : "", buf_len(&r->notes)}});
}

// The plugin is done with it and so are we: the slot is free.
static void leave(struct hub *h, struct request *r)
{
    struct neighbour *n = r->from;
    r->state = RS_OVER;
    r->from = NULL;
    if (!r->own)
        slots_end(&h->slots, r->peer);
    map_take(&h->requests, r->pub.id);
    atomic_store_explicit(&h->page->in_flight, --h->in_flight, memory_order_relaxed);
    if (n && !n->gone)
        neighbour_free_later(n, r->page_slot);
    else
        page_request_free(h->page, r->page_slot);
    if (r->own)
        warmup_over(h, r);
    uint64_t epoch = atomic_load(&h->engine.threads[0].epoch);
    if (epoch & 1 && epoch == r->end_epoch)
        list_push(&h->limbo, &r->limbo);
    else
        request_unref(r);
}

void answer_abandon(struct hub *h, struct request *r)
{
    r->from = NULL;
    hub_cancel(h, r, WHY_CLIENT_GONE);
    answer_pump(h, r);
}

void answer_stalled(struct hub *h, struct neighbour *n)
{
    for (struct list *first; !link_blocked(&n->link) && (first = list_first(&n->stalled));)
        answer_pump(h, CONTAINER_OF(first, struct request, stalled));
}

void answer_limbo(struct hub *h)
{
    if (list_empty(&h->limbo))
        return;
    atomic_store(&h->engine.limbo_waits, true); // before the look, so that no return is missed
    uint64_t epoch = atomic_load(&h->engine.threads[0].epoch);
    list_for_each_safe (n, &h->limbo) {
        struct request *r = CONTAINER_OF(n, struct request, limbo);
        if (epoch & 1 && epoch == r->end_epoch)
            continue;
        list_remove(n);
        request_unref(r);
    }
    if (list_empty(&h->limbo))
        atomic_store(&h->engine.limbo_waits, false);
}
