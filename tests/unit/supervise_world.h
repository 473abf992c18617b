// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * A real supervisor whose children are the test program again: it starts itself with a role, so
 * main() begins with `supervisor` and the roles. Children speak frames on fd 3 and write what they
 * were told into the state folder, where the test reads it.
 */
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

enum { CHANNEL = 3, PATIENCE_MS = 10000 };
#define UNUSED_HERE __attribute__((unused)) // by one of the tests

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

UNUSED_HERE static void say_spec(const char *name, enum wire_role role, struct bytes orders)
{
    struct buf b = {0};
    wire_put_spec(&b, 0, 0,
                  &(struct wire_spec){.name = name, .role = role, .restart = 1, .orders = orders});
    say(&b);
    buf_finish(&b);
}

// Waits for BOOT, having said HELLO.
UNUSED_HERE static struct wire_boot hear_boot(enum wire_role role, const char *name)
{
    static struct wire_boot boot;
    static char state_dir[128];
    struct buf hello = {0};
    struct wire_frame f;
    fcntl(CHANNEL, F_SETFL, 0); // we wait for what comes
    wire_put_hello(
        &hello, 0, 0,
        &(struct wire_hello){
            .version = WIRE_VERSION, .role = role, .pid = (uint64_t)getpid(), .name = name});
    say(&hello);
    buf_finish(&hello);
    do
        f = hear();
    while (f.head.kind != WIRE_boot);
    CHECK(wire_get_boot(&f, &boot, NULL) == 0);
    snprintf(state_dir, sizeof state_dir, "%s", boot.state_dir);
    boot.state_dir = state_dir;
    return boot;
}

// Of a child that serves nobody: until it is told to stop.
UNUSED_HERE static int serve_nobody(void)
{
    while (hear().head.kind != WIRE_stop)
        ;
    return 0;
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

/* ---- the test's side ---- */

static pid_t supervisor;

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
    supervisor = pid;
    return pid;
}

// The text of a file in the state folder, once it is there.
UNUSED_HERE static const char *wait_file(const char *dir, const char *name)
{
    static char text[8192];
    char path[256];
    FILE *f = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (int ms = 0; !(f = fopen(path, "r")) && ms < PATIENCE_MS; ms += 10)
        usleep(10000);
    if (!f)
        kill(supervisor, SIGKILL); // its children end with their channel
    if (!f)
        fail_msg("no %s within %d ms", path, PATIENCE_MS);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

// Stops the supervisor; its exit status.
UNUSED_HERE static int stop(pid_t pid)
{
    int status;
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

UNUSED_HERE static void remove_dir(const char *dir)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    assert_int_equal(system(command), 0);
}
