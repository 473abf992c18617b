// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gemm_parts - device code of gemv and skinny: copies into shared memory, ends of a sum.
 */
#include "cuda/gemm.h"
#include "cuda/program.h"

#include <cuda_fp16.h>

// Weights are read once a step: they leave the L2 first and never enter the L1.
static __device__ __forceinline__ uint64_t read_once()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// 16 bytes to shared memory, zeros unless real; then `from` isn't read.
static __device__ __forceinline__ void copy_weight(uint32_t to, const bf16 *from, bool real,
                                                   uint64_t policy)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to),
                 "l"(from), "r"(real ? 16 : 0), "l"(policy)
                 : "memory");
}

static __device__ __forceinline__ void commit_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all but the last `left` groups of this thread have arrived.
template <int LEFT> static __device__ __forceinline__ void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Bytes in sixteens into the L2, nobody waits for them.
static __device__ __forceinline__ void fetch_ahead(const void *p, uint32_t bytes)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}

static __device__ __forceinline__ void fetch_line(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// What a previous kernel wrote: volatile, so that no load moves before wait_previous(). Zeros
// unless real; then p isn't read.
static __device__ __forceinline__ float4 load_floats(const float *p, bool real)
{
    float4 v = {0, 0, 0, 0};
    asm volatile("{.reg .pred p; setp.ne.b32 p, %5, 0;"
                 "@p ld.global.v4.f32 {%0, %1, %2, %3}, [%4];}"
                 : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
                 : "l"(p), "r"((int)real));
    return v;
}

static __device__ __forceinline__ uint4 load_words(const bf16 *p, bool real)
{
    uint4 v = {0, 0, 0, 0};
    asm volatile("{.reg .pred p; setp.ne.b32 p, %5, 0;"
                 "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "l"(p), "r"((int)real));
    return v;
}

static __device__ __forceinline__ float activated(float gate, uint32_t activation)
{
    if (activation == SV_SILU)
        return __fdividef(gate, 1 + __expf(-gate));
    return 0.5f * gate * (1 + tanhf(0.7978845608f * (gate + 0.044715f * gate * gate * gate)));
}

// What a sum has to be joined with; loaded before the sum is done.
static __device__ __forceinline__ float joined(const gemm &g, uint32_t row, uint32_t t)
{
    float f = g.bias ? g.bias[row] : 0;
    return g.end == GEMM_ADD ? f + ((const float *)g.y)[(uint64_t)t * g.n + row] : f;
}

static __device__ __forceinline__ void store(const gemm &g, uint32_t row, uint32_t t, float f)
{
    uint64_t at = (uint64_t)t * g.n + row;
    if (g.end == GEMM_F32 || g.end == GEMM_ADD)
        ((float *)g.y)[at] = f;
    else
        ((bf16 *)g.y)[at] = __float2bfloat16(f);
}

// Rows of q, k and v, and where they go: q to its buffer, k and v to the KV blocks.
struct qkv_rows {
    session_view v;
    rope_args rope;
    bf16 *q;
    uint32_t layer;

    // Of a token in the KV blocks, in elements.
    __device__ __forceinline__ uint64_t slot_of(uint32_t t, uint32_t pos) const
    {
        const uint64_t pages = (uint64_t)v.token_slot[t] * v.max_pages;
        const uint64_t page =
            (uint64_t)layer * v.n_blocks + (uint32_t)v.page_table[pages + pos / SV_BLOCK];
        return (page * SV_BLOCK + pos % SV_BLOCK) * v.kv_heads * v.head_dim;
    }

    // Of token t, whose slot that is; heads count from q's over k's to v's.
    __device__ __forceinline__ void put(uint32_t t, uint64_t slot, uint32_t head, uint32_t in_head,
                                        float f) const
    {
        if (head < v.heads) {
            q[((uint64_t)t * v.heads + head) * v.head_dim + in_head] = __float2bfloat16(f);
            return;
        }
        const bool is_k = head < v.heads + v.kv_heads;
        const uint32_t kv = head - v.heads - (is_k ? 0 : v.kv_heads);
        const uint64_t at = slot + kv * v.head_dim + in_head;
        void *to = is_k ? v.k : v.v;
        if (v.kv_dtype == SV_F32)
            ((float *)to)[at] = f;
        else if (v.kv_dtype == SV_F16)
            ((__half *)to)[at] = __float2half(f);
        else
            ((bf16 *)to)[at] = __float2bfloat16(f);
    }
};

// Raises what the kernel may ask for; never lowers it. All memory of a SM can be shared memory, so
// that kernels of unlike needs are there together: for another split they wait until it is empty.
template <class... P> static cudaError_t allow_shared(void (*kernel)(P...), uint32_t bytes)
{
    cudaFuncAttributes a;
    cudaError_t e = cudaFuncGetAttributes(&a, kernel);
    if (e != cudaSuccess || (uint32_t)a.maxDynamicSharedSizeBytes >= bytes)
        return e;
    e = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared);
    return e == cudaSuccess ? cudaFuncSetAttribute(
                                  kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes)
                            : e;
}
