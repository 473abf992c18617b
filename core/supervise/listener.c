// SPDX-License-Identifier: Apache-2.0
#include "supervise/listener.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int probe(const struct addrinfo *a);
static int open_one(const struct addrinfo *a, bool shared);
static int refuse(const char *host, uint16_t port, int why, struct err *err);
static int resolve(const char *host, uint16_t port, struct addrinfo **ret, struct err *err);
static void set_port(struct addrinfo *a, uint16_t port);
static uint16_t port_of(int fd);

int listeners_open(struct listeners *l, const char *host, uint16_t port, uint32_t n,
                   struct err *err)
{
    CHECK(n >= 1 && n <= LISTENER_MAX);
    struct addrinfo *address;
    int rc = resolve(host, port, &address, err);
    if (rc < 0)
        return rc;
    *l = (struct listeners){.port = port};
    if (port != 0 && probe(address) < 0)
        rc = refuse(host, port, errno, err);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        int fd = open_one(address, true);
        if (fd < 0) {
            rc = refuse(host, l->port, errno, err);
            break;
        }
        l->fds[l->n++] = fd;
        if (l->port == 0) {
            l->port = port_of(fd);
            set_port(address, l->port);
        }
    }
    freeaddrinfo(address);
    if (rc < 0)
        listeners_finish(l);
    return rc;
}

void listeners_finish(struct listeners *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        close(l->fds[i]);
    l->n = 0;
}

static int refuse(const char *host, uint16_t port, int why, struct err *err)
{
    return err_set(err, SV_E_UNAVAILABLE, "listening on %s port %u: %s%s", host, port,
                   err_errno(why),
                   why == EADDRINUSE ? "; stop the other server or choose another --port" : "");
}

static int resolve(const char *host, uint16_t port, struct addrinfo **ret, struct err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(host, service, &hints, ret);
    if (rc != 0)
        return err_set(err, SV_E_INVALID, "host '%s': %s", host, gai_strerror(rc));
    return 0;
}

// SO_REUSEPORT lets two servers of one user share a port in silence; a socket without it finds out.
static int probe(const struct addrinfo *a)
{
    int fd = open_one(a, false);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int open_one(const struct addrinfo *a, bool shared)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // inherited by what is accepted
    if ((shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) ||
        bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, LISTENER_BACKLOG) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void set_port(struct addrinfo *a, uint16_t port)
{
    if (a->ai_family == AF_INET)
        ((struct sockaddr_in *)(void *)a->ai_addr)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_port = htons(port);
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } s = {.v6 = {0}};
    socklen_t len = sizeof s;
    if (getsockname(fd, &s.any, &len) < 0)
        return 0;
    return ntohs(s.any.sa_family == AF_INET ? s.v4.sin_port : s.v6.sin6_port);
}
