// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * Frames as a test says and expects them: blocking, over one end of a socketpair.
 */
#include "wire/wire.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#pragma GCC diagnostic ignored "-Wunused-function" // no test needs all of them

enum { WAIT_MS = 5000, QUIET_MS = 150 };

struct end { // one end of a socketpair with frames
    int fd;
    struct buf in;
    struct wire_frame f; // the last frame; payload points into in
    size_t used;
};

static void send_fds(struct end *e, struct buf *out, const int *fds, int n)
{
    char control[CMSG_SPACE(sizeof(int) * 2)] = {0};
    struct iovec iov = {buf_head(out), buf_len(out)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n) {
        ((struct wire_frame_head *)(void *)buf_head(out))->n_fds = (uint8_t)n;
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){CMSG_LEN(sizeof(int) * (size_t)n), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
    }
    while (buf_len(out)) {
        ssize_t sent = sendmsg(e->fd, &msg, MSG_NOSIGNAL);
        assert_true(sent > 0);
        buf_consume(out, (size_t)sent);
        iov = (struct iovec){buf_head(out), buf_len(out)};
        msg.msg_controllen = 0;
    }
    buf_finish(out);
}

#define SAY(end, name, id, flags, ...)                                                             \
    do {                                                                                           \
        struct buf b_ = {0};                                                                       \
        wire_put_##name(&b_, id, flags, &(struct wire_##name){__VA_ARGS__});                       \
        send_fds(end, &b_, NULL, 0);                                                               \
    } while (0)

static void say_raw(struct end *e, enum wire_kind kind, uint64_t id, uint32_t flags, const void *p,
                    size_t n)
{
    struct buf b = {0};
    wire_put_raw(&b, kind, id, flags, p, n);
    send_fds(e, &b, NULL, 0);
}

// The next frame other than HELLO within `ms`; 0: none, -1: EOF.
static int next_frame(struct end *e, int ms)
{
    for (;;) {
        buf_consume(&e->in, e->used);
        e->used = 0;
        int64_t n =
            wire_next(buf_len(&e->in) ? buf_head(&e->in) : "", buf_len(&e->in), &e->f, NULL);
        assert_true(n >= 0);
        if (n > 0) {
            e->used = (size_t)n;
            if (e->f.head.kind == WIRE_hello)
                continue;
            return e->f.head.kind;
        }
        struct pollfd p = {e->fd, POLLIN, 0};
        if (poll(&p, 1, ms) <= 0)
            return 0;
        ssize_t got = recv(e->fd, buf_reserve(&e->in, 1 << 20), 1 << 20, 0);
        if (got <= 0)
            return -1;
        buf_commit(&e->in, (size_t)got);
    }
}

// Skips frames until one of `kind` comes.
static struct wire_frame *expect(struct end *e, enum wire_kind kind)
{
    for (;;) {
        int got = next_frame(e, WAIT_MS);
        if (got == (int)kind)
            return &e->f;
        if (got <= 0)
            fail_msg("no %s frame came (%s)", wire_kind_name(kind), got ? "EOF" : "silence");
    }
}

static struct wire_submit expect_submit(struct end *e, uint64_t *ret_id)
{
    struct wire_submit s;
    struct wire_frame *f = expect(e, WIRE_submit);
    assert_int_equal(wire_get_submit(f, &s, NULL), 0);
    *ret_id = f->head.id;
    return s;
}

static void expect_nothing(struct end *e, enum wire_kind kind)
{
    int got;
    while ((got = next_frame(e, QUIET_MS)) > 0)
        if (got == (int)kind)
            fail_msg("a %s frame came", wire_kind_name(kind));
}
