// SPDX-License-Identifier: Apache-2.0
/*
 * abi_pages - bodies between two processes: through a socketpair, or in mapped pages.
 *
 * Usage: abi_pages [PRODUCER_CORE CONSUMER_CORE [ROUNDS]]
 * A producer sends bodies of one size, IN_FLIGHT of them before it waits; the consumer reads a word
 * of every cache line, answers with one byte each. Prints a table: CPU time of both processes and
 * time from start to end, per body in us, medians of ROUNDS with their ranges, the ways in turns.
 *
 *   frames  write() of header and body; read() into a buffer of the consumer's
 *   pool    memcpy into pages that both mapped beforehand; the header alone goes through the socket
 *   direct  as pool, but the body was made in those pages (reserve/commit): no copy at all
 *   fresh   a new memfd for each body, passed along, mapped, unmapped
 */
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_FLIGHT = 4,
    BODY_MAX = 4 << 20,
    BYTES_A_RUN = 256 << 20, // but RUN_MIN to RUN_MAX bodies
    RUN_MIN = 64,
    RUN_MAX = 16384,
    ROUNDS_MAX = 101,
    SNDBUF = 512 << 10 // as core/wire's links ask for
};
enum way { FRAMES, POOL, DIRECT, FRESH, WAYS };
static const char *const way_names[WAYS] = {"frames", "pool", "direct", "fresh"};

struct head {
    uint64_t size, at; // at: in the pool
};

struct cost {
    double cpu_us, wall_us;
};

static char *pool, *source, *sink;
static volatile uint64_t seen;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("sched_setaffinity");
}

static void look(const char *p, size_t n)
{
    uint64_t sum = 0, word;
    for (size_t i = 0; i + sizeof word <= n; i += 64) {
        memcpy(&word, p + i, sizeof word);
        sum += word;
    }
    seen += sum;
}

static void read_all(int fd, void *to, size_t n)
{
    for (char *p = to; n;) {
        ssize_t got = read(fd, p, n);
        if (got <= 0 && errno != EINTR)
            die("read");
        p += got > 0 ? got : 0;
        n -= got > 0 ? (size_t)got : 0;
    }
}

static void write_body(int fd, struct head *h, char *body)
{
    struct iovec v[2] = {{h, sizeof *h}, {body, h->size}};
    for (int i = 0; i < 2;) {
        ssize_t n = writev(fd, v + i, 2 - i);
        if (n < 0 && errno != EINTR)
            die("writev");
        for (; i < 2 && n >= (ssize_t)v[i].iov_len; i++)
            n -= (ssize_t)v[i].iov_len;
        if (i < 2 && n > 0) {
            v[i].iov_base = (char *)v[i].iov_base + n;
            v[i].iov_len -= (size_t)n;
        }
    }
}

static void send_fresh(int fd, struct head *h)
{
    int body = memfd_create("body", MFD_CLOEXEC);
    if (body < 0 || ftruncate(body, (off_t)h->size) < 0)
        die("memfd");
    char *p = mmap(NULL, h->size, PROT_READ | PROT_WRITE, MAP_SHARED, body, 0);
    if (p == MAP_FAILED)
        die("mmap");
    memcpy(p, source, h->size);
    munmap(p, h->size);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec v = {h, sizeof *h};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &body, sizeof body);
    if (sendmsg(fd, &m, 0) != sizeof *h)
        die("sendmsg");
    close(body);
}

static void take_fresh(int fd, struct head *h)
{
    char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct iovec v = {h, sizeof *h};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int body;
    if (recvmsg(fd, &m, MSG_WAITALL) != sizeof *h || !CMSG_FIRSTHDR(&m))
        die("recvmsg");
    memcpy(&body, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof body);
    char *p = mmap(NULL, h->size, PROT_READ, MAP_SHARED, body, 0);
    if (p == MAP_FAILED)
        die("mmap");
    look(p, h->size);
    munmap(p, h->size);
    close(body);
}

static void produce(int fd, enum way way, size_t size, uint32_t n)
{
    char done;
    for (uint32_t i = 0; i < n + IN_FLIGHT; i++) {
        struct head h = {size, (uint64_t)(i % IN_FLIGHT) * BODY_MAX};
        if (i >= IN_FLIGHT)
            read_all(fd, &done, 1);
        if (i >= n)
            continue;
        if (way == POOL)
            memcpy(pool + h.at, source, size);
        if (way == FRAMES)
            write_body(fd, &h, source);
        else if (way == FRESH)
            send_fresh(fd, &h);
        else if (write(fd, &h, sizeof h) != sizeof h)
            die("write");
    }
}

static void consume(int fd, enum way way, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct head h;
        if (way == FRESH) {
            take_fresh(fd, &h);
        } else {
            read_all(fd, &h, sizeof h);
            if (way == FRAMES)
                read_all(fd, sink, h.size);
            look(way == FRAMES ? sink : pool + h.at, h.size);
        }
        if (write(fd, "", 1) != 1)
            die("write");
    }
}

static struct cost run(enum way way, size_t size, const int cores[2])
{
    int fds[2];
    uint32_t n = (uint32_t)(BYTES_A_RUN / size);
    n = n < RUN_MIN ? RUN_MIN : n > RUN_MAX ? RUN_MAX : n;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        die("socketpair");
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &(int){SNDBUF}, sizeof(int));
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(fds[0]);
        pin(cores[1]);
        consume(fds[1], way, IN_FLIGHT * 2); // pages are there, caches are as they will be
        double began = seconds(CLOCK_PROCESS_CPUTIME_ID);
        consume(fds[1], way, n);
        double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - began;
        _exit(write(fds[1], &used, sizeof used) == sizeof used ? 0 : 1);
    }
    close(fds[1]);
    pin(cores[0]);
    produce(fds[0], way, size, IN_FLIGHT * 2);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC), theirs;
    produce(fds[0], way, size, n);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    read_all(fds[0], &theirs, sizeof theirs);
    close(fds[0]);
    waitpid(child, NULL, 0);
    return (struct cost){(cpu + theirs) * 1e6 / n, wall * 1e6 / n};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    printf(" %.1f (%.1f-%.1f) |", v[n / 2], v[0], v[n - 1]);
}

int main(int argc, char **argv)
{
    int cores[2] = {argc > 2 ? atoi(argv[1]) : 0, argc > 2 ? atoi(argv[2]) : 1};
    int rounds = argc > 3 ? atoi(argv[3]) : 7;
    static double cpu[WAYS][ROUNDS_MAX], wall[WAYS][ROUNDS_MAX];
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "abi_pages: %d rounds; 1 to %d are possible\n", rounds, ROUNDS_MAX);
        return 2;
    }
    pool = mmap(NULL, (size_t)IN_FLIGHT * BODY_MAX, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    source = malloc(BODY_MAX);
    sink = malloc(BODY_MAX);
    if (pool == MAP_FAILED || !source || !sink)
        die("memory");
    memset(pool, 'x', (size_t)IN_FLIGHT * BODY_MAX);
    memset(source, 'x', BODY_MAX);
    memset(sink, 'x', BODY_MAX);
    printf("| bytes | way | CPU us a body | wall us a body |\n|---|---|---|---|\n");
    for (size_t size = 4 << 10; size <= BODY_MAX; size *= 4) {
        for (int i = 0; i < rounds; i++)
            for (int w = 0; w < WAYS; w++) {
                struct cost c = run((enum way)w, size, cores);
                cpu[w][i] = c.cpu_us;
                wall[w][i] = c.wall_us;
            }
        for (int w = 0; w < WAYS; w++) {
            printf("| %zu | %s |", size, way_names[w]);
            print(cpu[w], rounds);
            print(wall[w], rounds);
            printf("\n");
        }
        fflush(stdout);
    }
    return 0;
}
