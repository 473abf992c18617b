// SPDX-License-Identifier: Apache-2.0
#include "worker/capture.h"

#include "base/check.h"
#include "obs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void log_one(const char *p, size_t n)
{
    while (n && (p[n - 1] == '\r' || p[n - 1] == '\n'))
        n--;
    if (n)
        LOGI("plugin: %.*s", (int)n, p);
}

static void log_lines(struct capture *c, bool all)
{
    for (;;) {
        const char *p = c->line.data ? buf_head(&c->line) : "";
        size_t n = buf_len(&c->line);
        const char *eol = memchr(p, '\n', n);
        size_t used = eol ? (size_t)(eol - p) + 1 : n >= CAPTURE_LINE || all ? n : 0;
        if (used == 0)
            return;
        for (size_t at = 0; at < used; at += CAPTURE_LINE)
            log_one(p + at, used - at < CAPTURE_LINE ? used - at : CAPTURE_LINE);
        buf_consume(&c->line, used);
    }
}

// False: nothing more is there now.
static bool read_some(struct capture *c)
{
    ssize_t n = read(c->fd, buf_reserve(&c->line, 16 << 10), 16 << 10);
    if (n > 0)
        buf_commit(&c->line, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        uv_poll_stop(&c->poll);
    log_lines(c, false);
    return n > 0;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct capture *c = CONTAINER_OF(h, struct capture, poll);
    (void)status;
    (void)events;
    for (size_t n = 0; n < CAPTURE_TURN && read_some(c); n += 16 << 10)
        ;
}

int capture_open(struct capture *c, uv_loop_t *loop, int fd)
{
    *c = (struct capture){.fd = fd};
    if (fcntl(fd, F_GETFD) < 0)
        return 0; // started by hand, without a pipe
    int rc = uv_poll_init(loop, &c->poll, fd);
    if (rc == 0)
        rc = uv_poll_start(&c->poll, UV_READABLE, on_poll);
    return rc;
}

void capture_drain(struct capture *c)
{
    if (!c->poll.loop)
        return;
    for (size_t n = 0; n < CAPTURE_TURN && read_some(c); n += 16 << 10)
        ;
    log_lines(c, true);
}
