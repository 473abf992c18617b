// SPDX-License-Identifier: Apache-2.0
/*
 * Websockets against RFC 6455. Frames are written as "kind:payload", parted by '|':
 *   t text  b binary  c continuation  p ping  o pong  x close (payload: code, space, reason)
 *   + behind the kind: not final    - : unmasked    ! : a reserved bit is set
 * The holder echoes whole messages. Each row runs in one piece, byte by byte and split in two.
 */
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
#include <unistd.h>

#include <cmocka.h>

enum { MESSAGE_MAX = 1000 /* bytes: the limit of the server under test */ };

struct world {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    int fd;
    struct buf got, message;
    struct http_msg *m;
    bool eof, close_after, pause;
    int gone, pieces;
};
static struct world *world;

static void on_head(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
}

static void on_request(void *ctx, struct http_msg *m)
{
    (void)ctx;
    struct err err = {0};
    assert_true(m->websocket);
    assert_int_equal(http_ws_accept(m, "id1", &err), 0);
    world->m = m;
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx;
    struct buf *message = &world->message;
    world->pieces++;
    buf_put(message, p, n);
    if (!fin)
        return;
    if (buf_len(message) == 4 && memcmp(buf_head(message), "quit", 4) == 0) {
        http_ws_close(m, 1001, "bye");
        world->m = NULL;
    } else if (buf_len(message) == 5 && memcmp(buf_head(message), "abort", 5) == 0) {
        http_reply_abort(m);
        world->m = NULL;
    } else if (buf_len(message) == 5 && memcmp(buf_head(message), "parts", 5) == 0) {
        http_ws_send(m, "pa", 2, text, true);
        http_ws_send(m, "", 0, text, true);
        http_ws_send(m, "rts", 3, text, false);
    } else {
        http_ws_send(m, buf_head(message), buf_len(message), text, false);
    }
    buf_clear(message);
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx;
    (void)m;
    world->gone = why;
    world->m = NULL;
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx;
    (void)m;
}

static const struct http_handler handler = {
    .on_head = on_head,
    .on_request = on_request,
    .on_body = on_body,
    .on_gone = on_gone,
    .on_drain = on_drain,
};

static void pump(struct world *w)
{
    for (int i = 0; i < 3; i++)
        uv_run(&w->loop, UV_RUN_NOWAIT);
    for (;;) {
        char *at = buf_reserve(&w->got, 65536);
        ssize_t n = recv(w->fd, at, 65536, MSG_DONTWAIT);
        w->eof |= n == 0 || (n < 0 && errno != EAGAIN);
        if (n <= 0)
            return;
        buf_commit(&w->got, (size_t)n);
    }
}

static void say(struct world *w, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(w->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno != EAGAIN)
            return;
        if (k > 0)
            p += k, n -= (size_t)k;
        pump(w);
    }
}

static void world_open(struct world *w)
{
    struct http_limits limits = http_limits_default;
    struct err err = {0};
    int fds[2];
    limits.ws_message_bytes = MESSAGE_MAX;
    *w = (struct world){0};
    world = w;
    uv_loop_init(&w->loop);
    turn_init(&w->turn, &w->loop);
    assert_int_equal(
        http_server_create(&w->loop, &w->turn, -1, &limits, &handler, w, &w->server, &err), 0);
    assert_int_equal(os_socketpair(fds, &err), 0);
    w->fd = fds[0];
    server_adopt(w->server, fds[1], "test", 0);
    const char open[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        "Sec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    say(w, open, strlen(open));
    pump(w);
    const char *end = strstr(buf_cstr(&w->got), "\r\n\r\n");
    assert_non_null(end);
    assert_memory_equal(buf_head(&w->got), "HTTP/1.1 101 ", 13);
    buf_clear(&w->got);
}

static void world_close(struct world *w)
{
    close(w->fd);
    http_server_destroy(w->server, NULL);
    turn_close(&w->turn);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    buf_finish(&w->got);
    buf_finish(&w->message);
}

// ---- frames to bytes and back

static const char kinds[] = "ctb.....xpo";

static void put_frame(struct buf *out, const char *s, size_t n)
{
    static const uint8_t mask[4] = {0x11, 0x22, 0x33, 0x44};
    const char *colon = memchr(s, ':', n);
    size_t flags = (size_t)(colon - s);
    bool more = memchr(s, '+', flags), bare = memchr(s, '-', flags), odd = memchr(s, '!', flags);
    struct buf payload = {0};
    const char *p = colon + 1;
    size_t len = n - flags - 1;
    if (*s == 'x' && len >= 4) {
        long code = strtol(p, NULL, 10);
        buf_put(&payload, (uint8_t[]){(uint8_t)(code >> 8), (uint8_t)code}, 2);
        if (len > 5)
            buf_put(&payload, p + 5, len - 5);
    } else {
        buf_put(&payload, p, len);
    }
    len = buf_len(&payload);
    uint8_t opcode = (uint8_t)(strchr(kinds, *s) - kinds);
    uint8_t head[4] = {(uint8_t)((more ? 0 : 0x80) | (odd ? 0x40 : 0) | opcode),
                       (uint8_t)((bare ? 0 : 0x80) | (len < 126 ? len : 126)), (uint8_t)(len >> 8),
                       (uint8_t)len};
    buf_put(out, head, len < 126 ? 2 : 4);
    if (!bare)
        buf_put(out, mask, 4);
    for (size_t i = 0; i < len; i++)
        buf_put(out, (char[]){(char)(buf_head(&payload)[i] ^ (bare ? 0 : mask[i % 4]))}, 1);
    buf_finish(&payload);
}

static struct buf frames_of(const char *script)
{
    struct buf b = {0};
    while (*script) {
        size_t n = strcspn(script, "|");
        put_frame(&b, script, n);
        script += n + (script[n] == '|');
    }
    return b;
}

static char *told(struct world *w)
{
    struct buf b = {0};
    const uint8_t *p = (const uint8_t *)buf_head(&w->got);
    for (size_t off = 0, n = buf_len(&w->got); off < n;) {
        size_t head = p[off + 1] < 126 ? 2 : p[off + 1] == 126 ? 4 : 10, len = p[off + 1];
        assert_true(len <= 127); // a server's frame has no mask
        if (head > 2) {
            len = 0;
            for (size_t i = 2; i < head; i++)
                len = len << 8 | p[off + i];
        }
        uint8_t opcode = p[off] & 15;
        buf_printf(&b, "%s%c%s:", buf_len(&b) ? "|" : "", kinds[opcode], p[off] & 0x80 ? "" : "+");
        const uint8_t *payload = p + off + head;
        if (opcode == 8 && len >= 2)
            buf_printf(&b, "%d", payload[0] << 8 | payload[1]);
        else
            buf_put(&b, payload, len);
        off += head + len;
    }
    if (w->eof)
        buf_printf(&b, " EOF");
    if (w->gone)
        buf_printf(&b, " gone=%d", w->gone);
    char *text = xstrdup(buf_cstr(&b));
    buf_finish(&b);
    return text;
}

#define C100                                                                                       \
    "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901" \
    "23456789"
#define C300 C100 C100 C100

static const struct {
    const char *name, *frames, *want;
} rows[] = {
    {"text", "t:hello", "t:hello"},
    {"binary", "b:\x01\xff", "b:\x01\xff"},
    {"empty", "t:", "t:"},
    {"two messages", "t:a|b:b", "t:a|b:b"},
    {"length in two bytes", "t:" C300, "t:" C300},
    {"fragments", "t+:he|c+:l|c:lo", "t:hello"},
    {"empty fragments", "t+:|c+:|c:", "t:"},
    {"ping", "p:are you there", "o:are you there"},
    {"ping between fragments", "t+:he|p:x|c:llo", "o:x|t:hello"},
    {"pong is ignored", "o:x|t:a", "t:a"},
    {"sent in parts", "t:parts", "t+:pa|c+:|c:rts"},
    {"close", "x:1000 done", "x:1000 EOF gone=1"},
    {"close without a code", "x:", "x: EOF gone=1"},
    {"close of an application", "x:4000", "x:4000 EOF gone=1"},
    {"nothing behind a close", "x:1000|t:a", "x:1000 EOF gone=1"},
    {"holder closes", "t:quit", "x:1001 EOF"},
    {"holder closes, more was sent", "t:quit|t:a", "x:1001 EOF"},
    {"holder aborts", "t:a|t:abort", "t:a EOF"},
    {"UTF-8", "t:gr\xc3\xbc\xc3\x9f", "t:gr\xc3\xbc\xc3\x9f"},
    {"UTF-8 split by fragments", "t+:gr\xc3|c:\xbc", "t:gr\xc3\xbc"},
    {"bad UTF-8", "t:a\xff", "x:1007 EOF gone=3"},
    {"half a character", "t:a\xc3", "x:1007 EOF gone=3"},
    {"bad UTF-8 in binary is fine", "b:a\xff", "b:a\xff"},
    {"surrogate", "t:\xed\xa0\x80", "x:1007 EOF gone=3"},
    {"unmasked", "t-:a", "x:1002 EOF gone=3"},
    {"reserved bit", "t!:a", "x:1002 EOF gone=3"},
    {"reserved opcode", ".:a", "x:1002 EOF gone=3"},
    {"continuation of nothing", "c:a", "x:1002 EOF gone=3"},
    {"a message inside a message", "t+:a|t:b", "x:1002 EOF gone=3"},
    {"fragmented ping", "p+:a", "x: EOF gone=3"},
    {"ping too long", "p:" C100 C100, "x: EOF gone=3"},
    {"close with a reserved code", "x:1005", "x:1002 EOF gone=3"},
    {"close with code 999", "x:0999", "x:1002 EOF gone=3"},
    {"message at the limit", "t+:" C300 C100 C100 "|c:" C300 C100 C100, "t:" C300 C300 C300 C100},
    {"message above the limit", "t+:" C300 C300 "|c:" C300 C100 C100, "x:1009 EOF gone=3"},
    {"frame above the limit", "t:" C300 C300 C300 C100 "x", "x:1009 EOF gone=3"},
};

// Cuts as in http_conn.c: 0 = one piece, 1 = every byte, k > 1 = two pieces.
static int check_row(size_t i, size_t cut)
{
    struct world w;
    struct buf b = frames_of(rows[i].frames);
    size_t n = buf_len(&b);
    world_open(&w);
    if (cut == 1) {
        for (size_t k = 0; k < n; k++)
            say(&w, buf_head(&b) + k, 1);
    } else {
        size_t first = cut && cut <= n ? cut - 1 : n;
        say(&w, buf_head(&b), first);
        say(&w, buf_head(&b) + first, n - first);
    }
    pump(&w);
    char *got = told(&w);
    int wrong = strcmp(got, rows[i].want) != 0;
    if (wrong)
        print_error("row '%s', cut %zu: want '%s', got '%s'\n", rows[i].name, cut, rows[i].want,
                    got);
    xfree(got);
    world_close(&w);
    buf_finish(&b);
    return wrong;
}

static void frames_in_one_piece(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        wrong += check_row(i, 0);
    assert_int_equal(wrong, 0);
}

static void frames_byte_by_byte(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        wrong += check_row(i, 1);
    assert_int_equal(wrong, 0);
}

static void frames_split_in_two(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 2; cut < 60; cut++)
            assert_int_equal(check_row(i, cut), 0);
}

static void client_that_leaves_is_gone(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    http_read_pause(w.m);
    shutdown(w.fd, SHUT_WR);
    pump(&w);
    assert_int_equal(w.gone, GONE_CLOSED);
    world_close(&w);
}

static void nothing_comes_while_paused(void **state)
{
    (void)state;
    struct world w;
    struct buf b = frames_of("t:a|t:b");
    world_open(&w);
    http_read_pause(w.m);
    pump(&w);
    say(&w, buf_head(&b), buf_len(&b));
    assert_int_equal(w.pieces, 0);
    http_read_resume(w.m);
    pump(&w);
    char *got = told(&w);
    assert_string_equal(got, "t:a|t:b");
    xfree(got);
    buf_finish(&b);
    world_close(&w);
}

// Pongs must not pile up for a client that pings without reading.
static void pings_do_not_pile_up(void **state)
{
    (void)state;
    struct world w;
    struct buf b = frames_of("p:" C100);
    world_open(&w);
    for (int stuck = 0; stuck < 50;) {
        ssize_t k = send(w.fd, buf_head(&b), buf_len(&b), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k > 0 && (size_t)k < buf_len(&b))
            break;
        stuck = k > 0 ? 0 : stuck + 1;
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    struct http_conn *c = CONTAINER_OF(list_first(&w.server->conns), struct http_conn, node);
    assert_true(buf_len(&c->out) < 2 * HTTP_PENDING_LOW + HTTP_SCRATCH);
    buf_finish(&b);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_in_one_piece),        cmocka_unit_test(frames_byte_by_byte),
        cmocka_unit_test(frames_split_in_two),        cmocka_unit_test(client_that_leaves_is_gone),
        cmocka_unit_test(nothing_comes_while_paused), cmocka_unit_test(pings_do_not_pile_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
