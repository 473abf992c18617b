// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * worker_world - a real worker process with the fake plugins; the test is its supervisor, its
 * ingresses and its control, and speaks frames.
 */
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "wire/page.h"
#include "wire/wire.h"
#include "worker/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_S = 20 };

struct peer { // our end of a pair
    int fd;
    struct buf in;
    struct wire_frame f; // the last one; its payload is in `seen`
    struct buf seen;
};

struct world {
    pid_t pid;
    struct page *page;
    struct peer up, ingress[2], control;
    char orders[2048], plugin[32]; // as it was started with
};

static inline void send_buf(struct peer *p, struct buf *b)
{
    while (buf_len(b)) {
        ssize_t n = send(p->fd, buf_head(b), buf_len(b), MSG_NOSIGNAL);
        if (n < 0)
            break; // the worker has closed: that is for the test to see
        buf_consume(b, (size_t)n);
    }
    buf_finish(b);
}

#define SEND(peer, name, id, flags, ...)                                                           \
    do {                                                                                           \
        struct buf out_ = {0};                                                                     \
        wire_put_##name(&out_, id, flags, &(struct wire_##name){__VA_ARGS__});                     \
        send_buf(peer, &out_);                                                                     \
    } while (0)

static inline void send_body(struct peer *p, uint64_t id, uint32_t flags, const void *data,
                             size_t n)
{
    struct buf out = {0};
    wire_put_raw(&out, WIRE_body, id, flags, data, n);
    send_buf(p, &out);
}

// The next frame; its kind, or -1: EOF, or nothing within the time.
static inline int next_frame(struct peer *p, int ms)
{
    for (;;) {
        struct wire_frame f;
        int64_t n = wire_next(p->in.data ? buf_head(&p->in) : "", buf_len(&p->in), &f, NULL);
        assert_true(n >= 0);
        if (n > 0) {
            buf_clear(&p->seen);
            buf_put(&p->seen, f.payload, f.head.size);
            p->f = f;
            p->f.payload = p->seen.data ? buf_head(&p->seen) : "";
            buf_consume(&p->in, (size_t)n);
            return f.head.kind;
        }
        struct pollfd poll_fd = {.fd = p->fd, .events = POLLIN};
        if (poll(&poll_fd, 1, ms) <= 0)
            return -1;
        ssize_t got = recv(p->fd, buf_reserve(&p->in, 65536), 65536, 0);
        if (got <= 0)
            return -1;
        buf_commit(&p->in, (size_t)got);
    }
}

// Skips to a frame of that kind.
static inline void expect(struct peer *p, int kind)
{
    int got;
    do {
        got = next_frame(p, PATIENCE_S * 1000);
        if (got < 0)
            fail_msg("no %s frame came", wire_kind_name((unsigned)kind));
    } while (got != kind);
}

static inline void expect_state(struct peer *p, uint32_t state)
{
    struct wire_state m;
    do {
        expect(p, WIRE_state);
        assert_int_equal(wire_get_state(&p->f, &m, NULL), 0);
    } while (m.state != state);
}

// Whether the process has ended, with what status.
static inline int exit_status(struct world *w)
{
    int status = 0;
    for (int i = 0; i < PATIENCE_S * 100; i++) {
        if (waitpid(w->pid, &status, WNOHANG) == w->pid) {
            w->pid = 0;
            return status;
        }
        usleep(10000);
    }
    fail_msg("the worker does not end");
    return -1;
}

static inline void attach_as(struct world *w, struct peer *p, uint32_t role, const char *name)
{
    static uint64_t child_id = 10;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    p->fd = pair[0];
    struct buf out = {0};
    wire_put_attach(&out, 0, 0,
                    &(struct wire_attach){.child_id = child_id++, .role = role, .name = name});
    buf_head(&out)[offsetof(struct wire_frame_head, n_fds)] = 1;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {buf_head(&out), buf_len(&out)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &pair[1], sizeof(int));
    assert_int_equal(sendmsg(w->up.fd, &msg, 0), (ssize_t)buf_len(&out));
    close(pair[1]);
    buf_finish(&out);
    SEND(p, hello, 0, 0, .version = WIRE_VERSION, .role = role, .pid = (uint64_t)getpid(),
         .name = name);
    expect(p, WIRE_hello);
}

static inline void attach(struct world *w, int i)
{
    char name[32];
    snprintf(name, sizeof name, "ingress/%d", i);
    attach_as(w, &w->ingress[i], ROLE_INGRESS, name);
}

static inline void attach_control(struct world *w)
{
    attach_as(w, &w->control, ROLE_CONTROL, "control");
}

// Orders of our worker with `more` in them.
static inline const char *orders_with(struct world *w, const char *more)
{
    snprintf(
        w->orders, sizeof w->orders,
        "{\"app\":\"t\",\"deployment\":\"t\",\"replica\":\"t/t/0\",\"plugin_path\":\"" BUILD_DIR
        "/tests/plugins/%s.so\",\"plugin_dir\":\"" BUILD_DIR
        "/tests/plugins\",\"batch_wait_s\":0,\"max_body_bytes\":1000000%s%s}",
        w->plugin, *more ? "," : "", more);
    return w->orders;
}

static inline void start(struct world *w, const char *plugin, const char *more)
{
    int pair[2], output[2], page_fd, log;
    struct err err;
    *w = (struct world){.ingress = {{.fd = -1}, {.fd = -1}}, .control = {.fd = -1}};
    snprintf(w->plugin, sizeof w->plugin, "%s", plugin);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(os_pipe(output, &err), 0);
    page_fd = page_create("test", &err);
    log = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(page_map(page_fd, &w->page, &err), 0);
    struct os_fdmap fds[] = {{output[1], 1}, {output[1], 2}, {pair[1], 3},
                             {page_fd, 4},   {log, 5},       {output[0], 6}};
    char *argv[] = {(char[]){"salver"}, (char[]){"worker"}, (char[]){"t/t/0"}, NULL};
    assert_int_equal(
        os_spawn(BUILD_DIR "/salver", argv, NULL, fds, sizeof fds / sizeof *fds, &w->pid, &err), 0);
    int ours[] = {pair[1], output[0], output[1], page_fd, log};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        close(ours[i]);
    w->up.fd = pair[0];
    SEND(&w->up, hello, 0, 0, .version = WIRE_VERSION, .role = ROLE_SUPERVISOR,
         .pid = (uint64_t)getpid(), .name = "supervisor");
    expect(&w->up, WIRE_hello);
    const char *orders = orders_with(w, more);
    SEND(&w->up, boot, 0, 0, .state_dir = "/tmp", .child_id = 1,
         .orders = {orders, strlen(orders)});
    attach(w, 0);
}

static inline void stop(struct world *w)
{
    struct peer *all[] = {&w->ingress[0], &w->ingress[1], &w->control};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i]->fd >= 0)
            close(all[i]->fd);
        buf_finish(&all[i]->in);
        buf_finish(&all[i]->seen);
    }
    if (w->pid) {
        SEND(&w->up, stop, 0, 0, .grace_ms = 100);
        assert_int_equal(exit_status(w), 0);
    }
    close(w->up.fd);
    buf_finish(&w->up.in);
    buf_finish(&w->up.seen);
    page_unmap(w->page);
}

static inline void wait_state(struct world *w, uint64_t id, enum page_request_state state)
{
    uint64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    while (page_request_state_of(w->page, id) != state && clock_now_ns() < until)
        usleep(1000);
    assert_int_equal(page_request_state_of(w->page, id), state);
}

static inline void wait_doing(struct world *w, uint32_t doing)
{
    uint64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    while (atomic_load(&w->page->threads[0].doing) != doing && clock_now_ns() < until)
        usleep(1000);
    assert_int_equal(atomic_load(&w->page->threads[0].doing), doing);
}

static inline void submit(struct peer *p, uint64_t id, const char *query, const char *body)
{
    SEND(p, submit, id, WIRE_FIN, .method = "POST", .path = "/", .query = query,
         .content_type = "text/plain", .request_id = "test", .tenant = "", .body_len = strlen(body),
         .body = {body, strlen(body)});
}

static inline uint32_t granted(struct peer *p)
{
    struct wire_grant g;
    expect(p, WIRE_grant);
    assert_int_equal(wire_get_grant(&p->f, &g, NULL), 0);
    return g.count;
}

static inline int end_code(struct peer *p)
{
    struct wire_end m;
    expect(p, WIRE_end);
    assert_int_equal(wire_get_end(&p->f, &m, NULL), 0);
    return m.code;
}
