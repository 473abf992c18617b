// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/err.h"
#include "base/os.h"
#include "wire/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS_MAX = 20000 }; // of the loop, until a test gives up

// One end as a test sees it. `seen` gets "name:id " for every frame, "| " for on_turn, "EOF " or
// "fault " for the end.
struct side {
    struct link link;
    struct buf seen;
    uint64_t bytes;
    int ended, freed, starved, fds[256], n_fds;
    uint64_t close_at; // a frame of this id closes the link from within on_frame
    bool quiet;        // counts bytes alone
    bool sum_data;     // counts bytes of DATA that are the id and their place
    uint64_t sum;
    char fault[ERR_MSG_MAX];
};

static uv_loop_t loop;
static struct turn turn;

static void on_free(struct link *l)
{
    ((struct side *)l->ctx)->freed++;
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct side *s = l->ctx;
    assert_int_equal(s->freed, 0);
    s->bytes += f->head.size;
    for (size_t i = 0; s->sum_data && i < f->head.size; i++)
        s->sum += f->head.kind == WIRE_data && f->payload[i] == (char)(f->head.id + i);
    for (int i = 0; i < f->head.n_fds; i++)
        s->fds[s->n_fds++] = f->fds[i];
    if (!s->quiet)
        buf_printf(&s->seen, "%s:%llu ", wire_kind_name(f->head.kind),
                   (unsigned long long)f->head.id);
    if (s->close_at && f->head.id == s->close_at)
        link_close(l, on_free);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct side *s = l->ctx;
    s->ended++;
    buf_puts(&s->seen, err ? "fault " : "EOF ");
    if (err)
        strcpy(s->fault, err->msg);
}

static void on_turn(struct link *l)
{
    struct side *s = l->ctx;
    if (!s->quiet)
        buf_puts(&s->seen, "| ");
}

static void on_starved(struct link *l)
{
    ((struct side *)l->ctx)->starved++;
}

static const struct link_ops ops = {
    .on_frame = on_frame, .on_closed = on_closed, .on_turn = on_turn};
static const struct link_ops careful_ops = {
    .on_frame = on_frame, .on_closed = on_closed, .on_turn = on_turn, .on_starved = on_starved};

static void side_open(struct side *s, int fd, enum wire_role role, const char *name)
{
    struct err err;
    memset(s, 0, sizeof *s);
    assert_int_equal(link_open(&s->link, &loop, &turn, fd, role, name, &ops, s, &err), 0);
}

static void run_turns(int n)
{
    while (n-- > 0)
        uv_run(&loop, UV_RUN_NOWAIT);
}

static void side_finish(struct side *s)
{
    if (!s->link.closing)
        link_close(&s->link, on_free);
    run_turns(2);
    assert_int_equal(s->freed, 1);
    buf_finish(&s->seen);
}

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int fds_before;

static int setup(void **state)
{
    (void)state;
    uv_default_loop(); // what libuv opens once for the process
    fds_before = count_fds();
    uv_loop_init(&loop);
    return turn_init(&turn, &loop);
}

// Nothing may be left behind: no handle, no descriptor.
static int teardown(void **state)
{
    (void)state;
    turn_close(&turn);
    run_turns(2);
    int rc = uv_loop_close(&loop);
    return rc ? rc : count_fds() - fds_before;
}

static void put_window(struct link *l, uint64_t id)
{
    wire_put_window(&l->out, id, 0, &(struct wire_window){.bytes = 1});
}

static void frames_both_ways(void **state)
{
    (void)state;
    struct side a, b;
    int fds[2];
    assert_int_equal(os_socketpair(fds, NULL), 0);
    side_open(&a, fds[0], ROLE_INGRESS, "ingress/0");
    side_open(&b, fds[1], ROLE_WORKER, "echo/echo/0");
    put_window(&a.link, 1);
    put_window(&a.link, 2);
    link_kick(&a.link);
    run_turns(3);
    assert_string_equal(buf_cstr(&b.seen), "window:1 window:2 | ");
    assert_string_equal(b.link.peer_name, "ingress/0");
    assert_int_equal(b.link.peer_role, ROLE_INGRESS);
    assert_int_equal(a.link.peer_pid, getpid());
    wire_put_raw(&b.link.out, WIRE_data, 3, 0, "xyz", 3);
    link_kick(&b.link);
    run_turns(3);
    assert_non_null(strstr(buf_cstr(&a.seen), "data:3 | "));
    assert_int_equal(a.bytes, 3);
    side_finish(&a);
    side_finish(&b);
}

// The raw end of a pair: bytes as a peer of ours, or a hostile one, would write them.
static void say_hello(struct buf *out, uint32_t version)
{
    wire_put_hello(out, 0, 0, &(struct wire_hello){.version = version, .name = "raw"});
}

static void split_frames(void **state)
{
    (void)state;
    struct side a;
    struct buf out = {0};
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    say_hello(&out, WIRE_VERSION);
    wire_put_raw(&out, WIRE_data, 1, 0, "abc", 3);
    wire_put_state(&out, 2, 0, &(struct wire_state){.text = "x"});
    for (size_t i = 0; i < buf_len(&out); i++) {
        assert_int_equal(write(fds[1], buf_head(&out) + i, 1), 1);
        run_turns(1);
    }
    run_turns(1);
    assert_string_equal(buf_cstr(&a.seen), "| data:1 | state:2 | ");
    close(fds[1]);
    side_finish(&a);
    buf_finish(&out);
}

static void eof_comes_after_every_frame(void **state)
{
    (void)state;
    struct side a;
    struct buf out = {0};
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    a.quiet = true;
    run_turns(2); // our HELLO lies unread at the peer: its death is an ECONNRESET for us
    fcntl(fds[1], F_SETFL, 0);
    say_hello(&out, WIRE_VERSION);
    for (uint64_t i = 1; i <= 2000; i++)
        wire_put_raw(&out, WIRE_data, i, 0, "0123456789abcdef0123456789abcdef", 32);
    wire_put_raw(&out, WIRE_data, 1, 0, "cut", 3);
    assert_int_equal(write(fds[1], buf_head(&out), buf_len(&out) - 1), buf_len(&out) - 1);
    close(fds[1]);
    for (int i = 0; i < 100 && !a.ended; i++) {
        put_window(&a.link, 5); // a send that fails must not hide what is still to be read
        link_flush(&a.link);
        run_turns(1);
    }
    run_turns(5);
    assert_int_equal(a.bytes, 2000 * 32);
    assert_string_equal(buf_cstr(&a.seen), "EOF ");
    assert_int_equal(a.ended, 1);
    link_kick(&a.link);
    side_finish(&a);
    buf_finish(&out);
}

static void broken_peers(void **state)
{
    (void)state;
    static const struct wire_frame_head large = {.size = WIRE_FRAME_MAX + 1, .kind = WIRE_state},
                                        no_fd = {.kind = WIRE_stop, .n_fds = 1};
    static const struct {
        const char *name;
        int hellos;
        uint32_t version;
        const void *tail;
        size_t n;
        const char *fault; // "": none
    } cases[] = {
        {"no greeting", 0, 0, "\0\0\0\0\52\0\0\0\0\0\0\0\0\0\0\0", 16, "where hello was to come"},
        {"next version", 1, WIRE_VERSION + 1, "", 0, ""},
        {"version after that", 1, WIRE_VERSION + 2, "", 0, "speaks version 3"},
        {"version 0", 1, 0, "", 0, "speaks version 0"},
        {"greets twice", 2, WIRE_VERSION, "", 0, "greets twice"},
        {"too large", 1, WIRE_VERSION, &large, WIRE_HEAD, "at most 4194304"},
        {"descriptors that did not come", 1, WIRE_VERSION, &no_fd, WIRE_HEAD, "of which 0 came"},
        {"unknown kinds are skipped", 1, WIRE_VERSION, "\1\0\0\0\372\0\0\0\0\0\0\0\0\0\0\0x", 17,
         ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side a;
        struct buf out = {0};
        int fds[2];
        os_socketpair(fds, NULL);
        side_open(&a, fds[0], ROLE_INGRESS, "a");
        for (int k = 0; k < cases[i].hellos; k++)
            say_hello(&out, cases[i].version);
        buf_put(&out, cases[i].tail, cases[i].n);
        assert_int_equal(write(fds[1], buf_head(&out), buf_len(&out)), buf_len(&out));
        run_turns(3);
        if (!strstr(a.fault, cases[i].fault) || a.ended != (*cases[i].fault ? 1 : 0))
            fail_msg("%s: ended %d, '%s'", cases[i].name, a.ended, a.fault);
        assert_null(strstr(buf_cstr(&a.seen), ":"));
        close(fds[1]);
        side_finish(&a);
        buf_finish(&out);
    }
}

static int temporary(const char *name)
{
    return os_memfd(name, 4096, NULL);
}

static void descriptors_travel_with_their_frame(void **state)
{
    (void)state;
    enum { N = 40 };
    struct side a, b;
    int fds[2], got = 0;
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_SUPERVISOR, "supervisor");
    side_open(&b, fds[1], ROLE_INGRESS, "ingress/0");
    for (uint64_t i = 1; i <= N; i++) { // a frame without, one with one, one with two
        put_window(&a.link, i);
        int one[] = {temporary("one")}, two[] = {temporary("two"), temporary("three")};
        link_put_fds(&a.link, one, 1);
        wire_put_page(&a.link.out, i, 0, &(struct wire_page){.name = "p"});
        link_put_fds(&a.link, two, 2);
        wire_put_attach(&a.link.out, i, 0, &(struct wire_attach){.name = "q"});
    }
    link_kick(&a.link);
    for (int turns = 0; got < N * 3 && turns < 500; turns++) {
        run_turns(1);
        for (int i = 0; i < b.n_fds; i++, got++) {
            char path[64], to[64] = {0};
            static const char *const names[] = {"/memfd:one", "/memfd:two", "/memfd:three"};
            snprintf(path, sizeof path, "/proc/self/fd/%d", b.fds[i]);
            assert_true(readlink(path, to, sizeof to - 1) > 0);
            assert_memory_equal(to, names[got % 3], strlen(names[got % 3]));
            assert_true(fcntl(b.fds[i], F_GETFD) & FD_CLOEXEC);
            close(b.fds[i]);
        }
        b.n_fds = 0;
    }
    assert_int_equal(got, N * 3);
    assert_int_equal(b.ended, 0);
    side_finish(&a);
    side_finish(&b);
}

static void send_with_fds(int sock, const void *p, size_t n, int n_fds)
{
    int own[4];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof own)];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * n_fds)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
    for (int i = 0; i < n_fds; i++)
        own[i] = temporary("stray");
    memcpy(CMSG_DATA(c), own, sizeof(int) * n_fds);
    assert_int_equal(sendmsg(sock, &msg, 0), n);
    for (int i = 0; i < n_fds; i++)
        close(own[i]);
}

// Teardown counts what is left open.
static void stray_descriptors_are_closed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n_fds, claimed, kind;
        int ended;
    } cases[] = {
        {"unclaimed", 2, 0, WIRE_window, 0},
        {"claimed by a kind that has none", 1, 1, WIRE_window, 1},
        {"more than claimed", 4, 2, WIRE_attach, 0},
        {"fewer than claimed", 1, 2, WIRE_attach, 1},
        {"of an unknown kind", 2, 2, 250, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side a;
        struct buf out = {0};
        int fds[2];
        os_socketpair(fds, NULL);
        side_open(&a, fds[0], ROLE_INGRESS, "a");
        say_hello(&out, WIRE_VERSION);
        assert_true(write(fds[1], buf_head(&out), buf_len(&out)) > 0);
        struct wire_frame_head head = {.kind = (uint8_t)cases[i].kind,
                                       .n_fds = (uint8_t)cases[i].claimed};
        send_with_fds(fds[1], &head, 7, cases[i].n_fds); // in two pieces
        run_turns(2);
        assert_int_equal(write(fds[1], (char *)&head + 7, WIRE_HEAD - 7), WIRE_HEAD - 7);
        run_turns(2);
        if (a.ended != cases[i].ended)
            fail_msg("%s: ended %d '%s'", cases[i].name, a.ended, a.fault);
        assert_int_equal(a.link.n_in_fds, 0);
        for (int k = 0; k < a.n_fds; k++)
            close(a.fds[k]);
        close(fds[1]);
        side_finish(&a);
        buf_finish(&out);
    }
}

static void back_pressure(void **state)
{
    (void)state;
    enum { FRAMES = 64 };
    static char block[WIRE_DATA_MAX];
    struct side a, b;
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    run_turns(2);
    for (int i = 0; i < FRAMES; i++) {
        wire_put_raw(&a.link.out, WIRE_body, 1, 0, block, sizeof block);
        link_kick(&a.link);
        run_turns(1);
    }
    assert_true(buf_len(&a.link.out) > 0); // nobody reads yet
    assert_true(a.link.events & UV_WRITABLE);
    side_open(&b, fds[1], ROLE_WORKER, "b");
    b.quiet = true;
    for (int i = 0; i < TURNS_MAX && b.bytes < FRAMES * sizeof block; i++)
        run_turns(1);
    assert_int_equal(b.bytes, FRAMES * sizeof block);
    run_turns(2);
    assert_int_equal(buf_len(&a.link.out), 0);
    assert_false(a.link.events & UV_WRITABLE);
    side_finish(&a);
    side_finish(&b);
}

// Large frames go past the buffer, but never past what is in it, read or not.
static void large_frames_keep_their_place(void **state)
{
    (void)state;
    enum { FRAMES = 40 };
    static char block[WIRE_DATA_MAX];
    char want[FRAMES * 32] = "";
    struct side a, b;
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_WORKER, "a");
    for (int i = 0; i < FRAMES; i++) {
        for (size_t k = 0; k < sizeof block; k++)
            block[k] = (char)((size_t)i + k);
        put_window(&a.link, (uint64_t)i);
        link_put_raw(&a.link, WIRE_data, (uint64_t)i, 0, block, sizeof block);
        if (i == 0)
            assert_int_equal(buf_len(&a.link.out), 0); // all left at once, with HELLO before it
        sprintf(want + strlen(want), "window:%d data:%d ", i, i);
    }
    assert_true(link_blocked(&a.link));
    side_open(&b, fds[1], ROLE_INGRESS, "b");
    b.sum_data = true;
    for (int i = 0; i < TURNS_MAX && b.sum < FRAMES * sizeof block; i++)
        run_turns(1);
    assert_int_equal(b.sum, FRAMES * sizeof block);
    char *from = (char *)(uintptr_t)buf_cstr(&b.seen), *to = from;
    for (const char *p = from; *p; p++) // without the marks of turns
        if (*p == '|')
            p++;
        else
            *to++ = *p;
    *to = 0;
    assert_string_equal(from, want);
    run_turns(2);
    assert_false(link_blocked(&a.link));
    side_finish(&a);
    side_finish(&b);
}

static void a_peer_that_never_reads_is_broken(void **state)
{
    (void)state;
    static char block[WIRE_DATA_MAX];
    struct side a;
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    for (size_t n = 0; n < LINK_OUT_MAX / sizeof block + 64; n++) {
        wire_put_raw(&a.link.out, WIRE_body, 1, 0, block, sizeof block);
        link_kick(&a.link);
        link_flush(&a.link);
        assert_int_equal(a.ended, 0); // never from within our own call
    }
    run_turns(2);
    assert_int_equal(a.ended, 1);
    assert_non_null(strstr(a.fault, "does not read"));
    close(fds[1]);
    side_finish(&a);
}

static void on_frame_may_close(void **state)
{
    (void)state;
    struct side a, b;
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    side_open(&b, fds[1], ROLE_WORKER, "b");
    b.close_at = 2;
    for (uint64_t i = 1; i <= 3; i++)
        put_window(&a.link, i);
    link_kick(&a.link);
    run_turns(5);
    assert_string_equal(buf_cstr(&b.seen), "window:1 window:2 ");
    assert_int_equal(b.freed, 1);
    assert_int_equal(a.ended, 1);
    side_finish(&a);
    buf_finish(&b.seen);
}

static void close_sends_what_is_there(void **state)
{
    (void)state;
    struct side a, b;
    int fds[2];
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_INGRESS, "a");
    side_open(&b, fds[1], ROLE_WORKER, "b");
    put_window(&a.link, 1);
    link_close(&a.link, on_free);
    run_turns(4);
    assert_string_equal(buf_cstr(&b.seen), "window:1 | EOF ");
    assert_int_equal(a.freed, 1);
    side_finish(&b);
    buf_finish(&a.seen);
}

static void a_large_frame_in_many_reads(void **state)
{
    (void)state;
    struct side a, b;
    int fds[2];
    char *json = calloc(1, WIRE_FRAME_MAX);
    os_socketpair(fds, NULL);
    side_open(&a, fds[0], ROLE_CONTROL, "control");
    side_open(&b, fds[1], ROLE_INGRESS, "b");
    wire_put_snapshot(&a.link.out, 4, 0,
                      &(struct wire_snapshot){.json = {json, WIRE_FRAME_MAX - 12}});
    put_window(&a.link, 5);
    link_kick(&a.link);
    for (int i = 0; i < TURNS_MAX && !strstr(buf_cstr(&b.seen), "window:5"); i++)
        run_turns(1);
    assert_non_null(strstr(buf_cstr(&b.seen), "snapshot:4 "));
    assert_int_equal(b.bytes, WIRE_FRAME_MAX + 4);
    assert_true(b.link.in.cap <= 1 << 20); // the memory is given back
    side_finish(&a);
    side_finish(&b);
    free(json);
}

// What a program that was executed in the place of another sends goes on where that one stopped:
// within a frame, and with the descriptors of the frames behind it.
static void a_link_goes_on_after_an_exec(void **state)
{
    (void)state;
    struct side a, b, c;
    int sockets[2], copy;
    struct err err;
    static char filler[300 << 10];
    assert_int_equal(os_socketpair(sockets, &err), 0);
    side_open(&a, sockets[0], ROLE_SUPERVISOR, "supervisor");
    side_open(&b, sockets[1], ROLE_WORKER, "w");
    run_turns(3);
    assert_true(a.link.greeted);
    buf_clear(&b.seen);
    for (uint64_t id = 1; id <= 8; id++) { // more than the socket takes while b does not read
        wire_put_orders(&a.link.out, id, 0, &(struct wire_orders){.json = {filler, sizeof filler}});
        int fd = temporary(id == 4 ? "four" : "other");
        if (id % 4 == 0)
            link_put_fds(&a.link, &fd, 1);
        else
            close(fd);
        wire_put_page(&a.link.out, 100 + id, 0, &(struct wire_page){.child_id = id});
    }
    link_flush(&a.link);
    size_t left = buf_len(&a.link.out);
    assert_in_range(left, 1 << 20, 8 * sizeof filler - 1);
    assert_int_equal(a.link.n_out_fds, 2);

    // As upgrade.c and resume.c do it: what is unsent, then the same socket anew.
    struct buf out = {0};
    struct link_piece p = {.at = 0};
    struct {
        size_t at;
        int fd;
    } fds[2];
    int n_fds = 0;
    while (link_unsent(&a.link, &p)) {
        assert_in_range(p.n_fds, 0, 1);
        if (p.n_fds) {
            fds[n_fds].at = buf_len(&out);
            fds[n_fds++].fd = dup(p.fds[0]);
        }
        buf_put(&out, p.bytes.p, p.bytes.n);
    }
    assert_int_equal(buf_len(&out), left);
    assert_int_equal(n_fds, 2);
    copy = dup(a.link.fd);
    buf_clear(&a.link.out); // the old program is gone without a word
    side_finish(&a);

    memset(&c, 0, sizeof c);
    assert_int_equal(link_resume(&c.link, &loop, &turn, copy, true, "w", &ops, &c, &err), 0);
    size_t done = 0;
    for (int i = 0; i <= 2; i++) {
        size_t end = i < 2 ? fds[i].at : buf_len(&out);
        buf_put(&c.link.out, buf_head(&out) + done, end - done);
        done = end;
        if (i < 2)
            link_put_fds(&c.link, &fds[i].fd, 1);
    }
    link_kick(&c.link);
    run_turns(200);
    wire_put_stop(&b.link.out, 7, 0, &(struct wire_stop){0});
    link_kick(&b.link);
    run_turns(5);

    char want[512] = "";
    for (int id = 1; id <= 8; id++)
        sprintf(want + strlen(want), "orders:%d page:%d ", id, 100 + id);
    char *seen = strdup(buf_cstr(&b.seen));
    for (char *bar; (bar = strstr(seen, "| "));)
        memmove(bar, bar + 2, strlen(bar + 2) + 1);
    assert_string_equal(seen, want);
    free(seen);
    assert_int_equal(b.n_fds, 2);
    assert_non_null(strstr(buf_cstr(&c.seen), "stop:7")); // and it still hears
    for (int i = 0; i < b.n_fds; i++)
        close(b.fds[i]);
    buf_finish(&out);
    side_finish(&b);
    side_finish(&c);
}

static void put_page(struct side *s, uint64_t id)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    link_put_fds(&s->link, &fd, 1);
    wire_put_page(&s->link.out, id, 0, &(struct wire_page){.name = "ingress/0"});
    link_kick(&s->link);
}

// The kernel would drop what does not fit, and the frames would be broken.
static void descriptors_wait_for_room(void **state)
{
    (void)state;
    struct side a, b = {0};
    struct err err;
    struct rlimit was, now;
    int fds[2];
    assert_int_equal(os_socketpair(fds, NULL), 0);
    side_open(&a, fds[0], ROLE_SUPERVISOR, "supervisor");
    assert_int_equal(
        link_open(&b.link, &loop, &turn, fds[1], ROLE_INGRESS, "i", &careful_ops, &b, &err), 0);
    run_turns(3);
    assert_int_equal(b.link.n_spares, WIRE_FDS_MAX);
    for (uint64_t id = 1; id <= 4; id++)
        put_page(&a, id);
    link_flush(&a.link); // and closes its own
    buf_clear(&b.seen);
    int filler[64], n_filler = 0;
    getrlimit(RLIMIT_NOFILE, &was);
    now = was;
    now.rlim_cur = ARRAY_LEN(filler);
    setrlimit(RLIMIT_NOFILE, &now);
    while ((filler[n_filler] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n_filler++;
    run_turns(5);
    assert_string_equal(buf_cstr(&b.seen), "page:1 | "); // in the place of a spare
    assert_true(b.link.starved);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(b.starved, i + 1);
        link_read_again(&b.link);
        run_turns(2);
    }
    assert_int_equal(b.ended, 0);
    while (n_filler > 0)
        close(filler[--n_filler]);
    setrlimit(RLIMIT_NOFILE, &was);
    link_read_again(&b.link);
    run_turns(3);
    assert_string_equal(buf_cstr(&b.seen), "page:1 | page:2 page:3 page:4 | ");
    assert_int_equal(b.n_fds, 4);
    for (int i = 0; i < b.n_fds; i++)
        close(b.fds[i]);
    link_close(&a.link, on_free);
    run_turns(3);
    assert_int_equal(b.ended, 1);
    side_finish(&b);
    buf_finish(&a.seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(split_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(eof_comes_after_every_frame, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_peers, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_travel_with_their_frame, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_wait_for_room, setup, teardown),
        cmocka_unit_test_setup_teardown(stray_descriptors_are_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(large_frames_keep_their_place, setup, teardown),
        cmocka_unit_test_setup_teardown(a_peer_that_never_reads_is_broken, setup, teardown),
        cmocka_unit_test_setup_teardown(on_frame_may_close, setup, teardown),
        cmocka_unit_test_setup_teardown(close_sends_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_frame_in_many_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(a_link_goes_on_after_an_exec, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
