// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * liveness - is an instance thread at work, or stuck?
 *
 *   in                       stuck when no sign came for
 *   run                      run_timeout, or stall_timeout after the last deadline of its batch
 *   load, warm, create, ...  load_timeout since the last progress()
 *   everything else          stall_timeout
 *
 * A sign is any host call from that thread, or from a thread of the plugin's own.
 * Pure    liveness_check reads what it is given.
 */
#include "wire/page.h"

struct liveness_limits {
    uint64_t stall_ns, run_ns, load_ns;
};

struct liveness_view { // of one thread
    uint32_t doing;    // enum page_doing
    uint64_t since_ns; // when it began
    uint64_t sign_ns;  // last sign of life
    uint64_t progress_ns;
    uint64_t last_deadline_ns; // 0: at least one request has none
};

// 0, or for how long it has been silent, with the limit it broke.
uint64_t liveness_check(const struct liveness_view *v, const struct liveness_limits *l,
                        uint64_t now, uint64_t *ret_limit, const char **ret_name);
