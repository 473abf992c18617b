// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * ask - one blocking GET on a Unix socket.
 */
#include "base/buf.h"

struct err;

enum { ASK_ANSWER_MAX = 64 << 20, ASK_TIMEOUT_S = 5 };

// The body of a 200 in ret_body (the caller's).
int ask_get(const char *socket_path, const char *path, struct buf *ret_body, struct err *err);
