// SPDX-License-Identifier: Apache-2.0
// Who is let in: limits on connections, on one address, on open files; and the error table.
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "http/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILES_MAX = 256, TURNS = 20 };

struct world {
    uv_loop_t loop;
    struct turn turn;
    struct http_server *server;
    struct sockaddr_in address;
    int conns, refused;
    char refused_by[64], peer[HTTP_PEER_MAX];
    bool freed;
};
static struct world *world;

static void on_head(void *ctx, struct http_msg *m)
{
    (void)ctx;
    strncpy(world->peer, m->peer, sizeof world->peer - 1);
}

static void on_request(void *ctx, struct http_msg *m)
{
    (void)ctx;
    http_reply_head(m, 200, NULL, 0, NULL);
    http_reply_end(m);
}

static void on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text, bool fin)
{
    (void)ctx, (void)m, (void)p, (void)n, (void)text, (void)fin;
}

static void on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx, (void)m, (void)why;
}

static void on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx, (void)m;
}

static void on_conn(void *ctx, int change, const char *refused_by)
{
    struct world *w = ctx;
    w->conns += change;
    if (change == 0) {
        w->refused++;
        strncpy(w->refused_by, refused_by, sizeof w->refused_by - 1);
    }
}

static void on_free(void *ctx)
{
    ((struct world *)ctx)->freed = true;
}

static const struct http_handler handler = {.on_head = on_head,
                                            .on_request = on_request,
                                            .on_body = on_body,
                                            .on_gone = on_gone,
                                            .on_drain = on_drain,
                                            .on_conn = on_conn};

static void world_open(struct world *w, const struct http_limits *limits, struct in_addr host)
{
    struct err err = {0};
    socklen_t n = sizeof w->address;
    *w = (struct world){0};
    world = w;
    uv_loop_init(&w->loop);
    turn_init(&w->turn, &w->loop);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    w->address.sin_family = AF_INET;
    w->address.sin_addr = host;
    assert_int_equal(bind(fd, (struct sockaddr *)&w->address, sizeof w->address), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)&w->address, &n);
    assert_int_equal(
        http_server_create(&w->loop, &w->turn, fd, limits, &handler, w, &w->server, &err), 0);
}

static void pump(struct world *w)
{
    for (int i = 0; i < TURNS; i++)
        uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void world_close(struct world *w)
{
    http_server_destroy(w->server, on_free);
    pump(w);
    assert_true(w->freed);
    assert_int_equal(w->conns, 0);
    turn_close(&w->turn);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
}

static int client(struct world *w)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w->address, sizeof w->address), 0);
    return fd;
}

static void expect(struct world *w, int fd, const char *start)
{
    char got[2048] = "";
    pump(w);
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    if (n < (ssize_t)strlen(start) || strncmp(got, start, strlen(start)) != 0) {
        print_error("want '%s', got %zd bytes: '%s'\n", start, n, got);
        fail();
    }
}

static void ask(struct world *w, int fd)
{
    const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    expect(w, fd, "HTTP/1.1 200 OK\r\n");
}

static const struct in_addr loopback = {0x0100007f};

static void connections_are_bounded(void **state)
{
    (void)state;
    struct http_limits limits = http_limits_default;
    limits.connections = 2;
    limits.per_address = 1; // isn't asked of loopback
    struct world w;
    world_open(&w, &limits, loopback);
    int a = client(&w), b = client(&w);
    ask(&w, a);
    ask(&w, b);
    assert_string_equal(w.peer, "127.0.0.1");
    int c = client(&w);
    expect(&w, c, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_int_equal(w.refused, 1);
    assert_string_equal(w.refused_by, "max_connections");
    close(a);
    pump(&w);
    int d = client(&w);
    ask(&w, d);
    close(b), close(c), close(d);
    pump(&w);
    assert_int_equal(http_server_connections(w.server), 0);
    world_close(&w);
}

// Every body alone is small enough; together they are not.
static void buffered_bodies_are_bounded(void **state)
{
    (void)state;
    struct http_limits limits = http_limits_default;
    limits.buffered_bytes = 100;
    struct world w;
    world_open(&w, &limits, loopback);
    static const char most[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 80\r\n\r\n"
                               "123456789012345678901234567890123456789012345678901234567890";
    static const char half[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n"
                               "123456789012345678901234567890123456789012345678901234567890";
    int a = client(&w), b = client(&w);
    assert_true(send(a, most, strlen(most), MSG_NOSIGNAL) > 0);
    pump(&w);
    assert_int_equal(w.server->buffered, 60);
    assert_true(send(b, half, strlen(half), MSG_NOSIGNAL) > 0);
    expect(&w, b, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_true(send(a, "12345678901234567890", 20, MSG_NOSIGNAL) == 20);
    expect(&w, a, "HTTP/1.1 200 OK\r\n");
    pump(&w);
    assert_int_equal(w.server->buffered, 0);
    int c = client(&w);
    assert_true(send(c, half, strlen(half), MSG_NOSIGNAL) > 0);
    expect(&w, c, "HTTP/1.1 200 OK\r\n");
    close(a), close(b), close(c);
    pump(&w);
    world_close(&w);
}

static bool other_address(struct in_addr *ret)
{
    struct ifaddrs *all = NULL;
    bool found = false;
    if (getifaddrs(&all) < 0)
        return false;
    for (struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || i->ifa_flags & IFF_LOOPBACK)
            continue;
        *ret = ((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr;
        found = true;
    }
    freeifaddrs(all);
    return found;
}

static void connections_of_an_address_are_bounded(void **state)
{
    (void)state;
    struct http_limits limits = http_limits_default;
    limits.per_address = 2;
    struct in_addr host;
    if (!other_address(&host))
        skip();
    struct world w;
    world_open(&w, &limits, host);
    int a = client(&w), b = client(&w), c = client(&w);
    expect(&w, c, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_string_equal(w.refused_by, "max_connections_per_address");
    close(a);
    pump(&w);
    int d = client(&w);
    ask(&w, b);
    ask(&w, d);
    close(b), close(c), close(d);
    pump(&w);
    assert_int_equal(w.server->addresses.len, 0);
    world_close(&w);
}

// With no descriptor left the client is told, and the server is well when some come back.
static void open_files_are_bounded(void **state)
{
    (void)state;
    struct rlimit old, low;
    int filler[FILES_MAX], n = 0;
    struct world w;
    world_open(&w, &http_limits_default, loopback);
    int a = client(&w);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = FILES_MAX;
    setrlimit(RLIMIT_NOFILE, &low);
    while (n < FILES_MAX && (filler[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    assert_int_equal(errno, EMFILE);
    expect(&w, a, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_string_equal(w.refused_by, "open files");
    while (n > 0)
        close(filler[--n]);
    setrlimit(RLIMIT_NOFILE, &old);
    int b = client(&w);
    ask(&w, b);
    close(a), close(b);
    world_close(&w);
}

static void drain_stops_accepting(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default, loopback);
    http_server_drain(w.server, NULL);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&w.address, sizeof w.address), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    world_close(&w);
}

static void errors_have_a_row_or_a_kind(void **state)
{
    (void)state;
    static const struct {
        int code, status;
        const char *type;
    } cases[] = {
        {SV_E_OVERLOADED, 429, "RateLimitError"}, {SV_E_FATAL, 500, "InternalServerError"},
        {-418, 418, "BadRequestError"},           {-598, 598, "InternalServerError"},
        {-399, 500, "InternalServerError"},       {-600, 500, "InternalServerError"},
        {0, 500, "InternalServerError"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_error e = http_error_of(cases[i].code);
        assert_int_equal(e.status, cases[i].status);
        assert_string_equal(e.type, cases[i].type);
    }
    struct buf b = {0};
    http_error_json(&b, -404, "no \"x\"\n", "model");
    assert_string_equal(buf_cstr(&b), "{\"error\":{\"message\":\"no \\\"x\\\"\\n\",\"type\":"
                                      "\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    buf_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(buffered_bodies_are_bounded),
        cmocka_unit_test(connections_of_an_address_are_bounded),
        cmocka_unit_test(open_files_are_bounded),
        cmocka_unit_test(drain_stops_accepting),
        cmocka_unit_test(errors_have_a_row_or_a_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
