// SPDX-License-Identifier: Apache-2.0
/*
 * load - a closed-loop HTTP/1.1 client that writes down what became of every single request.
 *
 * Usage: load -p PORT [-H HOST] [-c CONNECTIONS] [-n REQUESTS] [-d SECONDS] [-m METHOD] [-u PATH]
 *             [-b BODY_BYTES] [-i FIRST_ID] [-B PAUSE_US] [-t TIMEOUT_S] [-F FD,FD,...] [-o FILE]
 *
 * PATH may hold one `%s`, which becomes the request's number. With -B all connections send at once,
 * wait for one another and pause: bursts. With -F the connections are descriptors it inherits (a
 * closed one is opened anew). SIGTERM and SIGINT end it as -d does: what is open is finished.
 * FILE gets a line per request, times are CLOCK_MONOTONIC:
 *   id,connection,sent_ns,first_ns,done_ns,status,bytes,reused,closed,request_id,id_in_body,error
 * status 0 and a word under `error` (connect, reset, eof, timeout, broken) is a request without an
 * answer; `reused` says that the connection had carried an answer before; `id_in_body` that the
 * body names the request id; `closed` that the answer announced the end of the connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNS_MAX = 1024, ANSWER_MAX = 64 << 10, REQUEST_MAX = 1 << 20, PATH_MAX_BYTES = 1024 };

enum state {
    IDLE,       // may send
    CONNECTING, // waits for EPOLLOUT, then sends
    WAITING,    // request is written or being written, the answer is awaited
    RESTING,    // burst: answered, waits for the others
    FINISHED,   // nothing more to send
};

struct conn {
    enum state state;
    int fd;
    bool reused, inherited;
    uint64_t id, sent_ns, first_ns;
    size_t request_len, request_off, len;
    char *request;               // owned, REQUEST_MAX bytes
    char answer[ANSWER_MAX + 1]; // [0, len)
};

struct answer {
    int status;
    size_t head, total; // bytes
    bool closes, id_in_body;
    char request_id[129];
};

static struct options {
    const char *host, *method, *path, *fds, *out;
    int port, conns;
    uint64_t requests, first_id;
    double seconds, timeout_s;
    size_t body;
    long pause_us; // < 0: no bursts
} opt = {.host = "127.0.0.1",
         .method = "GET",
         .path = "/",
         .port = 8000,
         .conns = 1,
         .requests = UINT64_MAX,
         .seconds = 3600,
         .timeout_s = 30,
         .pause_us = -1};

static struct conn *conns;
static int ep;
static FILE *out;
static uint64_t next_id, answered, failed;
static volatile sig_atomic_t stopping;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void disconnect(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->reused = false;
}

static void record(struct conn *c, const struct answer *a, const char *error)
{
    uint64_t now = now_ns();
    if (*error)
        failed++;
    else
        answered++;
    fprintf(out, "%llu,%d,%llu,%llu,%llu,%d,%zu,%d,%d,%s,%d,%s\n", (unsigned long long)c->id,
            (int)(c - conns), (unsigned long long)c->sent_ns, (unsigned long long)c->first_ns,
            (unsigned long long)now, a->status, c->len, c->reused, a->closes, a->request_id,
            a->id_in_body, error);
    c->state = opt.pause_us >= 0 ? RESTING : IDLE;
}

static void fail(struct conn *c, const char *error)
{
    struct answer none = {0};
    record(c, &none, error);
    disconnect(c);
}

static const char *header(const char *head, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = head; (p = memchr(p, '\n', n - (size_t)(p - head)));) {
        p++;
        if ((size_t)(p - head) + len + 1 < n && strncasecmp(p, name, len) == 0 && p[len] == ':')
            return p + len + 1 + strspn(p + len + 1, " ");
    }
    return NULL;
}

// Bytes of a chunked body at p, 0 when it is not whole yet, -1 when it is broken.
static long chunked_length(const char *p, size_t n)
{
    size_t at = 0;
    for (;;) {
        char *end;
        const char *line = memchr(p + at, '\n', n - at);
        if (!line)
            return 0;
        unsigned long size = strtoul(p + at, &end, 16);
        if (end == p + at || size > ANSWER_MAX)
            return -1;
        at = (size_t)(line - p) + 1 + size + 2;
        if (at > n)
            return 0;
        if (size == 0)
            return (long)at;
    }
}

// 1: whole, 0: more is needed, -1: broken.
static int parse(struct conn *c, struct answer *a)
{
    c->answer[c->len] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end)
        return c->len == ANSWER_MAX ? -1 : 0;
    a->head = (size_t)(end - c->answer) + 4;
    if (sscanf(c->answer, "HTTP/1.1 %d", &a->status) != 1)
        return -1;
    const char *length = header(c->answer, a->head, "content-length");
    const char *coding = header(c->answer, a->head, "transfer-encoding");
    const char *closing = header(c->answer, a->head, "connection");
    const char *id = header(c->answer, a->head, "x-request-id");
    a->closes = closing && strncasecmp(closing, "close", 5) == 0;
    if (id)
        sscanf(id, "%128[!-~]", a->request_id);
    long body = 0;
    if (coding)
        body = chunked_length(c->answer + a->head, c->len - a->head);
    else if (length)
        body = strtol(length, NULL, 10);
    else
        return -1;
    a->total = a->head + (size_t)(body > 0 ? body : 0);
    if (body < 0 || a->total > ANSWER_MAX)
        return -1;
    if ((coding && body == 0) || c->len < a->total)
        return 0;
    a->id_in_body = *a->request_id && strstr(c->answer + a->head, a->request_id);
    return c->len == a->total ? 1 : -1;
}

static void watch(struct conn *c, uint32_t events, int how)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(ep, how, c->fd, &e) < 0) {
        perror("load: epoll_ctl");
        exit(1);
    }
}

static void flush(struct conn *c)
{
    while (c->request_off < c->request_len) {
        ssize_t n = send(c->fd, c->request + c->request_off, c->request_len - c->request_off,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (n < 0) { // an early answer may still be there to read
            c->request_off = c->request_len;
            return;
        }
        c->request_off += (size_t)n;
    }
}

static void make_request(struct conn *c)
{
    char number[24], path[PATH_MAX_BYTES];
    const char *hole = strstr(opt.path, "%s");
    snprintf(number, sizeof number, "%llu", (unsigned long long)c->id);
    if (hole)
        snprintf(path, sizeof path, "%.*s%s%s", (int)(hole - opt.path), opt.path, number, hole + 2);
    else
        snprintf(path, sizeof path, "%s", opt.path);
    int n = snprintf(c->request, REQUEST_MAX, "%s %s HTTP/1.1\r\nhost: %s:%d\r\n", opt.method, path,
                     opt.host, opt.port);
    if (opt.body)
        n += snprintf(c->request + n, REQUEST_MAX - (size_t)n, "content-length: %zu\r\n", opt.body);
    n += snprintf(c->request + n, REQUEST_MAX - (size_t)n, "\r\n");
    memset(c->request + n, 'x', opt.body);
    c->request_len = (size_t)n + opt.body;
}

static bool open_socket(struct conn *c)
{
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    inet_pton(AF_INET, opt.host, &a.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("load: socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS)
        return false;
    watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    return true;
}

static void start(struct conn *c)
{
    c->id = next_id++;
    c->sent_ns = now_ns();
    c->first_ns = c->len = c->request_off = 0;
    make_request(c);
    if (c->fd < 0) {
        c->state = CONNECTING;
        if (!open_socket(c))
            fail(c, "connect");
        return;
    }
    if (c->inherited) {
        c->inherited = false;
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
    }
    c->state = WAITING;
    flush(c);
}

static void connected(struct conn *c)
{
    int error = 0;
    socklen_t n = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        fail(c, "connect");
        return;
    }
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    c->state = WAITING;
    flush(c);
}

static void receive(struct conn *c)
{
    struct answer a = {0};
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        fail(c, n == 0 ? "eof" : "reset");
        return;
    }
    if (c->first_ns == 0)
        c->first_ns = now_ns();
    c->len += (size_t)n;
    int got = parse(c, &a);
    if (got < 0) {
        fail(c, "broken");
    } else if (got > 0) {
        record(c, &a, "");
        c->reused = true;
        if (a.closes)
            disconnect(c);
    }
}

static void on_event(struct conn *c, uint32_t events)
{
    if (c->fd < 0)
        return;
    if (c->state == CONNECTING) {
        connected(c);
        return;
    }
    if (c->state != WAITING) { // the server closed an idle connection
        disconnect(c);
        return;
    }
    if (events & EPOLLOUT) {
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        flush(c);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(c);
}

static bool may_send(uint64_t until_ns)
{
    return !stopping && next_id - opt.first_id < opt.requests && now_ns() < until_ns;
}

// Starts what may start, ends what waited too long; how many connections still have work.
static int turn(uint64_t until_ns)
{
    int busy = 0, resting = 0;
    uint64_t late_ns = now_ns() - (uint64_t)(opt.timeout_s * 1e9);
    for (int i = 0; i < opt.conns; i++) {
        struct conn *c = &conns[i];
        if ((c->state == WAITING || c->state == CONNECTING) && c->sent_ns < late_ns)
            fail(c, "timeout");
        if (c->state == IDLE && may_send(until_ns))
            start(c);
        else if (c->state == IDLE)
            c->state = FINISHED;
        busy += c->state == WAITING || c->state == CONNECTING || c->state == IDLE;
        resting += c->state == RESTING;
    }
    if (resting > 0 && busy == 0) {
        usleep((useconds_t)opt.pause_us);
        for (int i = 0; i < opt.conns; i++)
            if (conns[i].state == RESTING)
                conns[i].state = IDLE;
        return resting;
    }
    return busy;
}

static void read_options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "H:p:c:n:d:m:u:b:i:B:t:F:o:")) != -1) {
        switch (option) {
        case 'H':
            opt.host = optarg;
            break;
        case 'p':
            opt.port = atoi(optarg);
            break;
        case 'c':
            opt.conns = atoi(optarg);
            break;
        case 'n':
            opt.requests = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            opt.seconds = atof(optarg);
            break;
        case 'm':
            opt.method = optarg;
            break;
        case 'u':
            opt.path = optarg;
            break;
        case 'b':
            opt.body = strtoul(optarg, NULL, 10);
            break;
        case 'i':
            opt.first_id = strtoull(optarg, NULL, 10);
            break;
        case 'B':
            opt.pause_us = atol(optarg);
            break;
        case 't':
            opt.timeout_s = atof(optarg);
            break;
        case 'F':
            opt.fds = optarg;
            break;
        case 'o':
            opt.out = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (opt.conns < 1 || opt.conns > CONNS_MAX || opt.body > REQUEST_MAX - 4096) {
        fprintf(stderr, "load: 1 to %d connections, at most %d body bytes\n", CONNS_MAX,
                REQUEST_MAX - 4096);
        exit(2);
    }
}

static void make_conns(void)
{
    const char *fds = opt.fds;
    conns = calloc((size_t)opt.conns, sizeof *conns);
    for (int i = 0; conns && i < opt.conns; i++) {
        conns[i].request = malloc(REQUEST_MAX);
        conns[i].fd = -1;
        if (!conns[i].request)
            exit(1);
        if (fds && *fds) {
            char *end;
            conns[i].fd = (int)strtol(fds, &end, 10);
            conns[i].inherited = true;
            fds = *end == ',' ? end + 1 : end;
        }
    }
    if (!conns)
        exit(1);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    make_conns();
    out = opt.out ? fopen(opt.out, "w") : stdout;
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (!out || ep < 0)
        return perror("load"), 1;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    next_id = opt.first_id;
    uint64_t until_ns = now_ns() + (uint64_t)(opt.seconds * 1e9);
    while (turn(until_ns) > 0) {
        struct epoll_event ready[256];
        int n = epoll_wait(ep, ready, 256, 10);
        for (int i = 0; i < n; i++) {
            struct conn *c = ready[i].data.ptr;
            on_event(c, ready[i].events);
            if (c->state == IDLE && may_send(until_ns))
                start(c);
        }
    }
    fclose(out);
    fprintf(stderr, "load: %llu answered, %llu without an answer\n", (unsigned long long)answered,
            (unsigned long long)failed);
    return 0;
}
