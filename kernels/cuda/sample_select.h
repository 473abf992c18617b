// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_select - where the largest values of a row end, by their number or by their weight.
 *
 * Keys    unsigned integers in the order of the floats (entry.h)
 * Weight  1, or a probability in units of 2^-32 of the best one's, rounded: integers, so that no
 *         order of summation shows. Below half a unit it is nothing
 * Search  few values are listed (sample_list.h); many are counted in ITEMS bins of a range of
 *         keys, which then is the bin that crosses; after 4 such rounds it is one key
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

// Made when it is asked for: registers are few.
template <int CTAS> static __device__ __forceinline__ part part_of(const team<CTAS> &t)
{
    const task &k = t.s()->row;
    uint32_t first = t.me() * k.span;
    return {k.logits, t.values() + threadIdx.x / 32 * k.span, first,
            first < k.vocab ? min(k.vocab - first, k.span) : 0, k.vocab % 4 == 0};
}

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

static __device__ __forceinline__ float one_of(const float4 &x, uint32_t c)
{
    return c < 2 ? c < 1 ? x.x : x.y : c < 3 ? x.z : x.w;
}

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
        for (int j = 0; j < DEPTH; j++) // all of them: a load left out would have to keep x[j]
            x[j] = load_quad<ALIGNED>(p, from + 128 * j < p.n ? from + 128 * j : from);
#pragma unroll
        for (int j = 0; j < DEPTH; j++)
            if (from + 128 * j < p.n &&
                !f(from + 128 * j, x[j], ALIGNED ? 4 : p.n - from - 128 * j))
                left |= 1u << j;
#pragma unroll 1
        for (; left; left &= left - 1) {
            uint32_t off = from + 128 * (__ffs(left) - 1);
            again(off, load_quad<ALIGNED>(p, off), p.n - off); // once more: registers are few
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
        load_quads<false, 2>(p, f, again);
}

static __device__ __forceinline__ uint32_t weight(float x, bool count)
{
    return count ? 1 : mass(x);
}

// The weights of values with keys in [lo, hi], in bins of 2^shift keys, in every CTA's s->item.
template <int CTAS>
static __device__ __forceinline__ void histogram(const team<CTAS> &t, bool count, uint32_t lo,
                                                 uint32_t hi, uint32_t shift)
{
    const part p = part_of(t);
    unsigned long long *bin = t.s()->item;
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
