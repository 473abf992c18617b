// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * queue - the bounded line of requests that wait for one deployment.
 *
 * Order   earliest deadline first (0 = none, last); equal deadlines leave in arrival order.
 * Bounds  `cap` requests and `cap_bytes` bytes. Full means SV_E_UNAVAILABLE, never growth. Whoever
 *         was in before and comes back (queue_put_back) is always taken: it was counted once.
 * Owner   an item is part of its request; a pushed request stays alive until popped or removed.
 * Thread  loop thread only.
 * Time    never read here.
 */
#include <stddef.h>
#include <stdint.h>

struct err;

enum { QUEUE_OUT = 0 }; // queue_item.at of an item in no queue

struct queue_item {
    uint64_t deadline_ns, seq; // seq: arrival number, given by queue_push, kept for put_back
    size_t bytes;              // what it counts for
    uint32_t at;               // place in the heap + 1
};

struct queue {
    struct queue_item **heap; // owned array of borrowed items, heap[0, len)
    uint32_t len, room;       // room: of the array
    uint32_t cap;
    size_t bytes, cap_bytes;
    uint64_t seq;
};

void queue_init(struct queue *q, uint32_t cap, size_t cap_bytes);
void queue_finish(struct queue *q); // must be empty: work is never dropped in silence

// The item's deadline and bytes are set by the caller.
int queue_push(struct queue *q, struct queue_item *item, struct err *err);
void queue_put_back(struct queue *q, struct queue_item *item);

struct queue_item *queue_pop(struct queue *q); // NULL if empty
struct queue_item *queue_peek(const struct queue *q);
void queue_remove(struct queue *q, struct queue_item *item); // wherever it stands
