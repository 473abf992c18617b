// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes of a client against a connection: once in one piece and once in pieces that the input's
 * first bytes choose. What comes back and what the holder saw must be the same both times.
 */
#include "base/check.h"
#include "base/err.h"
#include "base/os.h"
#include "http/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CUTS = 4,         // bytes of the input that say how it is split
    INPUT_MAX = 8192, // bytes: fits the socket's buffer, so that writing never waits
    BODY_MAX = 1024,  // bytes: small limits are met soon
    QUIET_TURNS = 4   // turns after which nothing more comes
};

struct run {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    int fd;
    struct buf seen; // what came back, without dates, then what the holder saw
    struct buf events;
    uint64_t hash;
};

static void on_head(void *ctx, struct http_msg *m)
{
    struct run *r = ctx;
    buf_printf(&r->events, "head %s %s %u\n", m->method, m->path, m->n_headers);
    m->streaming = m->path[1] == 's';
    m->watched = m->path[1] == 'w'; // then an S in it makes it stream
    r->hash = 1;
    if (m->path[1] == 'r')
        http_reply_error(m, -403, "refused", NULL, m->request_id, 1);
}

static void reply_hash(struct run *r, struct http_msg *m)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%llx %llu", (unsigned long long)r->hash,
                     (unsigned long long)m->body_bytes);
    http_reply_head(m, 200, "text/plain", m->path[1] == 'u' ? -1 : n, m->request_id);
    http_reply_body(m, text, (size_t)n);
    http_reply_end(m);
}

static void add(struct run *r, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        r->hash = r->hash * 31 + (unsigned char)p[i];
}

static void on_more(void *ctx, struct http_msg *m)
{
    (void)ctx;
    CHECK(m->watched && !m->streaming && buf_len(&m->body) == m->body_bytes);
    if (memchr(buf_head(&m->body), 'S', buf_len(&m->body)))
        http_msg_stream(m);
}

static void on_request(void *ctx, struct http_msg *m)
{
    struct run *r = ctx;
    if (m->streaming)
        return;
    add(r, buf_head(&m->body), buf_len(&m->body));
    reply_hash(r, m);
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    struct run *r = ctx;
    (void)text;
    add(r, p, n);
    if (fin)
        reply_hash(r, m);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    struct run *r = ctx;
    (void)m;
    buf_printf(&r->events, "gone %d\n", why);
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
}

static const char *on_bad(void *ctx, struct http_msg *m, const char *peer, int code)
{
    struct run *r = ctx;
    (void)peer;
    buf_printf(&r->events, "bad %d%s\n", code, m ? " of a message" : "");
    return NULL;
}

static const struct http_handler handler = {.on_head = on_head,
                                            .on_more = on_more,
                                            .on_request = on_request,
                                            .on_body = on_body,
                                            .on_gone = on_gone,
                                            .on_drain = on_drain,
                                            .on_bad = on_bad};

static void run_open(struct run *r)
{
    struct http_limits limits = http_limits_default;
    struct err err;
    int fds[2];
    limits.request_line_bytes = 128;
    limits.header_bytes = 512;
    limits.headers = 8;
    limits.body_bytes = BODY_MAX;
    limits.chunks = 80;
    *r = (struct run){0};
    uv_loop_init(&r->loop);
    turn_init(&r->turn, &r->loop);
    int rc = http_server_create(&r->loop, &r->turn, -1, &limits, &handler, r, &r->server, &err);
    CHECK(rc == 0);
    rc = os_socketpair(fds, &err);
    CHECK(rc == 0);
    r->fd = fds[0];
    server_adopt(r->server, fds[1], "fuzz", 0);
}

static void settle(struct run *r)
{
    for (int i = 0; i < QUIET_TURNS; i++)
        uv_run(&r->loop, UV_RUN_NOWAIT);
}

static void say(struct run *r, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(r->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN)
            return;
        if (k > 0)
            p += k, n -= (size_t)k;
        settle(r);
    }
}

static void collect(struct run *r)
{
    struct buf raw = {0};
    ssize_t n;
    settle(r);
    while ((n = recv(r->fd, buf_reserve(&raw, 65536), 65536, MSG_DONTWAIT)) > 0)
        buf_commit(&raw, (size_t)n);
    const char *s = buf_cstr(&raw), *date;
    while ((date = strstr(s, "\r\ndate: "))) { // the clock may tick between the two runs
        buf_put(&r->seen, s, (size_t)(date - s));
        s = strstr(date + 2, "\r\n");
    }
    buf_puts(&r->seen, s);
    buf_puts(&r->seen, n == 0 ? "\nEOF\n" : "\nopen\n");
    buf_finish(&raw);
}

static void run_close(struct run *r)
{
    close(r->fd);
    http_server_destroy(r->server, NULL); // tells the holder of what is open
    buf_put(&r->seen, buf_head(&r->events), buf_len(&r->events));
    buf_finish(&r->events);
    turn_close(&r->turn);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&r->loop);
    CHECK(rc == 0);
}

static void whole(struct run *r, const uint8_t *p, size_t n)
{
    run_open(r);
    say(r, p, n);
    collect(r);
    run_close(r);
}

static void split(struct run *r, const uint8_t cuts[CUTS], const uint8_t *p, size_t n)
{
    run_open(r);
    for (size_t i = 0; n > 0; i++) {
        size_t k = (size_t)cuts[i % CUTS] % 64 + 1;
        k = k < n ? k : n;
        say(r, p, k);
        p += k;
        n -= k;
    }
    collect(r);
    run_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= CUTS || size > INPUT_MAX)
        return 0;
    struct run a, b;
    whole(&a, data + CUTS, size - CUTS);
    split(&b, data, data + CUTS, size - CUTS);
    if (buf_len(&a.seen) != buf_len(&b.seen) ||
        memcmp(buf_head(&a.seen), buf_head(&b.seen), buf_len(&a.seen)) != 0)
        BUG("split changes the result:\n%s\n--- whole above, split below\n%s", buf_cstr(&a.seen),
            buf_cstr(&b.seen));
    buf_finish(&a.seen);
    buf_finish(&b.seen);
    return 0;
}
