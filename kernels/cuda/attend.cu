// SPDX-License-Identifier: Apache-2.0
/*
 * attend - causal attention of each token over the KV blocks of its sequence: which kernel does it.
 *
 * KV of bf16 and f16 goes to attend_decode.cu and attend_prefill.cu, which share the sequences as
 * schedule.cu says. KV of f32 is for comparison with a reference and has the plain kernel below.
 *
 * shape    one block of 4 warps a (token, kv head): all query heads of the group, keys in tiles of
 *          64
 * traffic  K and V of the sequence once for each token and kv head
 * order    keys by position, tile by tile: a token's sum depends on nothing else
 * oracle   tests/kernels, in double
 */
#include "cuda/attend.h"

enum { WARPS = 4, TILE = 64, GROUP_MAX = 16 };

static __global__ void plain_kernel(session_view v, attend_args a)
{
    wait_previous();
    let_next_start();
    uint32_t t = blockIdx.x, kv = blockIdx.y, d = v.head_dim;
    if (t >= v.counts[0])
        return;
    uint32_t group = v.heads / v.kv_heads, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    extern __shared__ float shared[];
    float *qs = shared;                // [group, d], scaled
    float *score = qs + group * d;     // [group, TILE]
    float *acc = score + group * TILE; // [group, d]
    __shared__ float most[GROUP_MAX], sum[GROUP_MAX], shrink[GROUP_MAX];
    const int32_t *pages = v.page_table + (uint64_t)v.token_slot[t] * v.max_pages;
    uint32_t end = (uint32_t)v.pos[t] + 1, begin = first_key(end - 1, a.window);
    for (uint32_t i = threadIdx.x; i < group * d; i += blockDim.x) {
        qs[i] = __bfloat162float(a.q[((uint64_t)t * v.heads + kv * group) * d + i]) * a.scale;
        acc[i] = 0;
    }
    if (threadIdx.x < group) {
        most[threadIdx.x] = -INFINITY;
        sum[threadIdx.x] = 0;
    }
    __syncthreads();
    uint64_t plane = (uint64_t)a.layer * v.n_blocks;
    auto at = [&](uint32_t key) {
        uint64_t block = plane + (uint32_t)pages[key / SV_BLOCK];
        return ((block * SV_BLOCK + key % SV_BLOCK) * v.kv_heads + kv) * d;
    };
    for (uint32_t base = begin / TILE * TILE; base < end; base += TILE) {
        for (uint32_t j = warp; j < TILE; j += WARPS) { // a warp a key
            uint32_t key = base + j;
            bool seen = key >= begin && key < end;
            const float *k = seen ? (const float *)v.k + at(key) : NULL;
            for (uint32_t g = 0; g < group; g++) {
                float s = 0;
                for (uint32_t i = lane; seen && i < d; i += WARP)
                    s += qs[g * d + i] * k[i];
                for (int o = WARP / 2; o > 0; o >>= 1)
                    s += __shfl_xor_sync(~0u, s, o);
                if (lane == 0)
                    score[g * TILE + j] = seen ? s : -INFINITY;
            }
        }
        __syncthreads();
        for (uint32_t g = warp; g < group; g += WARPS) { // a warp a head
            float x = score[g * TILE + lane], y = score[g * TILE + WARP + lane], m = fmaxf(x, y);
            for (int o = WARP / 2; o > 0; o >>= 1)
                m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
            m = fmaxf(m, most[g]);
            x = exp2f(x - m);
            y = exp2f(y - m);
            score[g * TILE + lane] = x;
            score[g * TILE + WARP + lane] = y;
            float s = x + y;
            for (int o = WARP / 2; o > 0; o >>= 1)
                s += __shfl_xor_sync(~0u, s, o);
            if (lane == 0) {
                shrink[g] = exp2f(most[g] - m);
                sum[g] = sum[g] * shrink[g] + s;
                most[g] = m;
            }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < group * d; i += blockDim.x) {
            uint32_t g = i / d;
            float part = acc[i] * shrink[g];
            for (uint32_t j = max(begin, base) - base; j < TILE && base + j < end; j++)
                part += score[g * TILE + j] * ((const float *)v.v)[at(base + j) + i % d];
            acc[i] = part;
        }
        __syncthreads();
    }
    for (uint32_t i = threadIdx.x; i < group * d; i += blockDim.x)
        a.out[((uint64_t)t * v.heads + kv * group) * d + i] = __float2bfloat16(acc[i] / sum[i / d]);
}

static void plain_run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    uint32_t group = v.heads / v.kv_heads;
    size_t shared = sizeof(float) * group * (2 * v.head_dim + TILE);
    enqueue(plain_kernel, dim3(m, v.kv_heads), dim3(WARPS * WARP), shared, q, v, a);
}

void attend_run(const session_view &v, const bf16 *q, bf16 *out, uint32_t layer, uint32_t window,
                float scale, uint32_t m, cudaStream_t s)
{
    const float log2_e = 1.44269504f;
    attend_args a = {q, out, layer, window, scale * log2_e};
    if (v.kv_dtype == SV_F32) {
        plain_run(v, a, m, s);
        return;
    }
    decode_run(v, a, s);
    prefill_run(v, a, m, s);
}
