// SPDX-License-Identifier: Apache-2.0
#include "cpu/dequant.h"

#include "cpu/half.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <stdlib.h>

static const struct quant_type types[SV_DTYPES] = {
    [SV_Q4_0] = {32, 18, 4, 8, QUANT_D},        [SV_Q4_1] = {32, 20, 4, 0, QUANT_DM},
    [SV_Q5_0] = {32, 22, 5, 16, QUANT_D},       [SV_Q5_1] = {32, 24, 5, 0, QUANT_DM},
    [SV_Q8_0] = {32, 34, 8, 128, QUANT_D},      [SV_Q4_K] = {256, 144, 4, 0, QUANT_DS_DMO},
    [SV_Q5_K] = {256, 176, 5, 0, QUANT_DS_DMO}, [SV_Q6_K] = {256, 210, 6, 32, QUANT_DS},
};

bool quant_is(uint32_t dtype)
{
    return dtype < SV_DTYPES && types[dtype].elements > 0;
}

struct quant_type quant_type(uint32_t dtype)
{
    assert(quant_is(dtype));
    return types[dtype];
}

static uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

// The low nibbles of n bytes are elements [0, n), the high ones [n, 2n).
static void nibbles(uint8_t *q, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        q[i] = p[i] & 15;
        q[i + n] = p[i] >> 4;
    }
}

// Bit i of the four bytes at p is the fifth bit of element i.
static void fifth_bits(uint8_t *q, const uint8_t *p)
{
    for (size_t i = 0; i < 32; i += 8) {
        // Its copy in eight bytes, of which each keeps one bit; then 0x10 where there is one.
        uint64_t bits = p[i / 8] * 0x0101010101010101u & 0x8040201008040201u, eight;
        bits = ((bits + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u) >> 3;
        memcpy(&eight, q + i, sizeof eight);
        eight |= bits;
        memcpy(q + i, &eight, sizeof eight);
    }
}

// Bits [shift, shift + bits) of 32 bytes are the upper ones of 32 elements.
static void upper_bits(uint8_t *q, const uint8_t *p, unsigned shift, uint8_t bits)
{
    for (size_t i = 0; i < 32; i++)
        q[i] = (uint8_t)(q[i] | (p[i] >> shift & bits) << 4);
}

// Eight scales and eight offsets of 6 bits in 12 bytes: the first four of each in bytes 0-3 and
// 4-7, the rest as nibbles in bytes 8-11 and the free upper bits of bytes 0-7.
static void six_bits(struct quant *out, const uint8_t *p)
{
    for (int i = 0; i < 4; i++) {
        out->s[i] = p[i] & 63;
        out->o[i] = p[i + 4] & 63;
        out->s[i + 4] = (uint8_t)((p[i + 8] & 15) | p[i] >> 6 << 4);
        out->o[i + 4] = (uint8_t)(p[i + 8] >> 4 | p[i + 4] >> 6 << 4);
    }
}

static void read_q4_k(struct quant *out, const uint8_t *p)
{
    out->d = load16(p);
    out->m = load16(p + 2);
    six_bits(out, p + 4);
    for (size_t i = 0; i < 4; i++)
        nibbles(out->q + i * 64, p + 16 + i * 32, 32);
}

static void read_q5_k(struct quant *out, const uint8_t *p)
{
    out->d = load16(p);
    out->m = load16(p + 2);
    six_bits(out, p + 4);
    for (size_t i = 0; i < 4; i++)
        nibbles(out->q + i * 64, p + 48 + i * 32, 32);
    for (unsigned g = 0; g < 8; g++) // bit g of byte i is of element i of group g
        upper_bits(out->q + (size_t)g * 32, p + 16, g, 1);
}

static void read_q6_k(struct quant *out, const uint8_t *p)
{
    for (size_t half = 0; half < 2; half++) {
        nibbles(out->q + half * 128, p + half * 64, 64);
        for (unsigned g = 0; g < 4; g++)
            upper_bits(out->q + half * 128 + (size_t)g * 32, p + 128 + half * 32, 2 * g, 3);
    }
    memcpy(out->s, p + 192, 16);
    out->d = load16(p + 208);
}

void quant_read(uint32_t dtype, const void *block, struct quant *out)
{
    const uint8_t *p = block;
    switch (dtype) {
    case SV_Q4_0:
        out->d = load16(p);
        nibbles(out->q, p + 2, 16);
        break;
    case SV_Q4_1:
        out->d = load16(p);
        out->m = load16(p + 2);
        nibbles(out->q, p + 4, 16);
        break;
    case SV_Q5_0:
        out->d = load16(p);
        nibbles(out->q, p + 6, 16);
        fifth_bits(out->q, p + 2);
        break;
    case SV_Q5_1:
        out->d = load16(p);
        out->m = load16(p + 2);
        nibbles(out->q, p + 8, 16);
        fifth_bits(out->q, p + 4);
        break;
    case SV_Q8_0:
        out->d = load16(p);
        for (size_t i = 0; i < 32; i++)
            out->q[i] = p[2 + i] ^ 0x80;
        break;
    case SV_Q4_K:
        read_q4_k(out, p);
        break;
    case SV_Q5_K:
        read_q5_k(out, p);
        break;
    case SV_Q6_K:
        read_q6_k(out, p);
        break;
    default:
        abort(); // not a quantised type
    }
}

void quant_values(uint32_t dtype, const struct quant *q, float *out)
{
    struct quant_type type = quant_type(dtype);
    float d = half_f16_f32(q->d), m = half_f16_f32(q->m);
    switch (type.scale) {
    case QUANT_D:
        for (size_t i = 0; i < type.elements; i++)
            out[i] = (float)(q->q[i] - type.zero) * d;
        break;
    case QUANT_DM:
        for (size_t i = 0; i < type.elements; i++)
            out[i] = (float)q->q[i] * d + m;
        break;
    case QUANT_DS_DMO:
        for (size_t i = 0; i < type.elements; i++) {
            size_t g = i / 32;
            out[i] = d * (float)q->s[g] * (float)q->q[i] - m * (float)q->o[g];
        }
        break;
    case QUANT_DS:
        for (size_t i = 0; i < type.elements; i++)
            out[i] = d * (float)(int8_t)q->s[i / 16] * (float)(q->q[i] - type.zero);
        break;
    }
}

static void from_half(uint32_t dtype, const uint8_t *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = load16(p + 2 * i);
        out[i] = dtype == SV_F16 ? half_f16_f32(h) : half_bf16_f32(h);
    }
}

void dequant(uint32_t dtype, const void *stored, size_t n, float *out)
{
    if (dtype == SV_F32) {
        memcpy(out, stored, n * sizeof *out);
        return;
    }
    if (!quant_is(dtype)) {
        assert(dtype == SV_F16 || dtype == SV_BF16);
        from_half(dtype, stored, n, out);
        return;
    }
    struct quant_type type = quant_type(dtype);
    assert(n % type.elements == 0);
    const uint8_t *p = stored;
    for (size_t i = 0; i < n; i += type.elements, p += type.bytes) {
        struct quant q = {.m = 0};
        quant_read(dtype, p, &q);
        quant_values(dtype, &q, out + i);
    }
}
