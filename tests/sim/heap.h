// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * heap - the future of the simulator: events by time, those of one time in the order they were
 * made.
 *
 * The kinds and what a..d mean are sim.h's. Grows as needed; times never go back.
 */
#include <stdbool.h>
#include <stdint.h>

struct event {
    uint64_t at_ns, seq;
    uint64_t d;
    uint32_t kind, a, b, c;
};

struct heap {
    struct event *events; // owned
    uint32_t len, room;
    uint64_t seq;
};

void heap_finish(struct heap *h);
void heap_push(struct heap *h, struct event e); // seq is given here
bool heap_pop(struct heap *h, struct event *ret);
