// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * kin - whether children of an earlier supervisor still live: `<state>/children.lock`.
 *
 * Every ingress and worker holds the file open as CHANNEL_FD_KIN, under a shared lock that goes
 * with the last of them. So a new supervisor sees at once, and on a clean start at no cost, whether
 * there are any; and who they are by that descriptor, which no other process has.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;

// The descriptor that children hold (close-on-exec here), locked.
int kin_open(const char *state_dir, bool *ret_orphans, struct err *err);
// Those who hold it as `as`, at most max: how many there are.
size_t kin_find(int kin_fd, int as, pid_t *ret_pids, size_t max);
bool kin_is(int kin_fd, int as, pid_t pid);
// Kills the control of a server that is gone, should it be stuck, and waits for its end: it has the
// store. For who holds the server's lock.
void kin_end_control(int kin_fd);
