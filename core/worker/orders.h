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

struct err;

enum { ORDERS_DEVICES_MAX = 64 };

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
};

int orders_parse(struct orders *o, struct bytes json, struct err *err);
void orders_finish(struct orders *o);
// The process sees its own GPUs alone, counted from 0. Before anything that may look for one.
void orders_show_devices(const struct orders *o);
