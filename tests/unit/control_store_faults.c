// SPDX-License-Identifier: Apache-2.0
/*
 * The store when its disk is full and when its process is killed: what was acknowledged is there,
 * the change that was not is there whole or not at all. SALVER_STORE_KILLS=N kills N times.
 */
#include "base/clock.h"
#include "control_store_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

static int set_up_on_disk(void **state)
{
    (void)state;
    return set_up_in("/tmp");
}

static int64_t pragma(const char *text)
{
    sqlite3_stmt *sql = NULL;
    assert_int_equal(sqlite3_prepare_v2(s->q.db, text, -1, &sql, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(sql), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(sql, 0);
    if (sqlite3_column_type(sql, 0) == SQLITE_TEXT)
        n = sqlite3_column_text(sql, 0)[0];
    sqlite3_finalize(sql);
    return n;
}

// What stands between an acknowledged change and a loss of power, and what bounds the log.
static void settings(void **state)
{
    (void)state;
    assert_int_equal(store_open(dir, &s, &err), 0);
    assert_int_equal(pragma("PRAGMA synchronous"), 2); // FULL
    assert_int_equal(pragma("PRAGMA journal_mode"), 'w');
    assert_int_equal(pragma("PRAGMA locking_mode"), 'e');
    for (int i = 0; i < 100; i++) {
        struct stat wal;
        fill_store(20);
        assert_int_equal(stat(in(dir, "store.db-wal"), &wal), 0);
        assert_true(wal.st_size < 3L * STORE_WAL_PAGES * STORE_PAGE_BYTES);
    }
    assert_true(s->meta.revision - s->meta.oldest <= STORE_HISTORY);
}

// Fills what is left of a file system with a file.
static void fill_disk(const char *path)
{
    static char block[4096];
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof block) > 0)
        ;
    close(fd);
}

// The file system of a full-disk test: a small tmpfs at `dir`, in a name space of our own.
static bool mount_small(const char *options)
{
    static bool unshared;
    if (!unshared && unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    if (!unshared && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return false;
    unshared = true;
    return mount("tmpfs", dir, "tmpfs", 0, options) == 0;
}

// Changes until there is no room; everything before is there, the one that failed is not.
static void until_full(struct buf *before)
{
    struct buf after = {0};
    char key[16];
    int rc = 0;
    for (int i = 0; rc == 0; i++) {
        assert_int_equal(read_all(before), 0);
        snprintf(key, sizeof key, "%d", i);
        struct store_op ops[] = {
            {.key = key, .value = {large_text(), 15000}, .if_revision = STORE_ANY},
            {.key = "last", .value = {key, strlen(key)}, .if_revision = STORE_ANY}};
        rc = store_txn(s, ops, 2, NULL, &err);
    }
    assert_int_equal(rc, STORE_E_FULL);
    assert_non_null(strstr(err.msg, "no room to write"));
    assert_non_null(strstr(err.msg, "nothing was changed"));
    assert_int_equal(read_all(&after), 0);
    assert_string_equal(buf_cstr(&after), buf_cstr(before));
    buf_finish(&after);
}

static void read_again(const struct buf *want)
{
    struct buf all = {0};
    if (store_open(dir, &s, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(read_all(&all), 0);
    assert_string_equal(buf_cstr(&all), want->data);
    buf_finish(&all);
}

// A process that opens the store and is killed while it has it.
static void killed_while_open(void)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *mine = NULL;
        c = store_open(dir, &mine, &err) == 0 ? 'y' : 'n';
        _exit(write(ready[1], &c, 1) == 1 && pause());
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
    close(ready[1]);
}

static void full_disk(void **state)
{
    (void)state;
    struct buf all = {0};
    if (!mount_small("size=1m")) {
        print_message("no right to mount a small tmpfs: %s\n", err_errno(errno));
        skip();
    }
    fill_disk(in(dir, "filler"));
    if (store_open(dir, &s, &err) != STORE_E_FULL) // a new one
        fail_msg("%d %s", err.code, err.msg);
    assert_non_null(strstr(err.msg, "no room to write"));
    assert_int_not_equal(access(in(dir, "store.db"), F_OK), 0);
    unlink(in(dir, "filler"));
    assert_int_equal(store_open(dir, &s, &err), 0);
    until_full(&all);
    fill_disk(in(dir, "filler"));
    until_full(&all);
    store_close(s); // can't write its log back
    s = NULL;
    read_again(&all);
    until_full(&all);
    store_close(s);
    killed_while_open();
    read_again(&all);
    unlink(in(dir, "filler"));
    put("room", "again", 5, 0);
    assert_int_equal(read_all(&all), 0);
    store_close(s);
    read_again(&all);
    store_close(s);
    s = NULL;
    umount(dir);
    buf_finish(&all);
}

// A quota, a limit of file sizes: the other ways to have no room.
static void file_size_limit(void **state)
{
    (void)state;
    struct buf all = {0};
    struct rlimit was, low = {.rlim_cur = 256 << 10, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    low.rlim_max = was.rlim_max;
    assert_int_equal(store_open(dir, &s, &err), 0);
    setrlimit(RLIMIT_FSIZE, &low);
    until_full(&all);
    until_full(&all);
    store_close(s);
    read_again(&all);
    setrlimit(RLIMIT_FSIZE, &was);
    put("room", "again", 5, 0);
    assert_int_equal(read_all(&all), 0);
    store_close(s);
    read_again(&all);
    buf_finish(&all);
}

/*
 * The scripted changes of a writer that is killed: number i, on the state that i - 1 left. Each
 * reads only what it was left, so the state after i is a function of i.
 */
enum { SCRIPT_KEYS = 5 };

static int script(struct store *mine, uint64_t i, struct err *why)
{
    char number[24], key[24], gone[24];
    snprintf(number, sizeof number, "%d", (int)i);
    snprintf(key, sizeof key, "k%d", (int)(i % SCRIPT_KEYS));
    snprintf(gone, sizeof gone, "k%d", (int)((i + 2) % SCRIPT_KEYS));
    struct store_op ops[] = {
        {.key = "count", .value = {number, strlen(number)}, .if_revision = i == 1 ? 0 : (int64_t)i},
        {.key = key,
         .value = {large_text() + i % 1000, 1 + i * 997 % 9000},
         .if_revision = STORE_ANY},
        {.key = gone, .remove = true, .if_revision = STORE_ANY}};
    return store_txn(mine, ops, 3, NULL, why);
}

static void script_state(struct buf *out, uint64_t i)
{
    buf_clear(out);
    if (i > 0)
        buf_printf(out, "count=%d@%d\n", (int)i, (int)i + 1);
    for (int k = 0; k < SCRIPT_KEYS; k++) {
        uint64_t last = i - (i + SCRIPT_KEYS - (unsigned)k) % SCRIPT_KEYS; // wrote it
        bool removed = i - last >= SCRIPT_KEYS - 2;                        // by last + 3
        if (last > 0 && last <= i && !removed)
            buf_printf(out, "k%d=%.*s@%d\n", k, (int)(1 + last * 997 % 9000),
                       large_text() + last % 1000, (int)last + 1);
    }
}

// changes: how many; 0: without end.
static void write_changes(int acks, uint64_t from, uint64_t changes)
{
    struct store *mine = NULL;
    struct err why = {0};
    int rc = store_open(dir, &mine, &why);
    for (uint64_t i = from + 1; rc == 0 && (changes == 0 || i <= from + changes); i++)
        if ((rc = script(mine, i, &why)) == 0 && write(acks, &i, sizeof i) != sizeof i)
            rc = -1;
    if (rc == 0)
        store_close(mine);
    _exit(rc == 0 ? 0 : write(STDERR_FILENO, why.msg, strlen(why.msg)) < 0 ? 2 : 1);
}

static void start_anew(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -f %s/store.db*", dir);
    assert_int_equal(system(command), 0);
}

// What there is after a kill: what was acknowledged, or one change more. Returns how many.
static uint64_t check_after(const char *what, uint64_t acknowledged)
{
    struct buf want = {0}, found = {0};
    if (store_open(dir, &s, &err) < 0)
        fail_msg("%s: %s", what, err.msg);
    uint64_t done = s->meta.revision - 1;
    if (done != acknowledged && done != acknowledged + 1)
        fail_msg("%s: %d acknowledged, %d there", what, (int)acknowledged, (int)done);
    assert_int_equal(store_list(s, "", write_kv, &found, NULL, &err), 0);
    script_state(&want, done);
    assert_string_equal(buf_cstr(&found), buf_cstr(&want));
    store_close(s);
    s = NULL;
    buf_finish(&want);
    buf_finish(&found);
    return done;
}

static uint64_t last_ack(int acks, uint64_t last)
{
    uint64_t i;
    while (read(acks, &i, sizeof i) == sizeof i)
        last = i;
    close(acks);
    return last;
}

// Starts a writer, kills it after some acknowledgements and wait_us, gives the last of them.
static uint64_t kill_a_writer(uint64_t from, int changes, unsigned wait_us)
{
    int acks[2], status = 0;
    uint64_t last = from;
    assert_int_equal(pipe(acks), 0);
    fcntl(acks[1], F_SETPIPE_SZ, 1 << 20); // a writer never waits for us
    pid_t pid = fork();
    if (pid == 0)
        write_changes(acks[1], from, 0);
    close(acks[1]);
    while (changes-- > 0)
        assert_int_equal(read(acks[0], &last, sizeof last), sizeof last);
    usleep(wait_us);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status))
        fail_msg("the writer ended by itself");
    return last_ack(acks[0], last);
}

static void killed(void **state)
{
    (void)state;
    uint64_t done = 0, acknowledged = 0, ahead = 0, kills = count_from("SALVER_STORE_KILLS", 200);
    for (uint64_t n = 0; n < kills; n++) {
        char what[32];
        snprintf(what, sizeof what, "kill %d", (int)n);
        if (n % 20 == 0) {
            start_anew();
            done = 0;
        }
        uint64_t last = n % 4 ? kill_a_writer(done, rand() % 12, (unsigned)rand() % 1000)
                              : kill_a_writer(done, 0, (unsigned)rand() % 4000);
        acknowledged += last - done;
        done = check_after(what, last);
        ahead += done - last;
    }
    print_message("%d kills, %d changes acknowledged, %d there without\n", (int)kills,
                  (int)acknowledged, (int)ahead);
    assert_true(acknowledged > kills);
}

// Lets a traced process go on to its nth entry into or return from the kernel; false: it ended
// before.
static bool go_on(pid_t pid, int n, int *ret_status)
{
    for (int i = 0; i < n; i++)
        if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) < 0 || waitpid(pid, ret_status, 0) != pid ||
            !WIFSTOPPED(*ret_status))
            return false;
    return true;
}

// Kills a process that makes a store and changes it 3 times, at its nth step. false: it ended
// before.
static bool kill_at_step(int n)
{
    int acks[2], status = 0;
    char what[32];
    assert_int_equal(pipe(acks), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP))
            _exit(3);
        write_changes(acks[1], 0, 3);
    }
    close(acks[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSTOPPED(status))
        skip(); // no right to trace
    bool alive = go_on(pid, n, &status);
    kill(pid, SIGKILL);
    if (alive)
        waitpid(pid, &status, 0);
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    snprintf(what, sizeof what, "step %d", n);
    check_after(what, last_ack(acks[0], 0));
    return alive;
}

static void killed_at_every_step(void **state)
{
    (void)state;
    int n = 0;
    while (kill_at_step(n)) {
        start_anew();
        n += count_from("SALVER_FULL", 0) ? 1 : 1 + rand() % 3;
    }
    print_message("killed at steps up to %d\n", n);
    assert_true(n > 100);
}

static const struct CMUnitTest tests[] = {
    TEST(settings),
    TEST(file_size_limit),
    cmocka_unit_test_setup_teardown(killed, set_up_on_disk, tear_down),
    TEST(killed_at_every_step),
    TEST(full_disk),
};

int main(void)
{
    srand((unsigned)clock_now_ns());
    return cmocka_run_group_tests_name("control_store_faults", tests, NULL, NULL);
}
