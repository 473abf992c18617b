// SPDX-License-Identifier: Apache-2.0
// Orders of any bytes are taken or refused; what is taken is within its bounds, and differs from
// itself in nothing.
#include "base/check.h"
#include "base/err.h"
#include "wire/page.h"
#include "worker/batch.h"
#include "worker/orders.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_numbers(const struct orders *o)
{
    static const sv_plan plans[] = {
        {.max_batch = 1, .concurrency = 1},
        {.max_batch = 8, .batch_wait_us = 2000, .concurrency = 4, .max_inflight = 3},
        {.max_batch = UINT32_MAX, .batch_wait_us = UINT32_MAX, .max_inflight = UINT32_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        struct orders_numbers n = orders_numbers(o, &plans[i], i % 2, 63);
        CHECK(n.cap >= 1 && n.cap <= PAGE_REQUESTS);
        CHECK(n.max_batch >= 1 && n.max_batch <= BATCH_MAX);
        CHECK(!plans[i].max_inflight || n.cap <= plans[i].max_inflight);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct orders a, b;
    struct err err = {0};
    struct bytes json = {(const char *)data, size};
    if (orders_parse(&a, json, &err) < 0) {
        CHECK(err.code < 0 && *err.msg);
        return 0;
    }
    CHECK(orders_parse(&b, json, NULL) == 0);
    CHECK(a.n_warmups <= ORDERS_WARMUPS_MAX && a.n_devices <= ORDERS_DEVICES_MAX);
    for (uint32_t i = 0; i < a.n_warmups; i++)
        CHECK(*a.warmup[i].path == '/' && *a.warmup[i].method);
    CHECK(a.config && !orders_fixed(&a, &b));
    check_numbers(&a);
    orders_take_over(&a, &b);
    CHECK(!orders_fixed(&a, &b) && strcmp(a.config, b.config) == 0);
    orders_finish(&a);
    orders_finish(&b);
    return 0;
}
