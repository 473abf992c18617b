// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * A whole ingress process between a scripted world: the test is its supervisor, its control, its
 * workers (frames over socketpairs, pages) and its clients (TCP). One test is one ingress.
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "serve/ingress.h"
#include "serve_frames.h"
#include "wire/page.h"

#include <arpa/inet.h>
#include <errno.h>
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

enum { TEST_S = 60, WORKERS = 2 };

static struct world {
    pid_t pid;
    struct end supervisor, control, worker[WORKERS];
    struct page *page[WORKERS];
    int listener;
    uint16_t port;
    char state_dir[64];
    int status; // of the process, when it has
    bool ended;
} w;

/* ---- the world ---- */

static int pair(struct end *e)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *e = (struct end){.fd = fds[0]};
    return fds[1];
}

static void hello(struct end *e, enum wire_role role, const char *name)
{
    SAY(e, hello, 0, 0, .version = WIRE_VERSION, .role = role, .pid = 1, .name = name);
}

static void attach(struct end *e, enum wire_role role, const char *name, uint64_t child_id,
                   struct page **ret_page)
{
    int fds[2] = {pair(e), page_create(name, NULL)};
    if (ret_page)
        assert_int_equal(page_map(fds[1], ret_page, NULL), 0);
    struct buf b = {0};
    wire_put_attach(&b, 0, 0,
                    &(struct wire_attach){.child_id = child_id, .role = role, .name = name});
    send_fds(&w.supervisor, &b, fds, 2);
    close(fds[0]);
    close(fds[1]);
    hello(e, role, name);
}

static void attach_worker(int i)
{
    static uint64_t child_id = 100;
    char name[32];
    snprintf(name, sizeof name, "app/dep/%d", i);
    attach(&w.worker[i], ROLE_WORKER, name, ++child_id, &w.page[i]);
    atomic_store(&w.page[i]->state, WS_READY);
    SAY(&w.worker[i], state, 0, 0, .state = WS_READY, .text = "");
}

static void grant(int i, uint32_t n)
{
    SAY(&w.worker[i], grant, 0, 0, .count = n, .in_flight = 0, .cap = 8);
}

static void close_end(struct end *e)
{
    if (e->fd >= 0)
        close(e->fd);
    buf_finish(&e->in);
    e->fd = -1;
}

// `members`: JSON in the place of the usual last ones.
static void put_snapshot(struct buf *json, const char *members)
{
    buf_printf(json,
               "{\"version\":1,\"apps\":[{\"name\":\"app\",\"deployment\":\"dep\","
               "\"route_prefix\":\"/app\",\"workers\":[\"app/dep/0\",\"app/dep/1\"],"
               "\"max_ongoing_requests\":8,\"max_body_bytes\":1048576,"
               "\"max_response_buffer_bytes\":4194304,\"graceful_shutdown_timeout_s\":2,"
               "\"max_queued_bytes\":100000000,\"models\":[{\"id\":\"m1\",\"root\":\"/m/1\","
               "\"max_model_len\":64,\"created\":1700000000},{\"id\":\"m \\\"2\",\"root\":\"/m/1\","
               "\"max_model_len\":0,\"created\":1700000000}],"
               "\"queue_gauge\":\"vllm:num_requests_waiting\"%s%s}]}",
               members ? ","
                       : ",\"status\":\"RUNNING\",\"message\":\"\",\"stream_in\":false,"
                         "\"retry_safe\":false,\"max_queued_requests\":2",
               members ? members : "");
}

static void send_snapshot(const char *members)
{
    struct buf json = {0};
    put_snapshot(&json, members);
    SAY(&w.control, snapshot, 0, 0, .version = 1, .json = {buf_head(&json), buf_len(&json)});
    buf_finish(&json);
}

static void wait_ready(void)
{
    struct wire_state s;
    do {
        struct wire_frame *f = expect(&w.control, WIRE_state);
        assert_int_equal(wire_get_state(f, &s, NULL), 0);
    } while (s.state != WS_READY);
}

static void run_child(const int fds[4])
{
    int high[4];
    for (int i = 0; i < 4; i++)
        high[i] = fcntl(fds[i], F_DUPFD, 50);
    const int to[4] = {3, 4, 5, 7};
    for (int i = 0; i < 4; i++)
        dup2(high[i], to[i]);
    for (int i = 8; i < 100; i++)
        close(i);
    exit(ingress_main("ingress/0"));
}

static void begin(const char *http, const char *app, bool with_control)
{
    alarm(TEST_S); // a test that hangs fails
    memset(&w, 0, sizeof w);
    w.control.fd = w.worker[0].fd = w.worker[1].fd = -1;
    strcpy(w.state_dir, "/tmp/serve_ingress.XXXXXX");
    assert_non_null(mkdtemp(w.state_dir));
    w.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    assert_int_equal(bind(w.listener, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(w.listener, 100), 0);
    getsockname(w.listener, (struct sockaddr *)&a, &len);
    w.port = ntohs(a.sin_port);
    int fds[4] = {pair(&w.supervisor), page_create("ingress/0", NULL), dup(2),
                  page_create("fold", NULL)};
    w.pid = fork();
    if (w.pid == 0)
        run_child(fds);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    hello(&w.supervisor, ROLE_SUPERVISOR, "supervisor");
    struct buf orders = {0};
    buf_printf(&orders, "{\"place\":0,\"access_log\":false,\"http\":{%s}}", http ? http : "");
    SAY(&w.supervisor, boot, 0, 0, .state_dir = w.state_dir, .child_id = 1,
        .orders = {buf_head(&orders), buf_len(&orders)});
    buf_finish(&orders);
    struct buf b = {0};
    wire_put_listener(&b, 0, 0, &(struct wire_listener){.place = 0});
    send_fds(&w.supervisor, &b, &w.listener, 1);
    if (!with_control)
        return;
    attach(&w.control, ROLE_CONTROL, "control", 2, NULL);
    send_snapshot(app);
    wait_ready();
}

// Of the process; killed after `ms`.
static int wait_end(int ms)
{
    for (int i = 0; i < ms; i++) {
        if (waitpid(w.pid, &w.status, WNOHANG) == w.pid) {
            w.ended = true;
            return w.status;
        }
        usleep(1000);
    }
    kill(w.pid, SIGKILL);
    waitpid(w.pid, &w.status, 0);
    w.ended = true;
    return w.status;
}

static int finish(void **state)
{
    (void)state;
    int status = w.status;
    if (!w.ended) {
        SAY(&w.supervisor, stop, 0, 0, .grace_ms = 0);
        status = wait_end(WAIT_MS);
    }
    close_end(&w.supervisor);
    close_end(&w.control);
    for (int i = 0; i < WORKERS; i++) {
        close_end(&w.worker[i]);
        if (w.page[i])
            page_unmap(w.page[i]);
    }
    close(w.listener);
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", w.state_dir);
    (void)!system(cmd);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        print_error("the ingress ended with status %#x\n", (unsigned)status);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* ---- clients ---- */

static int client(const char *text)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(w.port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    return fd;
}

static int get(const char *path)
{
    char text[256];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", path);
    return client(text);
}

// Reads until `want` is there (NULL: the end), and returns all text so far.
static const char *answer(int fd, const char *want)
{
    static char text[1 << 20];
    size_t n = 0;
    for (;;) {
        text[n] = 0;
        if (want && strstr(text, want))
            return text;
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, WAIT_MS) <= 0)
            fail_msg("%s did not come, but: %s", want ? want : "the end of the answer", text);
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (got <= 0) {
            if (want)
                fail_msg("'%s' did not come, but: %s", want, text);
            if (got < 0 && errno != ECONNRESET)
                fail_msg("no end of the answer: %s", text);
            close(fd);
            return text;
        }
        n += (size_t)got;
    }
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
}

static void say_ok(int worker, uint64_t id, const char *text)
{
    struct buf b = {0}; // in one piece, so that the length is known when the head is written
    wire_put_head(
        &b, id, 0,
        &(struct wire_head){
            .status = 200, .content_length = -1, .content_type = "text/plain", .headers = {"", 0}});
    wire_put_raw(&b, WIRE_data, id, 0, text, strlen(text));
    wire_put_end(&b, id, 0, &(struct wire_end){.text = "", .notes = {"", 0}});
    send_fds(&w.worker[worker], &b, NULL, 0);
}
