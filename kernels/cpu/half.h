// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * half - the two 16-bit floats, IEEE 754 binary16 and bfloat16, to f32 and back.
 *
 * To f32 is exact. From f32 rounds to nearest, ties to even; too large becomes infinity, NaN stays
 * NaN. Any compiler, any processor: kernels that convert many at once have instructions of their
 * own, which give the same bits.
 */
#include <stdint.h>
#include <string.h>

static inline float half_bits_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t half_f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float half_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    if (mag >= 0x7c00) // infinity and NaN; a NaN is made quiet, as the instructions do
        return half_bits_f32(sign | 0x7f800000 | mag << 13 | (mag > 0x7c00 ? 0x400000 : 0));
    if (mag >= 0x400)
        return half_bits_f32(sign | ((mag << 13) + 0x38000000));
    // Subnormal: mag * 2^-24 is exact in f32.
    return half_bits_f32(sign | half_f32_bits((float)mag * 0x1p-24f));
}

static inline uint16_t half_f32_f16(float f)
{
    uint32_t bits = half_f32_bits(f), sign = bits >> 16 & 0x8000, mag = bits & 0x7fffffff;
    if (mag > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000) // rounds to 2^16
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000) { // below 2^-14: the sum's last bit is 2^-24, so the adder rounds
        float sum = half_bits_f32(mag) + 0.5f;
        return (uint16_t)(sign | (half_f32_bits(sum) - 0x3f000000));
    }
    mag += 0xfff + (mag >> 13 & 1);
    return (uint16_t)(sign | (mag - 0x38000000) >> 13);
}

static inline float half_bf16_f32(uint16_t h)
{
    return half_bits_f32((uint32_t)h << 16);
}

static inline uint16_t half_f32_bf16(float f)
{
    uint32_t bits = half_f32_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
