// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * admin - where the admin API (api.h) listens: always on <state>/control.sock, for this user alone
 * (0600), and on a loopback address over TCP (`admin:` of the file, --admin-port over it; port 0:
 * not at all).
 *
 * The TCP port is a convenience: when it is taken a warning says so and the server goes on without
 * it. Each of the two has connections of its own, so nobody on TCP keeps the socket's user out.
 */
#include "control/control.h"

enum {
    ADMIN_BACKLOG = 64,
    ADMIN_CONNECTIONS = 64, // of the socket, and as many over TCP
    ADMIN_RETRY_MS = 100,   // a port that is taken is tried so often,
    ADMIN_RETRIES = 30      // so many times: a control before us may still hold it
};

int admin_open(struct control *c, struct err *err); // err: of the socket
void admin_close(struct control *c); // the socket's name goes; at the end of the process
