// SPDX-License-Identifier: Apache-2.0
/*
 * layer - the small kernels of a step: embedding, norms, RoPE with KV append, activation.
 *
 * shape    a CTA for each token; RoPE: a group of lanes for each of its heads, 8 elements a lane;
 *          activation and bias: a thread for each 16 bytes. Columns are in eights (in fours at a
 *          norm), but for a bias'
 * traffic  what is read and written, once: embedding 6 bytes an element, norm 6, RoPE 4 (K and V of
 *          f32: 6), activation 6 of the output's. All are memory-bound
 * order    sums of squares: each thread's columns upwards, its warp as a tree, the warps upwards
 * beyond   counts are read on the device and nothing is written for tokens beyond them, but by
 *          activation and bias: rows of scratch that nobody looks at
 * oracle   tests/cuda/layer.cu, in double
 */
#include "cuda/gemm_parts.h"
#include "cuda/program.h"

#include <cuda_fp16.h>

#include <algorithm>

enum : uint32_t {
    THREADS = 256,
    NORM_THREADS = 1024,
    NORM_QUADS = 4, // of a row, in registers of a thread
    ROPE_PAIRS = 128,
    ROPE_CTAS = 6 // of a SM, so that enough loads are under way
};

static inline uint32_t ceil_div(uint64_t n, uint32_t by)
{
    return (uint32_t)((n + by - 1) / by);
}

static __device__ __forceinline__ uint32_t two_bf16(float a, float b)
{
    __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&two;
}

static __device__ __forceinline__ void unpack(uint4 v, float (&f)[8])
{
    const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        f[2 * i] = __uint_as_float(word[i] << 16);
        f[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
}

static __device__ __forceinline__ void load8(const float *p, float (&f)[8])
{
    float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
    f[0] = a.x, f[1] = a.y, f[2] = a.z, f[3] = a.w;
    f[4] = b.x, f[5] = b.y, f[6] = b.z, f[7] = b.w;
}

static __device__ __forceinline__ void store8(bf16 *to, const float (&f)[8])
{
    *(uint4 *)to = uint4{two_bf16(f[0], f[1]), two_bf16(f[2], f[3]), two_bf16(f[4], f[5]),
                         two_bf16(f[6], f[7])};
}

static __device__ __forceinline__ void store8(__half *to, const float (&f)[8])
{
    __half2 h[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        h[i] = __floats2half2_rn(f[2 * i], f[2 * i + 1]);
    *(uint4 *)to = *(uint4 *)h;
}

static __device__ __forceinline__ void store8(float *to, const float (&f)[8])
{
    *(float4 *)to = float4{f[0], f[1], f[2], f[3]};
    *(float4 *)(to + 4) = float4{f[4], f[5], f[6], f[7]};
}

static __global__ void __launch_bounds__(THREADS)
    embed_kernel(const __grid_constant__ session_view v, const bf16 *table, float scale, float *x,
                 uint32_t cols)
{
    uint32_t t = blockIdx.x;
    wait_previous();
    let_next_start();
    if (t >= v.counts[0])
        return;
    int32_t slot = v.token_slot[t], id = v.token[t];
    if (id < 0)
        id = max(v.last[slot], 0); // -1: nothing could be drawn
    if (threadIdx.x == 0)
        v.history[(uint64_t)slot * (v.max_context + 1) + v.pos[t]] = id;
    for (uint32_t i = threadIdx.x * 8; i < cols; i += THREADS * 8) {
        float f[8];
        unpack(*(const uint4 *)(table + (uint64_t)id * cols + i), f);
#pragma unroll
        for (int j = 0; j < 8; j++)
            f[j] *= scale;
        store8(x + (uint64_t)t * cols + i, f);
    }
}

void embed_run(const session_view &v, const sv_weight *table, float scale, float *x, uint32_t m,
               cudaStream_t q)
{
    enqueue(embed_kernel, dim3(m), dim3(THREADS), 0, q, v, table->data, scale, x,
            (uint32_t)table->cols);
}

// Over the threads of a CTA; once in a kernel.
static __device__ __forceinline__ float block_sum(float x)
{
    __shared__ float part[NORM_THREADS / 32];
    for (int o = 16; o > 0; o >>= 1)
        x += __shfl_xor_sync(~0u, x, o);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    for (uint32_t i = 0; i < blockDim.x / 32; i++)
        sum += part[i];
    return sum;
}

static __device__ __forceinline__ float square(float4 f)
{
    return (f.x * f.x + f.y * f.y) + (f.z * f.z + f.w * f.w);
}

static __device__ __forceinline__ void store_scaled(bf16 *to, float4 f, float4 w, float r)
{
    *(uint2 *)to =
        uint2{two_bf16(f.x * r * w.x, f.y * r * w.y), two_bf16(f.z * r * w.z, f.w * r * w.w)};
}

static __device__ __forceinline__ float4 norm_weight(const float *w, float offset, uint32_t i)
{
    if (!w)
        return float4{1, 1, 1, 1};
    float4 f = *(const float4 *)(w + i);
    return float4{f.x + offset, f.y + offset, f.z + offset, f.w + offset};
}

static __global__ void __launch_bounds__(NORM_THREADS)
    norm_kernel(const __grid_constant__ session_view v, const float *x, const float *w, float eps,
                float offset, bf16 *y, uint32_t cols, bool rows)
{
    uint32_t t = blockIdx.x, step = 4 * blockDim.x, first = 4 * threadIdx.x;
    float4 f[NORM_QUADS], by[NORM_QUADS];
#pragma unroll
    for (uint32_t j = 0; j < NORM_QUADS; j++)
        if (first + j * step < cols)
            by[j] = norm_weight(w, offset, first + j * step);
    wait_previous();
    let_next_start();
    if (t >= v.counts[rows ? 2 : 0])
        return;
    x += (uint64_t)(rows ? (uint32_t)v.row_token[t] : t) * cols;
    y += (uint64_t)t * cols;
#pragma unroll
    for (uint32_t j = 0; j < NORM_QUADS; j++)
        f[j] =
            first + j * step < cols ? *(const float4 *)(x + first + j * step) : float4{0, 0, 0, 0};
    float sum = 0;
#pragma unroll
    for (uint32_t j = 0; j < NORM_QUADS; j++)
        sum += square(f[j]);
    for (uint32_t i = first + NORM_QUADS * step; i < cols; i += step) // what no register holds
        sum += square(*(const float4 *)(x + i));
    float r = w ? rsqrtf(block_sum(sum) / (float)cols + eps) : 1;
#pragma unroll
    for (uint32_t j = 0; j < NORM_QUADS; j++)
        if (first + j * step < cols)
            store_scaled(y + first + j * step, f[j], by[j], r);
    for (uint32_t i = first + NORM_QUADS * step; i < cols; i += step)
        store_scaled(y + i, *(const float4 *)(x + i), norm_weight(w, offset, i), r);
}

void norm_run(const session_view &v, const float *x, const float *w, float eps, float offset,
              bf16 *y, uint32_t cols, uint32_t m, bool rows, cudaStream_t q)
{
    uint32_t threads = (uint32_t)round_up(ceil_div(cols, 4 * NORM_QUADS), 32);
    threads = std::min(std::max(threads, (uint32_t)THREADS), (uint32_t)NORM_THREADS);
    enqueue(norm_kernel, dim3(m), dim3(threads), 0, q, v, x, w, eps, offset, y, cols, rows);
}

// What the heads of a token share: cos and sin of each pair, and room to see other lanes' elements.
struct rope_shared {
    float c[ROPE_PAIRS], s[ROPE_PAIRS];
    float staged[THREADS * 8];
};

// Elements [e, e + 8) of a head whose [0, dims) are in `row`; a pair is i with i + dims / 2.
static __device__ __forceinline__ void rotate_half(const rope_shared &s, const float *row,
                                                   uint32_t dims, uint32_t e, float (&f)[8])
{
    uint32_t half = dims / 2;
    if (half % 4 == 0) {
#pragma unroll
        for (uint32_t q = 0; q < 8; q += 4) {
            if (e + q >= dims)
                continue;
            bool low = e + q < half;
            uint32_t pair = low ? e + q : e + q - half;
            float4 y = *(const float4 *)(row + (low ? pair + half : pair));
            float4 c = *(const float4 *)(s.c + pair), b = *(const float4 *)(s.s + pair);
            float sign = low ? -1.0f : 1.0f;
            f[q] = f[q] * c.x + sign * y.x * b.x;
            f[q + 1] = f[q + 1] * c.y + sign * y.y * b.y;
            f[q + 2] = f[q + 2] * c.z + sign * y.z * b.z;
            f[q + 3] = f[q + 3] * c.w + sign * y.w * b.w;
        }
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        if (e + i >= dims)
            continue;
        bool low = e + i < half;
        uint32_t pair = low ? e + i : e + i - half;
        float y = row[low ? pair + half : pair];
        f[i] = f[i] * s.c[pair] + (low ? -y : y) * s.s[pair];
    }
}

// A pair is 2i with 2i + 1.
static __device__ __forceinline__ void rotate_pairs(const rope_shared &s, uint32_t dims, uint32_t e,
                                                    float (&f)[8])
{
#pragma unroll
    for (uint32_t i = 0; i < 8; i += 2) {
        if (e + i >= dims)
            continue;
        uint32_t pair = (e + i) / 2;
        float x = f[i], y = f[i + 1];
        f[i] = x * s.c[pair] - y * s.s[pair];
        f[i + 1] = y * s.c[pair] + x * s.s[pair];
    }
}

// LANES of a head, in succession: 8 for head sizes up to 64, 16 up to 128, 32 up to 256.
template <int LANES>
static __device__ __forceinline__ void norm_head(float (&f)[8], const float *w, float eps,
                                                 float offset, uint32_t d, uint32_t e, bool mine)
{
    float sum = 0, by[8] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
        sum = fmaf(f[i], f[i], sum);
#pragma unroll
    for (int o = LANES / 2; o > 0; o >>= 1)
        sum += __shfl_xor_sync(~0u, sum, o);
    if (!w || !mine)
        return;
    float r = rsqrtf(sum / (float)d + eps);
    load8(w + e, by);
#pragma unroll
    for (int i = 0; i < 8; i++)
        f[i] *= r * (by[i] + offset);
}

static __device__ __forceinline__ void rope_table_of(rope_shared &s, const rope_args &a,
                                                     int32_t pos)
{
    uint32_t i = threadIdx.x;
    if (a.style != SV_ROPE_NONE && i < a.dims / 2) {
        float sin, cos;
        sincosf((float)pos * a.inv_freq[i], &sin, &cos);
        s.c[i] = cos * a.scale;
        s.s[i] = sin * a.scale;
    }
    __syncthreads();
}

// q to its buffer, k and v to the cache.
template <class T>
static __device__ __forceinline__ void store_head(const session_view &v, bf16 *q, uint32_t layer,
                                                  uint32_t t, int32_t pos, uint32_t head,
                                                  uint32_t e, const float (&f)[8])
{
    uint32_t d = v.head_dim;
    if (head < v.heads) {
        store8(q + ((uint64_t)t * v.heads + head) * d + e, f);
        return;
    }
    bool is_k = head < v.heads + v.kv_heads;
    uint32_t kv = head - v.heads - (is_k ? 0 : v.kv_heads), at = (uint32_t)pos;
    uint32_t page = (uint32_t)v.page_table[(uint64_t)v.token_slot[t] * v.max_pages + at / SV_BLOCK];
    uint64_t place = ((uint64_t)layer * v.n_blocks + page) * SV_BLOCK + at % SV_BLOCK;
    store8((T *)(is_k ? v.k : v.v) + (place * v.kv_heads + kv) * d + e, f);
}

template <class T, int LANES>
static __global__ void __launch_bounds__(THREADS, ROPE_CTAS)
    rope_append_kernel(const __grid_constant__ session_view v, const bf16 *qkv,
                       const __grid_constant__ rope_args a, bf16 *q, uint32_t layer)
{
    __shared__ __align__(16) rope_shared s;
    uint32_t t = blockIdx.x, d = v.head_dim, heads = v.heads + 2 * v.kv_heads;
    uint32_t e = threadIdx.x % LANES * 8, per_cta = THREADS / LANES;
    float *row = s.staged + threadIdx.x / LANES * (LANES * 8);
    int32_t pos = v.pos[t];
    rope_table_of(s, a, pos);
    wait_previous();
    let_next_start();
    if (t >= v.counts[0])
        return;
    for (uint32_t from = blockIdx.y * per_cta; from < heads; from += gridDim.y * per_cta) {
        uint32_t head = from + threadIdx.x / LANES;
        bool mine = head < heads && e < d, is_q = head < v.heads, is_v = head >= heads - v.kv_heads;
        float f[8] = {}, b[8] = {};
        if (mine)
            unpack(*(const uint4 *)(qkv + ((uint64_t)t * heads + head) * d + e), f);
        if (mine && a.bias)
            load8(a.bias + (uint64_t)head * d + e, b);
#pragma unroll
        for (int i = 0; i < 8; i++)
            f[i] += b[i];
        if (a.q_norm || a.k_norm)
            norm_head<LANES>(f,
                             is_v   ? NULL
                             : is_q ? a.q_norm
                                    : a.k_norm,
                             is_q ? a.q_eps : a.k_eps, is_q ? a.q_offset : a.k_offset, d, e, mine);
        if (a.style == SV_ROPE_HALF) {
            __syncwarp(); // the last head's readers are done
            store8(row + e, f);
            __syncwarp();
            if (mine && !is_v)
                rotate_half(s, row, a.dims, e, f);
        } else if (a.style == SV_ROPE_PAIRS && !is_v) {
            rotate_pairs(s, a.dims, e, f);
        }
        if (mine)
            store_head<T>(v, q, layer, t, pos, head, e, f);
    }
}

template <class T>
static void rope_append(const session_view &v, const bf16 *qkv, const rope_args &a, bf16 *q,
                        uint32_t layer, uint32_t m, cudaStream_t s)
{
    uint32_t lanes = v.head_dim <= 64 ? 8 : v.head_dim <= 128 ? 16 : 32;
    // With few tokens the heads of one go to several CTAs.
    uint32_t split = ceil_div(v.heads + 2 * v.kv_heads, THREADS / lanes);
    dim3 grid(m, m >= 2 * v.processors ? 1 : split);
    auto kernel = lanes == 8    ? rope_append_kernel<T, 8>
                  : lanes == 16 ? rope_append_kernel<T, 16>
                                : rope_append_kernel<T, 32>;
    enqueue(kernel, grid, dim3(THREADS), 0, s, v, qkv, a, q, layer);
}

void rope_append_run(const session_view &v, const bf16 *qkv, const rope_args &a, bf16 *q,
                     uint32_t layer, uint32_t m, cudaStream_t s)
{
    if (v.kv_dtype == SV_F32)
        rope_append<float>(v, qkv, a, q, layer, m, s);
    else if (v.kv_dtype == SV_F16)
        rope_append<__half>(v, qkv, a, q, layer, m, s);
    else
        rope_append<bf16>(v, qkv, a, q, layer, m, s);
}

static __global__ void __launch_bounds__(THREADS)
    act_kernel(const bf16 *gate_up, const float *bias, bf16 *y, uint32_t d_ff, uint32_t activation)
{
    uint32_t i = (blockIdx.x * THREADS + threadIdx.x) * 8;
    float of_gate[8] = {}, of_up[8] = {}, gate[8], up[8];
    bool mine = i < d_ff;
    if (mine && bias) {
        load8(bias + i, of_gate);
        load8(bias + d_ff + i, of_up);
    }
    wait_previous();
    let_next_start();
    if (!mine)
        return;
    const bf16 *from = gate_up + (uint64_t)blockIdx.y * 2 * d_ff + i;
    uint4 a = *(const uint4 *)from, b = *(const uint4 *)(from + d_ff);
    unpack(a, gate);
    unpack(b, up);
#pragma unroll
    for (int j = 0; j < 8; j++)
        gate[j] = activated(gate[j] + of_gate[j], activation) * (up[j] + of_up[j]);
    store8(y + (uint64_t)blockIdx.y * d_ff + i, gate);
}

void act_run(const bf16 *gate_up, const float *bias, bf16 *y, uint32_t d_ff, uint32_t activation,
             uint32_t m, cudaStream_t q)
{
    enqueue(act_kernel, dim3(ceil_div(d_ff, 8 * THREADS), m), dim3(THREADS), 0, q, gate_up, bias, y,
            d_ff, activation);
}

static __device__ __forceinline__ float sum(float a, float b)
{
    return a + b;
}

static __device__ __forceinline__ float4 sum(float4 a, float4 b)
{
    return float4{a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

template <class V>
static __global__ void __launch_bounds__(THREADS) bias_kernel(V *y, const V *bias, uint32_t cols)
{
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    wait_previous();
    let_next_start();
    if (i < cols)
        y[(uint64_t)blockIdx.y * cols + i] = sum(y[(uint64_t)blockIdx.y * cols + i], bias[i]);
}

void bias_run(float *y, const float *bias, uint32_t cols, uint32_t m, cudaStream_t q)
{
    if (cols % 4 == 0)
        enqueue(bias_kernel<float4>, dim3(ceil_div(cols / 4, THREADS), m), dim3(THREADS), 0, q,
                (float4 *)y, (const float4 *)bias, cols / 4);
    else
        enqueue(bias_kernel<float>, dim3(ceil_div(cols, THREADS), m), dim3(THREADS), 0, q, y, bias,
                cols);
}
