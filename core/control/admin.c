// SPDX-License-Identifier: Apache-2.0
#include "control/admin.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/status.h"
#include "http/http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ADMIN_BACKLOG = 64, ADMIN_CONNECTIONS = 64 };

static int listen_on(const char *path, struct err *err);
static void on_request(void *ctx, struct http_msg *m);
static void nothing_on_head(void *ctx, struct http_msg *m);
static void nothing_on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text,
                            bool fin);
static void nothing_on_gone(void *ctx, struct http_msg *m, enum http_gone why);
static void nothing_on_drain(void *ctx, struct http_msg *m);
static void nothing_on_conn(void *ctx, int change, const char *refused_by);

static const struct http_handler handler = {
    .on_head = nothing_on_head,
    .on_request = on_request,
    .on_body = nothing_on_body,
    .on_gone = nothing_on_gone,
    .on_drain = nothing_on_drain,
    .on_conn = nothing_on_conn,
};

int admin_open(struct control *c, struct err *err)
{
    char *path = xasprintf("%s/control.sock", c->state_dir);
    struct http_limits limits = http_limits_default;
    limits.connections = ADMIN_CONNECTIONS;
    int fd = listen_on(path, err), rc = fd;
    if (fd >= 0)
        rc = http_server_create(&c->loop, &c->turn, fd, &limits, &handler, c, &c->admin, err);
    xfree(path);
    return rc < 0 ? rc : 0;
}

void admin_close(struct control *c)
{
    if (!c->admin)
        return;
    char *path = xasprintf("%s/control.sock", c->state_dir);
    unlink(path);
    xfree(path);
}

static int listen_on(const char *path, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(err, SV_E_INVALID,
                       "the socket's path '%s' is longer than %zu bytes; choose a shorter --state",
                       path, sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(path); // the one before us may not have had time to
    mode_t before = umask(0177);
    int rc = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(before);
    if (rc == 0 && listen(fd, ADMIN_BACKLOG) == 0)
        return fd;
    rc = err_set(err, SV_E_INTERNAL, "listening on '%s': %s", path, err_errno(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

static void reply(struct http_msg *m, const char *type, const char *text)
{
    http_reply_head(m, 200, type, (int64_t)strlen(text), NULL);
    http_reply_body(m, text, strlen(text));
    http_reply_end(m);
}

static void on_request(void *ctx, struct http_msg *m)
{
    bool reads = strcmp(m->method, "GET") == 0 || strcmp(m->method, "HEAD") == 0;
    if (!reads) {
        http_reply_error(m, -405, "Only GET is answered here.", NULL, NULL, 0);
    } else if (strcmp(m->path, "/healthz") == 0) {
        reply(m, "text/plain", "ok\n");
    } else if (strcmp(m->path, "/status") == 0) {
        char *text = status_text(ctx);
        reply(m, "application/json", text);
        xfree(text);
    } else {
        http_reply_error(m, SV_E_NOT_FOUND, "There are /status and /healthz.", NULL, NULL, 0);
    }
}

static void nothing_on_head(void *ctx, struct http_msg *m)
{
    (void)ctx, (void)m;
}

static void nothing_on_body(void *ctx, struct http_msg *m, const char *p, size_t n, bool text,
                            bool fin)
{
    (void)ctx, (void)m, (void)p, (void)n, (void)text, (void)fin;
}

static void nothing_on_gone(void *ctx, struct http_msg *m, enum http_gone why)
{
    (void)ctx, (void)m, (void)why; // every answer was complete when it was given
}

static void nothing_on_drain(void *ctx, struct http_msg *m)
{
    (void)ctx, (void)m;
}

static void nothing_on_conn(void *ctx, int change, const char *refused_by)
{
    (void)ctx, (void)change, (void)refused_by;
}
