// SPDX-License-Identifier: Apache-2.0
#include "control/admin.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "conf/app.h"
#include "control/api.h"
#include "control/doc.h"
#include "http/http.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct admin {
    struct api local, tcp;
    struct http_server *local_server, *tcp_server;
    uv_timer_t retry;
    uint32_t tries;
};

static int listen_on_path(const char *path, struct err *err);
static void open_tcp(struct admin *a);
static void on_retry(uv_timer_t *h);

static struct http_limits limits(void)
{
    struct http_limits l = http_limits_default;
    l.connections = l.per_address = ADMIN_CONNECTIONS;
    l.body_bytes = CONF_FILE_MAX;
    l.buffered_bytes = (uint64_t)ADMIN_CONNECTIONS * CONF_FILE_MAX;
    return l;
}

static int serve(struct api *api, int own_fd, struct http_server **ret, struct err *err)
{
    struct control *c = api->control;
    const struct http_limits l = limits();
    return http_server_create(&c->loop, &c->turn, own_fd, &l, &api_handler, api, ret, err);
}

int admin_open(struct control *c, struct err *err)
{
    struct admin *a = xcalloc(1, sizeof *a); // the process's
    char *path = xasprintf("%s/control.sock", c->state_dir);
    int fd = listen_on_path(path, err);
    a->local = (struct api){.control = c};
    a->tcp = (struct api){.control = c, .tcp = true};
    int rc = fd < 0 ? fd : serve(&a->local, fd, &a->local_server, err);
    c->admin = a;
    uv_timer_init(&c->loop, &a->retry);
    open_tcp(a);
    xfree(path);
    return rc < 0 ? rc : 0;
}

void admin_close(struct control *c)
{
    if (!c->admin || !c->admin->local_server)
        return;
    char *path = xasprintf("%s/control.sock", c->state_dir);
    unlink(path);
    xfree(path);
}

static int listen_on_path(const char *path, struct err *err)
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

// --- TCP

static uint32_t tcp_port(const struct control *c)
{
    const cJSON *over = cJSON_GetObjectItemCaseSensitive(c->orders.text, "admin_port");
    if (cJSON_IsNumber(over) && over->valuedouble >= 0 && over->valuedouble <= UINT16_MAX)
        return (uint32_t)over->valuedouble;
    return c->server->conf.admin.port;
}

// A descriptor, or -1 with errno.
static int listen_on_port(const char *host, uint32_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    bool is_v6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
    const int on = 1;
    if (!is_v6 && inet_pton(AF_INET, host, &v4.sin_addr) != 1)
        v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK); // "localhost"
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int rc = is_v6 ? bind(fd, (struct sockaddr *)&v6, sizeof v6)
                   : bind(fd, (struct sockaddr *)&v4, sizeof v4);
    if (rc == 0 && listen(fd, ADMIN_BACKLOG) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static void open_tcp(struct admin *a)
{
    struct control *c = a->tcp.control;
    const char *host = c->server->conf.admin.host;
    uint32_t port = tcp_port(c);
    struct err err;
    if (port == 0)
        return;
    int fd = listen_on_port(host, port);
    if (fd < 0 && errno == EADDRINUSE && a->tries++ < ADMIN_RETRIES) {
        uv_timer_start(&a->retry, on_retry, ADMIN_RETRY_MS, 0);
    } else if (fd < 0) {
        LOGW("the admin API does not listen on %s, port %u: %s; choose another with "
             "--admin-port N or `admin: {port: N}`, or 0 for none (the commands use "
             "%s/control.sock)",
             host, port, err_errno(errno), c->state_dir);
    } else if (serve(&a->tcp, fd, &a->tcp_server, &err) < 0) {
        LOGW("the admin API does not listen on %s, port %u: %s", host, port, err.msg);
    } else {
        LOGI("the admin API listens on %s, port %u", host, port);
    }
}

static void on_retry(uv_timer_t *h)
{
    open_tcp(CONTAINER_OF(h, struct admin, retry));
}
