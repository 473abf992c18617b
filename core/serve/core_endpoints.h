// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * core_endpoints - what the server answers itself, without a replica: health, routes, metrics.
 *
 *   /-/healthz   200 "success", 503 "draining" while the server or this ingress shuts down
 *   /-/routes    {"<prefix>": "<application>", ...}
 *   /health      200, empty: this process answers
 *   /version     {"version": "..."}
 *   /metrics     Prometheus text of all processes of this server
 *   /v1/models   OpenAI's list of the models that applications name
 *   /v1/models/X the card of one of them
 *
 * `/-/` is always the core's. The others are an application's when its route prefix is at least as
 * long as the path (an application at `/` does not hide them).
 *
 * Thread  loop thread only.
 */
#include "serve/snapshot.h"

#include <stdbool.h>
#include <stddef.h>

struct http_msg;
struct page;
struct registry;

struct core_endpoints {
    const char *root_path;           // all strings and arrays are borrowed
    const struct snapshot *snapshot; // NULL: none yet
    const struct registry *registry; // beside it
    const struct page *const *pages; // of every process, for /metrics
    size_t n_pages;
    const struct page *fold; // may be NULL
    bool draining;
};

// Whether the core answers `path` (below root_path), of which an application's prefix covers
// `claimed` bytes.
bool core_endpoints_match(const char *path, size_t claimed);
void core_endpoints_answer(const struct core_endpoints *c, struct http_msg *m, const char *path);
