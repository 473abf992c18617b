// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_select - where the largest values of a row end, by their number or by their weight.
 *
 * Keys    unsigned integers in the order of the floats; +0 and -0 are one
 * Weight  1, or a probability in units of 2^-32 of the best one's, rounded: integers, so that no
 *         order of summation shows. Below half a unit it is nothing
 * Search  a few values are gathered and sorted; many are counted in ITEMS bins of a range of
 *         keys, which then is the bin that crosses; after 4 such rounds it is one key
 * Bound   the k-th largest of the threads' own maxima is not above the k-th largest value: that
 *         leaves few for a small k, whatever the distribution
 * Reads   values of a warp by the lanes that wrote them, four ids each, and no others
 */
#include "cuda/sample_team.h"

// A warp's share of a row.
struct part {
    const float *logits; // of the row
    float *values; // of id `first` and those after it, rounded up to fours with -INFINITY or 0
    uint32_t first, n;
    bool aligned; // rows begin at 16 bytes
};

// The best of what one thread has seen.
struct seen {
    float value;
    uint32_t id;
    bool wrong; // a logit was no finite number

    __device__ __forceinline__ void add(float x, uint32_t i) // ids upwards
    {
        if (x > value) {
            value = x;
            id = i;
        }
    }

    __device__ __forceinline__ void add_late(float x, uint32_t i)
    {
        if (x == value)
            id = min(id, i);
        add(x, i);
    }
};

static __device__ __forceinline__ uint32_t key_of_float(float f)
{
    uint32_t u = __float_as_uint(f + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static __device__ __forceinline__ float float_of_key(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

constexpr uint32_t WRONG = ~0u;             // the key of no number
constexpr uint32_t LEAST_KEY = 0x007fffffu; // of -INFINITY
constexpr float WEIGHT_ONE = 4294967296.0f; // of the best; it saturates just below that

// Of a probability over the best one's.
static __device__ __forceinline__ uint32_t mass(float e)
{
    return __float2uint_rn(e * WEIGHT_ONE);
}

// f(offset, quad) for the quads of this lane.
template <class F> static __device__ __forceinline__ void each_quad(const part &p, F f)
{
#pragma unroll 2
    for (uint32_t off = 4 * lane_of(); off < p.n; off += 128) {
        float4 x = *(const float4 *)(p.values + off);
        f(off, x);
    }
}

template <bool ALIGNED>
static __device__ __forceinline__ float4 load_quad(const part &p, uint32_t off)
{
    const float *from = p.logits + p.first + off;
    if (ALIGNED)
        return __ldcg((const float4 *)from);
    float4 x = {__ldcg(from), -INFINITY, -INFINITY, -INFINITY};
    if (off + 1 < p.n)
        x.y = __ldcg(from + 1);
    if (off + 2 < p.n)
        x.z = __ldcg(from + 2);
    if (off + 3 < p.n)
        x.w = __ldcg(from + 3);
    return x;
}

template <bool ALIGNED, int DEPTH, class F, class G>
static __device__ __forceinline__ void load_quads(const part &p, F f, G again)
{
#pragma unroll 1
    for (uint32_t from = 4 * lane_of(); from < p.n; from += 128 * DEPTH) {
        float4 x[DEPTH];
        uint32_t left = 0;
#pragma unroll
        for (int j = 0; j < DEPTH; j++)
            if (from + 128 * j < p.n)
                x[j] = load_quad<ALIGNED>(p, from + 128 * j);
#pragma unroll
        for (int j = 0; j < DEPTH; j++)
            if (from + 128 * j < p.n &&
                !f(from + 128 * j, x[j], ALIGNED ? 4 : p.n - from - 128 * j))
                left |= 1u << j;
#pragma unroll 1
        for (; left; left &= left - 1) {
            uint32_t off = from + 128 * (__ffs(left) - 1);
            again(off, load_quad<ALIGNED>(p, off), p.n - off);
        }
    }
}

/*
 * The same of the logits in global memory, DEPTH loads under way: f(offset, quad, how many count).
 * Where that returns false, again() is called in its place: what is rare is compiled once.
 */
template <int DEPTH, class F, class G>
static __device__ __forceinline__ void each_logits(const part &p, F f, G again)
{
    if (p.aligned)
        load_quads<true, DEPTH>(p, f, again);
    else
        load_quads<false, 1>(p, f, again);
}

// A key with at least k values at or above it; LEAST_KEY where k is too large for that.
template <int CTAS>
static __device__ __forceinline__ uint32_t bound(team<CTAS> &t, float most_of_thread, uint32_t k)
{
    uint32_t key = key_of_float(most_of_thread), from = (k + CTAS - 1) / CTAS, low = 0;
#pragma unroll 1
    for (int bit = 31; from <= THREADS && bit >= 12; bit--) // finer is of no use
        if ((uint32_t)__syncthreads_count(key >= (low | 1u << bit)) >= from)
            low |= 1u << bit;
    low = ~(uint32_t)t.most((uint64_t)~low); // the lowest of the CTAs
    return max(low, LEAST_KEY);
}

// Entries of n ids in s->item, the largest first. All threads call it.
template <int CTAS> static __device__ __noinline__ void sort(team_shared<CTAS> *s, uint32_t n)
{
    uint32_t size = 2;
    while (size < n)
        size *= 2;
    for (uint32_t i = n + threadIdx.x; i < size; i += THREADS)
        s->item[i] = 0;
    __syncthreads();
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

/*
 * Entries of all values with keys in [lo, hi] into every CTA's s->item, sorted. Returns how many
 * there are; if they are more than ITEMS nothing is written, and it was no list.
 */
template <int CTAS>
static __device__ __noinline__ uint32_t gather_by(team<CTAS> t, part p, uint32_t lo, uint32_t hi)
{
    auto inside = [&](float x, uint32_t off) {
        return key_of_float(x) - lo <= hi - lo && off < p.n;
    };
    uint32_t mine = 0;
    each_quad(p, [&](uint32_t off, const float4 &x) {
        mine +=
            inside(x.x, off) + inside(x.y, off + 1) + inside(x.z, off + 2) + inside(x.w, off + 3);
    });
    mine = warp_sum(mine);
    uint64_t all, before = t.before_me(t.tell(mine), &all);
    if (all > ITEMS)
        return (uint32_t)all;
    auto put = [&](float x, uint32_t off) {
        bool found = inside(x, off);
        uint32_t who = __ballot_sync(ALL_LANES, found);
        if (found)
            t.list((uint32_t)before + __popc(who & ((1u << lane_of()) - 1)),
                   entry_of(key_of_float(x), p.first + off));
        before += __popc(who);
    };
    for (uint32_t from = 0; mine > 0 && from < p.n; from += 128) {
        uint32_t off = from + 4 * lane_of();
        float4 x = off < p.n ? *(const float4 *)(p.values + off) : float4{0, 0, 0, 0};
        put(x.x, off);
        put(x.y, off + 1);
        put(x.z, off + 2);
        put(x.w, off + 3);
    }
    t.await_list((uint32_t)all);
    sort(t.s, (uint32_t)all);
    return (uint32_t)all;
}

template <int CTAS>
static __device__ __forceinline__ uint32_t gather(team<CTAS> &t, const part &p, uint32_t lo,
                                                  uint32_t hi)
{
    uint32_t n = gather_by(t, p, lo, hi);
    t.tells++;
    t.lists += n <= ITEMS;
    return n;
}

static __device__ __forceinline__ uint32_t weight(float x, bool count)
{
    return count ? 1 : mass(x);
}

// The weights of values with keys in [lo, hi], in bins of 2^shift keys, in every CTA's s->item.
template <int CTAS>
static __device__ __forceinline__ void histogram(const team<CTAS> &t, const part &p, bool count,
                                                 uint32_t lo, uint32_t hi, uint32_t shift)
{
    unsigned long long *bin = t.s->item;
    __syncthreads(); // nobody reads the last ones any more
    for (uint32_t i = threadIdx.x; i < ITEMS; i += THREADS)
        bin[i] = 0;
    __syncthreads();
    auto put = [&](float x, uint32_t off) {
        uint32_t key = key_of_float(x) - lo;
        if (key > hi - lo || off >= p.n)
            return;
        uint32_t w = weight(x, count), *half = (uint32_t *)(bin + (key >> shift));
        if constexpr (CTAS > 1) { // there is no 64-bit addition in shared memory; a CTA's sum fits
            atomicAdd(half, w & 0xffff);
            if (w >> 16)
                atomicAdd(half + 1, w >> 16);
        } else {
            atomicAdd(bin + (key >> shift), (unsigned long long)w);
        }
    };
    each_quad(p, [&](uint32_t off, const float4 &x) {
        put(x.x, off);
        put(x.y, off + 1);
        put(x.z, off + 2);
        put(x.w, off + 3);
    });
    t.sync();
    if constexpr (CTAS > 1) { // each CTA joins some bins, for all
        uint32_t i = t.rank * (ITEMS / CTAS) + threadIdx.x;
        if (threadIdx.x < ITEMS / CTAS) {
            unsigned long long sum = 0;
            for (uint32_t r = 0; r < CTAS; r++) {
                unsigned long long x = *t.in(r, bin + i);
                sum += (x & 0xffffffffu) + (x >> 32 << 16);
            }
            for (uint32_t r = 0; r < CTAS; r++)
                *t.in(r, bin + i) = sum;
        }
        t.sync();
    }
}
