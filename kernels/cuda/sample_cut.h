// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_cut - how far down a row its largest values are kept: by their number (top_k) or by their
 * weight (top_p). The search that sample_select.h describes.
 */
#include "cuda/sample_list.h"

struct crossing {
    uint32_t index;
    uint64_t before; // the sum before that item
};

/*
 * Of n items, two a thread of this CTA: the first with which the sum reaches `target`, or the last.
 * All threads learn it.
 */
template <int CTAS>
static __device__ __forceinline__ crossing cross(uint64_t first, uint64_t second, uint64_t start,
                                                 uint64_t target, uint32_t n)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    uint32_t warp = threadIdx.x / 32, i = 2 * threadIdx.x;
    uint64_t sum = warp_scan(first + second);
    if (lane_of() == 31)
        s->part[warp] = sum;
    __syncthreads();
    uint64_t earlier = lane_of() < warp ? s->part[lane_of()] : 0;
    uint64_t before = start + warp_sum(earlier) + sum - first - second, middle = before + first;
    if (i < n && (i == 0 || before < target) && (middle >= target || i + 1 == n)) {
        s->index = i;
        s->before = before;
    } else if (i + 1 < n && middle < target && (middle + second >= target || i + 2 == n)) {
        s->index = i + 1;
        s->before = middle;
    }
    __syncthreads();
    return {s->index, s->before};
}

// Above `value` all are kept, and of those that equal it the first `ties`.
struct cut {
    float value;
    uint32_t tells, lists; // the team's, after the search
    uint64_t ties;
};

// all / one, rounded up; below 2^22.
static __device__ __forceinline__ uint64_t parts_of(uint64_t all, uint32_t one)
{
    uint64_t n = (uint64_t)__fdividef((float)all, (float)one);
    while (n * one < all)
        n++;
    while (n > 0 && (n - 1) * one >= all)
        n--;
    return n;
}

/*
 * Where the sum of weights (count: of ones) from the largest value down reaches `target`, among
 * keys in [lo, hi], of which hi is the largest of all. few: it is likely that they are at most
 * ITEMS.
 */
template <int CTAS>
static __device__ __noinline__ cut find_cut_by(team<CTAS> t, bool count, uint32_t lo, uint32_t hi,
                                               uint64_t target, bool few)
{
    uint64_t above = 0;
    uint32_t i = 2 * threadIdx.x;
    const unsigned long long *item = t.s()->item;
    auto of_key = [&](uint64_t key) { return weight(float_of_key((uint32_t)key), count); };
    while (lo < hi) {
        uint32_t n = few ? list(t, lo, hi, CTAS) : ITEMS + 1;
        bool sorted = n <= ITEMS;
        if (n == 0)
            break;
        uint32_t shift = 0;
        while ((hi - lo) >> shift >= ITEMS)
            shift++;
        if (!sorted)
            histogram(t, count, lo, hi, shift);
        // From the top: thread 0 has the two highest bins, or the two largest values.
        uint64_t a = item[sorted ? i : ITEMS - 1 - i], b = item[sorted ? i + 1 : ITEMS - 2 - i];
        uint64_t first = a, second = b;
        if (sorted) {
            first = i < n ? of_key(key_of(a)) : 0;
            second = i + 1 < n ? of_key(key_of(b)) : 0;
        }
        crossing c = cross<CTAS>(first, second, above, target, sorted ? n : ITEMS);
        if (sorted) {
            uint32_t key = key_of(item[c.index]);
            int equal = __syncthreads_count(i <= c.index && key_of(a) == key);
            equal += __syncthreads_count(i + 1 <= c.index && key_of(b) == key);
            return {float_of_key(key), t.tells, t.lists, (uint64_t)equal};
        }
        uint32_t chosen = ITEMS - 1 - c.index;
        uint64_t within = item[chosen];
        above = c.before;
        lo += chosen << shift;
        hi = min(hi, lo + (1u << shift) - 1);
        few = within <= (uint64_t)ITEMS * max(of_key(lo), 1u);
    }
    return {float_of_key(lo), t.tells, t.lists,
            above < target ? parts_of(target - above, max(of_key(lo), 1u)) : 0};
}

template <int CTAS>
static __device__ __forceinline__ cut find_cut(team<CTAS> &t, bool count, uint32_t lo, uint32_t hi,
                                               uint64_t target, bool few)
{
    cut c = find_cut_by(t, count, lo, hi, target, few);
    t.tells = c.tells;
    t.lists = c.lists;
    return c;
}
