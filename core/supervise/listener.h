// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * listener - the listening sockets, one for each ingress place, that outlive every ingress.
 *
 * All are bound to the same address with SO_REUSEPORT: the kernel spreads connections over them.
 * Connections that come while a place has no ingress wait in its backlog.
 */
#include <stdbool.h>
#include <stdint.h>

struct err;

enum { LISTENER_MAX = 64, LISTENER_BACKLOG = 4096 }; // connections; the kernel caps it at somaxconn

struct listeners {
    int fds[LISTENER_MAX]; // owned; -1: not there (yet)
    uint32_t n;
    uint16_t port; // the real one when 0 was asked for
};

void listeners_init(struct listeners *l);
// The socket of an ingress that an earlier server started, if it listens where ours would: taken
// then. port 0: any port fits, and becomes the port of the others.
int listeners_adopt(struct listeners *l, const char *host, uint16_t port, uint32_t n,
                    uint32_t place, int own_fd, struct err *err);
// n sockets on host:port, non-blocking and close-on-exec, where none was adopted. All or none.
// `ours`: others that listen there may be of an earlier server of ours, which is no fault.
int listeners_open(struct listeners *l, const char *host, uint16_t port, uint32_t n, bool ours,
                   struct err *err);
void listeners_finish(struct listeners *l);
