// SPDX-License-Identifier: Apache-2.0
#include "control/numbers.h"

#include "conf/app.h"
#include "wire/page.h"

#include <stdio.h>

enum { DEFAULT_BATCH = 1, DEFAULT_CONCURRENCY = 1, ONGOING_MIN = 5 };
enum { CONCURRENCY_MAX = PAGE_THREADS - 1 }; // the instance thread is one of them
static const double default_batch_wait_s = 0.0;

static uint32_t first_set(uint32_t a, uint32_t b, uint32_t fallback)
{
    return a ? a : b ? b : fallback;
}

static uint32_t ongoing_default(const struct numbers *n)
{
    uint64_t want = 2ull * n->max_batch_size * n->concurrency;
    if (want < ONGOING_MIN)
        return ONGOING_MIN;
    return want < PAGE_REQUESTS ? (uint32_t)want : PAGE_REQUESTS;
}

static void resolve_ongoing(struct numbers *n, uint32_t asked, uint32_t max_inflight)
{
    uint32_t bound = max_inflight && max_inflight < PAGE_REQUESTS ? max_inflight : PAGE_REQUESTS;
    n->max_ongoing_requests = first_set(asked, max_inflight, ongoing_default(n));
    if (n->max_ongoing_requests <= bound)
        return;
    n->max_ongoing_requests = bound;
    if (asked)
        snprintf(n->warning, sizeof n->warning, "max_ongoing_requests %u is lowered to %u, %s",
                 asked, bound,
                 bound == max_inflight ? "the most that the plugin takes (its plan's max_inflight)"
                                       : "the most that one replica can hold");
}

struct numbers numbers_resolve(const struct conf_deployment *d, const struct plan *plan)
{
    struct numbers n = {
        .max_batch_size = first_set(d->max_batch_size, plan->max_batch, DEFAULT_BATCH),
        .concurrency = first_set(d->concurrency, plan->concurrency, DEFAULT_CONCURRENCY),
        .batch_wait_s = d->batch_wait_timeout_s >= 0 ? d->batch_wait_timeout_s
                        : plan->batch_wait_s >= 0    ? plan->batch_wait_s
                                                     : default_batch_wait_s,
    };
    if (n.concurrency > CONCURRENCY_MAX)
        n.concurrency = CONCURRENCY_MAX;
    resolve_ongoing(&n, d->max_ongoing_requests, plan->max_inflight);
    return n;
}
