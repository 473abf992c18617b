// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gemv_ends - what becomes of the sums of a pair of weight rows. Each lane has both sums for token
 * lane % M; lane l < 2 M stores what row l / M of the pair gives.
 */
#include "cuda/entry.h"
#include "cuda/gemm_parts.h"

/*
 * The best entries of this CTA's rows to their tokens' words: lanes t and t + M of each warp have
 * those of token t. left: [warps, M], which nobody reads any more once all are here.
 */
template <int M>
static __device__ __forceinline__ void raise_words(const gemm &g, uint64_t best, uint64_t *left)
{
    const uint32_t lane = threadIdx.x % 32, of_lane = threadIdx.x / 32 * M + lane;
    best = max(best, (uint64_t)__shfl_xor_sync(~0u, best, M));
    __syncthreads();
    if (lane < M)
        left[of_lane] = best;
    __syncthreads();
    if (threadIdx.x >= M)
        return;
    for (uint32_t i = threadIdx.x; i < blockDim.x / 32 * M; i += M)
        best = max(best, left[i]);
    raise_word(g.best + threadIdx.x, best);
}

// As gemm.end says. A pair is two rows of y in succession, or a gate and its up row.
struct gemv_store {
    template <int M> struct state {
        uint32_t t, second, row;
        float scale, old, old_up;
        bool active;
        uint64_t best; // of what this lane has stored

        // scale: of all sums of the token.
        __device__ __forceinline__ state(const gemv_store &, const gemm &, float scale)
            : t(threadIdx.x % M), second(threadIdx.x % 32 / M % 2), scale(scale), best(0)
        {
        }

        // Loads what the sums will be joined with.
        __device__ __forceinline__ void begin(const gemv_store &, const gemm &g, uint32_t pair)
        {
            const bool gate_up = g.end == GEMM_GATE_UP;
            row = gate_up ? pair : 2 * pair + second;
            active = threadIdx.x % 32 < (gate_up ? M : 2 * M) && t < g.m && row < g.n;
            old = active ? joined(g, row, t) : 0;
            old_up = active && gate_up && g.bias ? g.bias[g.n + pair] : 0;
        }

        __device__ __forceinline__ void finish(const gemv_store &, const gemm &g, float first,
                                               float other)
        {
            if (!active)
                return;
            if (g.end == GEMM_GATE_UP) {
                store(g, row, t,
                      activated(fmaf(first, scale, old), g.activation) *
                          fmaf(other, scale, old_up));
                return;
            }
            const float f = fmaf(second ? other : first, scale, old);
            store(g, row, t, f);
            if (g.best)
                best = max(best, entry_of_logit(f, row));
        }

        // After the last pair, by all threads; the ring's memory is free.
        __device__ __forceinline__ void conclude(const gemm &g, void *ring) const
        {
            if (g.best)
                raise_words<M>(g, best, (uint64_t *)ring);
        }
    };
};

// Turned, a pair together.
struct gemv_qkv : qkv_rows {
    template <int M> struct state {
        uint32_t t, second, head,
            i; // element i, and its partner, of the head's first half or pairs
        float scale, cosine, sine, bias, other_bias, pos;
        uint64_t slot; // of the token in the KV blocks, in elements
        bool active;

        __device__ __forceinline__ state(const gemv_qkv &e, const gemm &g, float scale)
            : t(threadIdx.x % M), second(threadIdx.x % 32 / M % 2), scale(scale), pos(0), slot(0)
        {
            const session_view &v = e.v;
            active = threadIdx.x % 32 < 2 * M && t < g.m && t < v.counts[0];
            if (!active)
                return;
            const uint32_t at = (uint32_t)v.pos[t];
            slot = e.slot_of(t, at);
            pos = (float)at;
        }

        __device__ __forceinline__ void begin(const gemv_qkv &e, const gemm &, uint32_t pair)
        {
            const uint32_t half = e.v.head_dim / 2;
            head = pair / half;
            i = pair % half;
            const bool halves = e.rope.style == SV_ROPE_HALF;
            const uint32_t row = halves ? head * 2 * half + i : 2 * pair;
            bias = e.rope.bias ? e.rope.bias[row] : 0;
            other_bias = e.rope.bias ? e.rope.bias[row + (halves ? half : 1)] : 0;
            cosine = 1;
            sine = 0;
            if (active && e.rope.style != SV_ROPE_NONE && head < e.v.heads + e.v.kv_heads) {
                sincosf(pos * e.rope.inv_freq[i], &sine, &cosine);
                cosine *= e.rope.scale;
                sine *= e.rope.scale;
            }
        }

        __device__ __forceinline__ void finish(const gemv_qkv &e, const gemm &, float first,
                                               float other)
        {
            if (!active)
                return;
            const float x = fmaf(first, scale, bias), y = fmaf(other, scale, other_bias);
            const float f = second ? y * cosine + x * sine : x * cosine - y * sine;
            const uint32_t half = e.v.head_dim / 2;
            e.put(t, slot, head, e.rope.style == SV_ROPE_HALF ? i + second * half : 2 * i + second,
                  f);
        }

        __device__ __forceinline__ void conclude(const gemm &, void *) const
        {
        }
    };
};
