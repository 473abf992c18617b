// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes of a client after a websocket was accepted, in one piece and in pieces that the input's
 * first bytes choose: the messages that the holder gets, and whether the connection lives on,
 * must be the same.
 */
#include "base/check.h"
#include "base/err.h"
#include "base/os.h"
#include "http/conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CUTS = 4,           // bytes of the input that say how it is split
    INPUT_MAX = 8192,   // bytes
    MESSAGE_MAX = 1024, // bytes
    QUIET_TURNS = 4     // turns after which nothing more comes
};

struct run {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    int fd;
    struct buf seen, message;
};

static void on_head(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
}

static void on_request(void *ctx, struct http_msg *m)
{
    struct err err;
    (void)ctx;
    int rc = http_ws_accept(m, NULL, &err);
    CHECK(rc == 0);
}

// Whole messages alone are compared; of a broken one it may differ how much came before the break.
static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    struct run *r = ctx;
    buf_put(&r->message, p, n);
    CHECK(buf_len(&r->message) <= MESSAGE_MAX);
    if (!fin)
        return;
    buf_printf(&r->seen, "%s %zu ", text ? "text" : "binary", buf_len(&r->message));
    buf_put(&r->seen, buf_head(&r->message), buf_len(&r->message));
    size_t len = buf_len(&r->message);
    bool quit = len > 0 && *buf_head(&r->message) == 'q',
         abort = len > 0 && *buf_head(&r->message) == 'a';
    buf_clear(&r->message);
    if (quit)
        http_ws_close(m, 1000, "bye");
    else if (abort)
        http_reply_abort(m);
    else
        http_ws_send(m, "x", 1, text, false);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    struct run *r = ctx;
    (void)m;
    // CLOSED and BROKEN are one here: of a close frame whose rest never comes, wslay checks the
    // code only when its two bytes arrive together.
    buf_puts(&r->seen, why == GONE_SLOW ? "gone slow\n" : "gone\n");
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
}

static const struct http_handler handler = {.on_head = on_head,
                                            .on_request = on_request,
                                            .on_body = on_body,
                                            .on_gone = on_gone,
                                            .on_drain = on_drain};

static void say(struct run *r, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t k = send(r->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN)
            return;
        if (k > 0)
            p += k, n -= (size_t)k;
        for (int i = 0; i < QUIET_TURNS; i++)
            uv_run(&r->loop, UV_RUN_NOWAIT);
    }
}

static void run_open(struct run *r)
{
    static const char open[] =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct http_limits limits = http_limits_default;
    struct err err;
    int fds[2];
    limits.ws_message_bytes = MESSAGE_MAX;
    *r = (struct run){0};
    uv_loop_init(&r->loop);
    turn_init(&r->turn, &r->loop);
    int rc = http_server_create(&r->loop, &r->turn, -1, &limits, &handler, r, &r->server, &err);
    CHECK(rc == 0);
    rc = os_socketpair(fds, &err);
    CHECK(rc == 0);
    r->fd = fds[0];
    server_adopt(r->server, fds[1], "fuzz", 0);
    say(r, open, strlen(open));
}

static void run_close(struct run *r)
{
    close(r->fd);
    http_server_destroy(r->server, NULL);
    turn_close(&r->turn);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&r->loop);
    CHECK(rc == 0);
    buf_finish(&r->message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= CUTS || size > INPUT_MAX)
        return 0;
    struct run a, b;
    run_open(&a);
    say(&a, data + CUTS, size - CUTS);
    run_close(&a);
    run_open(&b);
    for (size_t off = CUTS, i = 0; off < size; i++) {
        size_t k = (size_t)data[i % CUTS] % 32 + 1;
        k = k < size - off ? k : size - off;
        say(&b, data + off, k);
        off += k;
    }
    run_close(&b);
    if (buf_len(&a.seen) != buf_len(&b.seen) ||
        memcmp(buf_head(&a.seen), buf_head(&b.seen), buf_len(&a.seen)) != 0)
        BUG("split changes the result:\n%s\n--- whole above, split below\n%s", buf_cstr(&a.seen),
            buf_cstr(&b.seen));
    buf_finish(&a.seen);
    buf_finish(&b.seen);
    return 0;
}
