// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * dequant - element i of a stored block as f32, on the device: the layouts of kernels.h, every
 * product and sum rounded by itself and in the order of kernels/cpu/dequant.c, so that the bits are
 * the same. Blocks may lie at any even address.
 */
#include "kernels/kernels.h"

#include <cuda_fp16.h>

static __device__ __forceinline__ float half_at(const uint8_t *p)
{
    return __half2float(__ushort_as_half((unsigned short)(p[0] | p[1] << 8)));
}

// The low nibbles of n bytes are elements [0, n), the high ones [n, 2n).
static __device__ __forceinline__ int nibble(const uint8_t *p, uint32_t i, uint32_t n)
{
    return i < n ? p[i] & 15 : p[i - n] >> 4;
}

static __device__ __forceinline__ int fifth_bit(const uint8_t *p, uint32_t i)
{
    return (p[i / 8] >> i % 8 & 1) << 4;
}

// Scale and offset of group g: 6 bits each in 12 bytes.
static __device__ __forceinline__ void six_bits(const uint8_t *p, uint32_t g, int *s, int *o)
{
    if (g < 4) {
        *s = p[g] & 63;
        *o = p[g + 4] & 63;
    } else {
        *s = (p[g + 4] & 15) | p[g - 4] >> 6 << 4;
        *o = p[g + 4] >> 4 | p[g] >> 6 << 4;
    }
}

static __device__ __forceinline__ float scaled(float d, int q)
{
    return __fmul_rn((float)q, d);
}

// d * s * q - m * o, in this order.
static __device__ __forceinline__ float k_value(const uint8_t *p, uint32_t g, int q)
{
    int s, o;
    six_bits(p + 4, g, &s, &o);
    return __fsub_rn(__fmul_rn(scaled(half_at(p), s), (float)q), scaled(half_at(p + 2), o));
}

template <uint32_t DTYPE>
static __device__ __forceinline__ float stored_value(const uint8_t *p, uint32_t i)
{
    if constexpr (DTYPE == SV_F32)
        return __uint_as_float((uint32_t)p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24);
    if constexpr (DTYPE == SV_F16)
        return half_at(p);
    if constexpr (DTYPE == SV_BF16)
        return __uint_as_float((uint32_t)p[0] << 16 | (uint32_t)p[1] << 24);
    if constexpr (DTYPE == SV_Q4_0)
        return scaled(half_at(p), nibble(p + 2, i, 16) - 8);
    if constexpr (DTYPE == SV_Q4_1)
        return __fadd_rn(scaled(half_at(p), nibble(p + 4, i, 16)), half_at(p + 2));
    if constexpr (DTYPE == SV_Q5_0)
        return scaled(half_at(p), (nibble(p + 6, i, 16) | fifth_bit(p + 2, i)) - 16);
    if constexpr (DTYPE == SV_Q5_1)
        return __fadd_rn(scaled(half_at(p), nibble(p + 8, i, 16) | fifth_bit(p + 4, i)),
                         half_at(p + 2));
    if constexpr (DTYPE == SV_Q8_0)
        return scaled(half_at(p), (int8_t)p[2 + i]);
    if constexpr (DTYPE == SV_Q4_K)
        return k_value(p, i / 32, nibble(p + 16 + i / 64 * 32, i % 64, 32));
    if constexpr (DTYPE == SV_Q5_K)
        return k_value(p, i / 32,
                       nibble(p + 48 + i / 64 * 32, i % 64, 32) | (p[16 + i % 32] >> i / 32 & 1)
                                                                      << 4);
    if constexpr (DTYPE == SV_Q6_K) {
        uint32_t half = i / 128, at = i % 128;
        int q = nibble(p + half * 64, at, 64) | (p[128 + half * 32 + at % 32] >> 2 * (at / 32) & 3)
                                                    << 4;
        return __fmul_rn(scaled(half_at(p + 208), (int8_t)p[192 + i / 16]), (float)(q - 32));
    }
    return 0;
}
