// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * scale - how many replicas a deployment should have, by its load.
 *
 * Load = requests that wait + requests in replicas, summed over all ingresses.
 * The formula is Ray Serve's (autoscaling_policy.py): desired = load / target_ongoing,
 * n = ceil(target + factor * (desired - target)), in [min, max]. What differs:
 *
 *   time    delays are seconds, not ticks of a loop. Upscaling averages the load over
 *           min(look_back, max(up_delay, SCALE_UP_MIN_S)), downscaling over look_back.
 *   base    the step starts from the target, not from the replicas that run already: those that
 *           start count, so a factor > 1 cannot add to them again and again, and a factor < 1 does
 *           not take them away.
 *   down    never below what the load asks for, whatever the factor (else two factors of 2 swing
 *           for ever), and not while the shorter average still asks for as many as there are.
 *   zero    from 1 alone, after to_zero_delay. From zero: at the first waiting request, at once,
 *           to ceil(up_factor) replicas.
 *   start   while none runs at all, fewer are not wanted before SCALE_START_S, and the delay counts
 *           from the first that runs: a client that gave up does not stop the start for the next
 *           one, and when it comes again a moment later there is somebody.
 *   adopt   a new control knows no past: nothing goes down before it has seen look_back of it.
 *
 * Pure    no clock, no allocation; about 17 KiB a deployment.
 * Time    `now_ns` never goes back.
 */
#include "control/past.h"

#define SCALE_UP_MIN_S 0.5
#define SCALE_START_S  600.0
#define SCALE_SETTLE_S 1.0          // at least so long a new control looks before it takes away
#define SCALE_TICK_NS  100000000ull // ask again so often while the average moves

struct scale_conf {
    uint32_t min, max, initial; // initial 0: min
    double target_ongoing, look_back_s, up_delay_s, down_delay_s;
    double to_zero_delay_s; // < 0: down_delay_s
    double up_factor, down_factor;
    int aggregation; // 0 mean, 1 max, 2 min, as in conf_autoscaling
};

enum scale_why {
    SCALE_STEADY,      // as many as the load asks for
    SCALE_UP,          // just raised
    SCALE_DOWN,        // just lowered
    SCALE_WAKE,        // just raised from zero
    SCALE_WAITS_UP,    // more are needed: up_delay runs
    SCALE_WAITS_DOWN,  // fewer would do: down_delay runs
    SCALE_WAITS_ZERO,  // none would do: to_zero_delay runs
    SCALE_WAITS_PAST,  // fewer would do: a new control looks first
    SCALE_WAITS_START, // fewer would do: none runs yet
    SCALE_WHY_COUNT,
};

struct scale {
    struct scale_conf conf;
    uint32_t target;
    double load;
    struct past up, down;        // the load over the two windows
    uint64_t above_ns, below_ns; // since when more, fewer are asked for; SCALE_NEVER: they are not
    uint64_t raised_ns;          // the target rose last
    uint64_t hold_ns;            // nothing goes down before
};

struct scale_out {
    uint32_t target;
    uint64_t again_ns; // decide again then; 0: when load, running or the config changes
    enum scale_why why;
};

void scale_init(struct scale *s, const struct scale_conf *c, uint64_t now_ns);
// A live change: the target is clipped to the new bounds at once, the past is kept.
void scale_configure(struct scale *s, const struct scale_conf *c, uint64_t now_ns);
// After scale_init: so many were found running.
void scale_adopt(struct scale *s, uint32_t target, uint64_t now_ns);
// At every report; decide after it.
void scale_observe(struct scale *s, double load, uint64_t now_ns);
struct scale_out scale_decide(struct scale *s, uint32_t running, uint64_t now_ns);

const char *scale_why_text(enum scale_why why); // "load above target, waits for upscale_delay_s"
