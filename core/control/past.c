// SPDX-License-Identifier: Apache-2.0
#include "control/past.h"

#include "base/check.h"

#include <stddef.h>

// Any two neighbours are together at least so long, so that the ring reaches over the window.
static uint64_t shortest_ns(const struct past *p)
{
    return p->window_ns / (PAST_SEGMENTS / 2 - 2) + 1;
}

static struct past_segment *segment_at(struct past *p, uint32_t i)
{
    return &p->segments[(p->first + i) % PAST_SEGMENTS];
}

void past_init(struct past *p, uint64_t window_ns, double value, uint64_t now_ns)
{
    *p = (struct past){.window_ns = window_ns, .last_ns = now_ns, .value = value};
}

static void push(struct past *p, uint64_t length_ns)
{
    if (p->n == PAST_SEGMENTS) {
        p->first = (p->first + 1) % PAST_SEGMENTS;
        p->n--;
    }
    *segment_at(p, p->n++) = (struct past_segment){.start_ns = p->last_ns,
                                                   .area = p->value * (double)length_ns,
                                                   .min = p->value,
                                                   .max = p->value};
}

static void merge(struct past_segment *s, double value, uint64_t length_ns)
{
    s->area += value * (double)length_ns;
    s->min = value < s->min ? value : s->min;
    s->max = value > s->max ? value : s->max;
}

void past_set(struct past *p, double value, uint64_t now_ns)
{
    CHECK(now_ns >= p->last_ns);
    uint64_t length = now_ns - p->last_ns;
    if (value == p->value)
        return;
    if (length > 0) {
        struct past_segment *s = p->n ? segment_at(p, p->n - 1) : NULL;
        if (!s || length >= shortest_ns(p) || p->last_ns - s->start_ns >= shortest_ns(p))
            push(p, length);
        else
            merge(s, p->value, length);
        p->last_ns = now_ns;
    }
    p->value = value;
}

struct past_sum past_over(const struct past *p, uint64_t now_ns)
{
    CHECK(now_ns >= p->last_ns);
    uint64_t from = now_ns > p->window_ns ? now_ns - p->window_ns : 0;
    uint64_t tail = p->last_ns > from ? p->last_ns : from;
    double span = (double)(now_ns - tail), area = p->value * span;
    struct past_sum sum = {.mean = p->value, .min = p->value, .max = p->value};
    uint64_t end = p->last_ns;
    for (uint32_t i = p->n; i-- > 0;) {
        const struct past_segment *s = &p->segments[(p->first + i) % PAST_SEGMENTS];
        if (end <= from)
            break;
        uint64_t start = s->start_ns > from ? s->start_ns : from;
        double part = (double)(end - start);
        area += s->area * (part / (double)(end - s->start_ns));
        span += part;
        sum.min = s->min < sum.min ? s->min : sum.min;
        sum.max = s->max > sum.max ? s->max : sum.max;
        end = s->start_ns;
    }
    if (span > 0)
        sum.mean = area / span;
    return sum;
}
