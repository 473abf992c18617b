// SPDX-License-Identifier: Apache-2.0
/*
 * sse_read - reads N event streams as fast as they come and says how they came.
 *
 * Usage: sse_read [-H HOST] -p PORT -u PATH -n STREAMS -d SECONDS [-w WARMUP_SECONDS] [-b BODY]
 * With a body, which is JSON, it POSTs.
 * Prints one JSON object: events, bytes and read() calls after the warm-up, the gaps between two
 * events of a stream in us, how many streams were open at the end, and how many failed to open.
 * An event is a `data: ` line; two of them in one read() are 0 us apart.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 1024, GAPS_MAX = 8 << 20, READ_BYTES = 64 << 10, WAIT_MS = 100 };

struct stream {
    int fd, ok, matched; // matched: bytes of "data: " seen at the end of the last read
    uint64_t last_ns;
};

static struct stream streams[STREAMS_MAX];
static uint32_t *gaps; // us, [0, n_gaps)
static size_t n_gaps;
static uint64_t events, bytes, reads, measure_from_ns;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int connect_one(const char *host, int port, const char *path, const char *body)
{
    char request[8192];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(s, (struct sockaddr *)&a, sizeof a) < 0) {
        close(s);
        return -1;
    }
    int n = snprintf(request, sizeof request,
                     "%s %s HTTP/1.1\r\nhost: %s:%d\r\naccept: text/event-stream\r\n"
                     "content-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                     *body ? "POST" : "GET", path, host, port, strlen(body), body);
    if (n >= (int)sizeof request) {
        fprintf(stderr, "sse_read: the body is too long\n");
        exit(2);
    }
    if (write(s, request, (size_t)n) != n) {
        close(s);
        return -1;
    }
    return s;
}

static void note_events(struct stream *s, uint32_t n, uint64_t now)
{
    if (now < measure_from_ns) {
        s->last_ns = now;
        return;
    }
    events += n;
    for (uint32_t i = 0; i < n; i++) {
        if (s->last_ns && n_gaps < GAPS_MAX)
            gaps[n_gaps++] = (uint32_t)((now - s->last_ns) / 1000);
        s->last_ns = now;
    }
}

static uint32_t count_events(struct stream *s, const char *p, size_t n)
{
    static const char mark[] = "data: ";
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++) {
        s->matched = p[i] == mark[s->matched] ? s->matched + 1 : p[i] == mark[0];
        if (mark[s->matched] == 0) {
            found++;
            s->matched = 0;
        }
    }
    return found;
}

// False when the stream has ended.
static int read_one(struct stream *s, uint64_t now)
{
    static char buf[READ_BYTES];
    ssize_t n = recv(s->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n <= 0)
        return 0;
    if (!s->ok)
        s->ok = n > 12 && memcmp(buf, "HTTP/1.1 200", 12) == 0;
    uint32_t found = count_events(s, buf, (size_t)n);
    note_events(s, found, now);
    if (now >= measure_from_ns) {
        bytes += (uint64_t)n;
        reads++;
    }
    return 1;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t quantile(double q)
{
    return n_gaps ? gaps[(size_t)(q * (double)(n_gaps - 1))] : 0;
}

static void report(int n, int open, double seconds)
{
    int ok = 0;
    for (int i = 0; i < n; i++)
        ok += streams[i].ok;
    qsort(gaps, n_gaps, sizeof *gaps, by_size);
    printf("{\"streams\":%d,\"answered\":%d,\"open\":%d,\"seconds\":%.3f,\"events\":%llu,"
           "\"bytes\":%llu,\"reads\":%llu,\"gap_p50_us\":%u,\"gap_p90_us\":%u,\"gap_p99_us\":%u,"
           "\"gap_max_us\":%u}\n",
           n, ok, open, seconds, (unsigned long long)events, (unsigned long long)bytes,
           (unsigned long long)reads, quantile(0.5), quantile(0.9), quantile(0.99), quantile(1));
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1", *path = "/", *body = "";
    int port = 8000, n = 1, open = 0, option;
    double seconds = 5, warm = 1;
    while ((option = getopt(argc, argv, "H:p:u:n:d:w:b:")) != -1) {
        switch (option) {
        case 'H':
            host = optarg;
            break;
        case 'p':
            port = atoi(optarg);
            break;
        case 'u':
            path = optarg;
            break;
        case 'n':
            n = atoi(optarg);
            break;
        case 'd':
            seconds = atof(optarg);
            break;
        case 'w':
            warm = atof(optarg);
            break;
        case 'b':
            body = optarg;
            break;
        default:
            return 2;
        }
    }
    if (n < 1 || n > STREAMS_MAX)
        return fprintf(stderr, "sse_read: 1 to %d streams\n", STREAMS_MAX), 2;
    gaps = malloc(GAPS_MAX * sizeof *gaps);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (!gaps || ep < 0)
        return perror("sse_read"), 1;
    for (int i = 0; i < n; i++) {
        streams[i].fd = connect_one(host, port, path, body);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &streams[i]};
        if (streams[i].fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, streams[i].fd, &e) == 0)
            open++;
    }
    measure_from_ns = now_ns() + (uint64_t)(warm * 1e9);
    uint64_t until = measure_from_ns + (uint64_t)(seconds * 1e9), now = 0;
    while (open > 0 && (now = now_ns()) < until) {
        struct epoll_event ready[256];
        int got = epoll_wait(ep, ready, 256, WAIT_MS);
        now = now_ns();
        for (int i = 0; i < got; i++) {
            struct stream *s = ready[i].data.ptr;
            if (!read_one(s, now)) {
                close(s->fd);
                open--;
            }
        }
    }
    report(n, open, seconds);
    return 0;
}
