// SPDX-License-Identifier: Apache-2.0
// A real supervisor whose children are this program again: it starts itself with a role. The first
// control gives specs and ends; the second one asks for the list and writes down what it is told.
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/os.h"
#include "supervise/keep.h"
#include "wire/wire.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHANNEL = 3, PATIENCE_MS = 10000, LARGE_ORDERS = 3 << 20 };

/* ---- the children ---- */

static struct buf in;

static void say(struct buf *b)
{
    while (buf_len(b)) {
        ssize_t n = send(CHANNEL, buf_head(b), buf_len(b), MSG_NOSIGNAL);
        if (n < 0)
            exit(3);
        buf_consume(b, (size_t)n);
    }
}

// The next frame; it is valid until the next call. The end of the channel ends the process.
static struct wire_frame hear(void)
{
    static size_t used;
    struct wire_frame f;
    buf_consume(&in, used);
    for (;;) {
        int64_t n = wire_next(in.data ? buf_head(&in) : "", buf_len(&in), &f, NULL);
        if (n < 0)
            exit(4);
        used = (size_t)n;
        if (n > 0)
            return f;
        ssize_t got = recv(CHANNEL, buf_reserve(&in, 1 << 16), 1 << 16, 0);
        if (got <= 0)
            exit(0);
        buf_commit(&in, (size_t)got);
    }
}

static void say_spec(const char *name, enum wire_role role, struct bytes orders)
{
    struct buf b = {0};
    wire_put_spec(&b, 0, 0,
                  &(struct wire_spec){.name = name, .role = role, .restart = 1, .orders = orders});
    say(&b);
    buf_finish(&b);
}

static void give_specs(void)
{
    static char large[LARGE_ORDERS];
    say_spec("ingress/0", ROLE_INGRESS, (struct bytes){"{\"i\":0}", 7});
    say_spec("a/d/0", ROLE_WORKER, (struct bytes){"first", 5});
    say_spec("a/d/0", ROLE_WORKER, (struct bytes){"second", 6}); // for its next start
    for (int i = 0; i < KEEP_ORDERS_MAX / LARGE_ORDERS + 1; i++) {
        char name[16];
        snprintf(name, sizeof name, "large/d/%d", i);
        say_spec(name, ROLE_WORKER, (struct bytes){large, sizeof large});
    }
    for (int known = 0; known < 2 + KEEP_ORDERS_MAX / LARGE_ORDERS;)
        known += hear().head.kind == WIRE_attach; // to each of them
}

static void write_list(const char *state_dir)
{
    char path[256], part[256];
    snprintf(path, sizeof path, "%s/list", state_dir);
    snprintf(part, sizeof part, "%s/list.part", state_dir);
    FILE *out = fopen(part, "w");
    CHECK(out);
    struct buf b = {0};
    wire_put_list(&b, 0, 0, &(struct wire_list){0});
    say(&b);
    buf_finish(&b);
    for (;;) {
        struct wire_frame f = hear();
        struct wire_spec spec;
        struct wire_child child;
        struct wire_listed listed;
        if (f.head.kind == WIRE_spec && wire_get_spec(&f, &spec, NULL) == 0)
            fprintf(out, "spec %s %s place %u restart %u: %.*s (%zu)\n", spec.name,
                    wire_role_name(spec.role), spec.place, spec.restart,
                    (int)(spec.orders.n < 8 ? spec.orders.n : 0), spec.orders.p, spec.orders.n);
        if (f.head.kind == WIRE_child && wire_get_child(&f, &child, NULL) == 0)
            fprintf(out, "child %s\n", child.name);
        if (f.head.kind == WIRE_listed && wire_get_listed(&f, &listed, NULL) == 0) {
            fprintf(out, "listed %u\n", listed.count);
            break;
        }
    }
    fclose(out);
    CHECK(rename(part, path) == 0);
}

static int control(void)
{
    struct wire_boot boot;
    struct wire_frame f;
    struct buf hello = {0};
    wire_put_hello(&hello, 0, 0,
                   &(struct wire_hello){.version = WIRE_VERSION,
                                        .role = ROLE_CONTROL,
                                        .pid = (uint64_t)getpid(),
                                        .name = "control"});
    say(&hello);
    do
        f = hear();
    while (f.head.kind != WIRE_boot);
    CHECK(wire_get_boot(&f, &boot, NULL) == 0);
    char state_dir[128];
    snprintf(state_dir, sizeof state_dir, "%s", boot.state_dir);
    if (boot.generation == 0) {
        give_specs();
        return 1;
    }
    write_list(state_dir);
    while (hear().head.kind != WIRE_stop)
        ;
    return 0;
}

static int other(void) // serves nobody and stops when it is told to
{
    while (hear().head.kind != WIRE_stop)
        ;
    return 0;
}

/* ---- the test ---- */

static pid_t start_supervisor(const char *state_dir)
{
    char exe[256], dir[128];
    pid_t pid;
    struct err err;
    assert_int_equal(os_self_path(exe, sizeof exe, &err), 0);
    snprintf(dir, sizeof dir, "%s", state_dir);
    const char *argv[] = {"salver",     "supervisor", "--state",  dir,         "--host",
                          "127.0.0.1",  "--port",     "0",        "--ingress", "1",
                          "--grace-ms", "100",        "--orders", "{}",        NULL};
    const struct os_fdmap fds[] = {{STDERR_FILENO, STDERR_FILENO}};
    assert_int_equal(os_spawn(exe, (char *const *)(uintptr_t)argv, NULL, fds, 1, &pid, &err), 0);
    return pid;
}

static void a_new_control_is_told_every_spec_first(void **state)
{
    (void)state;
    static const char *const locks[] = {"lock", "children.lock"};
    char dir[] = "/tmp/supervise_list.XXXXXX", path[64], text[4096];
    assert_non_null(mkdtemp(dir));
    pid_t pid = start_supervisor(dir);
    snprintf(path, sizeof path, "%s/list", dir);
    struct stat st;
    for (int ms = 0; stat(path, &st) < 0 && ms < PATIENCE_MS; ms += 10)
        usleep(10000);
    kill(pid, SIGTERM);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    unlink(path);
    for (size_t i = 0; i < ARRAY_LEN(locks); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, locks[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(status, 0);

    assert_non_null(strstr(text, "spec ingress/0 ingress place 0 restart 1: {\"i\":0} (7)\n"
                                 "spec a/d/0 worker place 0 restart 1: second (6)\n"
                                 "spec large/d/0 worker place 0 restart 1:  (3145728)\n"));
    assert_null(strstr(text, "control"));
    assert_non_null(strstr(text, "child ingress/0\n"));
    assert_true(strstr(text, "child ") > strstr(text, "spec large/d/9")); // every spec first
    // The one that did not fit into KEEP_ORDERS_MAX was not started.
    assert_null(strstr(text, "large/d/10"));
    assert_non_null(strstr(text, "listed 12\n"));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "supervisor") == 0)
        return supervisor_main(argc - 2, argv + 2);
    if (argc == 3) {
        fcntl(CHANNEL, F_SETFL, 0); // we wait for what comes
        return strcmp(argv[1], "control") == 0 ? control() : other();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_control_is_told_every_spec_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
