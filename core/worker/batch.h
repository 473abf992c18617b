// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * batch - which waiting requests go into one run() call, and when.
 *
 * Order   higher priority first, then earlier deadline (none is last), then arrival.
 * Rule    the most urgent request leads; others with its key join in order while the costs sum up
 *         to `max` at most (a dearer one goes alone). A batch leaves when it is full, when nothing
 *         more can come, or when its oldest member has waited `wait_ns` or nears its deadline.
 * While it waits, a full or older batch of another key may leave before it; the first BATCH_KEYS
 * keys are looked at. Bounds  BATCH_MAX requests a batch; as many items as were pushed (slots bound
 * them). Owner   items are the caller's; the queue holds pointers. Pure    no clock, no I/O: the
 * caller passes `now`.
 */
#include <stdbool.h>
#include <stdint.h>

enum { BATCH_MAX = 1024, BATCH_KEYS = 16 };

enum batch_reason { BATCH_FULL = 0, BATCH_TIMEOUT, BATCH_KEY, BATCH_IDLE, BATCH_REASONS };
extern const char *const batch_reason_names[BATCH_REASONS];

struct batch_item {
    uint64_t key, arrived_ns, deadline_ns; // deadline 0: none
    int32_t priority;
    uint32_t cost; // 0 counts as 1
};

struct batch_conf {
    uint32_t max; // sum of costs, at most BATCH_MAX
    uint64_t wait_ns;
};

struct batch {
    struct batch_conf conf;
    struct batch_item **items; // owned array of borrowed items, in order
    uint32_t len, cap;
};

void batch_init(struct batch *b, const struct batch_conf *c);
void batch_finish(struct batch *b);
void batch_push(struct batch *b, struct batch_item *it);
bool batch_remove(struct batch *b, const struct batch_item *it); // false: not here

// Takes a batch out into ret (room for BATCH_MAX): how many. 0: none yet; look again at *ret_again
// (UINT64_MAX: when something comes). `more`: other requests may still come.
// full_only: only a batch that is full.
uint32_t batch_take(struct batch *b, uint64_t now, bool more, bool full_only,
                    struct batch_item **ret, enum batch_reason *ret_reason, uint64_t *ret_again);
