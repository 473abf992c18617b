// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * http_conn_server - a server whose answers depend on the path, for http_conn_world.h.
 */
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "http/conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    int fd; // the client's end, -1 closed
    struct buf got;
    bool eof, error;
    struct http_msg *held;            // /wait and whatever answers later
    void (*later)(struct http_msg *); // runs between two turns
    int gone, bad, drained, conns;
    enum http_gone why;
    size_t sent, streamed;
    struct buf collected; // of a watched body that streams
    bool paused;
};
static struct world *world;

static inline void later_end(struct http_msg *m)
{
    http_reply_body(m, "two", 3);
    http_reply_end(m);
}

static inline void reply(struct http_msg *m, int64_t length, const char *body)
{
    http_reply_head(m, 200, "text/plain", length, NULL);
    http_reply_body(m, body, strlen(body));
    http_reply_end(m);
}

static inline void reply_dump(struct http_msg *m)
{
    char text[1024];
    snprintf(text, sizeof text, "%s|%s|%s|%s|%s|%s|%u|%s", m->method, m->path, m->raw_path,
             m->query, m->host, m->content_type, m->n_headers, m->request_id ? m->request_id : "-");
    reply(m, -1, text);
}

static inline void reply_headers(struct http_msg *m)
{
    http_reply_head(m, 200, NULL, 0, "id1");
    assert_int_equal(http_reply_header(m, "x-a", "b"), 0);
    assert_int_equal(http_reply_header(m, "content-length", "9"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "Transfer-Encoding", "chunked"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "x b", "c"), SV_E_INVALID);
    assert_int_equal(http_reply_header(m, "x-b", "c\r\nx-c: d"), SV_E_INVALID);
    http_reply_end(m);
}

static inline void reply_parts(struct http_msg *m, void (*then)(struct http_msg *))
{
    http_reply_head(m, 200, "text/plain", -1, NULL);
    http_reply_body(m, "one", 3);
    world->held = m;
    world->later = then;
}

static inline void on_head(void *ctx, struct http_msg *m)
{
    (void)ctx;
    if (strncmp(m->path, "/stream", 7) == 0)
        m->streaming = true;
    if (strcmp(m->path, "/limit5") == 0)
        m->body_limit = 5;
    m->watched = strcmp(m->path, "/watch") == 0;
    if (strcmp(m->path, "/reject") == 0)
        http_reply_error(m, -403, "not you", NULL, "id1", 7);
}

// A watched body is refused where it has an R, and streams from an S on.
static inline void on_more(void *ctx, struct http_msg *m)
{
    (void)ctx;
    assert_true(m->watched && buf_len(&m->body) == m->body_bytes);
    if (memchr(buf_head(&m->body), 'R', buf_len(&m->body))) {
        http_reply_error(m, -404, "not that", NULL, NULL, 0);
    } else if (memchr(buf_head(&m->body), 'S', buf_len(&m->body))) {
        http_msg_stream(m);
    }
}

static inline void on_request(void *ctx, struct http_msg *m)
{
    (void)ctx;
    const char *p = m->path;
    struct err err = {0};
    if (m->websocket)
        assert_int_equal(http_ws_accept(m, NULL, &err), 0);
    else if (m->streaming)
        http_reply_head(m, 200, NULL, -1, NULL);
    else if (strcmp(p, "/hi") == 0)
        reply(m, 2, "hi");
    else if (strcmp(p, "/echo") == 0 || strcmp(p, "/limit5") == 0 || m->watched)
        reply(m, -1, buf_len(&m->body) ? buf_head(&m->body) : "");
    else if (strcmp(p, "/short") == 0)
        reply(m, 5, "abc");
    else if (strcmp(p, "/surplus") == 0)
        reply(m, 2, "abcd");
    else if (strcmp(p, "/headers") == 0)
        reply_headers(m);
    else if (strcmp(p, "/parts") == 0)
        reply_parts(m, later_end);
    else if (strcmp(p, "/abort") == 0)
        reply_parts(m, http_reply_abort);
    else if (strcmp(p, "/wait") == 0)
        world->held = m;
    else if (strcmp(p, "/none") == 0) {
        http_reply_head(m, 204, NULL, -1, NULL);
        http_reply_end(m);
    } else
        reply_dump(m);
}

static inline void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text,
                           bool fin)
{
    (void)ctx;
    world->streamed += n;
    if (m->websocket) {
        http_ws_send(m, p, n, text, !fin);
        return;
    }
    if (strcmp(m->path, "/streampause") == 0) {
        world->held = m;
        world->paused = true;
        http_read_pause(m);
        return;
    }
    if (m->watched) {
        buf_put(&world->collected, p, n);
        if (fin)
            reply(m, -1, buf_cstr(&world->collected));
        return;
    }
    http_reply_body(m, p, n);
    if (fin)
        http_reply_end(m);
}

static inline void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx;
    if (world->held == m)
        world->held = NULL, world->later = NULL;
    world->gone++;
    world->why = why;
}

static inline void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
    world->drained++;
}

static inline const char *on_bad(void *ctx, struct http_msg *m, const char *peer, int code)
{
    (void)ctx;
    (void)m;
    (void)peer;
    world->bad = code;
    return NULL;
}

static inline void on_conn(void *ctx, int change, const char *refused_by)
{
    (void)ctx;
    (void)refused_by;
    world->conns += change;
}

static inline void on_sent(void *ctx, struct http_msg *m, size_t n)
{
    (void)ctx;
    (void)m;
    world->sent += n;
}

static const struct http_handler handler = {on_head,  on_more, on_request, on_body, on_gone,
                                            on_drain, on_bad,  on_conn,    on_sent};
