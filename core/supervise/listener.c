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
static bool listens_on(int fd, const struct addrinfo *want);

void listeners_init(struct listeners *l)
{
    *l = (struct listeners){.n = 0};
    for (size_t i = 0; i < LISTENER_MAX; i++)
        l->fds[i] = -1;
}

int listeners_adopt(struct listeners *l, const char *host, uint16_t port, uint32_t n,
                    uint32_t place, int own_fd, struct err *err)
{
    struct addrinfo *address;
    if (place >= n)
        return err_set(err, SV_E_INVALID, "its place is %u, and there are %u", place, n);
    port = l->port ? l->port : port;
    int rc = resolve(host, port, &address, err);
    if (rc < 0)
        return rc;
    bool fits = listens_on(own_fd, address);
    freeaddrinfo(address);
    if (!fits)
        return err_set(err, SV_E_INVALID, "it does not listen on %s port %u", host, port);
    if (l->fds[place] >= 0)
        close(own_fd); // two processes at one place: it is the same socket
    else
        l->fds[place] = own_fd;
    l->port = port_of(l->fds[place]);
    return 0;
}

int listeners_open(struct listeners *l, const char *host, uint16_t port, uint32_t n, bool ours,
                   struct err *err)
{
    CHECK(n >= 1 && n <= LISTENER_MAX);
    struct addrinfo *address;
    port = l->port ? l->port : port;
    int rc = resolve(host, port, &address, err);
    if (rc < 0)
        return rc;
    l->port = port;
    if (port != 0 && !ours && probe(address) < 0)
        rc = refuse(host, port, errno, err);
    for (l->n = 0; rc == 0 && l->n < n; l->n++) {
        int *fd = &l->fds[l->n];
        if (*fd < 0 && (*fd = open_one(address, true)) < 0) {
            rc = refuse(host, l->port, errno, err);
            break;
        }
        if (l->port == 0) {
            l->port = port_of(*fd);
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
    for (size_t i = 0; i < LISTENER_MAX; i++)
        if (l->fds[i] >= 0)
            close(l->fds[i]);
    listeners_init(l);
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

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static bool get_address(int fd, union address *ret)
{
    socklen_t len = sizeof *ret;
    *ret = (union address){.v6 = {0}};
    return getsockname(fd, &ret->any, &len) == 0 && len <= sizeof *ret;
}

static uint16_t port_of(int fd)
{
    union address a;
    if (!get_address(fd, &a))
        return 0;
    return ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
}

static bool is_on(int fd, int option)
{
    int on = 0;
    socklen_t len = sizeof on;
    return getsockopt(fd, SOL_SOCKET, option, &on, &len) == 0 && on;
}

// A listening socket that shares its address, and is bound to that one (port 0: to any port).
static bool listens_on(int fd, const struct addrinfo *want)
{
    union address a, w = {.v6 = {0}};
    if (!is_on(fd, SO_ACCEPTCONN) || !is_on(fd, SO_REUSEPORT) || !get_address(fd, &a) ||
        want->ai_addrlen > sizeof w || a.any.sa_family != want->ai_family)
        return false;
    memcpy(&w, want->ai_addr, want->ai_addrlen);
    if (want->ai_family == AF_INET)
        return a.v4.sin_addr.s_addr == w.v4.sin_addr.s_addr &&
               (!w.v4.sin_port || a.v4.sin_port == w.v4.sin_port);
    return want->ai_family == AF_INET6 &&
           memcmp(&a.v6.sin6_addr, &w.v6.sin6_addr, sizeof a.v6.sin6_addr) == 0 &&
           (!w.v6.sin6_port || a.v6.sin6_port == w.v6.sin6_port);
}
