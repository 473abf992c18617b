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

// Four columns of a head from n parts, each `pitch` floats behind the one before: weighted sums,
// and the sum of the weights; relative to the highest score of all.
struct mega_merged {
    float most = -INFINITY, weight = 0;
    float4 sum = {0, 0, 0, 0};

    template <int D, bool GLOBAL>
    __device__ __forceinline__ void add(const float *part, uint64_t pitch, uint32_t column,
                                        uint32_t n)
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
        float now = most;
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++)
            now = fmaxf(now, head[i].x);
        scale(power_of_two(most - now));
        most = now;
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            const float by = power_of_two(head[i].x - now);
            weight += by * head[i].y;
            sum.x += by * x[i].x;
            sum.y += by * x[i].y;
            sum.z += by * x[i].z;
            sum.w += by * x[i].w;
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

// Four columns of a head from all ranges.
template <int D>
static __device__ __forceinline__ float4 mega_merge_ranges(const session_view &v, uint32_t head,
                                                           uint32_t column, uint32_t ranges)
{
    mega_merged m;
#pragma unroll 1
    for (uint32_t r = 0; r < ranges; r += 8)
        m.add<D, true>(mega_part<D>(v, head, r), mega_attend_shape<D>::PART, column, ranges - r);
    m.scale(one_over(m.weight));
    return m.sum;
}

#endif
