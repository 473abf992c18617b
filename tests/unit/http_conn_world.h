// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * http_conn_world - that server and one client of it, in one loop.
 */
#include "http_conn_server.h"

#define H       "Host: a\r\n"
#define END     H "\r\n"
#define POST    "POST /echo HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define HI      "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"

static inline void world_open(struct world *w, const struct http_limits *limits)
{
    struct err err = {0};
    int fds[2];
    *w = (struct world){0};
    world = w;
    uv_loop_init(&w->loop);
    turn_init(&w->turn, &w->loop);
    assert_int_equal(
        http_server_create(&w->loop, &w->turn, -1, limits, &handler, w, &w->server, &err), 0);
    assert_int_equal(os_socketpair(fds, &err), 0);
    w->fd = fds[0];
    server_adopt(w->server, fds[1], "test", 0);
}

static inline void world_close(struct world *w)
{
    if (w->fd >= 0)
        close(w->fd);
    http_server_destroy(w->server, NULL);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    assert_int_equal(w->conns, 0);
    turn_close(&w->turn);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    buf_finish(&w->got);
    buf_finish(&w->collected);
}

static inline void take(struct world *w)
{
    for (;;) {
        char *at = buf_reserve(&w->got, 65536);
        ssize_t n = recv(w->fd, at, 65536, MSG_DONTWAIT);
        if (n > 0) {
            buf_commit(&w->got, (size_t)n);
            continue;
        }
        w->eof |= n == 0;
        w->error |= n < 0 && errno != EAGAIN;
        return;
    }
}

static inline void pump(struct world *w)
{
    for (int quiet = 0; quiet < 3; quiet++) {
        size_t before = buf_len(&w->got);
        uv_run(&w->loop, UV_RUN_NOWAIT);
        take(w);
        if (quiet == 2 && w->held && w->later) { // by then the turn's output has left
            void (*later)(struct http_msg *) = w->later;
            w->later = NULL;
            later(w->held);
            quiet = 0;
        }
        if (buf_len(&w->got) != before)
            quiet = 0;
    }
}

static inline void say(struct world *w, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(w->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN)
            return; // the server has closed: so be it
        if (k > 0)
            p += k, n -= (size_t)k;
        pump(w);
    }
}

// What came without its Date lines, and " EOF" when the server shut its side.
static inline char *normal(struct world *w)
{
    struct buf b = {0};
    const char *s = buf_cstr(&w->got), *date;
    while ((date = strstr(s, "\r\ndate: "))) {
        buf_put(&b, s, (size_t)(date - s));
        s = strstr(date + 2, "\r\n");
    }
    buf_puts(&b, s);
    if (w->eof || w->error)
        buf_puts(&b, " EOF");
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

// "200:body 400 EOF": one status each, with the body unless it is an error's.
static inline char *summary(const char *s)
{
    struct buf b = {0};
    while (strncmp(s, "HTTP/1.1 ", 9) == 0) {
        const char *end = strstr(s, "\r\n\r\n"), *len = strstr(s, "\r\ncontent-length: ");
        CHECK(end != NULL);
        long n = len && len < end ? strtol(len + 18, NULL, 10) : 0;
        buf_printf(&b, "%s%.3s", buf_len(&b) ? " " : "", s + 9);
        if (s[9] == '2' && n > 0)
            buf_printf(&b, ":%.*s", (int)n, end + 4);
        s = end + 4 + n;
    }
    buf_puts(&b, s);
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}
