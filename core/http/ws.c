// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "http/conn.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <wslay/wslay.h>

enum {
    WS_HEADER_MAX = 10, // bytes of a server's frame header
    WS_LEN_16 = 126,    // RFC 6455 section 5.2
    WS_LEN_64 = 127,
    WS_REASON_MAX = 123, // bytes of a close reason
    WS_ACCEPT_MAX = 64,
    WS_SHA1 = 20
};

/*
 * wslay parses what comes and answers control frames; data frames of ours are written here, since
 * they need no masking and wslay would copy each into a queue of its own.
 */
struct ws {
    wslay_event_context_ptr event; // owned
    struct http_conn *conn;        // borrowed; outlives us
    const char *in;                // the input in work
    size_t in_n;
    const uint8_t *last; // the last piece of a frame, kept until wslay has checked it
    size_t last_n;
    uint64_t message_bytes; // of the message that comes in
    uint64_t frame_left;
    bool busy;               // inside wslay: must not be freed
    bool dead;               // free it when wslay returns
    bool text, fin, control; // of the frame that comes in
    bool in_fragments;       // of ours: the next frame continues a message
};

static struct exchange *exchange_with(const struct ws *w)
{
    struct exchange *x = w->dead ? NULL : w->conn->x;
    CHECK(!x || x->ws == w);
    return x;
}

static ssize_t on_recv(wslay_event_context_ptr e, uint8_t *buf, size_t n, int flags, void *arg)
{
    struct ws *w = arg;
    (void)flags;
    if (w->dead || w->conn->paused || w->in_n == 0) {
        wslay_event_set_error(e, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size_t k = n < w->in_n ? n : w->in_n;
    memcpy(buf, w->in, k);
    w->in += k;
    w->in_n -= k;
    return (ssize_t)k;
}

static ssize_t on_send(wslay_event_context_ptr e, const uint8_t *p, size_t n, int flags, void *arg)
{
    struct ws *w = arg;
    (void)e;
    (void)flags;
    buf_put(&w->conn->out, p, n);
    return (ssize_t)n;
}

static void on_frame_start(wslay_event_context_ptr e,
                           const struct wslay_event_on_frame_recv_start_arg *a, void *arg)
{
    struct ws *w = arg;
    w->control = wslay_is_ctrl_frame(a->opcode);
    if (w->control)
        return;
    if (a->opcode != WSLAY_CONTINUATION_FRAME) {
        w->text = a->opcode == WSLAY_TEXT_FRAME;
        w->message_bytes = 0;
    }
    w->fin = a->fin;
    w->frame_left = a->payload_length;
    uint32_t limit = w->conn->server->limits.ws_message_bytes;
    w->message_bytes += a->payload_length; // a frame alone is bounded by wslay: no overflow
    if (w->message_bytes <= limit)
        return;
    char text[WS_REASON_MAX];
    int n = snprintf(text, sizeof text, "message larger than %u bytes", limit);
    wslay_event_queue_close(e, WSLAY_CODE_MESSAGE_TOO_BIG, (const uint8_t *)text, (size_t)n);
    wslay_event_shutdown_read(e);
}

static void give(struct ws *w, const uint8_t *p, size_t n, bool fin)
{
    struct exchange *x = exchange_with(w);
    if (!x || !wslay_event_get_read_enabled(w->event))
        return;
    struct http_server *s = w->conn->server;
    x->msg.body_bytes += n;
    s->handler.on_body(s->ctx, &x->msg, (const char *)p, n, w->text, fin);
}

// The last piece of a frame waits for on_frame_end: by then wslay has checked its UTF-8.
static void on_frame_chunk(wslay_event_context_ptr e,
                           const struct wslay_event_on_frame_recv_chunk_arg *a, void *arg)
{
    struct ws *w = arg;
    (void)e;
    if (w->control)
        return;
    w->frame_left -= a->data_length;
    w->last = a->data;
    w->last_n = a->data_length;
    if (w->frame_left > 0 && a->data_length > 0)
        give(w, a->data, a->data_length, false);
}

static void on_frame_end(wslay_event_context_ptr e, void *arg)
{
    struct ws *w = arg;
    (void)e;
    if (!w->control && (w->last_n > 0 || w->fin))
        give(w, w->last_n ? w->last : (const uint8_t *)"", w->last_n, w->fin);
}

static void ws_free(struct ws *w)
{
    wslay_event_context_free(w->event);
    xfree(w);
}

void ws_destroy(struct ws *own_w)
{
    if (!own_w)
        return;
    if (own_w->busy)
        own_w->dead = true;
    else
        ws_free(own_w);
}

// Parsing stopped for good: the client's close, or ours for what it did.
static void ended(struct ws *w)
{
    struct http_conn *c = w->conn;
    bool closed = wslay_event_get_close_received(w->event);
    conn_gone(c, closed ? GONE_CLOSED : GONE_BROKEN);
    if (c->state != CS_WS)
        return;
    c->clean = false;
    conn_event(c, CE_LAST);
}

size_t ws_input(struct http_conn *c, const char *p, size_t n)
{
    struct ws *w = c->x->ws;
    w->in = p;
    w->in_n = n;
    w->busy = true;
    int rc = wslay_event_recv(w->event);
    size_t used = n - w->in_n;
    w->in = NULL;
    w->in_n = 0;
    if (!w->dead) {
        wslay_event_send(w->event);
        conn_touch(c);
        if (rc != 0 || !wslay_event_get_read_enabled(w->event)) {
            used = n;
            ended(w);
        }
    }
    w->busy = false;
    if (w->dead)
        ws_free(w);
    return used;
}

static void accept_value(const char *key, char out[WS_ACCEPT_MAX])
{
    unsigned char text[WS_ACCEPT_MAX + 64], digest[EVP_MAX_MD_SIZE];
    int n = snprintf((char *)text, sizeof text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    EVP_Digest(text, (size_t)n, digest, NULL, EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)out, digest, WS_SHA1);
}

static int ws_open(struct exchange *x, struct err *err)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .on_frame_recv_start_callback = on_frame_start,
        .on_frame_recv_chunk_callback = on_frame_chunk,
        .on_frame_recv_end_callback = on_frame_end,
    };
    struct ws *w = xcalloc(1, sizeof *w);
    if (wslay_event_context_server_init(&w->event, &callbacks, w) != 0) {
        xfree(w);
        return err_set(err, SV_E_NOMEM, "no memory for a websocket");
    }
    wslay_event_config_set_no_buffering(w->event, 1);
    wslay_event_config_set_max_recv_msg_length(w->event,
                                               x->msg.conn->server->limits.ws_message_bytes);
    w->conn = x->msg.conn;
    x->ws = w;
    return 0;
}

int http_ws_accept(struct http_msg *m, const char *request_id, struct err *err)
{
    struct exchange *x = exchange_of(m);
    struct http_conn *c = m->conn;
    if (!m->websocket || x->mode != REPLY_NONE)
        return err_set(err, SV_E_INVALID, "this request is not one for a websocket");
    if (ws_open(x, err) < 0)
        return err->code;
    char accept[WS_ACCEPT_MAX];
    accept_value(http_msg_header(m, "sec-websocket-key"), accept);
    buf_printf(&c->out,
               "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
               "connection: Upgrade\r\nsec-websocket-accept: %s\r\n",
               accept);
    if (request_id)
        buf_printf(&c->out, "x-request-id: %s\r\n", request_id);
    buf_puts(&c->out, "\r\n");
    x->status = 101;
    x->mode = REPLY_EMPTY;
    conn_event(c, CE_UPGRADED);
    conn_touch(c);
    return 0;
}

static size_t frame_header(uint8_t out[WS_HEADER_MAX], uint8_t first, uint64_t n)
{
    out[0] = first;
    if (n < WS_LEN_16) {
        out[1] = (uint8_t)n;
        return 2;
    }
    size_t bytes = n <= UINT16_MAX ? 2 : 8;
    out[1] = bytes == 2 ? WS_LEN_16 : WS_LEN_64;
    for (size_t i = 0; i < bytes; i++)
        out[2 + i] = (uint8_t)(n >> (8 * (bytes - 1 - i)));
    return 2 + bytes;
}

void http_ws_send(struct http_msg *m, const void *p, size_t n, bool text, bool more)
{
    struct http_conn *c = m->conn;
    struct ws *w = exchange_of(m)->ws;
    CHECK(w && c->state == CS_WS);
    if (!wslay_event_get_write_enabled(w->event))
        return;                 // our close is out already; on_gone follows
    wslay_event_send(w->event); // a pong that waits goes first
    uint8_t header[WS_HEADER_MAX];
    int opcode = w->in_fragments ? WSLAY_CONTINUATION_FRAME
                 : text          ? WSLAY_TEXT_FRAME
                                 : WSLAY_BINARY_FRAME;
    w->in_fragments = more;
    size_t k = frame_header(header, (uint8_t)((more ? 0 : 0x80) | opcode), n);
    if (!c->out.data)
        server_buf_get(c->server, &c->out);
    buf_put(&c->out, header, k);
    buf_put(&c->out, p, n);
    m->sent_bytes += n;
    if (buf_len(&c->out) > HTTP_PENDING_LOW)
        c->above = true;
    conn_touch(c);
}

void http_ws_close(struct http_msg *m, int code, const char *reason)
{
    struct http_conn *c = m->conn;
    struct ws *w = exchange_of(m)->ws;
    CHECK(w && c->state == CS_WS);
    size_t n = reason ? strnlen(reason, WS_REASON_MAX) : 0;
    while (n > 0 && reason[n] && ((unsigned char)reason[n] & 0xc0) == 0x80)
        n--; // a cut must not split a character
    wslay_event_queue_close(w->event, (uint16_t)code, (const uint8_t *)reason, n);
    wslay_event_send(w->event);
    conn_release(c);
    c->clean = false;
    conn_event(c, CE_LAST);
    conn_touch(c);
}
