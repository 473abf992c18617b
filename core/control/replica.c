// SPDX-License-Identifier: Apache-2.0
#include "control/replica.h"

#include "base/check.h"

enum { NONE = RS_COUNT }; // not in the table

// clang-format off
static const unsigned char table[RS_COUNT][RE_COUNT] = {
    //               STARTED      READY        DEGRADED     FAILED       DRAINING     DIED
    [RS_WAITING]  = {RS_STARTING, NONE,        NONE,        NONE,        NONE,        RS_WAITING},
    [RS_STARTING] = {RS_STARTING, RS_RUNNING,  RS_DEGRADED, RS_STOPPING, RS_STOPPING, RS_WAITING},
    [RS_RUNNING]  = {RS_STARTING, RS_RUNNING,  RS_DEGRADED, RS_STOPPING, RS_STOPPING, RS_WAITING},
    [RS_DEGRADED] = {RS_STARTING, RS_RUNNING,  RS_DEGRADED, RS_STOPPING, RS_STOPPING, RS_WAITING},
    [RS_STOPPING] = {RS_STARTING, RS_STOPPING, RS_STOPPING, RS_STOPPING, RS_STOPPING, RS_WAITING},
};
// clang-format on

static const char *const state_names[RS_COUNT] = {
    [RS_WAITING] = "BACKOFF",   [RS_STARTING] = "STARTING", [RS_RUNNING] = "RUNNING",
    [RS_DEGRADED] = "DEGRADED", [RS_STOPPING] = "STOPPING",
};

// FAILED counts the start at once; the end that follows it finds STOPPING and counts nothing.
static bool is_failed_start(const struct replica_life *r, enum replica_event e)
{
    return r->state == RS_STARTING && (e == RE_FAILED || e == RE_DIED);
}

bool replica_event(struct replica_life *r, enum replica_event e)
{
    CHECK(r->state < RS_COUNT && e < RE_COUNT);
    unsigned char next = table[r->state][e];
    if (next == NONE)
        return false;
    if (is_failed_start(r, e))
        r->failures++;
    if (next == RS_RUNNING) {
        r->failures = 0;
        r->ever_ran = true;
    }
    r->state = next;
    return true;
}

const char *replica_state_name(enum replica_state s)
{
    CHECK(s < RS_COUNT);
    return state_names[s];
}

enum deployment_state deployment_state_of(const struct deployment_sum *s)
{
    if (!s->accepted)
        return s->refused ? DS_DEPLOY_FAILED : DS_UPDATING;
    if (s->inspecting || s->old > 0)
        return DS_UPDATING;
    if (s->running >= s->wanted && s->update_failed)
        return DS_DEPLOY_FAILED;
    if (s->running >= s->wanted)
        return s->scales && s->leaving > 0 ? DS_DOWNSCALING : DS_HEALTHY;
    if (s->was_healthy && s->scales && s->running + s->starting >= s->wanted)
        return DS_UPSCALING;
    if (s->was_healthy)
        return DS_UNHEALTHY;
    return s->failing || s->update_failed ? DS_DEPLOY_FAILED : DS_UPDATING;
}

const char *deployment_state_name(enum deployment_state s)
{
    switch (s) {
    case DS_UPDATING:
        return "UPDATING";
    case DS_HEALTHY:
        return "HEALTHY";
    case DS_UNHEALTHY:
        return "UNHEALTHY";
    case DS_DEPLOY_FAILED:
        return "DEPLOY_FAILED";
    case DS_UPSCALING:
        return "UPSCALING";
    case DS_DOWNSCALING:
        return "DOWNSCALING";
    }
    BUG("deployment state %d", (int)s);
}

const char *application_state_name(enum deployment_state s)
{
    switch (s) {
    case DS_UPDATING:
        return "DEPLOYING";
    case DS_HEALTHY:
    case DS_UPSCALING:
    case DS_DOWNSCALING:
        return "RUNNING";
    case DS_UNHEALTHY:
    case DS_DEPLOY_FAILED:
        return deployment_state_name(s);
    }
    BUG("deployment state %d", (int)s);
}
