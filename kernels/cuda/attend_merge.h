// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend_merge - puts together what several warps or CTAs found of one sequence, each in its own
 * range of keys.
 *
 * Part     for each of 16 rows: the highest score (in powers of two) and the sum of the weights
 *          relative to it; then the rows' weighted sums of V, [16, D] f32.
 * Order    of the parts as given, whoever does it.
 */
#include "cuda/attend.h"

enum { MERGE_MOST = 36 }; // parts; more shared memory would be too much for sm_89

struct merge_space {
    float *at[MERGE_MOST]; // the parts
    float weight[MERGE_MOST][ROWS], most[ROWS], all[ROWS];
};

// Rows are (token, head of the group) of one sequence and kv head.
struct merge_output {
    bf16 *out;
    uint32_t token, rows, head, heads, group, head_dim;
};

static __host__ __device__ constexpr uint32_t part_floats(uint32_t d)
{
    return ROWS * (2 + d);
}

static __device__ __forceinline__ float2 *part_head(float *part)
{
    return (float2 *)part;
}

template <int D> static __device__ __forceinline__ float *part_row(float *part, uint32_t row)
{
    return part + 2 * ROWS + row * D;
}

// Past the L1 cache: another CTA may have written it. In shared memory they are plain loads.
static __device__ __forceinline__ float2 load_fresh(const float2 *p)
{
    float2 x;
    asm volatile("ld.relaxed.gpu.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(p));
    return x;
}

static __device__ __forceinline__ float4 load_fresh(const float4 *p)
{
    float4 x;
    asm volatile("ld.relaxed.gpu.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(p));
    return x;
}

// Each part's share of each row, by a warp a row and a lane a part.
template <int WARPS>
static __device__ void merge_weights(uint32_t n, uint32_t rows, merge_space *space)
{
    static_assert(MERGE_MOST <= 2 * WARP, "two parts a lane");
    uint32_t lane = threadIdx.x % WARP;
    for (uint32_t row = threadIdx.x / WARP; row < rows; row += WARPS) {
        float2 x[2];
        for (uint32_t i = 0; i < 2; i++)
            x[i] = lane + i * WARP < n ? load_fresh(part_head(space->at[lane + i * WARP]) + row)
                                       : make_float2(-INFINITY, 0);
        float most = fmaxf(x[0].x, x[1].x), all = 0;
        for (uint32_t o = WARP / 2; o > 0; o /= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
        for (uint32_t i = 0; i < 2; i++) {
            float weight = x[i].x == -INFINITY ? 0 : power_of_two(x[i].x - most);
            all += weight * x[i].y;
            if (lane + i * WARP < n)
                space->weight[lane + i * WARP][row] = weight;
        }
        for (uint32_t o = WARP / 2; o > 0; o /= 2)
            all += __shfl_xor_sync(~0u, all, o);
        if (lane == 0) {
            space->most[row] = most;
            space->all[row] = all;
        }
    }
}

// The first n parts of space->at, visible to this CTA, into one at `to` or, NULL, the output. Not
// inlined: it is called twice, and short code starts sooner.
template <int D, int WARPS>
static __device__ __noinline__ void merge(uint32_t n, const merge_output o, float *to,
                                          merge_space *space)
{
    merge_weights<WARPS>(n, o.rows, space);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < o.rows * (D / 4); i += WARPS * WARP) {
        uint32_t row = i / (D / 4), column = i % (D / 4) * 4;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (uint32_t p = 0; p < n; p++) {
            float4 x = load_fresh((const float4 *)(part_row<D>(space->at[p], row) + column));
            float weight = space->weight[p][row];
            sum.x += weight * x.x;
            sum.y += weight * x.y;
            sum.z += weight * x.z;
            sum.w += weight * x.w;
        }
        if (to) {
            *(float4 *)(part_row<D>(to, row) + column) = sum;
        } else if (column < o.head_dim) {
            float share = one_over(space->all[row]);
            bf16 *out = o.out + ((uint64_t)(o.token + row / o.group) * o.heads + o.head * o.group +
                                 row % o.group) *
                                    o.head_dim;
            *(uint2 *)(out + column) = make_uint2(pack<bf16>(sum.x * share, sum.y * share),
                                                  pack<bf16>(sum.z * share, sum.w * share));
        }
    }
    if (to && threadIdx.x < o.rows)
        part_head(to)[threadIdx.x] = make_float2(space->most[threadIdx.x], space->all[threadIdx.x]);
    __syncthreads();
}
