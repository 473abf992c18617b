// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * admin - HTTP on <state>/control.sock, for this user alone (0600).
 *
 *   GET /status   the whole state as JSON (status.h)
 *   GET /healthz  200 "ok"
 */
#include "control/control.h"

int admin_open(struct control *c, struct err *err);
void admin_close(struct control *c); // the socket's name goes; at the end of the process
