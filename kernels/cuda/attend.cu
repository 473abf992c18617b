// SPDX-License-Identifier: Apache-2.0
/*
 * attend - causal attention of each token over the KV blocks of its sequence.
 *
 * shape    one block of 4 warps a (token, kv head): all query heads of the group, keys in tiles of
 * 64 traffic  K and V of the sequence once for each token and kv head: right for decode, wasteful
 * for prefill, where a tile of queries should share it order    keys by position, tile by tile: a
 * token's sum depends on nothing else oracle   tests/kernels, in double
 */
#include "cuda/program.h"

#include <cuda_fp16.h>

enum { WARPS = 4, TILE = 64, GROUP_MAX = 16 };

static __device__ float to_float(float f)
{
    return f;
}
static __device__ float to_float(__half h)
{
    return __half2float(h);
}
static __device__ float to_float(bf16 b)
{
    return __bfloat162float(b);
}

template <class T>
static __global__ void attend_kernel(session_view v, const bf16 *q, bf16 *out, uint32_t layer,
                                     uint32_t window, float scale)
{
    uint32_t t = blockIdx.x, kv = blockIdx.y, d = v.head_dim;
    if (t >= v.counts[0])
        return;
    uint32_t group = v.heads / v.kv_heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    extern __shared__ float shared[];
    float *qs = shared;                // [group, d], scaled
    float *score = qs + group * d;     // [group, TILE]
    float *acc = score + group * TILE; // [group, d]
    __shared__ float most[GROUP_MAX], sum[GROUP_MAX], shrink[GROUP_MAX];
    const int32_t *pages = v.page_table + (uint64_t)v.token_slot[t] * v.max_pages;
    uint32_t end = (uint32_t)v.pos[t] + 1;
    uint32_t begin = window && end > window ? end - window : 0;
    for (uint32_t i = threadIdx.x; i < group * d; i += blockDim.x) {
        qs[i] = __bfloat162float(q[((uint64_t)t * v.heads + kv * group) * d + i]) * scale;
        acc[i] = 0;
    }
    if (threadIdx.x < group) {
        most[threadIdx.x] = -INFINITY;
        sum[threadIdx.x] = 0;
    }
    __syncthreads();
    uint64_t plane = (uint64_t)layer * v.n_blocks;
    for (uint32_t base = begin / TILE * TILE; base < end; base += TILE) {
        for (uint32_t j = warp; j < TILE; j += WARPS) { // a warp a key
            uint32_t key = base + j;
            bool seen = key >= begin && key < end;
            const T *k = NULL;
            if (seen)
                k = (const T *)v.k +
                    (((plane + (uint32_t)pages[key / SV_BLOCK]) * SV_BLOCK + key % SV_BLOCK) *
                         v.kv_heads +
                     kv) *
                        d;
            for (uint32_t g = 0; g < group; g++) {
                float s = 0;
                for (uint32_t i = lane; seen && i < d; i += 32)
                    s += qs[g * d + i] * to_float(k[i]);
                for (int o = 16; o > 0; o >>= 1)
                    s += __shfl_xor_sync(~0u, s, o);
                if (lane == 0)
                    score[g * TILE + j] = seen ? s : -INFINITY;
            }
        }
        __syncthreads();
        for (uint32_t g = warp; g < group; g += WARPS) { // a warp a head
            float a = score[g * TILE + lane], b = score[g * TILE + 32 + lane], m = fmaxf(a, b);
            for (int o = 16; o > 0; o >>= 1)
                m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
            m = fmaxf(m, most[g]);
            a = __expf(a - m);
            b = __expf(b - m);
            score[g * TILE + lane] = a;
            score[g * TILE + 32 + lane] = b;
            float s = a + b;
            for (int o = 16; o > 0; o >>= 1)
                s += __shfl_xor_sync(~0u, s, o);
            if (lane == 0) {
                shrink[g] = __expf(most[g] - m);
                sum[g] = sum[g] * shrink[g] + s;
                most[g] = m;
            }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) {
            float part[GROUP_MAX];
            for (uint32_t g = 0; g < GROUP_MAX; g++)
                part[g] = g < group ? acc[g * d + i] * shrink[g] : 0;
            for (uint32_t j = 0; j < TILE; j++) {
                uint32_t key = base + j;
                if (key < begin || key >= end)
                    continue;
                float x = to_float(
                    ((const T *)v.v)[(((plane + (uint32_t)pages[key / SV_BLOCK]) * SV_BLOCK +
                                       key % SV_BLOCK) *
                                          v.kv_heads +
                                      kv) *
                                         d +
                                     i]);
#pragma unroll
                for (uint32_t g = 0; g < GROUP_MAX; g++)
                    if (g < group)
                        part[g] += score[g * TILE + j] * x;
            }
            for (uint32_t g = 0; g < GROUP_MAX; g++)
                if (g < group)
                    acc[g * d + i] = part[g];
        }
        __syncthreads();
    }
    for (uint32_t i = threadIdx.x; i < group * d; i += blockDim.x)
        out[((uint64_t)t * v.heads + kv * group) * d + i] = __float2bfloat16(acc[i] / sum[i / d]);
}

void attend_run(const session_view &v, const bf16 *q, bf16 *out, uint32_t layer, uint32_t window,
                float scale, uint32_t m, cudaStream_t s)
{
    uint32_t group = v.heads / v.kv_heads;
    size_t shared = sizeof(float) * group * (2 * v.head_dim + TILE);
    dim3 grid(m, v.kv_heads);
    if (v.kv_dtype == SV_F32)
        attend_kernel<float><<<grid, WARPS * 32, shared, s>>>(v, q, out, layer, window, scale);
    else if (v.kv_dtype == SV_F16)
        attend_kernel<__half><<<grid, WARPS * 32, shared, s>>>(v, q, out, layer, window, scale);
    else
        attend_kernel<bf16><<<grid, WARPS * 32, shared, s>>>(v, q, out, layer, window, scale);
}
