// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * restart - when a process that ended is started again.
 *
 * Rule    at once, for the first RESTART_BURST ends within RESTART_WINDOW_NS; one more and the wait
 *         is RESTART_WAIT_MIN_NS, doubled with each further end up to RESTART_WAIT_MAX_NS. Doubling
 *         does not stop because the waits themselves have emptied the window: else a process that
 *         always falls would be started in bursts for ever. It stops with a life of
 *         RESTART_STABLE_NS: whoever lives so long each time does not end too often.
 * Pure    no clock, no memory: whoever asks gives both times.
 */
#include <stdint.h>

enum { RESTART_BURST = 5 };
#define RESTART_WINDOW_NS   (60ull * 1000 * 1000 * 1000)
#define RESTART_STABLE_NS   (RESTART_WINDOW_NS / RESTART_BURST)
#define RESTART_WAIT_MIN_NS (1ull * 1000 * 1000 * 1000)
#define RESTART_WAIT_MAX_NS (60ull * 1000 * 1000 * 1000)

struct restart {                     // `= {0}`: nothing ended yet
    uint64_t ends_ns[RESTART_BURST]; // the last ones; the oldest at `next`
    uint32_t n, next;
    uint64_t wait_ns; // the last wait, 0 = at once
};

// A process that had started at started_ns ended at now_ns: how long to wait before the next start.
uint64_t restart_wait(struct restart *r, uint64_t started_ns, uint64_t now_ns);
