// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "http/conn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "http/policy.h"

#include <stdio.h>
#include <string.h>

/*
 * The head. Its end is found first, line by line, with the limits checked on the way; then llhttp
 * sees it whole. So its strings are cut in place, and how the bytes were split in reads cannot
 * change anything. Bodies with a length are counted here; chunked ones go through llhttp.
 */
enum scan { SCAN_MORE, SCAN_WHOLE, SCAN_REFUSED };

static enum scan refuse(struct http_conn *c, int code, const char *text)
{
    conn_refuse(c, code, text);
    return SCAN_REFUSED;
}

static enum scan refuse_line(struct http_conn *c)
{
    char text[96];
    snprintf(text, sizeof text, "the request line is longer than %u bytes (max_request_line_bytes)",
             c->server->limits.request_line_bytes);
    return refuse(c, -414, text);
}

static enum scan refuse_headers(struct http_conn *c, const char *what, uint32_t limit,
                                const char *key)
{
    char text[96];
    snprintf(text, sizeof text, "the header has more than %u %s (%s)", limit, what, key);
    return refuse(c, -431, text);
}

// One whole line p[line, nl], ended by "\n" at nl.
static enum scan scan_line(struct http_conn *c, const char *p, size_t nl)
{
    const struct http_limits *l = &c->server->limits;
    bool has_cr = nl > c->line && p[nl - 1] == '\r';
    size_t len = nl - c->line - has_cr;
    bool blank = len == 0 && has_cr && c->lines > 0;
    if (c->lines == 0 && len > l->request_line_bytes)
        return refuse_line(c);
    if (c->lines > 0 && !blank && nl + 1 - c->first_end > l->header_bytes)
        return refuse_headers(c, "bytes", l->header_bytes, "max_header_bytes");
    if (!has_cr)
        return refuse(c, -400, "a line of the header ends without a carriage return");
    if (blank)
        return SCAN_WHOLE;
    if (c->lines > 0 && (p[c->line] == ' ' || p[c->line] == '\t'))
        return refuse(c, -400, "a header is continued on the next line, which is obsolete");
    if (c->lines > l->headers)
        return refuse_headers(c, "lines", l->headers, "max_headers");
    if (c->lines++ == 0)
        c->first_end = nl + 1;
    c->line = nl + 1;
    return SCAN_MORE;
}

// What is there of a line whose end hasn't come may already be too long.
static enum scan scan_rest(struct http_conn *c, const char *p, size_t n)
{
    const struct http_limits *l = &c->server->limits;
    bool cr = n > c->line && p[n - 1] == '\r';
    if (c->lines == 0 && n - c->line - cr > l->request_line_bytes)
        return refuse_line(c);
    bool maybe_blank = cr && n - c->line == 1;
    if (c->lines > 0 && !maybe_blank && n - c->first_end > l->header_bytes)
        return refuse_headers(c, "bytes", l->header_bytes, "max_header_bytes");
    return SCAN_MORE;
}

// Goes on at c->scan. SCAN_WHOLE: the head is p[0, *ret_end).
static enum scan scan_head(struct http_conn *c, const char *p, size_t n, size_t *ret_end)
{
    const char *nl;
    while (c->scan < n && (nl = memchr(p + c->scan, '\n', n - c->scan))) {
        size_t at = (size_t)(nl - p);
        enum scan r = scan_line(c, p, at);
        *ret_end = c->scan = at + 1;
        if (r != SCAN_MORE)
            return r;
    }
    c->scan = n;
    return scan_rest(c, p, n);
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct exchange *x = p->data;
    if (!x->msg.target)
        x->msg.target = at;
    x->target_end = (char *)(uintptr_t)at + n;
    return 0;
}

static int on_header_field(llhttp_t *p, const char *at, size_t n)
{
    struct exchange *x = p->data;
    if (x->chunked) { // a trailer: dropped, but bounded
        x->trailer_bytes += (uint32_t)n;
        return 0;
    }
    CHECK(x->msg.n_headers < x->msg.conn->server->limits.headers); // scan_line has counted
    struct http_header *h = &x->headers[x->msg.n_headers++];
    char *name = (char *)(uintptr_t)at;
    for (size_t i = 0; i < n; i++)
        if (name[i] >= 'A' && name[i] <= 'Z')
            name[i] = (char)(name[i] | 0x20);
    name[n] = '\0'; // was the colon, or what policy refuses
    h->name = name;
    h->value = "";
    return 0;
}

static int on_header_value(llhttp_t *p, const char *at, size_t n)
{
    struct exchange *x = p->data;
    if (x->chunked) {
        x->trailer_bytes += (uint32_t)n;
        return 0;
    }
    struct http_header *h = &x->headers[x->msg.n_headers - 1];
    if (n == 0)
        return 0; // `at` is the next line's then
    if (!*h->value)
        h->value = at;
    x->value_end = (char *)(uintptr_t)at + n;
    return 0;
}

static int on_header_value_complete(llhttp_t *p)
{
    struct exchange *x = p->data;
    if (x->chunked)
        return 0;
    struct http_header *h = &x->headers[x->msg.n_headers - 1];
    if (!*h->value)
        return 0;
    char *end = x->value_end;
    while (end > h->value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = '\0';
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    p->upgrade = 0; // ours to decide: llhttp would stop for any protocol
    return 0;
}

static int on_message_complete(llhttp_t *p)
{
    struct exchange *x = p->data;
    x->whole = true;
    return HPE_PAUSED;
}

static int refuse_body(struct exchange *x, int code, const char *text)
{
    x->refused = code;
    x->refused_text = text;
    return HPE_USER;
}

static int on_chunk_header(llhttp_t *p)
{
    struct exchange *x = p->data;
    const struct http_limits *l = &x->msg.conn->server->limits;
    if (++x->chunks > l->chunks)
        return refuse_body(x, -413, "the body has too many chunks");
    if (x->chunks > HTTP_CHUNKS_FREE && p->content_length > 0 &&
        x->msg.body_bytes < (uint64_t)HTTP_CHUNK_MEAN * (x->chunks - 1))
        return refuse_body(x, -400, "the chunks of the body are too small (16 bytes on average)");
    return 0;
}

static int on_chunk_ext(llhttp_t *p, const char *at, size_t n)
{
    struct exchange *x = p->data;
    (void)at;
    x->ext_bytes += (uint32_t)n;
    if (x->ext_bytes > HTTP_CHUNK_EXT_MAX)
        return refuse_body(x, -400, "the chunk extensions of the body are too long");
    return 0;
}

static int deliver(struct exchange *x, const char *p, size_t n);
static int on_body(llhttp_t *p, const char *at, size_t n)
{
    return deliver(p->data, at, n);
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_chunk_extension_name = on_chunk_ext,
    .on_chunk_extension_value = on_chunk_ext,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

// x->head holds exactly one head. 0 or the negated status.
static int parse_head(struct exchange *x, struct err *err)
{
    struct http_msg *m = &x->msg;
    size_t n = buf_len(&x->head);
    llhttp_init(&x->parser, HTTP_REQUEST, &settings);
    x->parser.data = x;
    char *method_end = memchr(buf_head(&x->head), ' ', n);
    enum llhttp_errno e = llhttp_execute(&x->parser, buf_head(&x->head), n);
    if (e != HPE_OK && e != HPE_PAUSED)
        return err_set(err, e == HPE_INVALID_VERSION ? -505 : -400,
                       "the request cannot be parsed: %s", llhttp_get_error_reason(&x->parser));
    const char *end = buf_head(&x->head) + n;
    if (!m->target || !method_end || (e == HPE_PAUSED && x->parser.error_pos != end))
        return err_set(err, -400, "the request's head has no clear end");
    if (m->target != method_end + 1)
        return err_set(err, -400, "more than one space after the method");
    *method_end = '\0';
    m->method = buf_head(&x->head);
    if (*x->target_end != ' ')
        return err_set(err, -400, "the request line has no HTTP version");
    *x->target_end = '\0';
    m->headers = x->headers;
    char *room = buf_reserve(&x->head, 0);
    int rc = policy_check(m, x->parser.http_major, x->parser.http_minor, room, &x->chunked, err);
    // Two readings of the framing, llhttp's and the policy's: they must agree.
    if (rc == 0 && (e == HPE_PAUSED) != (m->content_length == 0))
        return err_set(err, -400, "it is not clear whether the request has a body");
    return rc;
}

static void next_head(struct http_conn *c)
{
    c->scan = c->line = c->first_end = 0;
    c->lines = 0;
    c->blank = false;
}

static struct exchange *begin(struct http_conn *c, const char *p, size_t n)
{
    struct exchange *x = server_exchange_get(c->server);
    // The paths are written behind the head: reserved here, so that nothing moves later.
    buf_reserve(&x->head, n + 2 * (c->first_end + 2));
    buf_put(&x->head, p, n);
    x->msg.conn = c;
    x->msg.arena = &x->arena;
    x->msg.peer = c->peer;
    x->msg.body_limit = c->server->limits.body_bytes;
    return x;
}

static bool ended(const struct http_conn *c, const struct exchange *x)
{
    return c->x != x;
}

static void announce(struct http_conn *c, struct exchange *x);

size_t request_take_head(struct http_conn *c, const char *p, size_t n)
{
    if (c->scan == 0 && p[0] == '\r') { // RFC 9112 section 2.2: one empty line may come before
        if (n == 1)
            return 0;
        if (p[1] != '\n' || c->blank)
            return conn_refuse(c, -400, "the request does not start with a method"), n;
        c->blank = true;
        return 2;
    }
    if (c->scan == 0 && (p[0] < 'A' || p[0] > 'Z'))
        return conn_refuse(c, -400, "the request does not start with a method"), n;
    size_t end = 0;
    enum scan r = scan_head(c, p, n, &end);
    if (r == SCAN_MORE)
        return 0;
    if (r == SCAN_REFUSED)
        return n;
    struct exchange *x = begin(c, p, end);
    struct err err = {0};
    next_head(c);
    int rc = parse_head(x, &err);
    if (rc < 0) {
        server_exchange_put(c->server, x);
        conn_refuse(c, rc, err.msg);
        return n;
    }
    c->x = x;
    announce(c, x);
    return end;
}

static int refuse_large(struct http_conn *c, const struct exchange *x)
{
    char text[96];
    snprintf(text, sizeof text, "the body is larger than %llu bytes (max_body_bytes)",
             (unsigned long long)x->msg.body_limit);
    conn_refuse(c, -413, text);
    return -413;
}

// Before n more bytes of a body are kept; non-zero when there is no room for them.
static int count_buffered(struct http_conn *c, struct exchange *x, uint64_t n)
{
    struct http_server *s = c->server;
    if (n > s->limits.buffered_bytes - s->buffered) {
        char text[128];
        snprintf(
            text, sizeof text,
            "the bodies of all open requests are %llu bytes (at most %llu, max_buffered_bytes)",
            (unsigned long long)s->buffered, (unsigned long long)s->limits.buffered_bytes);
        conn_refuse(c, SV_E_UNAVAILABLE, text);
        return HPE_USER;
    }
    s->buffered += n;
    x->buffered += n;
    return 0;
}

void http_msg_drop_body(struct http_msg *m)
{
    struct exchange *x = exchange_of(m);
    m->conn->server->buffered -= x->buffered;
    x->buffered = 0;
    buf_finish(&m->body);
}

void http_msg_stream(struct http_msg *m)
{
    const struct http_server *s = m->conn->server;
    struct buf body = m->body;
    m->body = (struct buf){0};
    m->streaming = true;
    // It counts as buffered to the end of the exchange: whoever takes it holds it for a while.
    if (buf_len(&body))
        s->handler.on_body(s->ctx, m, buf_head(&body), buf_len(&body), false, false);
    buf_finish(&body);
}

// A watched body has grown; non-zero when the exchange is over.
static int tell_more(struct http_conn *c, struct exchange *x)
{
    if (!x->msg.watched || x->msg.streaming)
        return 0;
    c->server->handler.on_more(c->server->ctx, &x->msg);
    return ended(c, x) ? HPE_USER : 0;
}

static void message_whole(struct http_conn *c, struct exchange *x)
{
    conn_event(c, CE_WHOLE);
    struct http_msg *m = &x->msg;
    if (m->streaming) {
        c->server->handler.on_body(c->server->ctx, m, "", 0, false, true);
        return;
    }
    if (m->body.data)
        *buf_reserve(&m->body, 1) = '\0';
    c->server->handler.on_request(c->server->ctx, m);
}

static void announce(struct http_conn *c, struct exchange *x)
{
    struct http_msg *m = &x->msg;
    const struct http_handler *h = &c->server->handler;
    bool bodyless = m->content_length == 0;
    m->started_ns = clock_now_ns();
    x->left = m->content_length > 0 ? (uint64_t)m->content_length : 0;
    conn_event(c, bodyless ? CE_WHOLE : CE_BODY);
    h->on_head(c->server->ctx, m);
    if (ended(c, x))
        return;
    if (m->content_length > 0 && (uint64_t)m->content_length > m->body_limit) {
        refuse_large(c, x);
        return;
    }
    if (m->expects_continue && x->mode == REPLY_NONE) {
        buf_puts(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        x->sent_continue = true;
        conn_touch(c);
    }
    if (bodyless || m->streaming)
        h->on_request(c->server->ctx, m);
    if (bodyless && m->streaming && !ended(c, x))
        h->on_body(c->server->ctx, m, "", 0, false, true);
}

// A piece of the body to its place; non-zero when the exchange is over.
static int deliver(struct exchange *x, const char *p, size_t n)
{
    struct http_msg *m = &x->msg;
    struct http_conn *c = m->conn;
    if (m->body_bytes + n > m->body_limit) {
        refuse_large(c, x);
        return HPE_USER;
    }
    m->body_bytes += n;
    if (!m->streaming) {
        if (count_buffered(c, x, n) != 0)
            return HPE_USER;
        if (m->content_length > 0 && !m->body.data && m->content_length <= HTTP_EAGER_BODY)
            buf_reserve(&m->body, (size_t)m->content_length + 1);
        buf_put(&m->body, p, n);
        return tell_more(c, x);
    }
    c->server->handler.on_body(c->server->ctx, m, p, n, false, false);
    return ended(c, x) ? HPE_USER : 0;
}

static size_t body_with_length(struct http_conn *c, struct exchange *x, const char *p, size_t n)
{
    size_t k = n < x->left ? n : (size_t)x->left;
    x->left -= k;
    c->body_bytes += k;
    if (deliver(x, p, k) == 0 && x->left == 0)
        message_whole(c, x);
    return k;
}

size_t request_body(struct http_conn *c, const char *p, size_t n)
{
    struct exchange *x = c->x;
    if (!x->chunked)
        return body_with_length(c, x, p, n);
    c->body_bytes += n;
    enum llhttp_errno e = llhttp_execute(&x->parser, p, n);
    if (ended(c, x))
        return n; // answered or refused inside; the connection ends, the rest has no meaning
    if (x->trailer_bytes > c->server->limits.header_bytes)
        return conn_refuse(c, -431, "the trailers of the body are too long"), n;
    if (x->refused)
        return conn_refuse(c, x->refused, x->refused_text), n;
    if (x->whole) {
        size_t k = (size_t)(x->parser.error_pos - p);
        message_whole(c, x);
        return k;
    }
    if (e != HPE_OK) {
        char text[128];
        snprintf(text, sizeof text, "the body's chunks cannot be parsed: %s",
                 llhttp_get_error_reason(&x->parser));
        conn_refuse(c, -400, text);
    }
    return n;
}

void request_body_direct(struct http_conn *c, size_t n)
{
    struct exchange *x = c->x;
    if (count_buffered(c, x, n) != 0)
        return;
    buf_commit(&x->msg.body, n);
    x->left -= n;
    c->body_bytes += n;
    x->msg.body_bytes += n;
    if (tell_more(c, x) == 0 && x->left == 0)
        message_whole(c, x);
}

bool request_skippable(const struct exchange *x)
{
    return !x->chunked && x->left <= HTTP_SKIP_MAX &&
           (!x->msg.expects_continue || x->sent_continue);
}

const char *http_msg_header(const struct http_msg *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_headers; i++)
        if (strcmp(m->headers[i].name, name) == 0)
            return m->headers[i].value;
    return NULL;
}
