// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * plan - what a seed means: how many processes, their numbers, the load over time, and what is done
 * to them. Drawn before the first event; nothing later looks at the seed but for chance.
 */
#include "control/scale.h"

enum { INGRESSES_MAX = 4, DEPLOYMENTS_MAX = 3, PHASES_MAX = 16, DEEDS_MAX = 128 };

enum quality {
    GOOD,
    BAD_LOAD,   // ends while it loads
    BAD_NEVER,  // loads for ever
    BAD_CANARY, // loads, then says that it failed
    BAD_SOON,   // ends soon after READY
    BAD_HANG,   // hangs soon after READY
    QUALITIES,
};

struct version {
    enum quality quality;
    uint64_t load_ns; // on average
    bool worked;      // a replica of it was READY for ROLL_PROVE_NS
};

struct phase {
    uint64_t start_ns;
    double per_s;   // requests a second, 0: none
    uint32_t burst; // at once, at the start
};

struct deployment_plan {
    struct scale_conf scale;
    double percentage;
    uint32_t cap, queue_cap;
    uint64_t timeout_ns, service_ns; // 0: no deadline; mean
    double gone;                     // part of the clients that leave early
    bool retry_safe;
    struct phase phases[PHASES_MAX];
    uint32_t n_phases;
};

enum deed_kind {
    DEED_KILL_WORKER,
    DEED_HANG_WORKER,
    DEED_SICK_WORKER,
    DEED_KILL_INGRESS,
    DEED_KILL_CONTROL,
    DEED_DEPLOY,
    DEED_DELETE,
    DEED_BOUNDS
};
struct deed {
    uint64_t at_ns;
    enum deed_kind kind;
    uint32_t deployment;
    enum quality quality; // DEED_DEPLOY
    uint32_t number;      // of the deed; DEED_BOUNDS: the new maximum
};

struct plan {
    uint32_t n_ingresses, n_deployments;
    uint32_t gpus;              // 0: no replica needs one
    uint64_t delay_ns, tail_ns; // of frames: usual, and one in a hundred
    bool chaos, bad_late; // requests may be lost: processes are killed; versions fail after READY
    double bad_luck;      // part of the starts that fail, of good versions, never three in a row
    uint64_t end_ns;      // load and deeds stop
    struct deployment_plan deployments[DEPLOYMENTS_MAX];
    struct deed deeds[DEEDS_MAX];
    uint32_t n_deeds;
};

struct sim;
void plan_draw(struct sim *s);
void plan_big(struct sim *s, uint32_t requests); // one deployment, always busy
