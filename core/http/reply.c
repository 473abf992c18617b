// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "http/conn.h"
#include "http/policy.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Status";
}

static char *put_text(char *at, const char *s, size_t n)
{
    memcpy(at, s, n);
    return at + n;
}

enum { STATUS_LINE_MAX = 128, NUMBER_MAX = 24 };

// Status line and date, without printf: every answer passes here.
static void put_status(struct http_server *s, struct buf *out, int status)
{
    const char *reason = reason_of(status), *date = server_date(s);
    char *start = buf_reserve(out, STATUS_LINE_MAX), *at = start;
    at = put_text(at, "HTTP/1.1 ", 9);
    *at++ = (char)('0' + status / 100);
    *at++ = (char)('0' + status / 10 % 10);
    *at++ = (char)('0' + status % 10);
    *at++ = ' ';
    at = put_text(at, reason, strlen(reason));
    at = put_text(at, "\r\ndate: ", 8);
    at = put_text(at, date, strlen(date));
    at = put_text(at, "\r\n", 2);
    buf_commit(out, (size_t)(at - start));
}

static void put_field(struct buf *out, const char *name, const char *value)
{
    buf_puts(out, name);
    buf_put(out, ": ", 2);
    buf_puts(out, value);
    buf_put(out, "\r\n", 2);
}

static void put_number(struct buf *out, uint64_t v, unsigned base)
{
    char digits[NUMBER_MAX], *at = digits + sizeof digits;
    do
        *--at = "0123456789abcdef"[v % base];
    while (v /= base);
    buf_put(out, at, (size_t)(digits + sizeof digits - at));
}

static void put_length(struct buf *out, uint64_t n)
{
    buf_put(out, "content-length: ", 16);
    put_number(out, n, 10);
    buf_put(out, "\r\n", 2);
}

static void put_error_fields(struct buf *out, int status)
{
    if (status == 405)
        put_field(out, "allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    if (status == 426) {
        put_field(out, "upgrade", "websocket");
        put_field(out, "sec-websocket-version", "13");
    }
}

void reply_refusal(struct http_server *s, struct buf *out, int code, const char *text,
                   const char *request_id)
{
    struct buf body = {0};
    struct http_error e = http_error_of(code);
    http_error_json(&body, code, text, NULL);
    put_status(s, out, e.status);
    put_error_fields(out, e.status);
    buf_puts(out, "content-type: application/json\r\nconnection: close\r\n");
    if (request_id)
        buf_printf(out, "x-request-id: %s\r\n", request_id);
    if (e.status == 503)
        put_field(out, "retry-after", "1");
    put_length(out, buf_len(&body));
    buf_put(out, "\r\n", 2);
    buf_put(out, buf_head(&body), buf_len(&body));
    buf_finish(&body);
}

static struct buf *out_of(struct exchange *x)
{
    struct http_conn *c = x->msg.conn;
    if (!c->out.data)
        server_buf_get(c->server, &c->out);
    return &c->out;
}

void http_reply_head(struct http_msg *m, int status, const char *content_type,
                     int64_t content_length, const char *request_id)
{
    struct exchange *x = exchange_of(m);
    CHECK(x->mode == REPLY_NONE);
    struct buf *out = out_of(x);
    if (status < 200 || status > 599)
        status = 500;
    x->mode = REPLY_OPEN;
    x->status = status;
    x->length = content_length;
    put_status(m->conn->server, out, status);
    if (content_type && *content_type && policy_value(content_type))
        put_field(out, "content-type", content_type);
    if (request_id)
        put_field(out, "x-request-id", request_id);
    conn_touch(m->conn);
}

static bool ours_alone(const char *name)
{
    static const char *const names[] = {"connection", "content-length",    "date",
                                        "keep-alive", "proxy-connection",  "te",
                                        "trailer",    "transfer-encoding", "upgrade"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

int http_reply_header(struct http_msg *m, const char *name, const char *value)
{
    struct exchange *x = exchange_of(m);
    if (x->mode != REPLY_OPEN || buf_len(&x->held) > 0 || ours_alone(name) ||
        !policy_token(name, strlen(name)) || !policy_value(value))
        return SV_E_INVALID;
    put_field(out_of(x), name, value);
    return 0;
}

static bool must_close(const struct exchange *x)
{
    const struct http_conn *c = x->msg.conn;
    return !x->msg.keep_alive || c->server->draining ||
           (c->state == CS_BODY && !x->msg.streaming && !request_skippable(x));
}

static void put_chunk(struct buf *out, const void *p, size_t n)
{
    put_number(out, n, 16);
    buf_put(out, "\r\n", 2);
    buf_put(out, p, n);
    buf_put(out, "\r\n", 2);
}

// Picks how the body's end is marked and ends the head. `fin`: all of the body is in `held`.
static void decide(struct exchange *x, bool fin)
{
    struct http_msg *m = &x->msg;
    struct buf *out = out_of(x);
    bool no_body = x->status == 204 || x->status == 304;
    x->close = must_close(x);
    if (fin && x->length < 0)
        x->length = (int64_t)m->sent_bytes;
    if (no_body) {
        x->mode = REPLY_EMPTY;
    } else if (x->length >= 0) {
        x->mode = m->head_only ? REPLY_EMPTY : REPLY_LENGTH;
        x->length_left = (uint64_t)x->length;
        put_length(out, (uint64_t)x->length);
    } else if (m->http10) {
        x->mode = m->head_only ? REPLY_EMPTY : REPLY_UNTIL_CLOSE;
        x->close = true;
    } else {
        x->mode = m->head_only ? REPLY_EMPTY : REPLY_CHUNKED;
        buf_puts(out, "transfer-encoding: chunked\r\n");
    }
    if (x->close)
        buf_puts(out, "connection: close\r\n");
    else if (m->http10)
        buf_puts(out, "connection: keep-alive\r\n");
    buf_put(out, "\r\n", 2);
}

// Body bytes in the framing that was decided, copied.
static void put_body(struct exchange *x, const void *p, size_t n)
{
    struct buf *out = out_of(x);
    if (x->mode == REPLY_LENGTH) {
        if (n > x->length_left)
            n = (size_t)x->length_left; // the surplus has no place in the message
        x->length_left -= n;
        buf_put(out, p, n);
    } else if (x->mode == REPLY_CHUNKED && n > 0) {
        put_chunk(out, p, n);
    } else if (x->mode == REPLY_UNTIL_CLOSE) {
        buf_put(out, p, n);
    }
}

static void settle(struct exchange *x, bool fin)
{
    if (x->mode != REPLY_OPEN)
        return;
    decide(x, fin);
    put_body(x, buf_head(&x->held), buf_len(&x->held));
    buf_clear(&x->held);
}

void reply_settle(struct exchange *x)
{
    settle(x, false);
}

/*
 * A large piece goes from the caller's memory to the socket, together with the head and the
 * chunk's frame; returns the bytes of the piece that the socket took. What is left of the frame
 * is in `out` then, in order.
 */
static void put_body_direct(struct exchange *x, const char *p, size_t n)
{
    struct http_conn *c = x->msg.conn;
    struct buf *out = out_of(x);
    if (x->mode == REPLY_LENGTH) {
        n = n < x->length_left ? n : (size_t)x->length_left;
        x->length_left -= n;
    }
    bool chunked = x->mode == REPLY_CHUNKED;
    if (chunked) {
        put_number(out, n, 16);
        buf_put(out, "\r\n", 2);
    }
    size_t before = buf_len(out);
    struct iovec iov[3] = {{buf_head(out), before},
                           {(void *)(uintptr_t)p, n},
                           {(void *)(uintptr_t) "\r\n", chunked ? 2 : 0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 3};
    ssize_t rc = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    size_t sent = rc > 0 ? (size_t)rc : 0; // a broken socket tells again in the turn's write
    size_t total = before + n + iov[2].iov_len;
    buf_consume(out, sent < before ? sent : before);
    sent -= sent < before ? sent : before;
    if (sent < n)
        buf_put(out, p + sent, n - sent);
    size_t tail = sent > n ? sent - n : 0;
    if (chunked && tail < 2)
        buf_put(out, &"\r\n"[tail], 2 - tail);
    c->blocked = rc < (ssize_t)total;
}

void http_reply_body(struct http_msg *m, const void *p, size_t n)
{
    struct exchange *x = exchange_of(m);
    struct http_conn *c = m->conn;
    CHECK(x->mode != REPLY_NONE);
    m->sent_bytes += n;
    if (x->mode == REPLY_OPEN && x->length < 0 && n < HTTP_DIRECT_MIN &&
        buf_len(&x->held) + n <= HTTP_DIRECT_MIN) {
        if (!m->head_only && n > 0) {
            if (!x->held.data)
                server_buf_get(c->server, &x->held);
            buf_put(&x->held, p, n);
        }
    } else {
        settle(x, false);
        bool direct = n >= HTTP_DIRECT_MIN && !c->blocked && x->mode != REPLY_EMPTY &&
                      buf_len(&c->out) < HTTP_DIRECT_MIN;
        if (direct)
            put_body_direct(x, p, n);
        else
            put_body(x, p, n);
    }
    if (buf_len(&c->out) > HTTP_PENDING_LOW)
        c->above = true;
    conn_touch(c);
}

// The answer is whole: on with the connection, or its end.
static void answer_done(struct exchange *x, bool cut)
{
    struct http_conn *c = x->msg.conn;
    if (c->state == CS_BODY && !x->chunked && x->left == 0)
        conn_event(c, CE_WHOLE); // answered from the callback that brought the last piece
    bool whole = c->state == CS_WAIT;
    bool last = x->close || cut || (!whole && !request_skippable(x));
    c->clean = whole && buf_len(&c->in) == 0;
    c->skip = x->left;
    conn_release(c);
    conn_event(c, last ? CE_LAST : CE_ANSWERED);
    conn_touch(c);
}

void http_reply_end(struct http_msg *m)
{
    struct exchange *x = exchange_of(m);
    CHECK(x->mode != REPLY_NONE);
    settle(x, true);
    if (x->mode == REPLY_CHUNKED)
        buf_put(out_of(x), "0\r\n\r\n", 5);
    // A body shorter than was declared: only the connection's end tells the client.
    answer_done(x, x->mode == REPLY_LENGTH && x->length_left > 0);
}

void http_reply_error(struct http_msg *m, int code, const char *text, const char *param,
                      const char *request_id, int retry_after_s)
{
    struct http_error e = http_error_of(code);
    struct buf body = {0};
    server_buf_get(m->conn->server, &body);
    http_error_json(&body, code, text, param);
    http_reply_head(m, e.status, "application/json", (int64_t)buf_len(&body), request_id);
    put_error_fields(&m->conn->out, e.status);
    if (retry_after_s > 0) {
        buf_puts(&m->conn->out, "retry-after: ");
        put_number(&m->conn->out, (uint64_t)retry_after_s, 10);
        buf_put(&m->conn->out, "\r\n", 2);
    }
    http_reply_body(m, buf_head(&body), buf_len(&body));
    server_buf_put(m->conn->server, &body);
    http_reply_end(m);
}

void http_reply_abort(struct http_msg *m)
{
    struct exchange *x = exchange_of(m);
    settle(x, false);
    m->conn->reset = x->mode == REPLY_UNTIL_CLOSE;
    answer_done(x, true);
}

void http_reply_cut(struct http_msg *m)
{
    conn_close(m->conn, GONE_SLOW);
}

size_t http_reply_pending(const struct http_msg *m)
{
    return buf_len(&m->conn->out);
}
