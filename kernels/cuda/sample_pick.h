// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_pick - weights, what top_p keeps of them, and the draw.
 *
 * Pick   of a list of the largest values, which holds all that top_k keeps: by one CTA, each entry
 *        against all others, since they are few. A value is kept while what is ahead of it, larger
 *        or equal with a lower id, weighs less than top_p asks for; it is drawn if the random
 *        number falls into its weight behind that of the lower ids
 * Same   sets, weights and sums as of the whole row: integers in another order
 */
#include "cuda/sample_cut.h"

enum : uint32_t { PICKED = 512 }; // the longest list: an entry a thread
constexpr float LOG2_E = 1.442695041f;

static __device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Of the kept weights' sum, what top_p must hold.
static __device__ __forceinline__ uint64_t target_of(uint64_t total, float top_p)
{
    return max((uint64_t)ceil((double)total * (top_p > 0 ? top_p : 0)), (uint64_t)1);
}

template <int CTAS> static __device__ __forceinline__ uint64_t sum_of_sent(uint32_t n)
{
    const team_shared<CTAS> *s = shared_of<CTAS>();
    uint64_t sum = 0;
    for (uint32_t i = lane_of(); i < n; i += 32)
        sum += s->sent[i];
    return warp_sum(sum);
}

// How many lanes look after one of n <= PICKED entries, as a shift.
static __device__ __forceinline__ uint32_t lanes_of(uint32_t n)
{
    return n <= 64 ? 3 : n <= 128 ? 2 : n <= 256 ? 1 : 0;
}

// The weights of the entries x of n with ahead(x); all 1 << shift lanes of one entry learn it.
template <int CTAS, class F>
static __device__ __forceinline__ uint64_t sum_ahead(uint32_t n, uint32_t shift, F ahead)
{
    const team_shared<CTAS> *s = shared_of<CTAS>();
    uint64_t sum = 0;
    uint32_t step = 1u << shift;
#pragma unroll 4
    for (uint32_t j = threadIdx.x & (step - 1); j < n; j += step)
        sum += ahead(s->item[j]) ? s->sent[j] : 0;
#pragma unroll 1
    for (uint32_t o = step / 2; o > 0; o /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, o);
    return sum;
}

/*
 * The id drawn from the n entries of s->item, which is sorted, after top_k (0 < k), min_p and
 * top_p. All threads call it and learn it.
 */
template <int CTAS> static __device__ __noinline__ int32_t pick(uint32_t n, uint32_t k, float most)
{
    team_shared<CTAS> *s = shared_of<CTAS>();
    const slot_state &slot = s->row.slot;
    uint32_t i = threadIdx.x;
    uint64_t e = i < n ? s->item[i] : 0;
    bool kept = i < n && key_of(e) >= key_of(s->item[min(k, n) - 1]);
    float by = LOG2_E / slot.temperature, share = power_of_2((float_of_key(key_of(e)) - most) * by);
    n = (uint32_t)__syncthreads_count(kept); // the first ones
    if (kept) {
        share = share >= slot.min_p ? share : 0;
        s->item[i] = entry_of(key_of_float(share), (uint32_t)id_of(e));
        s->sent[i] = mass(share);
    }
    __syncthreads();
    uint32_t shift = lanes_of(n);
    i = threadIdx.x >> shift;
    bool owner = i < n && (threadIdx.x & ((1u << shift) - 1)) == 0;
    e = i < n ? s->item[i] : 0;
    uint64_t total = sum_of_sent<CTAS>(n);
    if (slot.top_p < 1) {
        uint64_t above = sum_ahead<CTAS>(n, shift, [&](uint64_t x) { return x > e; });
        __syncthreads();
        if (owner && above >= target_of(total, slot.top_p))
            s->sent[i] = 0;
        __syncthreads();
        total = sum_of_sent<CTAS>(n);
    }
    uint64_t at = __umul64hi(s->row.random, total); // in [0, total)
    uint64_t before = sum_ahead<CTAS>(
        n, shift, [&](uint64_t x) { return (uint32_t)x > (uint32_t)e; }); // lower ids
    if (owner && at - before < s->sent[i])
        s->index = (uint32_t)id_of(e);
    __syncthreads();
    return (int32_t)s->index;
}
