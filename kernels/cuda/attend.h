// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend - what the attention kernels share: the tensor core's 16 x 8 x 16 product and its
 * operands, asynchronous copies into shared memory, the order of a tile in it.
 *
 * Tile     rows of D elements of 2 bytes; the 16-byte pieces of row r lie at piece ^ (r & 7), so
 *          that eight rows of one column are in different banks.
 * Pages    KV is [layer][block][SV_BLOCK][kv_heads][head_dim]; a tile of keys is whole blocks.
 * Order    what schedule.cu writes (session_view: jobs, decode, seqs, tiles, page_table) is
 *          complete before any later kernel starts, so it may be read before wait_previous(), past
 *          the L1 cache. So may K and V before a sequence's first token of the step, which are of
 *          earlier launches (kernels.h). What this step makes may not.
 */
#include "cuda/program.h"

#include <cuda_fp16.h>

#include <cfloat>

enum { WARP = 32, ROWS = 16 }; // lanes; rows of one product

struct attend_args {
    const bf16 *q;
    bf16 *out;
    uint32_t layer, window;
    float scale; // of q . k, times log2(e)
};

void decode_run(const session_view &, const attend_args &, cudaStream_t);
void prefill_run(const session_view &, const attend_args &, uint32_t m, cudaStream_t);

/*
 * For session.cu. The decode kernel's grid, never above DECODE_CTAS_MOST unless there are more kv
 * heads, so that what it needs is known without a device: from processors, kv_heads and head_dim.
 * Rows of a prefill tile.
 */
enum { DECODE_CTAS_MOST = 444 }; // 148 processors, three a processor
void decode_size(session_view *, bool has_clusters);
uint64_t decode_parts_bytes(const sv_limits *);
uint32_t prefill_tile_rows(uint32_t head_dim); // at least
void prefill_size(session_view *);             // from hopper and head_dim
bool hopper_takes(const session_view &);       // this shape, on a device of sm_90

// 16 bytes, or zeros; then `from` is not read.
static __device__ __forceinline__ void copy_wide(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most N of this thread's groups are under way.
template <int N> static __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// c += a b; a is 16 x 16, b 16 x 8, each lane holds four sums: rows lane / 4 and that + 8, columns
// 2 (lane % 4) and the next.
template <class T>
static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1);
template <>
__device__ __forceinline__ void multiply<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                 uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers in one register, the first in the low half.
template <class T> static __device__ __forceinline__ uint32_t pack(float a, float b);
template <> __device__ __forceinline__ uint32_t pack<bf16>(float a, float b)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&x;
}
template <> __device__ __forceinline__ uint32_t pack<__half>(float a, float b)
{
    __half2 x = __floats2half2_rn(a, b);
    return *(uint32_t *)&x;
}

// Two of q's numbers as the KV's type.
template <class T> static __device__ __forceinline__ uint32_t from_bf16(uint32_t x);
template <> __device__ __forceinline__ uint32_t from_bf16<bf16>(uint32_t x)
{
    return x;
}
template <> __device__ __forceinline__ uint32_t from_bf16<__half>(uint32_t x)
{
    float2 f = __bfloat1622float2(*(__nv_bfloat162 *)&x);
    return pack<__half>(f.x, f.y);
}

static __device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ float one_over(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The larger or the sum of the four lanes that hold one row.
static __device__ __forceinline__ float most_of_row(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

static __device__ __forceinline__ float sum_of_row(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

// Four columns of a row of which parts are there, of keys each of its own: weighted sums, and the
// sum of the weights, relative to the highest score (in powers of two) of all.
struct merged {
    float most = -FLT_MAX, weight = 0; // a number, so that differences are
    float4 sum = {0, 0, 0, 0};

    // Parts in the order of their keys, head: highest score and weight. -INFINITY: there is none.
    template <int N>
    __device__ __forceinline__ void add(const float2 (&head)[N], const float4 (&x)[N])
    {
        float now = most;
#pragma unroll
        for (int i = 0; i < N; i++)
            now = fmaxf(now, head[i].x);
        scale(power_of_two(most - now));
        most = now;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float share = power_of_two(head[i].x - now);
            weight += share * head[i].y;
            sum.x += share * x[i].x;
            sum.y += share * x[i].y;
            sum.z += share * x[i].z;
            sum.w += share * x[i].w;
        }
    }

    __device__ __forceinline__ void scale(float by)
    {
        weight *= by;
        sum.x *= by;
        sum.y *= by;
        sum.z *= by;
        sum.w *= by;
    }
};

// Where 16-byte piece `piece` of row `row` lies in a tile of D columns.
template <int D> static __device__ __forceinline__ uint32_t place(uint32_t row, uint32_t piece)
{
    return row * 2 * D + ((piece ^ (row & 7)) << 4);
}

// The first key that the token at `pos` sees.
static __device__ __forceinline__ uint32_t first_key(uint32_t pos, uint32_t window)
{
    return window && pos + 1 > window ? pos + 1 - window : 0;
}
