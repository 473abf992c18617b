// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * orders - what BOOT tells a worker to be (ARCHITECTURE.md, "Orders").
 *
 * Owner   the struct owns its strings.
 * Trust   the orders come from control, which checked the file; what is over a bound of this
 * worker's tables is lowered to it.
 */
#include "base/buf.h"

#include <stdint.h>

struct err;

struct orders {
    char *app, *deployment, *replica; // owned, as all texts here
    char *plugin, *plugin_path, *plugin_dir, *cache_dir;
    char *config;                                 // a JSON object
    uint32_t max_ongoing, max_batch, concurrency; // 0: the plugin's plan says
    double batch_wait_s;                          // < 0: the plugin's plan says
    double load_timeout_s, stall_timeout_s, run_timeout_s, shutdown_timeout_s, orphan_timeout_s;
    double health_period_s;
    uint64_t max_response_buffer, max_body; // bytes
};

int orders_parse(struct orders *o, struct bytes json, struct err *err);
void orders_finish(struct orders *o);
