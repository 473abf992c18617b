// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_heads - what attention takes of a token's projections within mega: q of a group, normed and
 * turned, to shared memory; k and v, too, and to the KV blocks.
 *
 * A warp a head, D / 32 elements a lane: those that RoPE turns together are in one lane. cos and
 * sin are made once a step.
 */
#include "cuda/mega_ring.h"

template <int D> struct mega_attend_shape {
    enum {
        PART = D + 4,          // floats of a head: mega_merge.h
        Q_PITCH = 2 * D + 16,  // bytes, so that rows of a column are in different banks
        HALF = MEGA_WARPS / 2, // warps whose sums are in shared memory at once
        EACH = D / WARP        // elements of a head in a lane
    };
};

// What attention has of its own in shared memory.
template <int D> struct mega_heads {
    __align__(16) char q[MEGA_GROUP * mega_attend_shape<D>::Q_PITCH];
    __align__(16) bf16 own[2][D]; // k and v of the token
    float2 turn[D / 2];           // cos and sin of each pair
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Which element of a head is this lane's i-th: pairs that RoPE turns together are in one lane.
static __device__ __forceinline__ uint32_t mega_element(uint32_t style, uint32_t i)
{
    const uint32_t lane = threadIdx.x % WARP;
    return style == SV_ROPE_PAIRS ? 2 * lane + 2 * WARP * (i / 2) + i % 2 : lane + WARP * i;
}

static __device__ __forceinline__ void mega_turn(float &x, float &y, float2 by)
{
    const float x0 = x;
    x = x0 * by.x - y * by.y;
    y = y * by.x + x0 * by.y;
}

// A head as the projection left it: normed, turned.
template <int D>
static __device__ __forceinline__ void
mega_head(const mega_args &a, const mega_heads<D> &h, const float *raw, const float *norm,
          float eps, float offset, bool turn, float (&f)[mega_attend_shape<D>::EACH])
{
    constexpr uint32_t EACH = mega_attend_shape<D>::EACH;
    float sum = 0, by[EACH];
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        const uint32_t e = mega_element(a.rope_style, i);
        f[i] = __ldcg(raw + e);
        by[i] = norm ? norm[e] + offset : 1;
    }
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++)
        sum = fmaf(f[i], f[i], sum);
    if (norm) {
#pragma unroll
        for (int o = WARP / 2; o > 0; o >>= 1)
            sum += __shfl_xor_sync(~0u, sum, o);
        const float r = rsqrtf(sum / (float)D + eps);
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            f[i] *= r * by[i];
    }
    if (!turn || a.rope_style == SV_ROPE_NONE)
        return;
#pragma unroll
    for (uint32_t i = 0; i < EACH / 2; i++) {
        const float2 t = h.turn[threadIdx.x % WARP + WARP * i];
        if (a.rope_style == SV_ROPE_PAIRS)
            mega_turn(f[2 * i], f[2 * i + 1], t);
        else
            mega_turn(f[i], f[i + EACH / 2], t);
    }
}

// q of the group to shared memory; in the last range k and v too, and to the KV blocks.
template <int D>
static __device__ __forceinline__ void mega_take_heads(const mega_args &a, const mega_attend &t,
                                                       const mega_token &token, uint32_t head,
                                                       bool last, mega_heads<D> *h)
{
    constexpr uint32_t EACH = mega_attend_shape<D>::EACH;
    const session_view &v = a.v;
    const uint32_t warp = threadIdx.x / WARP, group = v.heads / v.kv_heads;
    float f[EACH];
    if (warp < group) {
        mega_head<D>(a, *h, t.qkv + (head * group + warp) * D, t.q_norm, t.q_eps, t.q_offset, true,
                     f);
        bf16 *to = (bf16 *)(h->q + warp * mega_attend_shape<D>::Q_PITCH);
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++)
            to[mega_element(a.rope_style, i)] = __float2bfloat16(f[i]);
    } else if (last && (warp == MEGA_GROUP || warp == MEGA_GROUP + 1)) {
        const bool is_v = warp > MEGA_GROUP;
        const uint32_t row = v.heads + (is_v ? v.kv_heads : 0) + head;
        mega_head<D>(a, *h, t.qkv + row * D, is_v ? NULL : t.k_norm, t.k_eps, t.k_offset, !is_v, f);
        const uint64_t plane = (uint64_t)t.layer * v.n_blocks + token.page;
        bf16 *block = (bf16 *)(is_v ? v.v : v.k) +
                      ((plane * SV_BLOCK + token.pos % SV_BLOCK) * v.kv_heads + head) * D;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            const uint32_t e = mega_element(a.rope_style, i);
            h->own[is_v][e] = block[e] = __float2bfloat16(f[i]);
        }
    }
}

#endif
