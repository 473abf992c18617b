// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * replica - control's record of one worker place: `app/deployment/index`.
 *
 *   WAITING --started--> STARTING --ready--> RUNNING <--degraded / ready--> DEGRADED
 *      ^                    |                   |                              |
 *      |                    +--failed--+        +--draining--+    draining-----+
 *      |                               v                     v
 *      +------------- died ------- STOPPING <----------------+      (died is legal in every state)
 *
 *   state     has a process   gets new work   left by
 *   WAITING   no              no              the supervisor's start, by its back-off
 *   STARTING  yes             no              READY, FAILED, its end
 *   RUNNING   yes             yes             DEGRADED, DRAINING, its end
 *   DEGRADED  yes             no              READY, DRAINING, its end
 *   STOPPING  yes             no              its end
 *
 * Pure    nothing here sends, logs or reads a clock; control.c acts on what changed.
 */
#include <stdbool.h>
#include <stdint.h>

enum replica_state { RS_WAITING, RS_STARTING, RS_RUNNING, RS_DEGRADED, RS_STOPPING, RS_COUNT };
enum replica_event { RE_STARTED, RE_READY, RE_DEGRADED, RE_FAILED, RE_DRAINING, RE_DIED, RE_COUNT };

// After so many ends before READY without one success the deployment counts as DEPLOY_FAILED.
enum { REPLICA_FAILURES_MAX = 5 };

struct replica_life {
    enum replica_state state;
    uint32_t failures; // ends before READY, since the last READY
    bool ever_ran;
};

// False: the pair is not in the table; nothing changed.
bool replica_event(struct replica_life *r, enum replica_event e);
const char *replica_state_name(enum replica_state s); // as in `salver status`

enum deployment_state {
    DS_UPDATING,
    DS_HEALTHY,
    DS_UNHEALTHY,
    DS_DEPLOY_FAILED,
    DS_UPSCALING,
    DS_DOWNSCALING
};

struct deployment_sum { // of one deployment's replicas; running, starting, failing: of the target
    uint32_t wanted, running;
    uint32_t starting; // for the first time, and did not fail yet
    uint32_t failing;  // REPLICA_FAILURES_MAX was reached
    uint32_t old, leaving;
    bool accepted;      // there is a target
    bool inspecting;    // a newer text is looked at
    bool refused;       // there is no target: the last one was not taken
    bool update_failed; // an older version serves, or the replicas did not take new orders
    bool was_healthy;   // since the target was set
    bool scales;        // by its load
};
enum deployment_state deployment_state_of(const struct deployment_sum *s);
const char *deployment_state_name(enum deployment_state s); // UPDATING HEALTHY UNHEALTHY
                                                            // DEPLOY_FAILED UPSCALING DOWNSCALING
const char *
application_state_name(enum deployment_state s); // DEPLOYING RUNNING UNHEALTHY DEPLOY_FAILED
