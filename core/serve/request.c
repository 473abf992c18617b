// SPDX-License-Identifier: Apache-2.0
#include "serve/request.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "http/http.h"
#include "serve/dispatch.h"
#include "serve/inflight.h"
#include "serve/peer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

// A piece of a streamed body in request.in; its bytes follow.
struct piece {
    uint32_t n, flags;
};

static struct http_msg *settle(struct request *r, enum outcome outcome, int status,
                               const char *notes);
static void cut(struct request *r, struct http_msg *m, int code, const char *text);
static void send_cancel(struct request *r, enum wire_why why);
static enum wire_why why_of(enum outcome outcome);
static struct bytes pack_headers(struct request *r);
static bool can_send_directly(struct request *r, size_t n);
static void put_piece(struct request *r, bool direct, const char *p, size_t n, uint32_t flags);
static void keep_piece(struct request *r, const char *p, size_t n, uint32_t flags);
static void send_body(struct request *r);
static bool send_whole_body(struct request *r);
static bool send_pieces(struct request *r, struct buf *out);
static bool link_is_full(struct request *r);
static size_t unsent(const struct request *r);
static void resume_reading(struct request *r);
static void confirm(struct request *r);
static void forget_body(struct request *r);
static void begin_answer(struct request *r);
static void send_headers(struct request *r, struct bytes headers);
static void give_window(struct request *r);

void request_begin(struct inflight *all, struct dispatch *d, struct http_msg *m, const char *path,
                   const char *model)
{
    struct request *r = inflight_take(all);
    m->user = r;
    r->m = m;
    r->d = d;
    r->path = path;
    r->model = model;
    r->websocket = m->websocket;
    r->stream_in = m->streaming && !m->websocket;
    const char *accept = http_msg_header(m, "accept");
    r->wants_stream = accept && strcasestr(accept, "text/event-stream");
    if (all->timeout_s > 0)
        r->deadline_ns = m->started_ns + (uint64_t)(all->timeout_s * (double)NS_PER_S);
    r->wait.deadline_ns = r->deadline_ns;
    r->wait.bytes = sizeof *r + buf_len(&m->body);
    dispatch_begin(d);
    all->waiting++;
    inflight_set_deadline(all, r);
    struct dispatch_refusal why;
    if (dispatch_add(d, r, &why) < 0)
        request_fail(r, why.code, why.text, why.outcome, why.retry_after_s);
}

/* ---- the client's side ---- */

void request_client_body(struct request *r, const char *p, size_t n, bool text, bool fin)
{
    if (r->websocket && !r->answered)
        return; // http brings nothing before the 101
    uint32_t last = r->websocket ? (fin ? 0 : WIRE_MORE) : (fin ? WIRE_FIN : 0);
    uint32_t flags = text ? WIRE_TEXT : 0;
    bool direct = can_send_directly(r, n);
    do {
        size_t take = n < REQUEST_PIECE_BYTES ? n : REQUEST_PIECE_BYTES;
        uint32_t more = r->websocket ? WIRE_MORE : 0;
        put_piece(r, direct, p, take, flags | (take == n ? last : more));
        p += take;
        n -= take;
    } while (n > 0);
    if (r->state == RQ_SUBMITTED)
        send_body(r);
    if (!r->paused && r->m && unsent(r) > REQUEST_PAUSE_BYTES) {
        r->paused = true;
        http_read_pause(r->m);
    }
}

void request_on_gone(struct request *r, bool slow)
{
    bool closed = r->websocket && r->answered && !slow;
    settle(r,
           closed ? OUTCOME_ok
           : slow ? OUTCOME_slow_reader
                  : OUTCOME_client_gone,
           closed ? r->status : -SV_E_CANCELLED, NULL);
    if (r->state != RQ_SUBMITTED) {
        request_release(r);
    } else if (closed) {
        // The plugin hears of the end behind the last message, and has a moment to finish by
        // itself.
        keep_piece(r, NULL, 0, WIRE_FIN);
        send_body(r);
        inflight_set_alarm(r->all, r, clock_now_ns() + REQUEST_CLOSE_GRACE_S * NS_PER_S);
    } else {
        send_cancel(r, slow ? WHY_SLOW_READER : WHY_CLIENT_GONE);
    }
}

void request_on_sent(struct request *r)
{
    if (r->owed >= REQUEST_WINDOW_STEP)
        give_window(r);
}

void request_fail(struct request *r, int code, const char *text, enum outcome outcome, int retry_s)
{
    if (r->m) {
        bool answered = r->answered;
        int status = answered ? r->status : http_error_of(code).status;
        struct http_msg *m = settle(r, outcome, status, NULL);
        if (answered)
            cut(r, m, code, text);
        else
            http_reply_error(m, code, text, NULL, m->request_id ? m->request_id : r->id_text,
                             retry_s);
    }
    if (r->state == RQ_SUBMITTED)
        send_cancel(r, why_of(outcome));
    else
        request_release(r);
}

// Ends an answer that has begun, so that the client can't take it for whole.
static void cut(struct request *r, struct http_msg *m, int code, const char *text)
{
    if (r->websocket) {
        http_ws_close(m, 1011, text);
    } else if (r->sse) {
        struct buf event = {0};
        buf_puts(&event, "data: ");
        http_error_json(&event, code, text, NULL);
        buf_puts(&event, "\n\n");
        http_reply_body(m, buf_head(&event), buf_len(&event));
        buf_finish(&event);
        http_reply_end(m);
    } else {
        http_reply_abort(m);
    }
}

// The last moment of the message: it is counted and logged, then only to be ended.
static struct http_msg *settle(struct request *r, enum outcome outcome, int status,
                               const char *notes)
{
    struct http_msg *m = r->m;
    CHECK(m);
    tally_finish(&r->d->tally,
                 &(struct tally_done){.m = m,
                                      .request_id = request_name(r),
                                      .replica = r->peer ? r->peer->name : NULL,
                                      .notes = notes,
                                      .outcome = outcome,
                                      .status = status,
                                      .submitted_ns = r->submitted_ns,
                                      .first_ns = r->first_ns,
                                      .now_ns = clock_now_ns()},
                 r->all);
    m->user = NULL;
    r->m = NULL;
    list_remove(&r->due);
    r->all->waiting--;
    return m;
}

/* ---- the worker's side ---- */

void request_submit(struct request *r, struct peer *p)
{
    struct http_msg *m = r->m;
    CHECK(m && r->state != RQ_SUBMITTED);
    r->state = RQ_SUBMITTED;
    r->peer = p;
    list_push(&p->requests, &r->node);
    map_put(&r->all->by_id, r->id, r);
    peer_set_used(p, +1);
    dispatch_submitted(r->d, +1);
    if (!r->submitted_ns)
        r->submitted_ns = clock_now_ns();
    r->window = WIRE_WINDOW;
    r->owed = 0;
    r->body_sent = r->in_sent = 0;
    bool streams = r->stream_in || r->websocket;
    uint32_t flags = (r->websocket ? WIRE_WEBSOCKET : 0) | (r->stream_in ? WIRE_STREAM_IN : 0) |
                     (r->wants_stream ? WIRE_WANTS_STREAM : 0);
    struct bytes body = {0};
    if (!streams && buf_len(&m->body) && !link_is_full(r)) {
        body.p = buf_head(&m->body);
        body.n = buf_len(&m->body) < WIRE_DATA_MAX ? buf_len(&m->body) : WIRE_DATA_MAX;
        r->body_sent = body.n;
        r->window -= (uint32_t)body.n;
    }
    bool whole = !streams && r->body_sent == buf_len(&m->body);
    int64_t length = streams ? m->content_length : (int64_t)buf_len(&m->body);
    wire_put_submit(&p->link.out, r->id, flags | (whole ? WIRE_FIN : 0),
                    &(struct wire_submit){.deadline_ns = r->websocket ? 0 : r->deadline_ns,
                                          .attempt = r->attempt,
                                          .body_len = length > 0 ? (uint64_t)length : 0,
                                          .method = m->method,
                                          .path = r->path,
                                          .query = m->query,
                                          .content_type = m->content_type,
                                          .request_id = request_name(r),
                                          .headers = pack_headers(r),
                                          .body = body});
    link_kick(&p->link);
    if (!whole)
        send_body(r);
}

void request_on_window(struct request *r, uint32_t bytes)
{
    r->window = bytes < WIRE_WINDOW - r->window ? r->window + bytes : WIRE_WINDOW;
    confirm(r);
    send_body(r);
}

int request_on_head(struct request *r, const struct wire_frame *f, struct err *err)
{
    struct wire_head head;
    int rc = wire_get_head(f, &head, err);
    if (rc < 0)
        return rc;
    if (!wire_kv_valid(head.headers))
        return err_set(err, SV_E_INVALID, "the headers of an answer are malformed");
    confirm(r);
    if (!r->m || r->answered)
        return 0;
    int status = head.status ? (int)head.status : 200;
    if (r->websocket && status < 300) {
        begin_answer(r);
        return 0;
    }
    r->websocket = false; // refused with an answer of the plugin's own
    r->answered = true;
    forget_body(r);
    r->status = status;
    r->sse = strncasecmp(head.content_type, "text/event-stream", 17) == 0;
    r->first_ns = r->last_ns = clock_now_ns();
    http_reply_head(r->m, status, head.content_type, head.content_length, request_name(r));
    send_headers(r, head.headers);
    return 0;
}

int request_on_data(struct request *r, const struct wire_frame *f, struct err *err)
{
    size_t n = f->head.size;
    if (n > WIRE_DATA_MAX || r->owed + n > WIRE_WINDOW)
        return err_set(err, SV_E_INVALID, "%zu bytes of an answer with a window of %u", n,
                       WIRE_WINDOW - r->owed);
    r->owed += (uint32_t)n;
    confirm(r);
    if (!r->m)
        return 0;
    if (!r->answered) {
        begin_answer(r);
    } else if (r->sse || r->websocket) {
        uint64_t now = clock_now_ns();
        metrics_observe(r->d->tally.gap, (double)(now - r->last_ns) / (double)NS_PER_S);
        r->last_ns = now;
    }
    if (!r->m)
        return 0; // the handshake failed
    if (r->websocket)
        http_ws_send(r->m, f->payload, n, f->head.flags & WIRE_TEXT, f->head.flags & WIRE_MORE);
    else
        http_reply_body(r->m, f->payload, n);
    give_window(r);
    return 0;
}

void request_on_end(struct request *r, const struct wire_end *end)
{
    char notes[256] = "";
    if (end->notes.n && end->notes.n < sizeof notes)
        memcpy(notes, end->notes.p, end->notes.n);
    if (!r->m) {
        request_leave_peer(r);
        request_release(r);
        return;
    }
    bool ok = end->code >= 0;
    if (ok && !r->answered)
        begin_answer(r);
    if (!r->m) { // the handshake failed
        request_leave_peer(r);
        request_release(r);
        return;
    }
    int status = r->answered ? r->status : http_error_of(end->code).status;
    const char *id = r->m->request_id; // on the message's arena, as long as the message
    // The worker's own cancel while the client is there: it took too little for too long.
    bool slow = r->answered && end->code == SV_E_CANCELLED;
    enum outcome outcome = ok                          ? OUTCOME_ok
                           : slow                      ? OUTCOME_slow_reader
                           : end->code == SV_E_TIMEOUT ? OUTCOME_timeout
                                                       : OUTCOME_error;
    struct http_msg *m = settle(r, outcome, status, notes);
    if (slow)
        http_reply_cut(m);
    else if (ok && r->websocket)
        http_ws_close(m, 1000, "");
    else if (ok)
        http_reply_end(m);
    else if (r->answered)
        cut(r, m, end->code, end->text[0] ? end->text : http_error_of(end->code).text);
    else
        http_reply_error(m, end->code, end->text[0] ? end->text : NULL, NULL, id ? id : r->id_text,
                         end->code == SV_E_OVERLOADED || end->code == SV_E_UNAVAILABLE);
    request_leave_peer(r);
    request_release(r);
}

void request_on_alarm(struct request *r)
{
    if (r->state == RQ_RESTING && r->d->closed) {
        request_fail(r, SV_E_UNAVAILABLE, "the application was removed", OUTCOME_unavailable, 0);
    } else if (r->state == RQ_RESTING) {
        dispatch_put_back(r->d, r);
        dispatch_pump(r->d);
    } else if (r->state == RQ_SUBMITTED && !r->m) {
        send_cancel(r, WHY_CLIENT_GONE);
    } else if (r->state == RQ_SUBMITTED) {
        send_body(r);
    }
}

void request_leave_peer(struct request *r)
{
    CHECK(r->state == RQ_SUBMITTED);
    list_remove(&r->node);
    list_remove(&r->alarm);
    map_take(&r->all->by_id, r->id);
    peer_set_used(r->peer, -1);
    dispatch_submitted(r->d, -1);
    r->peer = NULL;
    r->state = RQ_RESTING;
}

void request_release(struct request *r)
{
    CHECK(!r->m && !r->peer);
    struct dispatch *d = r->d;
    if (r->state == RQ_QUEUED)
        dispatch_remove(d, r);
    inflight_give(r->all, r);
    dispatch_done(d);
}

const char *request_name(const struct request *r)
{
    return r->m && r->m->request_id ? r->m->request_id : r->id_text;
}

bool request_can_repeat(const struct request *r)
{
    return !r->answered && !r->confirmed;
}

static void send_cancel(struct request *r, enum wire_why why)
{
    if (r->cancelled)
        return;
    r->cancelled = true;
    struct link *l = &r->peer->link;
    wire_put_cancel(&l->out, r->id, 0, &(struct wire_cancel){.why = why});
    link_kick(l);
}

static enum wire_why why_of(enum outcome outcome)
{
    if (outcome == OUTCOME_timeout)
        return WHY_DEADLINE;
    return outcome == OUTCOME_shutdown ? WHY_DRAIN : WHY_CLIENT_GONE;
}

static struct bytes pack_headers(struct request *r)
{
    struct buf *b = &r->all->scratch;
    buf_clear(b);
    for (uint32_t i = 0; i < r->m->n_headers; i++)
        wire_kv_put(b, r->m->headers[i].name, r->m->headers[i].value);
    return (struct bytes){b->data ? buf_head(b) : "", buf_len(b)};
}

/* ---- the body, towards the worker ---- */

// Nothing is before it, it fits, and it need not be kept.
static bool can_send_directly(struct request *r, size_t n)
{
    size_t pieces = n / REQUEST_PIECE_BYTES + 1;
    return r->state == RQ_SUBMITTED && buf_len(&r->in) == 0 && (r->websocket || r->confirmed) &&
           n + pieces * WIRE_PIECE <= r->window && !link_is_full(r);
}

static void put_piece(struct request *r, bool direct, const char *p, size_t n, uint32_t flags)
{
    if (!direct) {
        keep_piece(r, p, n, flags);
        return;
    }
    struct link *l = &r->peer->link;
    wire_put_raw(&l->out, WIRE_body, r->id, flags, p, n);
    r->window -= (uint32_t)n + WIRE_PIECE;
    link_kick(l);
}

static void keep_piece(struct request *r, const char *p, size_t n, uint32_t flags)
{
    struct piece head = {(uint32_t)n, flags};
    buf_put(&r->in, &head, sizeof head);
    if (n)
        buf_put(&r->in, p, n);
}

static void send_body(struct request *r)
{
    struct buf *out = &r->peer->link.out;
    size_t before = buf_len(out);
    bool streams = r->stream_in || r->websocket;
    bool stalled = streams ? send_pieces(r, out) : send_whole_body(r);
    if (buf_len(out) != before)
        link_kick(&r->peer->link);
    if (stalled)
        inflight_set_alarm(r->all, r, clock_now_ns() + REQUEST_STALL_MS * NS_PER_MS);
    resume_reading(r);
}

// True: there is window, but the link is full.
static bool send_whole_body(struct request *r)
{
    if (!r->m)
        return false;
    const struct buf *body = &r->m->body;
    while (r->body_sent < buf_len(body) && r->window > 0) {
        if (link_is_full(r))
            return true;
        size_t n = buf_len(body) - r->body_sent;
        n = n < WIRE_DATA_MAX ? n : WIRE_DATA_MAX;
        n = n < r->window ? n : r->window;
        bool fin = r->body_sent + n == buf_len(body);
        link_put_raw(&r->peer->link, WIRE_body, r->id, fin ? WIRE_FIN : 0,
                     buf_head(body) + r->body_sent, n);
        r->body_sent += n;
        r->window -= (uint32_t)n;
    }
    return false;
}

static bool send_pieces(struct request *r, struct buf *out)
{
    while (r->in_sent < buf_len(&r->in)) {
        struct piece head;
        const char *at = buf_head(&r->in) + r->in_sent;
        memcpy(&head, at, sizeof head);
        if (head.n + WIRE_PIECE > r->window)
            break;
        if (link_is_full(r))
            return true;
        wire_put_raw(out, WIRE_body, r->id, head.flags, at + sizeof head, head.n);
        r->window -= head.n + WIRE_PIECE;
        r->in_sent += sizeof head + head.n;
    }
    if (r->confirmed || r->websocket) {
        buf_consume(&r->in, r->in_sent);
        r->in_sent = 0;
    }
    return false;
}

static bool link_is_full(struct request *r)
{
    struct link *l = &r->peer->link;
    if (buf_len(&l->out) >= REQUEST_LINK_BYTES)
        link_flush(l);
    return buf_len(&l->out) >= REQUEST_LINK_BYTES;
}

static size_t unsent(const struct request *r)
{
    return buf_len(&r->in) - r->in_sent;
}

static void resume_reading(struct request *r)
{
    if (!r->paused || !r->m || unsent(r) > REQUEST_PAUSE_BYTES / 2)
        return;
    r->paused = false;
    http_read_resume(r->m);
}

// Somebody took of the streamed body: what was sent can't be sent again, so it need not be kept.
static void confirm(struct request *r)
{
    if (!r->stream_in || r->confirmed)
        return;
    r->confirmed = true;
    buf_consume(&r->in, r->in_sent);
    r->in_sent = 0;
}

/* ---- the answer, towards the client ---- */

// The answer has begun, so the body will not be sent again: a stream need not hold it to its end.
static void forget_body(struct request *r)
{
    const struct buf *body = &r->m->body;
    if (body->cap > REQUEST_KEEP_BYTES && r->body_sent == buf_len(body))
        http_msg_drop_body(r->m);
}

// Without a head of the worker's: the ABI's default, or the 101 of a websocket.
static void begin_answer(struct request *r)
{
    r->answered = true;
    forget_body(r);
    r->first_ns = r->last_ns = clock_now_ns();
    if (!r->websocket) {
        r->status = 200;
        http_reply_head(r->m, 200, "application/octet-stream", -1, request_name(r));
        return;
    }
    r->status = 101;
    r->deadline_ns = 0; // the timeout was for the handshake; a session has none
    inflight_set_deadline(r->all, r);
    struct err err = {0};
    if (http_ws_accept(r->m, request_name(r), &err) >= 0)
        return;
    r->answered = r->websocket = false;
    request_fail(r, err.code, err.msg, OUTCOME_error, 0);
}

static void send_headers(struct request *r, struct bytes headers)
{
    const char *name, *value;
    while (wire_kv_next(&headers, &name, &value))
        http_reply_header(r->m, name, value);
}

static void give_window(struct request *r)
{
    if (!r->m || !r->peer)
        return;
    size_t pending = http_reply_pending(r->m);
    if (pending >= r->owed || r->owed - pending < REQUEST_WINDOW_STEP)
        return;
    uint32_t bytes = r->owed - (uint32_t)pending;
    r->owed -= bytes;
    struct link *l = &r->peer->link;
    wire_put_window(&l->out, r->id, 0, &(struct wire_window){.bytes = bytes});
    link_kick(l);
}
