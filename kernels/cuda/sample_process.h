// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_process - what a slot's processors make of its logits.
 *
 * Marks  first the place of each value says what is to happen to it: banned, biased, in the
 *        prompt, how often in the output. Then one pass over the logits puts values in place
 * Order  of effects: kernels.h's. A bias is searched for in the list, in its order, by whoever
 *        finds the mark: an id may be named twice
 * Reads  history and lists, by every CTA for its own ids
 * Early  marks are made before the logits are there: all that they ask for is (sample_task.h)
 */
#include "cuda/sample_pick.h"

// What is to happen to an id; the rest is how often it is in the output.
enum : uint32_t { IN_PROMPT = 1u << 31, BANNED = 1u << 30, BIASED = 1u << 29, TIMES = BIASED - 1 };

// Whether the output ends with all but the last of these n ids.
static __device__ bool ends_with(const task &k, const int32_t *word, uint32_t n)
{
    if (n - 1 > k.n_output())
        return false;
    for (uint32_t i = 0; i + 1 < n; i++)
        if (k.said(k.n_history - (n - 1) + i) != word[i])
            return false;
    return true;
}

// In place of each value of this CTA: what is to happen to it. Nobody looks at those values any
// more.
template <int CTAS> static __device__ __noinline__ void mark(team<CTAS> t)
{
    const task &k = t.s()->row;
    uint32_t *marks = (uint32_t *)t.values(), n = WARPS * k.span, first = t.rank * n;
    auto set = [&](int32_t id, uint32_t what) {
        if ((uint32_t)id - first < n)
            atomicOr(marks + ((uint32_t)id - first), what);
    };
    bool limited = k.slot.limited;
#pragma unroll 4
    for (uint32_t i = 4 * threadIdx.x; i < n; i += 4 * THREADS) {
        uint32_t id = first + i, open = ~0u; // an id in fours
        if (limited && id < k.vocab)
            open = k.allowed[id / 32] >> id % 32;
        *(uint4 *)(marks + i) = uint4{open & 1 ? 0 : BANNED, open & 2 ? 0 : BANNED,
                                      open & 4 ? 0 : BANNED, open & 8 ? 0 : BANNED};
    }
    __syncthreads();
    const int32_t *stop = k.list(0), *bias = k.list(1), *bad = k.list(3);
    if (k.stops_late())
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < k.slot.n_stop; i += THREADS)
            set(stop[i], BANNED);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < k.slot.n_bias; i += THREADS)
        set(bias[i], BIASED);
        // A word is its length, negative, and then its ids.
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < k.slot.n_bad; i += THREADS) {
        uint32_t len = bad[i] < 0 ? (uint32_t)-bad[i] : 0;
        if (len > 0 && i + len < k.slot.n_bad && ends_with(k, bad + i + 1, len))
            set(bad[i + len], BANNED);
    }
    uint32_t prompt = k.n_history - k.n_output(), told = k.penalised() ? k.n_history : 0;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < told; i += THREADS) {
        uint32_t at = (uint32_t)k.said(i) - first;
        if (at < n && i < prompt)
            atomicOr(marks + at, IN_PROMPT);
        else if (at < n)
            atomicAdd(marks + at, 1);
    }
    __syncthreads();
}

static __device__ __forceinline__ float processed(const task &k, float x, uint32_t id,
                                                  uint32_t what)
{
    if (what & BANNED)
        return -INFINITY;
    const slot_state *s = &k.slot;
    if (what & BIASED) {
        const int32_t *ids = k.list(1);
        const float *bias = (const float *)k.list(2);
#pragma unroll 1
        for (uint32_t i = 0; i < s->n_bias; i++)
            x += (uint32_t)ids[i] == id ? bias[i] : 0;
    }
    uint32_t times = what & TIMES;
    if (what & (IN_PROMPT | TIMES))
        x = x > 0 ? x / s->repetition : x * s->repetition;
    if (times > 0)
        x = x - __fmul_rn(s->frequency, (float)times) - s->presence;
    return x;
}

// A look at the raw logits; they are kept if anyone will ask for them again.
template <int CTAS> static __device__ __noinline__ seen read(team<CTAS> t, bool keep)
{
    const part p = part_of(t);
    seen s = {-INFINITY, 0, false};
    auto look = [&](uint32_t off, const float4 &x, uint32_t n) {
        const float f[4] = {x.x, x.y, x.z, x.w};
        if (keep)
            *(float4 *)(p.values + off) = x;
#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            s.wrong |= c < n && !(fabsf(f[c]) < INFINITY);
            s.add(f[c], p.first + off + c);
        }
        return true;
    };
    each_logits<8>(p, look, [](uint32_t, const float4 &, uint32_t) {});
    return s;
}

// What logprobs need of the raw logits, while they are at hand: the sum of exp(x - most), and those
// from `least` on into a list. What pads a quad is -INFINITY.
template <int CTAS> struct telling {
    float most, least, sum;

    __device__ __forceinline__ void add(const float4 &x)
    {
        auto one = [&](float f) { return power_of_2((f - most) * LOG2_E); };
        sum += (one(x.x) + one(x.y)) + (one(x.z) + one(x.w));
    }
    __device__ __forceinline__ bool lists(const float4 &x) const
    {
        return x.x >= least || x.y >= least || x.z >= least || x.w >= least;
    }
    __device__ __forceinline__ void list(const float4 &x, uint32_t id, uint32_t n) const
    {
#pragma unroll 1
        for (uint32_t c = 0; c < 4 && c < n; c++)
            if (one_of(x, c) >= least)
                list_add<CTAS>(one_of(x, c), id + c);
    }
};

struct processing {
    seen best;
    float sum; // of the telling
};

// Marks to logits after all that changes them. With TELLS, the raw ones are told of.
template <bool TELLS, int CTAS>
static __device__ __noinline__ processing process(team<CTAS> t, telling<CTAS> raw)
{
    const part p = part_of(t);
    seen s = {-INFINITY, 0, false};
    auto most = [&](uint32_t off, const float4 &x, uint32_t n) {
        const uint4 m = *(const uint4 *)(p.values + off);
        if (((m.x | m.y | m.z | m.w) & ~BANNED) || (TELLS && raw.lists(x)))
            return false;
        const uint32_t mark[4] = {m.x, m.y, m.z, m.w};
        float f[4] = {x.x, x.y, x.z, x.w};
        if (TELLS)
            raw.add(x);
#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            s.wrong |= c < n && !(fabsf(f[c]) < INFINITY);
            f[c] = mark[c] ? -INFINITY : f[c];
            s.add(f[c], p.first + off + c);
        }
        *(float4 *)(p.values + off) = float4{f[0], f[1], f[2], f[3]};
        return true;
    };
    auto marked = [&](uint32_t off, const float4 &x, uint32_t n) {
        uint32_t id = p.first + off, *what = (uint32_t *)(p.values + off);
        if (TELLS) {
            raw.add(x);
            raw.list(x, id, n);
        }
#pragma unroll 1
        for (uint32_t c = 0; c < 4; c++) {
            float f = one_of(x, c);
            s.wrong |= c < n && !(fabsf(f) < INFINITY);
            f = processed(t.s()->row, f, id + c, what[c]);
            s.wrong |= f == INFINITY;
            s.add_late(f, id + c);
            what[c] = __float_as_uint(f);
        }
    };
    each_logits<8>(p, most, marked);
    return {s, raw.sum};
}
