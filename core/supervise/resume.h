// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * resume - a supervisor that goes on where another executable stopped (upgrade.h), from its table.
 *
 * It is the same process: children, descriptors and the state folder's lock are its own. It tells
 * control that it is there (UPGRADED) and then to stop, so that control is started again from this
 * executable; one that does not stop within RESUME_CONTROL_MS is killed.
 */
#include "supervise/supervisor.h"

enum {
    RESUME_PIECE_MAX = 1 << 20, // bytes of unread input in one row
    RESUME_CONTROL_MS = 3000
};
#define RESUME_HELLO "salver " // and the version: what --check prints when it could go on

int resume_check(int fd); // `supervisor --check FD`: exit status
int resume_open(struct supervisor *s, int fd, struct err *err); // what there is but for processes
int resume_go_on(struct supervisor *s, struct err *err);        // once the loop's handles are there
