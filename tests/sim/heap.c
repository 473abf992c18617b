// SPDX-License-Identifier: Apache-2.0
#include "heap.h"

#include "base/mem.h"

#include <stddef.h>

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

void heap_finish(struct heap *h)
{
    xfree(h->events);
    *h = (struct heap){0};
}

void heap_push(struct heap *h, struct event e)
{
    if (h->len == h->room) {
        h->room = h->room ? h->room * 2 : 1024;
        h->events = xrealloc(h->events, h->room * sizeof *h->events);
    }
    e.seq = ++h->seq;
    uint32_t i = h->len++;
    for (; i > 0 && before(&e, &h->events[(i - 1) / 4]); i = (i - 1) / 4)
        h->events[i] = h->events[(i - 1) / 4];
    h->events[i] = e;
}

// Four children each: half as deep as with two.
static uint32_t earliest_child(const struct heap *h, uint32_t i)
{
    uint32_t first = 4 * i + 1, best = first;
    for (uint32_t k = first + 1; k < first + 4 && k < h->len; k++)
        if (before(&h->events[k], &h->events[best]))
            best = k;
    return best;
}

bool heap_pop(struct heap *h, struct event *ret)
{
    if (h->len == 0)
        return false;
    *ret = h->events[0];
    struct event last = h->events[--h->len];
    uint32_t i = 0;
    while (4 * i + 1 < h->len) {
        uint32_t child = earliest_child(h, i);
        if (!before(&h->events[child], &last))
            break;
        h->events[i] = h->events[child];
        i = child;
    }
    h->events[i] = last;
    return true;
}
