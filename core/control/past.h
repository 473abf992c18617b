// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * past - what a number was over the last `window`: its mean by time, its smallest, its largest.
 *
 * A step function in at most PAST_SEGMENTS pieces. What is shorter than a 126th of the window is
 * merged, so the mean is wrong by at most that part of the number's swing, at the window's old end.
 *
 * Before past_init there is nothing: a window that reaches further back is cut off there.
 * Bounds  PAST_SEGMENTS * 32 bytes, whatever the window.  Pure, no allocation.
 * Time    nanoseconds of one clock that never goes back; the same `now` twice is fine.
 */
#include <stdbool.h>
#include <stdint.h>

enum { PAST_SEGMENTS = 256 };

struct past {
    uint64_t window_ns;
    uint64_t last_ns; // the segments end here; since then it is `value`
    double value;
    uint32_t first, n; // the ring's oldest segment, and how many
    struct past_segment {
        uint64_t start_ns;
        double area; // value * ns
        double min, max;
    } segments[PAST_SEGMENTS];
};

struct past_sum {
    double mean, min, max;
};

void past_init(struct past *p, uint64_t window_ns, double value, uint64_t now_ns);
void past_set(struct past *p, double value, uint64_t now_ns); // from now on
struct past_sum past_over(const struct past *p, uint64_t now_ns);
