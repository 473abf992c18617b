// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_merge - puts together what warps, or CTAs, found of one head each in keys of its own.
 *
 * Part     of a head: D sums, the highest score (in powers of two), the sum of the weights relative
 *          to it. In shared memory, or of each range of keys in session_view.parts
 * Order    of the keys' ranges, whoever does it
 */
#include "cuda/mega_heads.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where part of a range of a head lies; ranges count to MEGA_RANGES.
template <int D>
static __device__ __forceinline__ float *mega_part(const session_view &v, uint32_t head,
                                                   uint32_t range)
{
    return v.parts + ((uint64_t)head * MEGA_RANGES + range) * mega_attend_shape<D>::PART;
}

// What the ranges were put together to when there are many: [heads, D] f32.
template <int D> static __device__ __forceinline__ float *mega_whole(const session_view &v)
{
    return mega_part<D>(v, v.heads, 0);
}

// Up to eight of n parts more, each `pitch` floats behind the one before.
template <int D, bool GLOBAL>
static __device__ __forceinline__ void mega_add_parts(merged *m, const float *part, uint64_t pitch,
                                                      uint32_t column, uint32_t n)
{
    constexpr uint32_t AT_ONCE = 8;
    float2 head[AT_ONCE];
    float4 x[AT_ONCE];
#pragma unroll
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        head[i] = make_float2(-INFINITY, 0);
        x[i] = make_float4(0, 0, 0, 0);
        if (i >= n)
            continue;
        const float *p = part + i * pitch;
        head[i] = GLOBAL ? __ldcg((const float2 *)(p + D)) : *(const float2 *)(p + D);
        x[i] = GLOBAL ? __ldcg((const float4 *)(p + column)) : *(const float4 *)(p + column);
    }
    m->add(head, x);
}

// Four columns of a head from all ranges.
template <int D>
static __device__ __forceinline__ float4 mega_merge_ranges(const session_view &v, uint32_t head,
                                                           uint32_t column, uint32_t ranges)
{
    merged m;
#pragma unroll 1
    for (uint32_t r = 0; r < ranges; r += 8)
        mega_add_parts<D, true>(&m, mega_part<D>(v, head, r), mega_attend_shape<D>::PART, column,
                                ranges - r);
    m.scale(one_over(m.weight));
    return m.sum;
}

#endif
