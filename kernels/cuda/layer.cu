// SPDX-License-Identifier: Apache-2.0
/*
 * layer - the small kernels of a step: embedding, norms, RoPE with KV append, activation.
 *
 * Each reads counts on the device and does nothing beyond them, so one graph serves every batch
 * that fits its bucket. All are memory-bound: traffic is what they read and write once.
 */
#include "cuda/program.h"

#include <cuda_fp16.h>

enum { THREADS = 256 };

static inline dim3 blocks_of(uint64_t n)
{
    return dim3((unsigned)((n + THREADS - 1) / THREADS));
}

static __device__ float block_sum(float x)
{
    __shared__ float part[32];
    for (int o = 16; o > 0; o >>= 1)
        x += __shfl_xor_sync(~0u, x, o);
    __syncthreads();
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = x;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        sum += part[i];
    return sum;
}

static __global__ void embed_kernel(session_view v, const bf16 *table, float scale, float *x,
                                    uint32_t cols)
{
    uint32_t t = blockIdx.x;
    if (t >= v.counts[0])
        return;
    int32_t slot = v.token_slot[t], pos = v.pos[t], id = v.token[t];
    if (id < 0)
        id = v.last[slot] < 0 ? 0 : v.last[slot];
    if (threadIdx.x == 0)
        v.history[(uint64_t)slot * (v.max_context + 1) + pos] = id;
    for (uint32_t i = threadIdx.x; i < cols; i += blockDim.x)
        x[(uint64_t)t * cols + i] = __bfloat162float(table[(uint64_t)id * cols + i]) * scale;
}

void embed_run(const session_view &v, const sv_weight *table, float scale, float *x, uint32_t m,
               cudaStream_t q)
{
    embed_kernel<<<m, THREADS, 0, q>>>(v, table->data, scale, x, (uint32_t)table->cols);
}

static __global__ void norm_kernel(session_view v, const float *x, const float *w, float eps,
                                   float offset, bf16 *y, uint32_t cols, bool rows)
{
    uint32_t t = blockIdx.x;
    if (t >= v.counts[rows ? 2 : 0])
        return;
    x += (uint64_t)(rows ? (uint32_t)v.row_token[t] : t) * cols;
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < cols; i += blockDim.x)
        sum += x[i] * x[i];
    float r = w ? rsqrtf(block_sum(sum) / (float)cols + eps) : 1;
    for (uint32_t i = threadIdx.x; i < cols; i += blockDim.x)
        y[(uint64_t)t * cols + i] = __float2bfloat16(w ? x[i] * r * (w[i] + offset) : x[i]);
}

void norm_run(const session_view &v, const float *x, const float *w, float eps, float offset,
              bf16 *y, uint32_t cols, uint32_t m, bool rows, cudaStream_t q)
{
    norm_kernel<<<m, THREADS, 0, q>>>(v, x, w, eps, offset, y, cols, rows);
}

template <class T> static __device__ T from_float(float f);
template <> __device__ float from_float<float>(float f)
{
    return f;
}
template <> __device__ __half from_float<__half>(float f)
{
    return __float2half(f);
}
template <> __device__ bf16 from_float<bf16>(float f)
{
    return __float2bfloat16(f);
}

// One block a (token, head of q, k or v): bias, norm of the head, rotation, into q or the KV block.
template <class T>
static __global__ void rope_append_kernel(session_view v, const bf16 *qkv, rope_args a, bf16 *q,
                                          uint32_t layer)
{
    uint32_t t = blockIdx.x, h = blockIdx.y, d = v.head_dim;
    if (t >= v.counts[0])
        return;
    __shared__ float row[256];
    uint32_t total = (v.heads + 2 * v.kv_heads) * d;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x)
        row[i] = __bfloat162float(qkv[(uint64_t)t * total + h * d + i]) +
                 (a.bias ? a.bias[h * d + i] : 0);
    __syncthreads();
    bool is_q = h < v.heads, is_k = !is_q && h < v.heads + v.kv_heads;
    const float *w = is_q ? a.q_norm : is_k ? a.k_norm : NULL;
    if (w) {
        float sum = 0;
        for (uint32_t i = threadIdx.x; i < d; i += blockDim.x)
            sum += row[i] * row[i];
        float r = rsqrtf(block_sum(sum) / (float)d + (is_q ? a.q_eps : a.k_eps));
        for (uint32_t i = threadIdx.x; i < d; i += blockDim.x)
            row[i] *= r * (w[i] + (is_q ? a.q_offset : a.k_offset));
        __syncthreads();
    }
    int32_t pos = v.pos[t];
    if ((is_q || is_k) && a.style != SV_ROPE_NONE) {
        for (uint32_t i = threadIdx.x; i < a.dims / 2; i += blockDim.x) {
            float s, c;
            sincosf((float)pos * a.inv_freq[i], &s, &c);
            s *= a.scale;
            c *= a.scale;
            uint32_t j = a.style == SV_ROPE_HALF ? i : 2 * i;
            uint32_t k = a.style == SV_ROPE_HALF ? i + a.dims / 2 : 2 * i + 1;
            float x = row[j], y = row[k];
            row[j] = x * c - y * s;
            row[k] = y * c + x * s;
        }
        __syncthreads();
    }
    if (is_q) {
        for (uint32_t i = threadIdx.x; i < d; i += blockDim.x)
            q[((uint64_t)t * v.heads + h) * d + i] = __float2bfloat16(row[i]);
        return;
    }
    uint32_t kv = h - v.heads - (is_k ? 0 : v.kv_heads);
    uint32_t page =
        (uint32_t)v.page_table[(uint64_t)v.token_slot[t] * v.max_pages + (uint32_t)pos / SV_BLOCK];
    uint64_t at =
        (((uint64_t)layer * v.n_blocks + page) * SV_BLOCK + (uint32_t)pos % SV_BLOCK) * v.kv_heads +
        kv;
    T *to = (T *)(is_k ? v.k : v.v) + at * d;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x)
        to[i] = from_float<T>(row[i]);
}

void rope_append_run(const session_view &v, const bf16 *qkv, const rope_args &a, bf16 *q,
                     uint32_t layer, uint32_t m, cudaStream_t s)
{
    dim3 grid(m, v.heads + 2 * v.kv_heads);
    if (v.kv_dtype == SV_F32)
        rope_append_kernel<float><<<grid, 64, 0, s>>>(v, qkv, a, q, layer);
    else if (v.kv_dtype == SV_F16)
        rope_append_kernel<__half><<<grid, 64, 0, s>>>(v, qkv, a, q, layer);
    else
        rope_append_kernel<bf16><<<grid, 64, 0, s>>>(v, qkv, a, q, layer);
}

static __global__ void act_kernel(const bf16 *gu, const float *bias, bf16 *y, uint32_t d_ff,
                                  uint32_t activation)
{
    uint32_t t = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= d_ff)
        return;
    float g = __bfloat162float(gu[(uint64_t)t * 2 * d_ff + i]) + (bias ? bias[i] : 0);
    float u = __bfloat162float(gu[(uint64_t)t * 2 * d_ff + d_ff + i]) + (bias ? bias[d_ff + i] : 0);
    float a = activation == SV_SILU
                  ? g / (1 + __expf(-g))
                  : 0.5f * g * (1 + tanhf(0.7978845608f * (g + 0.044715f * g * g * g)));
    y[(uint64_t)t * d_ff + i] = __float2bfloat16(a * u);
}

void act_run(const bf16 *gate_up, const float *bias, bf16 *y, uint32_t d_ff, uint32_t activation,
             uint32_t m, cudaStream_t q)
{
    act_kernel<<<dim3(blocks_of(d_ff).x, m), THREADS, 0, q>>>(gate_up, bias, y, d_ff, activation);
}

static __global__ void bias_kernel(float *y, const float *bias, uint32_t cols)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < cols)
        y[(uint64_t)blockIdx.y * cols + i] += bias[i];
}

void bias_run(float *y, const float *bias, uint32_t cols, uint32_t m, cudaStream_t q)
{
    bias_kernel<<<dim3(blocks_of(cols).x, m), THREADS, 0, q>>>(y, bias, cols);
}
