// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * numbers - what a deployment's worker is told, out of three sources: the YAML file wins over the
 * plugin's plan, the plan over Ray's defaults.
 *
 * max_ongoing_requests  the plan's max_inflight is default and upper bound: a larger value of the
 *                       file is lowered, with a warning. A plan of 0 means 2 x max_batch x
 * concurrency, at least 5, and bounds nothing. PAGE_REQUESTS bounds all. Pure    no state, no log:
 * the warning is text in the answer.
 */
#include <stdbool.h>
#include <stdint.h>

struct conf_deployment;

// What the inspection of a plugin said; 0 (batch_wait_s: < 0) = nothing.
struct plan {
    uint32_t max_batch, concurrency, max_inflight;
    double batch_wait_s;
    bool stream_in;
    uint32_t devices;      // GPUs of a replica
    uint64_t device_bytes; // of each
};

enum { NUMBERS_WARNING_MAX = 256 };
struct numbers {
    uint32_t max_ongoing_requests, max_batch_size, concurrency;
    double batch_wait_s;
    char warning[NUMBERS_WARNING_MAX]; // "" without
};

struct numbers numbers_resolve(const struct conf_deployment *d, const struct plan *plan);
