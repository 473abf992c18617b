// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * capture - what the plugin writes to stdout and stderr, as log lines.
 *
 * Bounds  CAPTURE_LINE bytes a line, longer is cut into several; CAPTURE_TURN bytes a turn. The
 * pipe holds the rest, so a plugin that floods waits for itself. After a death the supervisor reads
 * what is left from its own descriptor. Thread  I/O thread.
 */
#include "base/buf.h"

#include <uv.h>

enum { CAPTURE_LINE = 2048, CAPTURE_TURN = 64 << 10 }; // bytes

struct capture {
    uv_poll_t poll;
    int fd;
    struct buf line; // not ended yet
};

int capture_open(struct capture *c, uv_loop_t *loop, int fd);
void capture_drain(struct capture *c); // reads what is there, logs also an unfinished line
