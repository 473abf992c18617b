// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * orders - what BOOT tells a worker to be (ARCHITECTURE.md, "Orders").
 *
 * Owner   the struct owns its strings.
 * Trust   the orders come from control, which checked the file; what is over a bound of this
 * worker's tables is lowered to it.
 */
#include "abi/plugin.h"
#include "base/buf.h"

#include <stdbool.h>

struct err;

enum { ORDERS_DEVICES_MAX = 64, ORDERS_WARMUPS_MAX = 16 };

struct orders_warmup {                         // a request that the worker makes of itself
    char *method, *path, *content_type, *body; // owned; path with its query
    uint32_t expect_status;                    // 0: anything below 500
};

struct orders {
    char *app, *deployment, *replica; // owned, as all texts here
    char *plugin, *plugin_path, *plugin_dir, *cache_dir;
    char *config;                                 // a JSON object
    uint32_t max_ongoing, max_batch, concurrency; // 0: the plugin's plan says
    double batch_wait_s;                          // < 0: the plugin's plan says
    double load_timeout_s, stall_timeout_s, run_timeout_s, shutdown_timeout_s, orphan_timeout_s;
    double health_period_s;
    uint64_t max_response_buffer, max_body; // bytes
    uint32_t plan_devices;                  // that plan() is offered
    uint64_t plan_device_bytes;
    uint32_t n_devices; // this replica's GPUs; their texts are owned
    sv_device device[ORDERS_DEVICES_MAX];
    uint32_t n_warmups;
    struct orders_warmup warmup[ORDERS_WARMUPS_MAX];
    bool canary; // without warm-ups: GET /, answered by whatever
};

// What a worker serves by, when the orders, the plugin's plan and the bounds have had their say.
struct orders_numbers {
    uint32_t cap; // slots
    uint32_t max_batch;
    uint64_t batch_wait_ns;
};

int orders_parse(struct orders *o, struct bytes json, struct err *err);
void orders_finish(struct orders *o);
// plan: as the plugin left it. runs: it serves by run(), with so many threads.
struct orders_numbers orders_numbers(const struct orders *o, const sv_plan *plan, bool runs,
                                     uint32_t concurrency);
// The key in which `next` differs and for which a new worker is needed; NULL: a running one can
// change over, `config` aside.
const char *orders_fixed(const struct orders *o, const struct orders *next);
// Numbers, limits and config of `next`, which gets the old config. Texts and devices stay: the
// plugin may hold on to them.
void orders_take_over(struct orders *o, struct orders *next);
// The process sees its own GPUs alone, counted from 0. Before anything that may look for one.
void orders_show_devices(const struct orders *o);
