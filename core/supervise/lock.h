// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * lock - one server a state folder: `<state>/lock`, held while the supervisor lives, with its pid
 * in it.
 */
struct err;

// The descriptor that holds the lock (close-on-exec), or SV_E_UNAVAILABLE with the holder's pid.
int lock_take(const char *state_dir, struct err *err);
