// SPDX-License-Identifier: Apache-2.0
/*
 * sse_floor - the least that sending SSE events can cost: a bare loop which accepts N connections,
 * writes one event to each of them every tick, one write() per event, and knows no HTTP beyond a
 * fixed head. The bytes of an event are those of a chunked answer with one `data: ` line.
 *
 * Usage: sse_floor PORT STREAMS EVERY_US EVENT_BYTES SECONDS
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 1024, EVENT_MAX = 1024 };

static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                           "transfer-encoding: chunked\r\n\r\n";

static int listen_on(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (struct sockaddr *)&a, sizeof a) < 0 || listen(s, 1024) < 0) {
        perror("sse_floor: listen");
        exit(1);
    }
    return s;
}

static int accept_one(int listener)
{
    char request[4096];
    int on = 1, s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (s < 0) {
        perror("sse_floor: accept");
        exit(1);
    }
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (read(s, request, sizeof request) <= 0)
        usleep(100);
    if (write(s, head, sizeof head - 1) < 0)
        perror("sse_floor: write");
    return s;
}

static size_t make_event(char *out, size_t cap, size_t bytes)
{
    char text[EVENT_MAX + 1];
    memset(text, 'x', bytes);
    text[bytes] = 0;
    return (size_t)snprintf(out, cap, "%zx\r\ndata: %s\n\n\r\n", bytes + 8, text);
}

int main(int argc, char **argv)
{
    static int streams[STREAMS_MAX];
    char event[EVENT_MAX + 64];
    if (argc != 6)
        return fprintf(stderr, "usage: sse_floor PORT STREAMS EVERY_US EVENT_BYTES SECONDS\n"), 2;
    int n = atoi(argv[2]), every_us = atoi(argv[3]), bytes = atoi(argv[4]);
    if (n < 1 || n > STREAMS_MAX || every_us < 10 || bytes < 1 || bytes > EVENT_MAX)
        return fprintf(stderr, "sse_floor: at most %d streams, %d bytes\n", STREAMS_MAX, EVENT_MAX),
               2;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(atoi(argv[1]));
    for (int i = 0; i < n; i++)
        streams[i] = accept_one(listener);
    size_t len = make_event(event, sizeof event, (size_t)bytes);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct timespec every = {.tv_sec = every_us / 1000000, .tv_nsec = every_us % 1000000 * 1000L};
    struct itimerspec spec = {.it_interval = every, .it_value = every};
    timerfd_settime(timer, 0, &spec, NULL);
    time_t until = time(NULL) + atoi(argv[5]);
    uint64_t expired, ticks = 0;
    // Dead readers are written to all the same: the reader ends the run for all of them at once.
    while (time(NULL) < until && read(timer, &expired, sizeof expired) == sizeof expired) {
        for (int i = 0; i < n; i++)
            if (write(streams[i], event, len) < 0 && i == 0)
                return 0;
        ticks++;
    }
    printf("%llu\n", (unsigned long long)ticks);
    return 0;
}
