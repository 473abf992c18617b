// SPDX-License-Identifier: Apache-2.0
// A real worker process with the fake plugins; this test is its supervisor and its ingresses, and
// speaks frames. What goes through HTTP is tested end to end.
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

static void send_buf(struct peer *p, struct buf *b)
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

static void send_body(struct peer *p, uint64_t id, uint32_t flags, const void *data, size_t n)
{
    struct buf out = {0};
    wire_put_raw(&out, WIRE_body, id, flags, data, n);
    send_buf(p, &out);
}

// The next frame; its kind, or -1: EOF, or nothing within the time.
static int next_frame(struct peer *p, int ms)
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
static void expect(struct peer *p, int kind)
{
    int got;
    do {
        got = next_frame(p, PATIENCE_S * 1000);
        if (got < 0)
            fail_msg("no %s frame came", wire_kind_name((unsigned)kind));
    } while (got != kind);
}

static void expect_state(struct peer *p, uint32_t state)
{
    struct wire_state m;
    do {
        expect(p, WIRE_state);
        assert_int_equal(wire_get_state(&p->f, &m, NULL), 0);
    } while (m.state != state);
}

// Whether the process has ended, with what status.
static int exit_status(struct world *w)
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

static void attach_as(struct world *w, struct peer *p, uint32_t role, const char *name)
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

static void attach(struct world *w, int i)
{
    char name[32];
    snprintf(name, sizeof name, "ingress/%d", i);
    attach_as(w, &w->ingress[i], ROLE_INGRESS, name);
}

static void attach_control(struct world *w)
{
    attach_as(w, &w->control, ROLE_CONTROL, "control");
}

// Orders of our worker with `more` in them.
static const char *orders_with(struct world *w, const char *more)
{
    snprintf(
        w->orders, sizeof w->orders,
        "{\"app\":\"t\",\"deployment\":\"t\",\"replica\":\"t/t/0\",\"plugin_path\":\"" BUILD_DIR
        "/tests/plugins/%s.so\",\"plugin_dir\":\"" BUILD_DIR
        "/tests/plugins\",\"batch_wait_s\":0,\"max_body_bytes\":1000000%s%s}",
        w->plugin, *more ? "," : "", more);
    return w->orders;
}

static void start(struct world *w, const char *plugin, const char *more)
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

static void stop(struct world *w)
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

static void wait_state(struct world *w, uint64_t id, enum page_request_state state)
{
    uint64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    while (page_request_state_of(w->page, id) != state && clock_now_ns() < until)
        usleep(1000);
    assert_int_equal(page_request_state_of(w->page, id), state);
}

static void wait_doing(struct world *w, uint32_t doing)
{
    uint64_t until = clock_now_ns() + PATIENCE_S * NS_PER_S;
    while (atomic_load(&w->page->threads[0].doing) != doing && clock_now_ns() < until)
        usleep(1000);
    assert_int_equal(atomic_load(&w->page->threads[0].doing), doing);
}

static void submit(struct peer *p, uint64_t id, const char *query, const char *body)
{
    SEND(p, submit, id, WIRE_FIN, .method = "POST", .path = "/", .query = query,
         .content_type = "text/plain", .request_id = "test", .tenant = "", .body_len = strlen(body),
         .body = {body, strlen(body)});
}

static uint32_t granted(struct peer *p)
{
    struct wire_grant g;
    expect(p, WIRE_grant);
    assert_int_equal(wire_get_grant(&p->f, &g, NULL), 0);
    return g.count;
}

static int end_code(struct peer *p)
{
    struct wire_end m;
    expect(p, WIRE_end);
    assert_int_equal(wire_get_end(&p->f, &m, NULL), 0);
    return m.code;
}

static void test_one_request(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":3");
    struct peer *p = &w.ingress[0];
    expect_state(p, WS_READY);
    assert_int_equal(granted(p), 3);
    submit(p, 77, "echo=1", "hello");
    struct wire_head head;
    expect(p, WIRE_head);
    assert_int_equal(wire_get_head(&p->f, &head, NULL), 0);
    assert_int_equal(p->f.head.id, 77);
    assert_int_equal(head.status, 200);
    assert_true(head.content_length > 0);
    expect(p, WIRE_data);
    assert_int_equal(p->f.head.size, head.content_length);
    assert_true(p->f.head.flags & WIRE_FIN);
    assert_int_equal(end_code(p), 0);
    assert_int_equal(granted(p), 1);
    wait_state(&w, 77, PR_FREE);
    stop(&w);
}

static void test_slots_are_exact(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    attach(&w, 1);
    struct peer *a = &w.ingress[0], *b = &w.ingress[1];
    expect_state(a, WS_READY);
    expect_state(b, WS_READY);
    // The worker may have lent its slot to a before it knew of b; then a gives it back.
    SEND(b, want, 0, 0, .count = 1);
    struct peer *holder = NULL;
    for (int i = 0; !holder && i < 100; i++) {
        int kind = next_frame(a, 50);
        if (kind == WIRE_recall)
            SEND(a, give, 0, 0, .count = 1);
        if (next_frame(b, 50) == WIRE_grant)
            holder = b;
    }
    assert_ptr_equal(holder, b);
    submit(b, 1, "sleep_ms=100", "");
    SEND(a, want, 0, 0, .count = 1);
    assert_int_equal(end_code(b), 0);
    assert_int_equal(granted(a), 1);
    stop(&w);
}

static void test_states_in_the_page(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":4,\"max_batch_size\":1");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "block_ms=600", "");
    submit(p, 2, "", "");
    wait_state(&w, 1, PR_GIVEN);
    wait_state(&w, 2, PR_HELD);
    assert_int_equal(page_request_state_of(w.page, 1), PR_GIVEN);
    assert_int_equal(atomic_load(&w.page->in_flight), 2);
    SEND(p, cancel, 2, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), -499); // at once, while 1 still runs
    assert_int_equal(p->f.head.id, 2);
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

static void test_window_holds_the_answer(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "bytes=600000", "");
    size_t got = 0;
    while (got < WIRE_WINDOW) {
        expect(p, WIRE_data);
        got += p->f.head.size;
    }
    assert_int_equal(got, WIRE_WINDOW);
    submit(p, 2, "", ""); // a neighbour is served meanwhile
    assert_int_equal(end_code(p), 0);
    assert_int_equal(p->f.head.id, 2);
    while (next_frame(p, 200) >= 0)
        assert_int_not_equal(p->f.head.id, 1);
    for (int kind = 0; kind != WIRE_end;) {
        SEND(p, window, 1, 0, .bytes = 100000);
        for (size_t piece = 0; piece < 100000 && kind != WIRE_end;) {
            kind = next_frame(p, 2000);
            assert_true(kind >= 0);
            piece += kind == WIRE_data ? p->f.head.size : 0;
            got += kind == WIRE_data ? p->f.head.size : 0;
        }
    }
    assert_true(got >= 600000);
    stop(&w);
}

static void test_window_of_a_long_body(void **state)
{
    (void)state;
    enum { PIECE = 50000, N = 16 };
    static char piece[PIECE];
    struct world w;
    struct wire_window m;
    start(&w, "fake_run", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    SEND(p, submit, 1, 0, .method = "POST", .path = "/", .body_len = PIECE * N);
    size_t window = WIRE_WINDOW;
    for (int i = 0; i < N; i++) {
        while (window < PIECE) {
            expect(p, WIRE_window);
            assert_int_equal(wire_get_window(&p->f, &m, NULL), 0);
            window += m.bytes;
            assert_int_equal(page_request_state_of(w.page, 1), PR_HELD);
        }
        send_body(p, 1, i == N - 1 ? WIRE_FIN : 0, piece, PIECE);
        window -= PIECE;
    }
    assert_int_equal(end_code(p), 0);
    submit(p, 2, "", "");
    assert_int_equal(end_code(p), 0);
    SEND(p, submit, 3, 0, .method = "POST", .path = "/");
    for (window = 0; window <= 1000000; window += PIECE) { // more than max_body_bytes
        send_body(p, 3, 0, piece, PIECE);
        while (next_frame(p, 20) == WIRE_window)
            ;
        if (p->f.head.kind == WIRE_end)
            break;
    }
    struct wire_end end;
    if (p->f.head.kind != WIRE_end)
        expect(p, WIRE_end);
    assert_int_equal(wire_get_end(&p->f, &end, NULL), 0);
    assert_int_equal(end.code, -413);
    stop(&w);
}

static void test_refused(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "refuse=-429", "");
    expect(p, WIRE_refused);
    assert_int_equal(granted(p), 1);
    submit(p, 2, "refuse=-422", "");
    assert_int_equal(end_code(p), -422);
    submit(p, 3, "", "");
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

// What an ingress must not do ends its link, and nothing else.
static const struct {
    const char *name;
    int what;
} breaches[] = {{"a submit without a grant", 0},
                {"the same id twice", 1},
                {"too much given back", 2},
                {"a window too wide", 3},
                {"more body than the window", 4},
                {"headers without a NUL", 5},
                {"garbage", 6}};

static void test_breach(void **state)
{
    int what = *(const int *)*state;
    static char piece[WIRE_DATA_MAX];
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    granted(p);
    switch (what) {
    case 0:
        for (uint64_t id = 1; id < 4; id++)
            submit(p, id, "hold=1", "");
        break;
    case 1:
        submit(p, 1, "hold=1", "");
        submit(p, 1, "hold=1", "");
        break;
    case 2:
        SEND(p, give, 0, 0, .count = 3);
        break;
    case 3:
        submit(p, 1, "hold=1", "");
        SEND(p, window, 1, 0, .bytes = 1);
        break;
    case 4:
        SEND(p, submit, 1, WIRE_STREAM_IN, .query = "hold=1&do=input:sleep=500");
        for (int i = 0; i < 5; i++)
            send_body(p, 1, 0, piece, sizeof piece);
        break;
    case 5:
        SEND(p, submit, 1, WIRE_FIN, .headers = {"abc", 3});
        break;
    default:
        assert_int_equal(send(p->fd, "garbage garbage garbage", 23, MSG_NOSIGNAL), 23);
        SEND(p, give, 0, 0, .count = 0);
        break;
    }
    while (next_frame(p, PATIENCE_S * 1000) >= 0)
        ;
    assert_int_equal(recv(p->fd, piece, 1, MSG_DONTWAIT), 0); // closed by the worker
    attach(&w, 1);
    p = &w.ingress[1];
    assert_int_equal(granted(p) > 0, 1);
    submit(p, 9, "", "");
    assert_int_equal(end_code(p), 0);
    stop(&w);
}

static void test_drain(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":4");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "sleep_ms=300", "");
    submit(p, 2, "hold=1", "");
    wait_state(&w, 2, PR_GIVEN);
    SEND(&w.up, stop, 0, 0, .grace_ms = 1000);
    expect_state(p, WS_DRAINING);
    expect(p, WIRE_recall);
    SEND(p, give, 0, 0, .count = 2);
    assert_int_equal(end_code(p), 0); // in its time
    assert_int_equal(p->f.head.id, 1);
    assert_int_equal(end_code(p), -503); // at the deadline
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

static void test_failed_load(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"config\":{\"do\":\"load:fail=-507\"}");
    expect_state(&w.ingress[0], WS_FAILED);
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_non_null(strstr(w.page->last.why, "load"));
    stop(&w);
}

static void test_gone_ingress(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    granted(p);
    submit(p, 1, "hold=1", "");
    submit(p, 2, "hold=1", "");
    wait_state(&w, 2, PR_GIVEN);
    close(p->fd);
    p->fd = -1;
    attach(&w, 1);
    uint32_t slots = 0;
    while (slots < 2)
        slots += granted(&w.ingress[1]);
    assert_int_equal(atomic_load(&w.page->in_flight), 0);
    stop(&w);
}

/* ---- new orders for a worker that runs ---- */

static void order(struct world *w, uint64_t revision, const char *json)
{
    SEND(&w->control, orders, 0, 0, .revision = revision, .json = {json, strlen(json)});
}

// The next ORDERED: its code; its text must hold `text`.
static int ordered(struct world *w, uint64_t revision, const char *text)
{
    struct wire_ordered m;
    expect(&w->control, WIRE_ordered);
    assert_int_equal(wire_get_ordered(&w->control.f, &m, NULL), 0);
    assert_int_equal(m.revision, revision);
    if (!strstr(m.text, text))
        fail_msg("'%s' is not in '%s'", text, m.text);
    return m.code;
}

// Asks the fake for its JSON: whether `want` is in it.
static bool answers(struct peer *p, uint64_t id, const char *want)
{
    submit(p, id, "", "");
    expect(p, WIRE_data);
    bool found = strstr(buf_cstr(&p->seen), want);
    assert_int_equal(end_code(p), 0);
    return found;
}

static void test_live_option(void **state)
{
    struct world w;
    start(&w, *state, "\"max_ongoing_requests\":2,\"config\":{\"live\":\"old\"}");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    expect_state(p, WS_READY);
    assert_true(answers(p, 1, "\"live\":\"old\""));
    order(&w, 7, orders_with(&w, "\"max_ongoing_requests\":2,\"config\":{\"live\":\"new\"}"));
    assert_int_equal(ordered(&w, 7, ""), 0);
    assert_true(answers(p, 2, "\"live\":\"new\""));
    order(&w, 8, orders_with(&w, "\"max_ongoing_requests\":2")); // its fallback
    assert_int_equal(ordered(&w, 8, ""), 0);
    assert_true(answers(p, 3, "\"live\":\"\""));
    stop(&w);
}

static const struct {
    const char *name, *first, *then;
    int code;
    const char *text;
} refusals[] = {
    {"an option that is not live", "\"config\":{}",
     "\"max_ongoing_requests\":9,\"config\":{\"batch_sleep_ms\":5}", SV_E_UNSUPPORTED,
     "config.batch_sleep_ms"},
    {"a key that is no option", "\"config\":{}", "\"config\":{\"nonsense\":1}", SV_E_UNSUPPORTED,
     "config.nonsense"},
    {"reconfigure() says no", "\"config\":{\"do\":\"reconfigure:fail=-422\"}",
     "\"max_ongoing_requests\":9,\"config\":{\"do\":\"reconfigure:fail=-422\",\"live\":\"x\"}",
     -422, "reconfigure"},
    {"another thread count", "\"concurrency\":1", "\"concurrency\":2", SV_E_UNSUPPORTED,
     "concurrency"},
    {"another cache folder", "\"cache_dir\":\"/a\"", "\"cache_dir\":\"/b\"", SV_E_UNSUPPORTED,
     "cache_dir"},
    {"GPUs", "\"devices\":[]", "\"devices\":[{\"uuid\":\"GPU-1\"}]", SV_E_UNSUPPORTED, "devices"},
};

static void test_refusal(void **state)
{
    size_t i = *(const size_t *)*state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, "\"max_ongoing_requests\":2,%s", refusals[i].first);
    start(&w, "fake_run", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    assert_int_equal(granted(p), 2);
    order(&w, 1, orders_with(&w, refusals[i].then));
    assert_int_equal(ordered(&w, 1, refusals[i].text), refusals[i].code);
    assert_int_equal(next_frame(p, 100), -1); // no slot more than before
    assert_true(answers(p, 1, "\"live\":\"\""));
    stop(&w);
}

static void test_orders_without_a_form(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "[]", "{", "{\"app\":\"t\"}", "null", "{}}", "\xff"};
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":2");
    attach_control(&w);
    expect_state(&w.ingress[0], WS_READY);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        order(&w, i, wrong[i]);
        assert_int_equal(ordered(&w, i, ""), SV_E_INVALID);
    }
    assert_true(answers(&w.ingress[0], 1, "pid"));
    stop(&w);
}

static void test_slots_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    assert_int_equal(granted(p), 2);
    submit(p, 1, "hold=1", "");
    submit(p, 2, "hold=1", "");
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    assert_int_equal(granted(p), 1);
    order(&w, 2, orders_with(&w, "\"max_ongoing_requests\":1"));
    assert_int_equal(ordered(&w, 2, ""), 0);
    expect(p, WIRE_recall);
    SEND(p, give, 0, 0, .count = 1);
    SEND(p, cancel, 1, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), SV_E_CANCELLED);
    assert_int_equal(next_frame(p, 200), -1); // two were here, one may be
    SEND(p, cancel, 2, 0, .why = WHY_CLIENT_GONE);
    assert_int_equal(end_code(p), SV_E_CANCELLED);
    assert_int_equal(granted(p), 1);
    stop(&w);
}

// The plugin takes no more than its plan said, whatever is ordered.
static void test_slots_within_the_plan(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":2,\"config\":{\"max_inflight\":4}");
    attach_control(&w);
    assert_int_equal(granted(&w.ingress[0]), 2);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":50,\"config\":{\"max_inflight\":4}"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    assert_int_equal(granted(&w.ingress[0]), 2);
    assert_int_equal(next_frame(&w.ingress[0], 100), -1);
    stop(&w);
}

static void test_batches_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_run", "\"max_ongoing_requests\":8,\"max_batch_size\":1");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":8,\"max_batch_size\":3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    submit(p, 1, "block_ms=200", "");
    wait_state(&w, 1, PR_GIVEN);
    for (uint64_t id = 2; id < 5; id++)
        submit(p, id, "", "");
    for (int i = 0; i < 4; i++) {
        expect(p, WIRE_data);
        const char *want = p->f.head.id == 1 ? "\"batch\":1," : "\"batch\":3,";
        assert_non_null(strstr(buf_cstr(&p->seen), want));
        assert_int_equal(end_code(p), 0);
    }
    stop(&w);
}

// A new limit counts for what is under way, too.
static void test_limits_change(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"stall_timeout_s\":30");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    submit(p, 1, "do=submit:hang", "");
    wait_state(&w, 1, PR_GIVEN);
    order(&w, 1, orders_with(&w, "\"stall_timeout_s\":0.3"));
    assert_int_equal(ordered(&w, 1, ""), 0);
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_STALLED);
    assert_non_null(strstr(w.page->last.why, "submit"));
    stop(&w);
}

static void test_reconfigure_hangs(void **state)
{
    (void)state;
    struct world w;
    const char *first = "\"stall_timeout_s\":0.5,\"config\":{\"do\":\"reconfigure:hang\"}";
    start(&w, "fake_run", first);
    attach_control(&w);
    expect_state(&w.ingress[0], WS_READY);
    order(&w, 1,
          orders_with(&w, "\"stall_timeout_s\":600,"
                          "\"config\":{\"do\":\"reconfigure:hang\",\"live\":\"x\"}"));
    int status = exit_status(&w);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_STALLED);
    assert_non_null(strstr(w.page->last.why, "reconfigure"));
    stop(&w);
}

#define SLOW "\"config\":{\"do\":\"load:sleep=300,reconfigure:sleep=300\",\"live\":\"%s\"}"

static const char *slow_orders(struct world *w, const char *live)
{
    char more[256];
    snprintf(more, sizeof more, SLOW, live);
    return orders_with(w, more);
}

// Before READY they wait; twice in a row the newer ones win, and each gets its answer.
static void test_orders_wait(void **state)
{
    (void)state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, SLOW, "0");
    start(&w, "fake_step", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    order(&w, 1, slow_orders(&w, "1"));
    order(&w, 2, slow_orders(&w, "2"));
    assert_int_equal(ordered(&w, 1, "newer"), SV_E_CANCELLED);
    expect_state(p, WS_READY);
    wait_doing(&w, PD_RECONFIGURE);
    order(&w, 3, slow_orders(&w, "3"));
    order(&w, 4, slow_orders(&w, "4"));
    assert_int_equal(ordered(&w, 3, "newer"), SV_E_CANCELLED);
    assert_int_equal(ordered(&w, 2, ""), 0);
    assert_int_equal(ordered(&w, 4, ""), 0);
    assert_true(answers(p, 1, "\"live\":\"4\""));
    order(&w, 5, slow_orders(&w, "4")); // as they are: nothing to tell the plugin
    uint64_t began = clock_now_ns();
    assert_int_equal(ordered(&w, 5, ""), 0);
    assert_true(clock_now_ns() - began < 250 * NS_PER_MS);
    stop(&w);
}

static void test_orders_while_leaving(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    granted(p);
    submit(p, 1, "hold=1", "");
    wait_state(&w, 1, PR_GIVEN);
    SEND(&w.up, stop, 0, 0, .grace_ms = 500);
    expect_state(p, WS_DRAINING);
    order(&w, 1, orders_with(&w, "\"max_ongoing_requests\":2"));
    assert_int_equal(ordered(&w, 1, "leaving"), SV_E_UNAVAILABLE);
    assert_int_equal(end_code(p), SV_E_UNAVAILABLE);
    assert_int_equal(exit_status(&w), 0);
    stop(&w);
}

// Whoever sent them is gone before the answer; the orders hold all the same.
static void test_orders_of_a_dead_control(void **state)
{
    (void)state;
    struct world w;
    char first[256];
    snprintf(first, sizeof first, SLOW, "0");
    start(&w, "fake_step", first);
    struct peer *p = &w.ingress[0];
    attach_control(&w);
    expect_state(p, WS_READY);
    order(&w, 1, slow_orders(&w, "1"));
    wait_doing(&w, PD_RECONFIGURE);
    close(w.control.fd);
    buf_clear(&w.control.in);
    assert_true(answers(p, 1, "\"live\":\"1\""));
    attach_control(&w);
    order(&w, 2, slow_orders(&w, "2"));
    assert_int_equal(ordered(&w, 2, ""), 0);
    stop(&w);
}

// An ingress has no say.
static void test_orders_of_an_ingress(void **state)
{
    (void)state;
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":1");
    struct peer *p = &w.ingress[0];
    assert_int_equal(granted(p), 1);
    const char *json = orders_with(&w, "\"max_ongoing_requests\":9");
    SEND(p, orders, 0, 0, .revision = 1, .json = {json, strlen(json)});
    assert_int_equal(next_frame(p, 200), -1);
    stop(&w);
}

/* ---- ingresses that lie at random ---- */

static uint32_t seed = 1;
static uint32_t dice(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static uint32_t wild(void)
{
    static const uint32_t numbers[] = {0, 1, 2, 3, 4000, WIRE_WINDOW, INT32_MAX, UINT32_MAX};
    return numbers[dice(8)];
}

static void say_at_random(struct peer *p, uint64_t id)
{
    static const char *const queries[] = {
        "",        "hold=1",       "echo=1",     "n=3&interval_ms=1",
        "ws=echo", "bytes=400000", "sleep_ms=5", "refuse=-503"};
    static const uint32_t kinds[] = {WIRE_FIN, 0, WIRE_STREAM_IN, WIRE_WEBSOCKET};
    static const char text[WIRE_DATA_MAX];
    uint32_t what = dice(12);
    if (what < 4)
        SEND(p, submit, id, kinds[dice(4)], .query = queries[dice(8)],
             .deadline_ns = dice(4) ? 0 : clock_now_ns() + dice(5) * NS_PER_MS,
             .priority = (int32_t)wild(), .body_len = wild(), .body = {text, dice(30)});
    else if (what < 7)
        send_body(p, id, dice(128), text, dice(3) ? dice(50) : dice(WIRE_DATA_MAX));
    else if (what == 7)
        SEND(p, cancel, id, 0, .why = wild());
    else if (what == 8)
        SEND(p, want, 0, 0, .count = wild(), .deadline_ns = wild());
    else if (what == 9 && dice(4) == 0)
        SEND(p, give, 0, 0, .count = dice(3));
    else if (what == 10 && dice(4) == 0)
        SEND(p, window, id, 0, .bytes = wild());
    else if (what == 11 && dice(10) == 0)
        SEND(p, boot, id, 0, .state_dir = "x");
}

// None of it ends the worker, and every slot comes back.
static void test_random_lies(void **state)
{
    (void)state;
    enum { ROUNDS = 40, FRAMES = 40, SLOTS = 4 };
    struct world w;
    start(&w, "fake_step", "\"max_ongoing_requests\":4,\"config\":{\"stream_in\":true}");
    expect_state(&w.ingress[0], WS_READY);
    for (int round = 0; round < ROUNDS; round++) {
        struct peer *p = &w.ingress[0];
        granted(p);
        for (int i = 0; i < FRAMES; i++)
            say_at_random(p, 1 + dice(5));
        while (dice(2) && next_frame(p, 1) > 0)
            ;
        close(p->fd);
        buf_clear(&p->in);
        attach(&w, 0);
    }
    close(w.ingress[0].fd);
    w.ingress[0].fd = -1;
    attach(&w, 1);
    uint32_t slots = 0;
    while (slots < SLOTS)
        slots += granted(&w.ingress[1]);
    assert_int_equal(slots, SLOTS);
    submit(&w.ingress[1], 99, "", "");
    assert_int_equal(end_code(&w.ingress[1]), 0);
    assert_int_equal(atomic_load(&w.page->in_flight), 0);
    stop(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    static char run_name[] = "fake_run", step_name[] = "fake_step";
    static size_t numbers[ARRAY_LEN(refusals)];
    struct CMUnitTest tests[64] = {
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_slots_are_exact),
        cmocka_unit_test(test_states_in_the_page),
        cmocka_unit_test(test_window_holds_the_answer),
        cmocka_unit_test(test_window_of_a_long_body),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_failed_load),
        cmocka_unit_test(test_gone_ingress),
        cmocka_unit_test(test_random_lies),
        {"a live option, run", test_live_option, NULL, NULL, run_name},
        {"a live option, step", test_live_option, NULL, NULL, step_name},
        cmocka_unit_test(test_orders_without_a_form),
        cmocka_unit_test(test_slots_change),
        cmocka_unit_test(test_slots_within_the_plan),
        cmocka_unit_test(test_batches_change),
        cmocka_unit_test(test_limits_change),
        cmocka_unit_test(test_reconfigure_hangs),
        cmocka_unit_test(test_orders_wait),
        cmocka_unit_test(test_orders_while_leaving),
        cmocka_unit_test(test_orders_of_a_dead_control),
        cmocka_unit_test(test_orders_of_an_ingress),
    };
    size_t n = 22;
    for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++)
        tests[n++] = (struct CMUnitTest){.name = breaches[i].name,
                                         .test_func = test_breach,
                                         .initial_state = (void *)(uintptr_t)&breaches[i].what};
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        numbers[i] = i;
        tests[n++] = (struct CMUnitTest){
            .name = refusals[i].name, .test_func = test_refusal, .initial_state = &numbers[i]};
    }
    return _cmocka_run_group_tests("worker_process", tests, n, NULL, NULL);
}
