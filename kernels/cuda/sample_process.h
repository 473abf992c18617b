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
 */
#include "cuda/sample_cut.h"
#include "cuda/session.h"

// What is to happen to an id; the rest is how often it is in the output.
enum : uint32_t { IN_PROMPT = 1u << 31, BANNED = 1u << 30, BIASED = 1u << 29, TIMES = BIASED - 1 };

// A slot, and the place that a row is of. Pointers are made when asked for: registers are few.
struct row {
    const session_view *v;
    uint32_t slot, n_history; // tokens so far

    __device__ __forceinline__ const slot_state *st() const
    {
        return v->slots + slot;
    }
    __device__ __forceinline__ const int32_t *history() const
    {
        return v->history + (uint64_t)slot * (v->max_context + 1);
    }
    // 0: stop ids, 1: ids with a bias, 2: the biases, 3: bad words
    __device__ __forceinline__ const int32_t *list(uint32_t i) const
    {
        return v->lists + (4ull * slot + i) * CUDA_LISTS_MAX;
    }
    __device__ __forceinline__ const uint32_t *allowed() const
    {
        return v->allowed + (uint64_t)slot * v->allowed_words;
    }
    __device__ __forceinline__ int64_t number() const // of the output token to come
    {
        return (int64_t)n_history - st()->prompt_len;
    }
    __device__ __forceinline__ uint32_t n_output() const
    {
        return number() > 0 ? (uint32_t)number() : 0;
    }
};

static __device__ __forceinline__ bool penalised(const slot_state *s)
{
    return s->repetition != 1 || s->frequency != 0 || s->presence != 0;
}

static __device__ __forceinline__ bool stops_late(const row &r)
{
    return r.st()->n_stop > 0 && r.number() < (int64_t)r.st()->min_tokens;
}

static __device__ __forceinline__ bool plain(const row &r)
{
    const slot_state *s = r.st();
    return !s->limited && s->n_bias + s->n_bad == 0 && !stops_late(r) && !penalised(s);
}

// Whether the output ends with all but the last of these n ids.
static __device__ bool said(const row &r, const int32_t *word, uint32_t n)
{
    if (n - 1 > r.n_output())
        return false;
    const int32_t *end = r.history() + r.n_history - (n - 1);
    for (uint32_t i = 0; i + 1 < n; i++)
        if (end[i] != word[i])
            return false;
    return true;
}

// In place of each value of this CTA, [0, n) from id `first`: what is to happen to it. Nobody looks
// at those values any more.
static __device__ __forceinline__ void mark(const row &r, uint32_t *marks, uint32_t first,
                                            uint32_t n)
{
    auto set = [&](int32_t id, uint32_t what) {
        if ((uint32_t)id - first < n)
            atomicOr(marks + ((uint32_t)id - first), what);
    };
    for (uint32_t i = 4 * threadIdx.x; i < n; i += 4 * THREADS)
        *(uint4 *)(marks + i) = uint4{0, 0, 0, 0};
    __syncthreads();
    const slot_state *s = r.st();
    const int32_t *stop = r.list(0), *bias = r.list(1), *bad = r.list(3), *history = r.history();
    if (stops_late(r))
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < s->n_stop; i += THREADS)
            set(stop[i], BANNED);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < s->n_bias; i += THREADS)
        set(bias[i], BIASED);
        // A word is its length, negative, and then its ids.
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < s->n_bad; i += THREADS) {
        uint32_t len = bad[i] < 0 ? (uint32_t)-bad[i] : 0;
        if (len > 0 && i + len < s->n_bad && said(r, bad + i + 1, len))
            set(bad[i + len], BANNED);
    }
    uint32_t prompt = r.n_history - r.n_output(), told = penalised(s) ? r.n_history : 0;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < told; i += THREADS) {
        uint32_t at = (uint32_t)history[i] - first;
        if (at < n && i < prompt)
            atomicOr(marks + at, IN_PROMPT);
        else if (at < n)
            atomicAdd(marks + at, 1);
    }
    __syncthreads();
}

static __device__ __forceinline__ float processed(const row &r, float x, uint32_t id, uint32_t what)
{
    if (what & BANNED)
        return -INFINITY;
    const slot_state *s = r.st();
    if (what & BIASED) {
        const int32_t *ids = r.list(1);
        const float *bias = (const float *)r.list(2);
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
static __device__ __forceinline__ seen read(const part &p, bool keep)
{
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

// Marks to logits after all that changes them.
static __device__ __forceinline__ seen process(const row &r, const part &p)
{
    seen s = {-INFINITY, 0, false};
    const uint32_t *allowed = r.st()->limited ? r.allowed() : NULL;
    auto open = [&](uint32_t id) { // a multiple of 4, and those after it
        return allowed ? allowed[id / 32] >> id % 32 : ~0u;
    };
    auto most = [&](uint32_t off, const float4 &x, uint32_t n) {
        const uint4 m = *(const uint4 *)(p.values + off);
        if (m.x | m.y | m.z | m.w)
            return false;
        uint32_t mask = open(p.first + off);
        float f[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (uint32_t c = 0; c < 4; c++) {
            s.wrong |= c < n && !(fabsf(f[c]) < INFINITY);
            f[c] = mask >> c & 1 ? f[c] : -INFINITY;
            s.add(f[c], p.first + off + c);
        }
        *(float4 *)(p.values + off) = float4{f[0], f[1], f[2], f[3]};
        return true;
    };
    auto marked = [&](uint32_t off, const float4 &x, uint32_t n) {
        uint32_t id = p.first + off, mask = open(id), *what = (uint32_t *)(p.values + off);
#pragma unroll 1
        for (uint32_t c = 0; c < 4; c++) {
            float f = c < 2 ? c < 1 ? x.x : x.y : c < 3 ? x.z : x.w;
            s.wrong |= c < n && !(fabsf(f) < INFINITY);
            f = mask >> c & 1 ? processed(r, f, id + c, what[c]) : -INFINITY;
            s.wrong |= f == INFINITY;
            s.add_late(f, id + c);
            what[c] = __float_as_uint(f);
        }
    };
    each_logits<4>(p, most, marked);
    return s;
}
