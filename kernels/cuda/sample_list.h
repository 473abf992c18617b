// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_list - the few largest values of a row, listed and sorted.
 *
 * Bound   the k-th largest of the warps' own maxima, or of the threads', is not above the k-th
 *         largest value: that leaves few for a small k, whatever the distribution. With maxima of
 *         128 warps and values in any order about -128 ln(1 - k / 128) are at or above it: 64 of
 *         k = 50, 195 of k = 100
 * List    each CTA adds what it finds, in any order; then all of it goes to those that read it,
 *         while the numbers of it are told; then it is sorted, so that no order shows
 * Sort    n <= RANKED: each entry's place is the number of larger ones, counted by some lanes;
 *         else bitonic
 */
#include "cuda/sample_select.h"

enum : uint32_t {
    RANKED = 160,   // counting takes about n^2 / 21 cycles, bitonic steps 1500 at 128, 2000 at 256
    TOLD_MOST = 128 // the largest k that maxima of warps are asked for: as many as a cluster has
};

// A key with at least k values at or above it, of a telling of the warps' best entries.
template <int CTAS>
static __device__ __forceinline__ uint32_t bound_of_told(const team<CTAS> &t, uint32_t k)
{
    enum { EACH = CTAS * WARPS / 32, PIVOTS = CTAS };
    const uint64_t *told = t.told();
    uint32_t key[EACH], low = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        key[i] = key_of(told[lane_of() + 32 * i]);
#pragma unroll
    for (int from = 0; from < PIVOTS; from += 4) { // numbers up to 128: four in a word
        uint32_t above = 0, pivot[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            pivot[j] = key_of(told[threadIdx.x / 32 * PIVOTS + from + j]);
#pragma unroll
            for (int i = 0; i < EACH; i++)
                above += key[i] >= pivot[j] ? 1u << 8 * j : 0;
        }
        above = warp_sum(above);
#pragma unroll
        for (int j = 0; j < 4; j++)
            low = (above >> 8 * j & 255) >= k ? max(low, pivot[j]) : low;
    }
    if (lane_of() == 0)
        t.s()->part[threadIdx.x / 32] = low;
    __syncthreads();
    return __reduce_max_sync(ALL_LANES, lane_of() < WARPS ? (uint32_t)t.s()->part[lane_of()] : 0);
}

// Of the threads' own; 0 where k is too large for that.
template <int CTAS>
static __device__ __forceinline__ uint32_t bound_of_threads(team<CTAS> &t, float most, uint32_t k)
{
    uint32_t key = key_of_float(most), from = (k + CTAS - 1) / CTAS, low = 0;
#pragma unroll 1
    for (int bit = 31; from <= THREADS && bit >= 12; bit--) // finer is of no use
        if ((uint32_t)__syncthreads_count(key >= (low | 1u << bit)) >= from)
            low |= 1u << bit;
    return ~(uint32_t)t.most((uint64_t)~low); // the lowest of the CTAs
}

// The last telling was of the warps' best entries. Banned values are never among those above.
template <int CTAS>
static __device__ __forceinline__ uint32_t bound(team<CTAS> &t, float most_of_thread, uint32_t k)
{
    if constexpr (CTAS * WARPS >= TOLD_MOST)
        if (k <= TOLD_MOST)
            return max(bound_of_told(t, k), LEAST_KEY + 1);
    return max(bound_of_threads(t, most_of_thread, k), LEAST_KEY + 1);
}

template <int CTAS> static __device__ __forceinline__ void sort_by_rank(uint32_t n)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    uint32_t shift = n <= 64 ? 3 : n <= 128 ? 2 : 1, step = 1u << shift, rank = 0;
    uint32_t i = threadIdx.x >> shift;
    unsigned long long mine = i < n ? s->item[i] : 0;
#pragma unroll 4
    for (uint32_t j = threadIdx.x & (step - 1); j < n; j += step)
        rank += s->item[j] > mine;
#pragma unroll 1
    for (uint32_t o = step / 2; o > 0; o /= 2)
        rank += __shfl_xor_sync(ALL_LANES, rank, o);
    __syncthreads();
    if (i < n && (threadIdx.x & (step - 1)) == 0)
        s->item[rank] = mine;
    __syncthreads();
}

// Entries of n ids in s->item, the largest first. All threads call it, after what they wrote there.
template <int CTAS> static __device__ __noinline__ void sort(uint32_t n)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    uint32_t size = 2;
    while (size < n)
        size *= 2;
    if (n > RANKED)
        for (uint32_t i = n + threadIdx.x; i < size; i += THREADS)
            s->item[i] = 0;
    __syncthreads();
    if (n <= RANKED)
        return sort_by_rank<CTAS>(n);
    for (uint32_t run = 2; run <= size; run *= 2)
        for (uint32_t gap = run / 2; gap > 0; gap /= 2) {
            uint32_t i = 2 * threadIdx.x - (threadIdx.x & (gap - 1));
            if (i < size) {
                unsigned long long a = s->item[i], b = s->item[i + gap];
                if ((a < b) == ((i & run) == 0)) {
                    s->item[i] = b;
                    s->item[i + gap] = a;
                }
            }
            // A warp keeps to 64 entries of its own while the gap is below 64.
            if (gap > 32 || (gap == 1 && run >= 64))
                __syncthreads();
            else
                __syncwarp();
        }
    __syncthreads();
}

// What a CTA can add to a list.
template <int CTAS> static __device__ __forceinline__ uint32_t room()
{
    return CTAS > 1 ? ROOM : ITEMS;
}

// All threads call it; nobody looks at s->item any more.
template <int CTAS> static __device__ __forceinline__ void list_begin()
{
    if (threadIdx.x == 0)
        shared_of<CTAS>()->found = 0;
    __syncthreads();
}

template <int CTAS> static __device__ __forceinline__ void list_add(float x, uint32_t id)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    uint32_t at = atomicAdd(&s->found, 1);
    if (at < room<CTAS>())
        s->item[at] = entry_of(key_of_float(x), id);
}

// What CTAs sent, into s->item in one piece; n of them. told: how many of each.
template <int CTAS>
static __device__ __forceinline__ void join_sent(const uint64_t *told, uint32_t n)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    for (uint32_t at = threadIdx.x; at < n; at += THREADS) {
        uint32_t r = 0, i = at;
        for (uint32_t of = (uint32_t)told[0]; i >= of; of = (uint32_t)told[r * WARPS]) {
            i -= of;
            r++;
        }
        s->item[at] = s->sent[r * ROOM + i];
    }
}

/*
 * All that was added, sorted, in s->item of the CTAs below `readers`; the others are done when it
 * returns. How many there are: the same everywhere. More than ITEMS: too many, there is no list.
 * As with tell(), every warp can tell a number besides.
 */
template <int CTAS>
static __device__ __noinline__ uint32_t list_end_by(team<CTAS> t, uint32_t readers, uint64_t also)
{
    __syncthreads();
    uint32_t mine = t.s()->found, n = mine, come = 0;
    if constexpr (CTAS > 1) {
        if (mine <= ROOM && threadIdx.x < mine)
#pragma unroll 1
            for (uint32_t r = 0; r < readers; r++)
                put(r, t.s()->sent + t.rank * ROOM + threadIdx.x, t.s()->item[threadIdx.x],
                    &t.s()->listed);
    }
    const uint64_t *told = t.tell(mine, &also);
    if constexpr (CTAS > 1) {
        bool over = false;
        n = 0;
#pragma unroll
        for (uint32_t r = 0; r < CTAS; r++) {
            uint32_t of = (uint32_t)told[r * WARPS];
            over |= of > ROOM;
            come += of <= ROOM ? of : 0;
            n += of;
        }
        n = over ? ITEMS + 1 : n;
        if (t.rank >= readers)
            return n;
        if (threadIdx.x == 0)
            expect(&t.s()->listed, come * 8);
        await(&t.s()->listed, t.lists & 1);
        if (n <= ITEMS)
            join_sent<CTAS>(told, n);
    }
    if (n <= ITEMS)
        sort<CTAS>(n);
    return n;
}

template <int CTAS>
static __device__ __forceinline__ uint32_t list_end(team<CTAS> &t, uint32_t readers,
                                                    uint64_t also = 0)
{
    uint32_t n = list_end_by(t, readers, also);
    t.tells++;
    t.lists += t.rank < readers;
    return n;
}

// The values with keys in [lo, hi], listed.
template <int CTAS>
static __device__ __noinline__ uint32_t list_by(team<CTAS> t, uint32_t lo, uint32_t hi,
                                                uint32_t readers)
{
    const part p = part_of(t);
    // No float lies between -0 and 0, but their keys are one.
    float least = float_of_key(lo), most = float_of_key(hi - (hi == key_of_float(0.0f) - 1));
    list_begin<CTAS>();
    auto inside = [&](float x) { return x >= least && x <= most; };
    each_quad(p, [&](uint32_t off, const float4 &x) {
        if (!(inside(x.x) || inside(x.y) || inside(x.z) || inside(x.w)))
            return;
#pragma unroll 1
        for (uint32_t c = 0; c < 4; c++)
            if (inside(one_of(x, c)) && off + c < p.n)
                list_add<CTAS>(one_of(x, c), p.first + off + c);
    });
    return list_end_by(t, readers, 0);
}

template <int CTAS>
static __device__ __forceinline__ uint32_t list(team<CTAS> &t, uint32_t lo, uint32_t hi,
                                                uint32_t readers)
{
    uint32_t n = list_by(t, lo, hi, readers);
    t.tells++;
    t.lists += t.rank < readers;
    return n;
}
