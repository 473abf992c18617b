// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "cli/ask.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const struct {
    const char *address, *host, *port, *authority; // host NULL: refused
} addresses[] = {
    {"http://127.0.0.1:8265", "127.0.0.1", "8265", "127.0.0.1:8265"},
    {"http://127.0.0.1:8265/", "127.0.0.1", "8265", "127.0.0.1:8265"},
    {"HTTP://localhost:1", "localhost", "1", "localhost:1"},
    {"localhost", "localhost", "8265", "localhost:8265"},
    {"[::1]:99", "::1", "99", "[::1]:99"},
    {"http://[::1]", "::1", "8265", "[::1]:8265"},
    {"http://h:65535", "h", "65535", "h:65535"},
    {"", NULL, NULL, NULL},
    {"http://", NULL, NULL, NULL},
    {"http://:80", NULL, NULL, NULL},
    {"http://h:", NULL, NULL, NULL},
    {"http://h:0", NULL, NULL, NULL},
    {"http://h:65536", NULL, NULL, NULL},
    {"http://h:80x", NULL, NULL, NULL},
    {"http://h:123456789", NULL, NULL, NULL},
    {"http://h/path", NULL, NULL, NULL},
    {"http://h:80/path", NULL, NULL, NULL},
    {"https://h:80", NULL, NULL, NULL},
    {"http://[::1", NULL, NULL, NULL},
    {"http://[::1]x", NULL, NULL, NULL},
};

static void addresses_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        struct ask_server s;
        struct err err = {0};
        int rc = ask_server_init(&s, NULL, addresses[i].address, &err);
        if ((rc == 0) != (addresses[i].host != NULL))
            fail_msg("'%s': %d %s", addresses[i].address, rc, err.msg);
        if (rc < 0)
            continue;
        assert_string_equal(s.host, addresses[i].host);
        assert_string_equal(s.port, addresses[i].port);
        assert_string_equal(s.authority, addresses[i].authority);
        assert_null(s.socket_path);
        ask_server_finish(&s);
    }
}

static void options_come_before_the_environment(void **state)
{
    (void)state;
    struct ask_server s;
    struct err err;
    setenv("SALVER_ADDRESS", "http://env:7", 1);
    assert_int_equal(ask_server_init(&s, NULL, NULL, &err), 0);
    assert_string_equal(s.authority, "env:7");
    ask_server_finish(&s);
    assert_int_equal(ask_server_init(&s, NULL, "http://opt:8", &err), 0);
    assert_string_equal(s.authority, "opt:8");
    ask_server_finish(&s);
    assert_int_equal(ask_server_init(&s, "/state", NULL, &err), 0);
    assert_string_equal(s.socket_path, "/state/control.sock");
    ask_server_finish(&s);
    assert_int_equal(ask_server_init(&s, "/state", "http://opt:8", &err), SV_E_INVALID);
    unsetenv("SALVER_ADDRESS");
}

#define HEAD(status, n) "HTTP/1.1 " status "\r\nContent-Length: " n "\r\n\r\n"
#define LATER           HEAD("503 Later", "0")

// What a server says on one connection after the other, and what comes of it.
static const struct {
    bool change;
    const char *answers[4];
    int want;
    const char *says; // the body, or a part of the message
} rows[] = {
    {false, {HEAD("200 OK", "2") "{}"}, 0, "{}"},
    {false, {HEAD("200 OK", "0")}, 0, ""},
    {false,
     {HEAD("400 Bad", "38") "{\"error\":{\"message\":\"a.yaml:1:2: no\"}}"},
     -400,
     "1:2: no"},
    {false, {HEAD("404 No", "2") "{}"}, -404, "status 404"},
    {false, {HEAD("500 No", "5") "<htm>"}, -500, "status 500"},
    {false, {HEAD("302 Go", "0")}, SV_E_UNAVAILABLE, "status 302"},
    {false, {HEAD("200 OK", "9") "short"}, SV_E_UNAVAILABLE, "5 of 9"},
    {false, {HEAD("200 OK", "1") "long"}, SV_E_UNAVAILABLE, "4 of 1"},
    {false, {"HTTP/1.1 200 OK\r\n\r\n{}"}, SV_E_UNAVAILABLE, "200 OK"},
    {false, {"HTTP/1.1 200 OK\r\nx: y"}, SV_E_UNAVAILABLE, "200 OK"},
    {false, {"SSH-2.0-x\r\n"}, SV_E_UNAVAILABLE, "SSH-2.0"},
    {false, {""}, SV_E_UNAVAILABLE, "''"},
    {false, {LATER, HEAD("200 OK", "2") "{}"}, SV_E_UNAVAILABLE, "503"},
    {true, {LATER, LATER, HEAD("200 OK", "2") "{}"}, 0, "{}"},
    {true, {LATER, HEAD("409 No", "0")}, -409, "409"},
    {true, {"", HEAD("200 OK", "2") "{}"}, SV_E_UNAVAILABLE, "''"},
};

struct fake {
    int fd;
    const char *const *answers;
};

static void *serve(void *arg)
{
    const struct fake *f = arg;
    for (size_t i = 0; i < ARRAY_LEN(rows[0].answers) && f->answers[i]; i++) {
        char text[4096];
        int c = accept(f->fd, NULL, NULL);
        if (c < 0)
            break; // nobody asks any more
        ssize_t n = recv(c, text, sizeof text, 0);
        CHECK(n > 0);
        CHECK(send(c, f->answers[i], strlen(f->answers[i]), MSG_NOSIGNAL) >= 0);
        close(c);
    }
    return NULL;
}

static void check_row(const char *dir, size_t i)
{
    struct ask_server s;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct err err = {0};
    struct buf body = {0};
    pthread_t thread;
    assert_int_equal(ask_server_init(&s, dir, NULL, &err), 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", s.socket_path);
    struct fake fake = {socket(AF_UNIX, SOCK_STREAM, 0), rows[i].answers};
    assert_int_equal(bind(fake.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fake.fd, 4), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve, &fake), 0);
    const struct ask_request q = {
        .method = "PUT", .path = "/x", .content_type = "a/b", .body = {"text", 4}};
    int rc = rows[i].change ? ask_change(&s, &q, &body, &err) : ask(&s, &q, &body, &err);
    const char *got = rc < 0 ? err.msg : buf_cstr(&body);
    if (rc != rows[i].want ||
        (rc < 0 ? !strstr(got, rows[i].says) : strcmp(got, rows[i].says) != 0))
        fail_msg("row %zu: %d '%s'", i, rc, got);
    shutdown(fake.fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(fake.fd);
    unlink(s.socket_path);
    buf_finish(&body);
    ask_server_finish(&s);
}

static void answers_are_understood(void **state)
{
    (void)state;
    char dir[] = "/tmp/salver-ask-XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(dir, i);
    rmdir(dir);
}

static void paths_are_escaped(void **state)
{
    (void)state;
    struct buf out = {0};
    ask_put_escaped(&out, "/a b/\xc3\xbc?&#%+.yaml");
    assert_string_equal(buf_cstr(&out), "/a%20b/%C3%BC%3F%26%23%25%2B.yaml");
    buf_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read), cmocka_unit_test(options_come_before_the_environment),
        cmocka_unit_test(answers_are_understood), cmocka_unit_test(paths_are_escaped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
