// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "control/replica.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

// s started, r ready, g degraded, f failed, d draining, x died; a letter after '!' must be refused.
static const struct {
    const char *name, *events, *want;
    uint32_t failures;
} rows[] = {
    {"a start", "s", "STARTING", 0},
    {"a good start", "sr", "RUNNING", 0},
    {"ill and well again", "srgr", "RUNNING", 0},
    {"ill", "srg", "DEGRADED", 0},
    {"an end", "srx", "BACKOFF", 0},
    {"and again", "srxs", "STARTING", 0},
    {"ends before READY are counted", "sxsxsx", "BACKOFF", 3},
    {"one that says why is counted once", "sfx", "BACKOFF", 1},
    {"and has no process that works", "sf", "STOPPING", 1},
    {"READY forgets them", "sxsxsr", "RUNNING", 0},
    {"a running one that ends is no failed start", "srxsrxsrx", "BACKOFF", 0},
    {"a drain", "srd", "STOPPING", 0},
    {"a drained one does not come back", "srdr", "STOPPING", 0},
    {"READY out of nothing", "!r", "BACKOFF", 0},
    {"draining out of nothing", "!d", "BACKOFF", 0},
    {"an end that was told twice", "srxx", "BACKOFF", 0},
    {"the end of the one before comes late", "sss", "STARTING", 0},
};

static enum replica_event event_of(char c)
{
    switch (c) {
    case 's':
        return RE_STARTED;
    case 'r':
        return RE_READY;
    case 'g':
        return RE_DEGRADED;
    case 'f':
        return RE_FAILED;
    case 'd':
        return RE_DRAINING;
    default:
        assert_int_equal(c, 'x');
        return RE_DIED;
    }
}

static void states_follow_the_drawing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct replica_life r = {0};
        for (const char *e = rows[i].events; *e; e++) {
            bool refused = *e == '!';
            e += refused;
            if (replica_event(&r, event_of(*e)) == refused)
                fail_msg("%s: event '%c' was %s", rows[i].name, *e, refused ? "taken" : "refused");
        }
        if (strcmp(replica_state_name(r.state), rows[i].want) != 0 ||
            r.failures != rows[i].failures)
            fail_msg("%s: %s with %u failures", rows[i].name, replica_state_name(r.state),
                     r.failures);
    }
}

static const struct {
    const char *name;
    struct deployment_sum sum;
    const char *deployment, *application;
} sums[] = {
    {"not looked at", {.wanted = 1}, "UPDATING", "DEPLOYING"},
    {"looked at", {.wanted = 1, .accepted = true}, "UPDATING", "DEPLOYING"},
    {"some run", {.wanted = 2, .running = 1, .accepted = true}, "UPDATING", "DEPLOYING"},
    {"all run", {.wanted = 2, .running = 2, .accepted = true}, "HEALTHY", "RUNNING"},
    {"one was lost",
     {.wanted = 2, .running = 1, .accepted = true, .was_healthy = true},
     "UNHEALTHY",
     "UNHEALTHY"},
    {"one never comes up",
     {.wanted = 2, .running = 1, .failing = 1, .accepted = true},
     "DEPLOY_FAILED",
     "DEPLOY_FAILED"},
    {"one does not come up any more",
     {.wanted = 2, .running = 1, .failing = 1, .accepted = true, .was_healthy = true},
     "UNHEALTHY",
     "UNHEALTHY"},
    {"at zero", {.accepted = true, .was_healthy = true, .scales = true}, "HEALTHY", "RUNNING"},
    {"more are started",
     {.wanted = 3,
      .running = 1,
      .starting = 2,
      .accepted = true,
      .was_healthy = true,
      .scales = true},
     "UPSCALING",
     "RUNNING"},
    {"one of those was lost",
     {.wanted = 3,
      .running = 1,
      .starting = 1,
      .accepted = true,
      .was_healthy = true,
      .scales = true},
     "UNHEALTHY",
     "UNHEALTHY"},
    {"fewer are left",
     {.wanted = 1,
      .running = 1,
      .leaving = 2,
      .accepted = true,
      .was_healthy = true,
      .scales = true},
     "DOWNSCALING",
     "RUNNING"},
    {"old ones are there",
     {.wanted = 2, .running = 2, .old = 1, .accepted = true},
     "UPDATING",
     "DEPLOYING"},
    {"a newer text is looked at",
     {.wanted = 1, .running = 1, .accepted = true, .was_healthy = true, .inspecting = true},
     "UPDATING",
     "DEPLOYING"},
    {"the update failed, the old version serves",
     {.wanted = 1, .running = 1, .accepted = true, .update_failed = true},
     "DEPLOY_FAILED",
     "DEPLOY_FAILED"},
    {"a bad plugin", {.wanted = 1, .refused = true}, "DEPLOY_FAILED", "DEPLOY_FAILED"},
};

static void deployments_are_named_as_in_ray(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sums); i++) {
        enum deployment_state s = deployment_state_of(&sums[i].sum);
        if (strcmp(deployment_state_name(s), sums[i].deployment) != 0 ||
            strcmp(application_state_name(s), sums[i].application) != 0)
            fail_msg("%s: %s, %s", sums[i].name, deployment_state_name(s),
                     application_state_name(s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(states_follow_the_drawing),
                                       cmocka_unit_test(deployments_are_named_as_in_ray)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
