// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "conf/app.h"
#include "control/numbers.h"
#include "wire/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

// What the file says, what the plan says, what must come out. 0 and batch_wait -1: not said.
static const struct {
    const char *name;
    uint32_t file_ongoing, file_batch, file_concurrency;
    double file_wait_s;
    uint32_t plan_inflight, plan_batch, plan_concurrency;
    double plan_wait_s;
    uint32_t ongoing, batch, concurrency;
    double wait_s;
    const char *warning; // a part of it, "" none
} rows[] = {
    {"nobody says anything", 0, 0, 0, -1, 0, 0, 0, -1, 5, 1, 1, 0, ""},
    {"the plan alone", 0, 0, 0, -1, 64, 8, 2, .002, 64, 8, 2, .002, ""},
    {"the file wins over the plan", 10, 4, 1, .5, 64, 8, 2, .002, 10, 4, 1, .5, ""},
    {"a wait of 0 in the file is said", 0, 0, 0, 0, 0, 8, 1, .002, 16, 8, 1, 0, ""},
    {"no max_inflight: twice the batches", 0, 0, 0, -1, 0, 8, 4, -1, 64, 8, 4, 0, ""},
    {"of the file's batch too", 0, 32, 0, -1, 0, 8, 1, -1, 64, 32, 1, 0, ""},
    {"five at least", 0, 2, 0, -1, 0, 0, 0, -1, 5, 2, 1, 0, ""},
    {"max_inflight bounds the file", 100, 0, 0, -1, 64, 0, 0, -1, 64, 1, 1, 0,
     "100 is lowered to 64"},
    {"no max_inflight bounds nothing", 100, 0, 0, -1, 0, 8, 1, -1, 100, 8, 1, 0, ""},
    {"the page bounds the file", 5000, 0, 0, -1, 0, 0, 0, -1, PAGE_REQUESTS, 1, 1, 0, "to 4096"},
    {"the page bounds the plan", 0, 0, 0, -1, 9999, 0, 0, -1, PAGE_REQUESTS, 1, 1, 0, ""},
    {"the page bounds the rule", 0, 1024, 8, -1, 0, 0, 0, -1, PAGE_REQUESTS, 1024, 8, 0, ""},
    {"threads are bounded", 0, 0, 200, -1, 0, 0, 0, -1, 126, 1, PAGE_THREADS - 1, 0, ""},
};

static void the_file_wins_then_the_plan(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct conf_deployment d = {.max_ongoing_requests = rows[i].file_ongoing,
                                    .max_batch_size = rows[i].file_batch,
                                    .concurrency = rows[i].file_concurrency,
                                    .batch_wait_timeout_s = rows[i].file_wait_s};
        struct plan plan = {.max_inflight = rows[i].plan_inflight,
                            .max_batch = rows[i].plan_batch,
                            .concurrency = rows[i].plan_concurrency,
                            .batch_wait_s = rows[i].plan_wait_s};
        struct numbers n = numbers_resolve(&d, &plan);
        if (n.max_ongoing_requests != rows[i].ongoing || n.max_batch_size != rows[i].batch ||
            n.concurrency != rows[i].concurrency || n.batch_wait_s != rows[i].wait_s)
            fail_msg("%s: ongoing %u, batch %u, concurrency %u, wait %g", rows[i].name,
                     n.max_ongoing_requests, n.max_batch_size, n.concurrency, n.batch_wait_s);
        if (*rows[i].warning ? !strstr(n.warning, rows[i].warning) : *n.warning)
            fail_msg("%s: warning '%s'", rows[i].name, n.warning);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_file_wins_then_the_plan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
