// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/err.h"
#include "supervise/listener.h"
#include "supervise/lock.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint16_t port_of(int fd)
{
    struct sockaddr_in a = {.sin_port = 0};
    socklen_t n = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    return ntohs(a.sin_port);
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    close(fd);
    return -1;
}

static void all_share_one_port(void **state)
{
    (void)state;
    struct listeners l;
    listeners_init(&l);
    struct err err;
    assert_int_equal(listeners_open(&l, "127.0.0.1", 0, 3, false, &err), 0);
    assert_int_equal(l.n, 3);
    assert_int_not_equal(l.port, 0);
    for (uint32_t i = 0; i < l.n; i++)
        assert_int_equal(port_of(l.fds[i]), l.port);
    int client = connect_to(l.port); // nobody accepts: it waits in the backlog
    assert_true(client >= 0);
    close(client);
    listeners_finish(&l);
    assert_true(connect_to(l.port) < 0);
}

static void a_port_in_use_is_refused(void **state)
{
    (void)state;
    struct listeners a, b;
    listeners_init(&a);
    listeners_init(&b);
    struct err err;
    assert_int_equal(listeners_open(&a, "127.0.0.1", 0, 1, false, &err), 0);
    assert_int_equal(listeners_open(&b, "127.0.0.1", a.port, 1, false, &err), SV_E_UNAVAILABLE);
    assert_non_null(strstr(err.msg, "in use"));
    assert_non_null(strstr(err.msg, "--port"));
    listeners_finish(&a);
    assert_int_equal(listeners_open(&b, "127.0.0.1", a.port, 1, false, &err),
                     0); // free again at once
    listeners_finish(&b);
}

static void a_name_that_is_no_host_is_refused(void **state)
{
    (void)state;
    struct listeners l;
    listeners_init(&l);
    struct err err;
    assert_int_equal(listeners_open(&l, "not a host", 0, 1, false, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "not a host"));
}

// flock is per open file, so that one process can play both servers.
static void one_server_a_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/salver-lock-XXXXXX", path[64], pid[32];
    struct err err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/lock", dir);
    int first = lock_take(dir, &err);
    assert_true(first >= 0);
    assert_int_equal(lock_take(dir, &err), SV_E_UNAVAILABLE);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_non_null(strstr(err.msg, pid));
    close(first);
    int second = lock_take(dir, &err); // what the first wrote is no hindrance
    assert_true(second >= 0);
    close(second);
    unlink(path);
    rmdir(dir);
    assert_true(lock_take(dir, &err) < 0);
    assert_non_null(strstr(err.msg, dir));
}

static int copy_of(const struct listeners *l, uint32_t i)
{
    return dup(l->fds[i]);
}

// What an ingress of an earlier server brings is used if it listens where we are to.
static void a_socket_that_fits_is_adopted(void **state)
{
    (void)state;
    struct listeners old, new;
    struct err err;
    char why[64];
    listeners_init(&old);
    listeners_init(&new);
    assert_int_equal(listeners_open(&old, "127.0.0.1", 0, 3, false, &err), 0);
    const struct {
        const char *host;
        int port; // off the old one; 1000000: any
        uint32_t n, place;
        const char *refusal; // NULL: adopted
    } rows[] = {
        {"127.0.0.1", 1, 2, 0, "it does not listen on"},
        {"127.0.0.2", 0, 2, 0, "it does not listen on"},
        {"0.0.0.0", 0, 2, 0, "it does not listen on"},
        {"::1", 0, 2, 0, "it does not listen on"},
        {"127.0.0.1", 0, 2, 2, "its place is 2"},
        {"127.0.0.1", 0, 2, 1, NULL},
        {"127.0.0.1", 0, 2, 1, NULL}, // another process at that place: the same socket
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = copy_of(&old, 0);
        int rc = listeners_adopt(&new, rows[i].host, (uint16_t)(old.port + rows[i].port), rows[i].n,
                                 rows[i].place, fd, &err);
        assert_int_equal(rc < 0, rows[i].refusal != NULL);
        if (rc < 0) {
            snprintf(why, sizeof why, "%.40s", err.msg);
            if (!strstr(why, rows[i].refusal))
                fail_msg("row %zu: %s", i, err.msg);
            close(fd);
        }
    }
    int adopted = new.fds[1], pair[2];
    assert_true(adopted >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_true(listeners_adopt(&new, "127.0.0.1", old.port, 2, 0, pair[0], &err) < 0);
    close(pair[0]);
    close(pair[1]);

    // The other place is bound anew beside it, on the same port, though others are there too.
    assert_true(listeners_open(&new, "127.0.0.1", old.port, 2, false, &err) < 0);
    int again = copy_of(&old, 0);
    assert_int_equal(listeners_adopt(&new, "127.0.0.1", 0, 2, 1, again, &err), 0);
    assert_int_equal(listeners_open(&new, "127.0.0.1", 0, 2, true, &err), 0);
    assert_int_equal(new.port, old.port);
    assert_int_equal(new.fds[1], again);
    assert_int_equal(port_of(new.fds[0]), old.port);
    listeners_finish(&old);
    listeners_finish(&new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_share_one_port), cmocka_unit_test(a_port_in_use_is_refused),
        cmocka_unit_test(a_name_that_is_no_host_is_refused), cmocka_unit_test(one_server_a_folder),
        cmocka_unit_test(a_socket_that_fits_is_adopted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
