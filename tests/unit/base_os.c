// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/os.h"
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// What a shell started by os_spawn wrote to the pipe that is its descriptor `as`.
static void run_shell(const char *script, const struct os_fdmap *more, size_t n_more, int as,
                      char *out, size_t cap)
{
    struct err err;
    struct os_fdmap fds[8];
    int pipe_fds[2], status;
    pid_t pid;
    char sh[] = "sh", flag[] = "-c", *argv[] = {sh, flag, (char *)(uintptr_t)script, NULL};
    assert_int_equal(os_pipe(pipe_fds, &err), 0);
    for (size_t i = 0; i < n_more; i++)
        fds[i] = more[i];
    fds[n_more] = (struct os_fdmap){pipe_fds[1], as};
    assert_int_equal(os_spawn("/bin/sh", argv, NULL, fds, n_more + 1, &pid, &err), 0);
    close(pipe_fds[1]);
    int pidfd = os_pidfd_open(pid, &err);
    assert_true(pidfd >= 0);
    assert_int_equal(poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 20000), 1);
    ssize_t n = read(pipe_fds[0], out, cap - 1);
    assert_true(n >= 0);
    out[n] = '\0';
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(pidfd);
    close(pipe_fds[0]);
}

#define LIST_FDS "for i in $(seq 0 99); do [ -e /proc/$$/fd/$i ] && printf \"$i \"; done"

static void a_child_has_its_descriptors_alone(void **state)
{
    (void)state;
    char out[512];
    int inherited = open("/dev/null", O_RDONLY); // not close-on-exec
    run_shell(LIST_FDS "; true", NULL, 0, 1, out, sizeof out);
    assert_string_equal(out, "0 1 2 ");
    run_shell("exec >&5; " LIST_FDS "; true", NULL, 0, 5, out, sizeof out);
    assert_string_equal(out, "0 1 2 5 ");
    close(inherited);
}

static void descriptors_may_swap_places(void **state)
{
    (void)state;
    char out[512];
    int a = open("/dev/zero", O_RDONLY | O_CLOEXEC), b = open("/dev/full", O_RDONLY | O_CLOEXEC);
    struct os_fdmap swap[] = {{a, b}, {b, a}};
    char script[200];
    snprintf(script, sizeof script, "readlink /proc/$$/fd/%d /proc/$$/fd/%d | tr '\\n' ' '", a, b);
    run_shell(script, swap, 2, 1, out, sizeof out);
    assert_string_equal(out, "/dev/full /dev/zero ");
    close(a);
    close(b);
}

static void a_child_starts_clean(void **state)
{
    (void)state;
    char out[512];
    unsigned long long blocked = 1, ignored = 1;
    int group = 0, self = 1;
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    signal(SIGPIPE, SIG_IGN);
    run_shell("grep -E '^Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$",
              NULL, 0, 1, out, sizeof out);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    assert_int_equal(
        sscanf(out, "SigBlk: %llx SigIgn: %llx %d %d", &blocked, &ignored, &group, &self), 4);
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & ~0x180000000ull, 0); // 32 and 33 are the C library's own
    assert_int_equal(group, self);
}

static void a_missing_program_is_an_error(void **state)
{
    (void)state;
    struct err err;
    pid_t pid;
    char name[] = "x", *argv[] = {name, NULL};
    assert_true(os_spawn("/no/such/program", argv, NULL, NULL, 0, &pid, &err) < 0);
    assert_non_null(strstr(err.msg, "'/no/such/program': No such file"));
}

static void memory_files(void **state)
{
    (void)state;
    struct err err;
    void *a, *b;
    int fd = os_memfd("m", 8192, &err);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(ftruncate(fd, 100) < 0);
    assert_true(ftruncate(fd, 100000) < 0);
    assert_int_equal(os_memfd_map(fd, 8192, &a, &err), 0);
    assert_int_equal(os_memfd_map(fd, 8192, &b, &err), 0);
    strcpy(a, "shared");
    assert_string_equal(b, "shared");
    assert_true(os_memfd_map(fd, 4096, &a, &err) < 0);
    assert_true(os_memfd_map(-1, 4096, &a, &err) < 0);
    int other = open("/dev/null", O_RDWR);
    assert_true(os_memfd_map(other, 0, &a, &err) < 0);
    close(other);
    close(fd);
}

static void pairs_and_pipes(void **state)
{
    (void)state;
    int fds[2];
    char c;
    assert_int_equal(os_socketpair(fds, NULL), 0);
    assert_int_equal(read(fds[0], &c, 1), -1);
    assert_int_equal(errno, EAGAIN);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(os_pipe(fds, NULL), 0);
    assert_int_equal(read(fds[0], &c, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_false(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
    close(fds[0]);
    close(fds[1]);
}

static void folders(void **state)
{
    (void)state;
    struct err err;
    struct stat st;
    char root[] = "/tmp/unit-os-XXXXXX", path[300];
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/a//b/c/", root);
    assert_int_equal(os_mkdirs(path, 0700, &err), 0);
    assert_int_equal(os_mkdirs(path, 0700, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/file", root);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_true(os_mkdirs(path, 0700, &err) < 0);
    assert_true(os_mkdirs("", 0700, &err) < 0);
    snprintf(path, sizeof path, "rm -r %s", root);
    assert_int_equal(system(path), 0);
}

static void small_things(void **state)
{
    (void)state;
    char path[4096], name[32], tiny[4];
    struct err err;
    assert_int_equal(os_self_path(path, sizeof path, &err), 0);
    assert_non_null(strstr(path, "unit_base_os"));
    assert_true(os_self_path(tiny, sizeof tiny, &err) < 0);
    assert_true(os_random() != os_random());
    assert_int_equal(os_thread_id(), getpid());
    os_thread_name("a name longer than fifteen");
    FILE *f = fopen("/proc/thread-self/comm", "r");
    assert_non_null(fgets(name, sizeof name, f));
    fclose(f);
    assert_string_equal(name, "a name longer t\n");
    assert_true(os_nofile_raise() > 0);
}

static bool is_there(pid_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    if (fscanf(f, "%*d %*s %c", &state) != 1)
        state = 'Z';
    fclose(f);
    return state != 'Z';
}

// A signal by pidfd: to a process or to its whole group, never to a number that was given back.
static void signals_by_pidfd(void **state)
{
    (void)state;
    int out[2];
    pid_t pid;
    char line[16] = "";
    char sh[] = "sh", c[] = "-c", script[] = "sleep 100 & echo $!; wait";
    char *argv[] = {sh, c, script, NULL};
    assert_int_equal(os_pipe(out, NULL), 0);
    const struct os_fdmap fds[] = {{out[1], 1}};
    assert_int_equal(os_spawn("/bin/sh", argv, NULL, fds, 1, &pid, NULL), 0);
    int pidfd = os_pidfd_open(pid, NULL);
    struct pollfd p = {.fd = out[0], .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_true(read(out[0], line, sizeof line - 1) > 0);
    pid_t grandchild = atoi(line);
    assert_true(is_there(grandchild));
    assert_false(os_pidfd_ended(pidfd));
    assert_int_equal(os_pidfd_kill(pidfd, pid, SIGKILL, true), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(os_pidfd_ended(pidfd));
    for (int i = 0; is_there(grandchild) && i < 1000; i++)
        usleep(1000);
    assert_false(is_there(grandchild));
    assert_true(os_pidfd_kill(pidfd, getpid(), SIGKILL, false) < 0); // it is not us
    close(pidfd);
    close(out[0]);
    close(out[1]);
}

static void holders_of_a_file(void **state)
{
    (void)state;
    enum { AS = 8 };
    char path[] = "/tmp/base_os.XXXXXX", sleeper[] = "sleep", time[] = "100";
    char *argv[] = {sleeper, time, NULL};
    int fd = mkstemp(path), other = open("/dev/null", O_RDONLY);
    pid_t pids[2], found[4];
    assert_true(fd >= 0);
    assert_int_equal(os_find_holders(fd, AS, found, 4), 0);
    for (int i = 0; i < 2; i++) {
        const struct os_fdmap fds[] = {{i == 0 ? fd : other, AS}};
        assert_int_equal(os_spawn("/bin/sleep", argv, NULL, fds, 1, &pids[i], NULL), 0);
    }
    assert_int_equal(os_find_holders(fd, AS, found, 4), 1);
    assert_int_equal(found[0], pids[0]);
    assert_int_equal(os_find_holders(fd, AS + 1, found, 4), 0);
    assert_true(os_is_holder(pids[0], fd, AS));
    assert_false(os_is_holder(pids[1], fd, AS));
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    assert_false(os_is_holder(pids[0], fd, AS));
    close(fd);
    close(other);
    unlink(path);
}

static void sockets_in_folders(void **state)
{
    (void)state;
    char dir[] = "/tmp/base_os.XXXXXX", deep[512], command[600];
    uid_t uid = 1;
    pid_t pid = 0;
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(deep, sizeof deep, "%s/%0100d/%0100d", dir, 1, 2); // longer than an address
    assert_int_equal(os_mkdirs(deep, 0700, NULL), 0);
    assert_true(os_unix_connect(deep, "s", NULL) < 0);
    int listener = os_unix_listen(deep, "s", 4, NULL);
    assert_true(listener >= 0);
    snprintf(command, sizeof command, "%s/s", deep);
    assert_int_equal(stat(command, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    int fd = os_unix_connect(deep, "s", NULL);
    assert_true(fd >= 0);
    assert_int_equal(os_unix_peer(fd, &uid, &pid, NULL), 0);
    assert_int_equal(uid, geteuid());
    assert_int_equal(pid, getpid());
    close(fd);
    close(listener);
    assert_true(os_unix_connect(deep, "s", NULL) < 0); // nobody listens
    listener = os_unix_listen(deep, "s", 4, NULL);     // in the place of what was there
    assert_true(listener >= 0);
    close(listener);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    assert_true(os_unix_listen(deep, "s", 4, NULL) < 0);
}

static void sealed_files(void **state)
{
    (void)state;
    char back[8] = "";
    int fd = os_sealed("t", "content", 7, NULL);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, back, sizeof back, 0), 7);
    assert_string_equal(back, "content");
    assert_true(pwrite(fd, "x", 1, 0) < 0);
    assert_true(ftruncate(fd, 3) < 0);
    close(fd);
}

static void sha256_of_known_texts(void **state)
{
    (void)state;
    char hex[SHA256_HEX], same[SHA256_HEX];
    struct sha256 *h = sha256_create();
    sha256_add(h, "a", 1);
    sha256_add(h, "bc", 2);
    sha256_destroy(h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    int fd = os_memfd("abc", 3, NULL);
    assert_int_equal(write(fd, "abc", 3), 3);
    lseek(fd, 0, SEEK_SET);
    h = sha256_create();
    assert_int_equal(sha256_add_fd(h, fd, NULL), 0);
    sha256_destroy(h, same);
    assert_string_equal(same, hex);
    close(fd);
    struct err err;
    h = sha256_create();
    assert_true(sha256_add_fd(h, fd, &err) < 0);
    sha256_destroy(h, NULL);
    sha256_destroy(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_has_its_descriptors_alone),
        cmocka_unit_test(descriptors_may_swap_places),
        cmocka_unit_test(a_child_starts_clean),
        cmocka_unit_test(a_missing_program_is_an_error),
        cmocka_unit_test(memory_files),
        cmocka_unit_test(pairs_and_pipes),
        cmocka_unit_test(folders),
        cmocka_unit_test(small_things),
        cmocka_unit_test(signals_by_pidfd),
        cmocka_unit_test(holders_of_a_file),
        cmocka_unit_test(sockets_in_folders),
        cmocka_unit_test(sealed_files),
        cmocka_unit_test(sha256_of_known_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
