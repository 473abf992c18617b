// SPDX-License-Identifier: Apache-2.0
#include "serve/queue.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#include <stdbool.h>

static bool before(const struct queue_item *a, const struct queue_item *b);
static void place(struct queue *q, uint32_t i, struct queue_item *item);
static void sift_up(struct queue *q, uint32_t i);
static void sift_down(struct queue *q, uint32_t i);

void queue_init(struct queue *q, uint32_t cap, size_t cap_bytes)
{
    *q = (struct queue){.cap = cap, .cap_bytes = cap_bytes};
}

void queue_finish(struct queue *q)
{
    CHECK(q->len == 0);
    xfree(q->heap);
    *q = (struct queue){0};
}

int queue_push(struct queue *q, struct queue_item *item, struct err *err)
{
    CHECK(item->at == QUEUE_OUT);
    if (q->len >= q->cap)
        return err_set(
            err, SV_E_UNAVAILABLE,
            "the queue is full: %u requests wait (max_queued_requests %u); try again later", q->len,
            q->cap);
    if (item->bytes > q->cap_bytes || q->bytes > q->cap_bytes - item->bytes)
        return err_set(
            err, SV_E_UNAVAILABLE,
            "the queue is full: %zu bytes wait and this request has %zu (max_queued_bytes "
            "%zu); try again later",
            q->bytes, item->bytes, q->cap_bytes);
    item->seq = ++q->seq;
    queue_put_back(q, item);
    return 0;
}

void queue_put_back(struct queue *q, struct queue_item *item)
{
    CHECK(item->at == QUEUE_OUT);
    if (q->len == q->room) {
        q->room = q->room ? q->room * 2 : 64;
        q->heap = xrealloc(q->heap, q->room * sizeof *q->heap);
    }
    q->bytes += item->bytes;
    place(q, q->len++, item);
    sift_up(q, q->len - 1);
}

struct queue_item *queue_pop(struct queue *q)
{
    struct queue_item *item = queue_peek(q);
    if (item)
        queue_remove(q, item);
    return item;
}

struct queue_item *queue_peek(const struct queue *q)
{
    return q->len ? q->heap[0] : NULL;
}

void queue_remove(struct queue *q, struct queue_item *item)
{
    uint32_t i = item->at - 1;
    CHECK(item->at != QUEUE_OUT && i < q->len && q->heap[i] == item);
    item->at = QUEUE_OUT;
    q->bytes -= item->bytes;
    struct queue_item *last = q->heap[--q->len];
    if (last == item)
        return;
    place(q, i, last);
    sift_up(q, i);
    sift_down(q, last->at - 1);
}

static bool before(const struct queue_item *a, const struct queue_item *b)
{
    // 0 - 1 wraps to the largest value: no deadline comes last.
    uint64_t x = a->deadline_ns - 1, y = b->deadline_ns - 1;
    return x != y ? x < y : a->seq < b->seq;
}

static void place(struct queue *q, uint32_t i, struct queue_item *item)
{
    q->heap[i] = item;
    item->at = i + 1;
}

static void sift_up(struct queue *q, uint32_t i)
{
    struct queue_item *item = q->heap[i];
    for (; i > 0 && before(item, q->heap[(i - 1) / 2]); i = (i - 1) / 2)
        place(q, i, q->heap[(i - 1) / 2]);
    place(q, i, item);
}

static void sift_down(struct queue *q, uint32_t i)
{
    struct queue_item *item = q->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= q->len)
            break;
        if (child + 1 < q->len && before(q->heap[child + 1], q->heap[child]))
            child++;
        if (!before(q->heap[child], item))
            break;
        place(q, i, q->heap[child]);
        i = child;
    }
    place(q, i, item);
}
