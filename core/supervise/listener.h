// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * listener - the listening sockets, one for each ingress place, that outlive every ingress.
 *
 * All are bound to the same address with SO_REUSEPORT: the kernel spreads connections over them.
 * Connections that come while a place has no ingress wait in its backlog.
 */
#include <stdint.h>

struct err;

enum { LISTENER_MAX = 64, LISTENER_BACKLOG = 4096 }; // connections; the kernel caps it at somaxconn

struct listeners {
    int fds[LISTENER_MAX]; // owned
    uint32_t n;
    uint16_t port; // the real one when 0 was asked for
};

// n sockets on host:port, non-blocking and close-on-exec. All or none.
int listeners_open(struct listeners *l, const char *host, uint16_t port, uint32_t n,
                   struct err *err);
void listeners_finish(struct listeners *l);
