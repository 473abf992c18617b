// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * roll - which replicas of a deployment to start and which to drain: after a change of how many are
 * wanted, and from an older version to the target version ("fresh" ones).
 *
 * One version   as many as are wanted. Too many: those not READY go first, then those with the
 *               fewest requests, then the newest.
 * Rolling       batch = max(1, floor(percentage * wanted)), as Ray's. With room, min(batch, room)
 *               fresh ones are started beyond `wanted`, and an old one is drained only while
 *               `wanted` settled ones stay: the old version serves all the time. Without room a
 *               batch of old ones is drained first; `wanted - batch` stay.
 *               Old ones that are not READY serve nobody: they go once a fresh one has settled.
 * Settled       READY for ROLL_SETTLE_NS; for ROLL_PROVE_NS after an early end. Old ones always.
 * Roll back     one fresh replica failed ROLL_FAILURES_MAX times to start, or ended
 *               ROLL_CRASHES_MAX times early, and there is a version to go back to. The shell makes
 *               that version the target, which then has none to go back to. Once all old ones are
 *               gone and a fresh one is proven (READY for ROLL_PROVE_NS without an end), one bad
 *               replica is no reason any more.
 * Replicas      never change version: an old one is restarted by the supervisor while it is there,
 *               but never made anew.
 * No GPU        a replica that waits for one has nothing to give: while a fresh one waits there is
 *               no room, and what can't run isn't counted as wanted.
 *
 * Pure    no clock, no allocation, no I/O. The same input gives the same output.
 * Bounds  time n * (replicas drained), which is n * n only for thousands scaled down at once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROLL_FAILURES_MAX = 3, ROLL_CRASHES_MAX = 3 };
#define ROLL_SETTLE_NS (1ull * 1000 * 1000 * 1000)
#define ROLL_PROVE_NS  (30ull * 1000 * 1000 * 1000) // longer than stall_timeout_s finds a hang

enum roll_state {
    ROLL_WAITING,  // no process: back-off, or no GPU yet
    ROLL_STARTING, // has a process that loads
    ROLL_READY,
    ROLL_SICK,     // degraded
    ROLL_STOPPING, // drains
};

struct roll_replica {
    uint32_t key; // unique; a higher one is newer
    bool fresh;   // of the target version
    enum roll_state state;
    bool waits_for_gpu;      // WAITING: not started for want of a GPU
    uint32_t failures;       // ends before READY since the last READY (replica_life.failures)
    uint32_t crashes;        // early ends: roll_crashes
    uint64_t ready_since_ns; // READY: since when
    uint32_t ongoing;
};

struct roll_in {
    uint32_t wanted;
    double percentage; // rolling_update_percentage, (0, 1]
    uint32_t room;     // replicas that may exist beyond `wanted`; 0 = no surge possible. Those that
                       // are there beyond it already count: a surge's new one doesn't use it up
    bool has_good;     // a version before this one worked and can be gone back to
    const struct roll_replica *replicas; // all there are, those that drain too
    uint32_t n;
    uint64_t now_ns;
};

enum roll_wait {
    ROLL_WAIT_NONE,    // nothing: as many as wanted are settled, of the target version
    ROLL_WAIT_START,   // a new replica loads
    ROLL_WAIT_SETTLE,  // it is READY and must stay so for a moment
    ROLL_WAIT_SICK,    // it is degraded
    ROLL_WAIT_BACKOFF, // it ended and is started again later
    ROLL_WAIT_GPU,     // none is free for it
    ROLL_WAIT_DRAIN,   // one that drains must be gone first
    ROLL_WAIT_COUNT,
};

struct roll_out {
    uint32_t start;   // so many new ones of the target version
    uint32_t n_drain; // the keys are in `drain`
    bool roll_back;   // then nothing is started or drained
    bool proven; // the target: no old one is left, a fresh one was READY for ROLL_PROVE_NS. Until
                 // then the version before it must stay the one to go back to
    uint64_t again_ns; // decide again then; 0: when something changes
    enum roll_wait wait;
    uint32_t wait_key; // the replica that `wait` or `roll_back` is about
};

// drain: room for in->n keys.
struct roll_out roll_decide(const struct roll_in *in, uint32_t *drain);

/*
 * roll_replica.crashes after an end. ready_since_ns 0: it was not READY, which is no early end. One
 * that was READY for ROLL_PROVE_NS is forgiven what was before.
 */
uint32_t roll_crashes(uint32_t crashes, uint64_t ready_since_ns, uint64_t now_ns);

// "waits for app/dep/3 to be ready". name: of the replica `wait_key`.
void roll_wait_text(enum roll_wait wait, const char *name, char *text, size_t size);
