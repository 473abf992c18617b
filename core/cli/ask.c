// SPDX-License-Identifier: Apache-2.0
#include "cli/ask.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int parse_address(struct ask_server *s, const char *address, struct err *err);
static int open_socket(const char *path, int timeout_s, struct err *err);
static int open_address(const struct ask_server *s, int timeout_s, struct err *err);
static int exchange(int fd, const struct ask_server *s, const struct ask_request *q,
                    struct buf *answer, struct err *err);
static int strip_head(struct buf *answer, int *ret_status, struct err *err);
static int refusal(struct buf *body, int status, struct err *err);

int ask_server_init(struct ask_server *s, const char *state, const char *address, struct err *err)
{
    const char *preset = getenv("SALVER_ADDRESS");
    *s = (struct ask_server){0};
    if (state && address)
        return err_set(err, SV_E_INVALID, "give --state or --address, not both");
    if (!state && !address && preset && *preset)
        address = preset;
    if (address)
        return parse_address(s, address, err);
    char *dir = cli_state_dir(state);
    s->socket_path = xasprintf("%s/control.sock", dir);
    snprintf(s->authority, sizeof s->authority, "localhost");
    xfree(dir);
    return 0;
}

void ask_server_finish(struct ask_server *s)
{
    xfree(s->socket_path);
    *s = (struct ask_server){0};
}

int ask(struct ask_server *s, const struct ask_request *q, struct buf *ret_body, struct err *err)
{
    int timeout_s = strcmp(q->method, "GET") == 0 ? ASK_TIMEOUT_S : ASK_CHANGE_TIMEOUT_S;
    int fd = s->socket_path ? open_socket(s->socket_path, timeout_s, err)
                            : open_address(s, timeout_s, err);
    int status = 0;
    s->answered = false;
    if (fd < 0)
        return fd;
    struct buf answer = {0};
    int rc = exchange(fd, s, q, &answer, err);
    close(fd);
    if (rc == 0)
        rc = strip_head(&answer, &status, err);
    s->answered = rc == 0;
    if (rc == 0 && status != 200)
        rc = refusal(&answer, status, err);
    if (rc < 0)
        buf_finish(&answer);
    else
        *ret_body = answer;
    return rc;
}

int ask_change(struct ask_server *s, const struct ask_request *q, struct buf *ret_body,
               struct err *err)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000000L};
    uint64_t begun = clock_now_ns();
    int rc;
    while ((rc = ask(s, q, ret_body, err)) == SV_E_UNAVAILABLE && s->answered &&
           clock_now_ns() - begun < ASK_PATIENCE_S * 1000000000ull)
        nanosleep(&pause, NULL);
    return rc;
}

void ask_put_escaped(struct buf *out, const char *text)
{
    for (; *text; text++) {
        bool alnum = (*text >= '0' && *text <= '9') || (*text >= 'A' && *text <= 'Z') ||
                     (*text >= 'a' && *text <= 'z');
        if (alnum || strchr("-._~/", *text))
            buf_put(out, text, 1);
        else
            buf_printf(out, "%%%02X", (unsigned char)*text);
    }
}

// http://HOST[:PORT][/]; an IPv6 address stands in brackets.
static int parse_address(struct ask_server *s, const char *address, struct err *err)
{
    static const char scheme[] = "http://";
    int64_t port = ASK_PORT;
    const char *host = address;
    if (strncasecmp(host, scheme, strlen(scheme)) == 0)
        host += strlen(scheme);
    bool bracket = *host == '[';
    host += bracket;
    size_t n = strcspn(host, bracket ? "]" : ":/");
    const char *rest = host + n + (bracket && host[n] == ']');
    size_t digits = *rest == ':' ? strcspn(rest + 1, "/") : 0;
    bool good =
        n > 0 && n <= ASK_HOST_MAX && (!bracket || host[n] == ']') && digits < sizeof s->port;
    if (good && *rest == ':') {
        snprintf(s->port, sizeof s->port, "%.*s", (int)digits, rest + 1);
        good = str_to_i64(s->port, &port, NULL) == 0 && port > 0 && port <= UINT16_MAX;
        rest += 1 + digits;
    }
    if (!good || (*rest && strcmp(rest, "/") != 0))
        return err_set(err, SV_E_INVALID,
                       "the address '%s' is not of the form http://HOST:PORT (without https or a "
                       "path)",
                       address);
    snprintf(s->host, sizeof s->host, "%.*s", (int)n, host);
    snprintf(s->port, sizeof s->port, "%d", (int)port);
    snprintf(s->authority, sizeof s->authority, bracket ? "[%s]:%s" : "%s:%s", s->host, s->port);
    return 0;
}

static void set_timeout(int fd, int timeout_s)
{
    const struct timeval limit = {.tv_sec = timeout_s};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int open_socket(const char *path, int timeout_s, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(err, SV_E_INVALID, "'%s' is longer than a socket's path may be", path);
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        set_timeout(fd, timeout_s);
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

static int open_address(const struct ask_server *s, int timeout_s, struct err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    int fd = -1, why = 0, rc = getaddrinfo(s->host, s->port, &hints, &all);
    if (rc != 0)
        return err_set(err, SV_E_UNAVAILABLE, "looking up '%s': %s", s->host, gai_strerror(rc));
    for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        set_timeout(fd, timeout_s);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        why = errno;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(all);
    if (fd < 0)
        return err_set(err, SV_E_UNAVAILABLE, "connecting to '%s': %s", s->authority,
                       err_errno(why));
    return fd;
}

static bool send_all(int fd, const struct buf *request)
{
    for (size_t done = 0; done < buf_len(request);) {
        ssize_t n = send(fd, buf_head(request) + done, buf_len(request) - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static int exchange(int fd, const struct ask_server *s, const struct ask_request *q,
                    struct buf *answer, struct err *err)
{
    enum { PIECE = 64 << 10 };
    struct buf request = {0};
    buf_printf(&request, "%s %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n", q->method, q->path,
               s->authority);
    if (q->content_type)
        buf_printf(&request, "content-type: %s\r\ncontent-length: %zu\r\n", q->content_type,
                   q->body.n);
    buf_puts(&request, "\r\n");
    if (q->content_type)
        buf_put(&request, q->body.p, q->body.n);
    // A server that refuses a body early answers before it has taken all: so read in any case.
    bool sent = send_all(fd, &request);
    int why = errno;
    buf_finish(&request);
    ssize_t n = 1;
    while (buf_len(answer) < ASK_ANSWER_MAX && n > 0) {
        n = recv(fd, buf_reserve(answer, PIECE), PIECE, 0);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            buf_commit(answer, (size_t)n);
    }
    if (n < 0)
        why = errno;
    if (buf_len(answer) == 0 && (!sent || n < 0))
        return err_set(err, SV_E_UNAVAILABLE, "asking the server for %s: %s", q->path,
                       err_errno(why));
    return 0;
}

// Leaves the body of a complete answer in `answer`.
static int strip_head(struct buf *answer, int *ret_status, struct err *err)
{
    static const char version[] = "HTTP/1.1 ";
    const char *text = buf_cstr(answer);
    char *end = strstr(text, "\r\n\r\n");
    const char *length = strcasestr(text, "\ncontent-length:");
    if (!end || strncmp(text, version, strlen(version)) != 0 || !length || length > end)
        return err_set(err, SV_E_UNAVAILABLE, "the server answered '%.*s'",
                       (int)strcspn(text, "\r\n"), text);
    *ret_status = (int)strtol(text + strlen(version), NULL, 10);
    size_t want = strtoul(length + strlen("\ncontent-length:"), NULL, 10);
    buf_consume(answer, (size_t)(end - text) + 4);
    if (buf_len(answer) != want)
        return err_set(err, SV_E_UNAVAILABLE, "the server's answer has %zu of %zu bytes",
                       buf_len(answer), want);
    return 0;
}

// {"error":{"message"}} as an err.
static int refusal(struct buf *body, int status, struct err *err)
{
    cJSON *j = cJSON_ParseWithLength(buf_head(body), buf_len(body));
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(j, "error");
    const char *said = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "message"));
    int code = status >= 400 && status <= 599 ? -status : SV_E_UNAVAILABLE;
    if (said)
        err_set(err, code, "%s", said);
    else
        err_set(err, code, "the server answered with status %d", status);
    cJSON_Delete(j);
    return code;
}
