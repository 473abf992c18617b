// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * drain - how a worker leaves: nothing new, what is here gets its time, then it is cancelled.
 *
 *   phase        until                                        then
 *   DRAIN_NONE   DRAIN, STOP, or the supervisor stays away    grants are asked back
 *   DRAIN_GRANTS all grants are back, DRAIN_GRANTS_MS at most plugin drain()
 *   DRAIN_WORK   nothing is in flight, or the deadline        cancel what is left
 *   DRAIN_CANCEL nothing is in flight, DRAIN_CANCEL_MS at most unload(), destroy()
 *   DRAIN_STOP   these have returned, DRAIN_STOP_MS at most   _exit(0)
 */
#include <stdint.h>

struct hub;

enum { DRAIN_GRANTS_MS = 200, DRAIN_CANCEL_MS = 2000, DRAIN_STOP_MS = 5000 };
enum drain_phase { DRAIN_NONE = 0, DRAIN_GRANTS, DRAIN_WORK, DRAIN_CANCEL, DRAIN_STOP };

struct drain {
    enum drain_phase phase;
    uint64_t deadline_ns, since_ns; // since_ns: of the phase
};

void drain_begin(struct hub *h, uint64_t deadline_ns); // again: the earlier deadline counts
void drain_turn(struct hub *h);                        // goes on if it can; at each turn and tick
void drain_stopped(struct hub *h);                     // destroy() has returned; does not return
