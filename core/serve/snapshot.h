// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * snapshot - the routes as control sees them: JSON text to structs, strict.
 *
 * Strict  a missing key, a wrong type or a number out of range refuses the whole text: an ingress
 *         then keeps the last one that it understood. Two applications with the same route prefix
 *         or name are refused too.
 * Between versions: unknown keys are skipped, since a newer control may say more, and what came
 *         later than the first ones may be missing, since an older one doesn't know it: `start_s`,
 *         a model's `workers`. Every key that is added from now on is of this kind.
 * Bounds  SNAPSHOT_MAX bytes of text, SNAPSHOT_APPS applications.
 * Owner   everything hangs on snapshot.arena.
 */
#include "base/arena.h"
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

enum {
    SNAPSHOT_MAX = 4 << 20,
    SNAPSHOT_APPS = 1000,
    SNAPSHOT_WORKERS = 1024,
    SNAPSHOT_MODELS = 1000
};

struct snapshot_model {
    const char *id, *root;
    uint32_t max_model_len; // 0: no limit
    uint64_t created_s;
    const char **workers; // spec names of those that know it, while others don't yet or no more
    uint32_t n_workers;   // 0: all of the application's know it
};

struct snapshot_app {
    const char *name;
    const char *route_prefix; // NULL: not exposed; else "/" or "/a/b" without a slash at the end
    const char *deployment;
    const char **workers; // spec names
    uint32_t n_workers;
    bool stream_in, retry_safe;
    uint32_t max_queued_requests;
    uint64_t max_queued_bytes;
    uint32_t max_ongoing_requests;
    uint64_t max_body_bytes, max_response_buffer_bytes;
    double graceful_shutdown_timeout_s;
    const char *status, *message;
    struct snapshot_model *models; // sv.models/1
    uint32_t n_models;
    const char *queue_gauge; // NULL: none; see abi/models.h
    double start_s;          // from the order to start a replica to its READY; 0: not known
};

struct snapshot {
    struct arena arena;
    uint64_t version;
    struct snapshot_app *apps;
    uint32_t n_apps;
};

int snapshot_parse(struct bytes text, struct snapshot *ret, struct err *err);
void snapshot_finish(struct snapshot *s);
