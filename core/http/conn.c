// SPDX-License-Identifier: Apache-2.0
#include "http/conn.h"

#include "base/check.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The life of a connection. BYTES is the first byte of a head, LAST the last answer.
 *
 *              +------------------------- answered -------------------------+
 *              v                                                            |
 *   accept   IDLE --bytes--> HEAD --whole---------------------------------> WAIT --upgraded--> WS
 *     |        ^              ^ |                                           ^                   |
 *     +--------|--------------+ +--body--> BODY --whole---------------------+                   |
 *              |                            |                                                   |
 *              +--whole-- SKIP <--answered--+                                                   |
 *                                                                                               |
 *   each of these --last--> FLUSH --flushed--> LINGER                <------------last----------+
 *   each of these --gone--> DEAD (freed in libuv's close callback)
 *
 *   state   what is going on                        read timer  reads?
 *   IDLE    no byte of the next request             keep-alive  unless choked
 *   HEAD    part of a head is in `in`               header      yes
 *   BODY    head handed over, body comes            body rate   unless paused
 *   WAIT    request whole, answer not               none        until HTTP_AHEAD_MAX wait in `in`
 *   SKIP    answered, a small rest is thrown away   body rate   yes
 *   WS      websocket                               none        unless paused or choked
 *   FLUSH   `out` leaves, then the end              none        no
 *   LINGER  our side is shut, input is discarded    linger      yes
 *
 * A client that leaves is seen in every state: DISCONNECT is always watched. The write timer runs
 * in any state while the socket refuses bytes.
 */
// clang-format off
static const uint8_t moves[CS_COUNT][CE_COUNT] = {
    [CS_IDLE]   = {[CE_BYTES] = CS_HEAD, [CE_LAST] = CS_FLUSH, [CE_GONE] = CS_DEAD},
    [CS_HEAD]   = {[CE_BODY] = CS_BODY, [CE_WHOLE] = CS_WAIT, [CE_LAST] = CS_FLUSH,
                   [CE_GONE] = CS_DEAD},
    [CS_BODY]   = {[CE_WHOLE] = CS_WAIT, [CE_ANSWERED] = CS_SKIP, [CE_LAST] = CS_FLUSH,
                   [CE_GONE] = CS_DEAD},
    [CS_WAIT]   = {[CE_ANSWERED] = CS_IDLE, [CE_UPGRADED] = CS_WS, [CE_LAST] = CS_FLUSH,
                   [CE_GONE] = CS_DEAD},
    [CS_SKIP]   = {[CE_WHOLE] = CS_IDLE, [CE_LAST] = CS_FLUSH, [CE_GONE] = CS_DEAD},
    [CS_WS]     = {[CE_LAST] = CS_FLUSH, [CE_GONE] = CS_DEAD},
    [CS_FLUSH]  = {[CE_FLUSHED] = CS_LINGER, [CE_GONE] = CS_DEAD},
    [CS_LINGER] = {[CE_GONE] = CS_DEAD},
};
// clang-format on

static void arm_body(struct http_conn *c)
{
    c->rate_mark = c->body_bytes;
    server_timer_arm(c->server, &c->read_timer, TIMER_BODY);
}

void conn_event(struct http_conn *c, enum conn_event e)
{
    CHECK(c->state < CS_COUNT && e < CE_COUNT);
    enum conn_state next = moves[c->state][e];
    if (next == CS_NONE)
        BUG("connection in state %d cannot take event %d", c->state, e);
    c->state = (uint8_t)next;
    switch (next) {
    case CS_IDLE:
        server_timer_arm(c->server, &c->read_timer, TIMER_IDLE);
        break;
    case CS_HEAD:
        server_timer_arm(c->server, &c->read_timer, TIMER_HEAD);
        break;
    case CS_BODY:
        c->body_bytes = 0;
        arm_body(c);
        break;
    case CS_SKIP:
        arm_body(c);
        break;
    case CS_LINGER:
        server_timer_arm(c->server, &c->read_timer, TIMER_LINGER);
        break;
    case CS_WAIT:
    case CS_WS:
    case CS_FLUSH:
    case CS_DEAD:
        server_timer_stop(&c->read_timer);
        break;
    case CS_NONE:
    case CS_COUNT:
        break;
    }
}

// A client that asks on without reading gets no further: answers (and pongs) must not pile up.
static bool choked(const struct http_conn *c)
{
    return buf_len(&c->out) > HTTP_PENDING_LOW;
}

static bool wants_input(const struct http_conn *c)
{
    switch ((enum conn_state)c->state) {
    case CS_IDLE:
        return !choked(c);
    case CS_WS:
        return !c->paused && !choked(c);
    case CS_HEAD:
    case CS_SKIP:
    case CS_LINGER:
        return true;
    case CS_BODY:
        return !c->paused;
    case CS_WAIT:
        return buf_len(&c->in) < HTTP_AHEAD_MAX;
    case CS_FLUSH:
    case CS_DEAD:
    case CS_NONE:
    case CS_COUNT:
        break;
    }
    return false;
}

static void on_poll(uv_poll_t *h, int status, int events);

// Setting events is a system call or two: only when they change.
static void set_interest(struct http_conn *c)
{
    if (c->state == CS_DEAD)
        return;
    int want = UV_DISCONNECT;
    if (wants_input(c))
        want |= UV_READABLE;
    if (c->blocked)
        want |= UV_WRITABLE;
    if (want != c->interest)
        uv_poll_start(&c->poll, want, on_poll);
    c->interest = want;
}

void conn_touch(struct http_conn *c)
{
    if (c->state != CS_DEAD)
        turn_add(c->server->turn, &c->turn);
}

void conn_release(struct http_conn *c)
{
    struct exchange *x = c->x;
    c->x = NULL;
    c->paused = false;
    server_exchange_put(c->server, x);
}

void conn_gone(struct http_conn *c, enum http_gone why)
{
    if (!c->x)
        return;
    c->server->handler.on_gone(c->server->ctx, &c->x->msg, why);
    conn_release(c);
}

static void on_closed(uv_handle_t *h)
{
    server_forget(CONTAINER_OF(h, struct http_conn, poll));
}

void conn_close(struct http_conn *c, enum http_gone why)
{
    if (c->state == CS_DEAD)
        return;
    conn_event(c, CE_GONE);
    server_timer_stop(&c->write_timer);
    turn_drop(&c->turn);
    uv_close((uv_handle_t *)&c->poll, on_closed);
    if (c->reset || why == GONE_SLOW) { // the kernel drops what it holds, the client sees an error
        struct linger l = {.l_onoff = 1};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    c->fd = -1;
    conn_gone(c, why);
    const struct http_server *s = c->server;
    if (s->handler.on_conn)
        s->handler.on_conn(s->ctx, -1, NULL);
}

void conn_refuse(struct http_conn *c, int code, const char *text)
{
    struct http_server *s = c->server;
    bool started = c->x && c->x->mode != REPLY_NONE;
    if (started) {
        reply_settle(c->x);
        c->reset = c->x->mode == REPLY_UNTIL_CLOSE;
    }
    struct buf refusal = {0}; // made before on_gone: its id may end with the message
    const char *id = NULL;
    if (s->handler.on_bad)
        id = s->handler.on_bad(s->ctx, c->x ? &c->x->msg : NULL, c->peer, code);
    if (!started)
        reply_refusal(s, &refusal, code, text, id);
    conn_gone(c, GONE_BROKEN);
    if (c->state != CS_DEAD && buf_len(&refusal))
        buf_put(&c->out, buf_head(&refusal), buf_len(&refusal));
    buf_finish(&refusal);
    if (c->state == CS_DEAD)
        return;
    c->clean = false;
    conn_event(c, CE_LAST);
    conn_touch(c);
}

static size_t skip(struct http_conn *c, size_t n)
{
    size_t k = n < c->skip ? n : (size_t)c->skip;
    c->skip -= k;
    c->body_bytes += k;
    if (c->skip == 0)
        conn_event(c, CE_WHOLE);
    return k;
}

// Takes what the state can take from p[0, n); returns what was used up.
static size_t step(struct http_conn *c, const char *p, size_t n)
{
    switch ((enum conn_state)c->state) {
    case CS_IDLE:
        if (choked(c))
            return 0;
        conn_event(c, CE_BYTES);
        return request_take_head(c, p, n);
    case CS_HEAD:
        return request_take_head(c, p, n);
    case CS_BODY:
        return c->paused ? 0 : request_body(c, p, n);
    case CS_SKIP:
        return skip(c, n);
    case CS_WS:
        return wants_input(c) ? ws_input(c, p, n) : 0;
    case CS_WAIT:
        return 0;
    case CS_FLUSH:
    case CS_LINGER:
    case CS_DEAD:
        c->discarded += n;
        return n;
    case CS_NONE:
    case CS_COUNT:
        break;
    }
    BUG("connection without a state");
}

static size_t process(struct http_conn *c, const char *p, size_t n)
{
    size_t done = 0;
    for (uint32_t begun = 0; done < n;) {
        begun += c->state == CS_IDLE;
        if (begun > c->server->limits.pipeline) { // others first
            conn_touch(c);
            break;
        }
        size_t k = step(c, p + done, n - done);
        if (k == 0)
            break;
        done += k;
    }
    return done;
}

static void process_kept(struct http_conn *c)
{
    size_t done = process(c, buf_head(&c->in), buf_len(&c->in));
    buf_consume(&c->in, done);
    if (buf_len(&c->in) == 0)
        server_buf_put(c->server, &c->in);
}

static void take_input(struct http_conn *c, const char *p, size_t n)
{
    if (buf_len(&c->in) > 0) {
        buf_put(&c->in, p, n);
        process_kept(c);
        return;
    }
    size_t done = process(c, p, n);
    if (done == n)
        return;
    if (!c->in.data)
        server_buf_get(c->server, &c->in);
    buf_put(&c->in, p + done, n - done);
}

// A large rest of a buffered body is received where it belongs.
static bool receives_direct(const struct http_conn *c)
{
    const struct exchange *x = c->x;
    return c->state == CS_BODY && !c->paused && !x->chunked && !x->msg.streaming &&
           buf_len(&c->in) == 0 && x->left >= HTTP_RECV_DIRECT;
}

static void receive(struct http_conn *c)
{
    struct http_server *s = c->server;
    bool direct = receives_direct(c);
    size_t room = HTTP_SCRATCH;
    char *at = s->scratch;
    if (direct) {
        struct buf *body = &c->x->msg.body;
        if (c->x->left < 4 * (uint64_t)HTTP_SCRATCH)
            room = (size_t)c->x->left;
        else
            room = 4 * (size_t)HTTP_SCRATCH;
        at = buf_reserve(body, room + 1);
    }
    ssize_t n = recv(c->fd, at, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_close(c, GONE_CLOSED);
        return;
    }
    if (direct)
        request_body_direct(c, (size_t)n);
    else
        take_input(c, at, (size_t)n);
    if (c->state == CS_LINGER && c->discarded > HTTP_LINGER_MAX)
        conn_close(c, GONE_CLOSED);
}

static void finish(struct http_conn *c)
{
    if (c->clean || c->reset) {
        conn_close(c, GONE_CLOSED);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    conn_event(c, CE_FLUSHED);
}

static uint64_t unacked(const struct http_conn *c)
{
    int n = 0;
    return ioctl(c->fd, SIOCOUTQ, &n) == 0 && n > 0 ? (uint64_t)n : 0;
}

static void arm_write(struct http_conn *c)
{
    c->unacked = unacked(c);
    c->moved = 0;
    server_timer_arm(c->server, &c->write_timer, TIMER_WRITE);
}

// False when the connection died.
static bool write_out(struct http_conn *c)
{
    size_t n = buf_len(&c->out);
    ssize_t sent = 0;
    if (n > 0 && !c->blocked) {
        sent = send(c->fd, buf_head(&c->out), n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            conn_close(c, GONE_CLOSED);
            return false;
        }
        if (sent > 0)
            buf_consume(&c->out, (size_t)sent);
        c->blocked = buf_len(&c->out) > 0;
    }
    if (!c->blocked) {
        server_timer_stop(&c->write_timer);
    } else if (!c->write_timer.node.next) {
        arm_write(c);
    } else if (sent > 0) {
        c->moved += (uint64_t)sent;
    }
    if (buf_len(&c->out) == 0)
        server_buf_put(c->server, &c->out);
    return true;
}

/*
 * Tells the holder what the socket took. `out` holds body bytes and their framing; as long as it
 * isn't empty all of it is taken for body, which is late by a few bytes but never wrong in sum.
 */
static void report_sent(struct http_conn *c)
{
    struct exchange *x = c->x;
    const struct http_handler *h = &c->server->handler;
    uint64_t open = x->msg.sent_bytes - x->reported, pending = buf_len(&c->out);
    uint64_t taken = open > pending ? open - pending : 0;
    if (taken == 0)
        return;
    x->reported += taken;
    if (h->on_sent)
        h->on_sent(c->server->ctx, &x->msg, (size_t)taken);
}

static void report_drain(struct http_conn *c)
{
    if (!c->above || buf_len(&c->out) > HTTP_PENDING_LOW)
        return;
    c->above = false;
    if (c->x)
        c->server->handler.on_drain(c->server->ctx, &c->x->msg);
}

static void flush(struct http_conn *c)
{
    if (c->x)
        reply_settle(c->x);
    if (!write_out(c))
        return;
    if (c->x)
        report_sent(c);
    report_drain(c);
    if (c->state == CS_FLUSH && buf_len(&c->out) == 0)
        finish(c);
}

static void on_turn(struct turn_item *it)
{
    struct http_conn *c = CONTAINER_OF(it, struct http_conn, turn);
    if (buf_len(&c->in) > 0)
        process_kept(c);
    if (c->state != CS_DEAD)
        flush(c);
    bool could_go_on = c->state == CS_IDLE || c->state == CS_WS;
    if (could_go_on && buf_len(&c->in) > 0 && wants_input(c))
        conn_touch(c);
    set_interest(c);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct http_conn *c = CONTAINER_OF(h, struct http_conn, poll);
    if (status < 0) {
        conn_close(c, GONE_CLOSED);
        return;
    }
    if (events & UV_DISCONNECT) {
        conn_close(c, GONE_CLOSED);
        return;
    }
    if (events & UV_READABLE)
        receive(c);
    if (events & UV_WRITABLE && c->state != CS_DEAD) {
        c->blocked = false;
        conn_touch(c);
    }
    set_interest(c);
}

void conn_open(struct http_conn *c)
{
    c->state = CS_HEAD;
    c->turn.run = on_turn;
    server_timer_arm(c->server, &c->read_timer, TIMER_HEAD);
    set_interest(c);
}

void conn_timeout(struct http_conn *c, enum timer_kind kind)
{
    uint64_t need = HTTP_BODY_RATE * c->server->timeout_ms[TIMER_BODY] / 1000;
    if (kind == TIMER_BODY && c->body_bytes - c->rate_mark >= need) {
        arm_body(c);
        return;
    }
    if (kind == TIMER_IDLE && buf_len(&c->out) > 0) { // a slow reader has the write timer
        server_timer_arm(c->server, &c->read_timer, TIMER_IDLE);
        return;
    }
    if (kind == TIMER_HEAD && buf_len(&c->in) > 0)
        conn_refuse(c, -408, "the header did not arrive in time (header_timeout_s)");
    else if (kind == TIMER_BODY && c->state == CS_BODY)
        conn_refuse(c, -408, "the body came at less than 1 KiB/s (body_timeout_s)");
    else
        conn_close(c, GONE_CLOSED);
    set_interest(c);
}

void conn_close_idle(struct http_conn *c)
{
    int unread = 0;
    if (c->x || c->state == CS_FLUSH || c->state == CS_LINGER || c->state == CS_DEAD)
        return;
    if (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0)
        return; // a request has come; its answer says that the connection ends
    if (buf_len(&c->out) == 0) {
        conn_close(c, GONE_CLOSED);
        return;
    }
    conn_event(c, CE_LAST);
    conn_touch(c);
}

// The socket was full for so long: what the client has acknowledged meanwhile must be worth it, or
// a few readers of single bytes would hold every slot.
void conn_write_timeout(struct http_conn *c)
{
    uint64_t need = HTTP_BODY_RATE * c->server->timeout_ms[TIMER_WRITE] / 1000;
    if (c->unacked + c->moved >= unacked(c) + need)
        arm_write(c);
    else
        conn_close(c, GONE_SLOW);
}

void http_read_pause(struct http_msg *m)
{
    struct http_conn *c = m->conn;
    c->paused = true;
    if (c->state == CS_BODY)
        server_timer_stop(&c->read_timer);
    conn_touch(c);
}

void http_read_resume(struct http_msg *m)
{
    struct http_conn *c = m->conn;
    if (!c->paused)
        return;
    c->paused = false;
    if (c->state == CS_BODY)
        arm_body(c);
    conn_touch(c);
}
