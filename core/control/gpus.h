// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gpus - the GPUs of this machine, and which replica has which.
 *
 * Count   once in the life of a server, in a throw-away process (`salver count-gpus`), since a sick
 *         driver hangs whoever calls it. NVML is asked, or where it is missing libcuda; without
 *         both, or without an answer in GPUS_TIMEOUT_S, there are none. The server's own
 *         CUDA_VISIBLE_DEVICES is obeyed.
 * Given   whole, by a replica's name, all it asks for or nothing, the lowest first; its own again
 *         when it asks again.
 * Kept    as JSON in <state>/gpus.json, so that a replaced control gives no GPU twice.
 * Pure    but for gpus_count and gpus_child_main.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct cJSON;

enum {
    GPUS_MAX = 64,
    GPUS_TIMEOUT_S = 10,
    GPU_UUID_MAX = 64,
    GPU_NAME_MAX = 96,
    GPU_OWNER_MAX = 128,
    GPU_CONTEXT_BYTES = 512 << 20 // that a CUDA context takes of a GPU, beside what its owner plans
};

struct gpu {
    char uuid[GPU_UUID_MAX], name[GPU_NAME_MAX];
    uint64_t bytes;
    char replica[GPU_OWNER_MAX]; // that has it; "": nobody
};

struct gpus {
    uint32_t n;
    struct gpu gpu[GPUS_MAX];
    char why[ERR_MSG_MAX]; // there is a driver, but it gave none; "" else
};

void gpus_count(struct gpus *ret); // blocks up to GPUS_TIMEOUT_S
int gpus_child_main(void);         // of the role `count-gpus`: JSON on fd 1

// What a plan() is offered. num_gpus: the file's, < 0: not said.
uint32_t gpus_offer(const struct gpus *g, double num_gpus);
uint64_t gpus_bytes(const struct gpus *g); // of the smallest
uint32_t gpus_free(const struct gpus *g);
uint32_t gpus_held(const struct gpus *g, const char *replica);
// Whether n GPUs of `bytes` each (0: none planned), context included, exist at all.
int gpus_check(const struct gpus *g, uint32_t n, uint64_t bytes, struct err *err);
bool gpus_take(struct gpus *g, const char *replica, uint32_t n); // false: too few are free
bool gpus_give_back(struct gpus *g, const char *replica);        // false: it has none

struct cJSON *gpus_json(const struct gpus *g);
bool gpus_from_json(const struct cJSON *j, struct gpus *ret);
