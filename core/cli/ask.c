// SPDX-License-Identifier: Apache-2.0
#include "cli/ask.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int open_socket(const char *path, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_sec = ASK_TIMEOUT_S};
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(err, SV_E_INVALID, "'%s' is longer than a socket's path may be", path);
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
            return fd;
    }
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (why == ENOENT || why == ECONNREFUSED)
        return err_set(err, SV_E_UNAVAILABLE,
                       "no server answers on '%s'; is it running with another --state?", path);
    return err_set(err, SV_E_UNAVAILABLE, "connecting to '%s': %s", path, err_errno(why));
}

static int exchange(int fd, const char *path, struct buf *answer, struct err *err)
{
    enum { PIECE = 64 << 10 };
    struct buf request = {0};
    buf_printf(&request, "GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", path);
    ssize_t n = send(fd, buf_head(&request), buf_len(&request), MSG_NOSIGNAL);
    bool sent = n == (ssize_t)buf_len(&request);
    buf_finish(&request);
    while (sent && buf_len(answer) < ASK_ANSWER_MAX &&
           (n = recv(fd, buf_reserve(answer, PIECE), PIECE, 0)) > 0)
        buf_commit(answer, (size_t)n);
    if (!sent || n < 0)
        return err_set(err, SV_E_UNAVAILABLE, "asking the server for %s: %s", path,
                       err_errno(errno));
    return 0;
}

// Leaves the body of a complete 200 in `answer`.
static int strip_head(struct buf *answer, struct err *err)
{
    const char *text = buf_cstr(answer);
    char *end = strstr(text, "\r\n\r\n");
    const char *length = strcasestr(text, "\ncontent-length:");
    if (!end || strncmp(text, "HTTP/1.1 200", 12) != 0 || !length || length > end)
        return err_set(err, SV_E_UNAVAILABLE, "the server answered '%.*s'",
                       (int)strcspn(text, "\r\n"), text);
    size_t want = strtoul(length + strlen("\ncontent-length:"), NULL, 10);
    buf_consume(answer, (size_t)(end - text) + 4);
    if (buf_len(answer) != want)
        return err_set(err, SV_E_UNAVAILABLE, "the server's answer has %zu of %zu bytes",
                       buf_len(answer), want);
    return 0;
}

int ask_get(const char *socket_path, const char *path, struct buf *ret_body, struct err *err)
{
    int fd = open_socket(socket_path, err);
    if (fd < 0)
        return fd;
    struct buf answer = {0};
    int rc = exchange(fd, path, &answer, err);
    close(fd);
    if (rc == 0)
        rc = strip_head(&answer, err);
    if (rc < 0)
        buf_finish(&answer);
    else
        *ret_body = answer;
    return rc;
}
