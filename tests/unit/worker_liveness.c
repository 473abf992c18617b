// SPDX-License-Identifier: Apache-2.0
// Limits in the rows: stall 10, run 300, load 60; times in seconds, now is 1000.
#include "base/clock.h"
#include "worker/liveness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct row {
    const char *name;
    uint32_t doing;
    int since, sign, progress, last_deadline, silent; // silent: 0 = alive
} rows[] = {
    {"idle for ever", PD_IDLE, 1, 1, 0, 0, 0},
    {"a step of 9 s", PD_STEP, 991, 991, 0, 0, 0},
    {"a step of 11 s", PD_STEP, 989, 989, 0, 0, 11},
    {"with a sign in between", PD_STEP, 900, 995, 0, 0, 0},
    {"an old sign counts for nothing", PD_STEP, 989, 100, 0, 0, 11},
    {"submit", PD_SUBMIT, 980, 980, 0, 0, 20},
    {"input", PD_INPUT, 980, 985, 0, 0, 15},
    {"post", PD_POST, 980, 985, 0, 0, 15},
    {"a run of 299 s", PD_RUN, 701, 701, 0, 0, 0},
    {"a run of 301 s", PD_RUN, 699, 699, 0, 0, 301},
    {"a run that sends", PD_RUN, 100, 999, 0, 0, 0},
    {"a run 9 s after its last deadline", PD_RUN, 900, 900, 0, 991, 0},
    {"a run 11 s after its last deadline", PD_RUN, 900, 900, 0, 989, 11},
    {"the same, but it asks", PD_RUN, 900, 995, 0, 980, 0},
    {"a deadline in the future", PD_RUN, 900, 900, 0, 1500, 0},
    {"load of 61 s", PD_LOAD, 939, 939, 0, 0, 61},
    {"load of 61 s with progress", PD_LOAD, 939, 939, 970, 0, 0},
    {"other signs are no progress", PD_LOAD, 900, 999, 920, 0, 80},
    {"warm", PD_WARM, 930, 930, 935, 0, 65},
    {"dlopen", PD_DLOPEN, 930, 930, 0, 0, 70},
};

static void run_row(void **state)
{
    const struct row *row = *state;
    struct liveness_limits limits = {10 * NS_PER_S, 300 * NS_PER_S, 60 * NS_PER_S};
    struct liveness_view v = {.doing = row->doing,
                              .since_ns = (uint64_t)row->since * NS_PER_S,
                              .sign_ns = (uint64_t)row->sign * NS_PER_S,
                              .progress_ns = (uint64_t)row->progress * NS_PER_S,
                              .last_deadline_ns = (uint64_t)row->last_deadline * NS_PER_S};
    uint64_t limit;
    const char *name;
    uint64_t silent = liveness_check(&v, &limits, 1000 * NS_PER_S, &limit, &name);
    assert_int_equal(silent, (uint64_t)row->silent * NS_PER_S);
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows];
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        tests[n] = (struct CMUnitTest){.name = rows[n].name,
                                       .test_func = run_row,
                                       .initial_state = (void *)(uintptr_t)&rows[n]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
