// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * operand - a token's activations as integers in blocks of 32 columns, each with its scale.
 *
 * Split    16 bits are kept as two signed bytes, x = scale * (256 * high + low): products of bytes
 *          are what processors multiply fastest, and their sums are exact.
 * Layout   each block is a struct operand_block and behind it its integers, by enum operand_kind.
 * Same     every instruction set makes the same integers of the same numbers.
 */
#include "cpu/form.h"
#include "cpu/half.h"
#include "kernels/kernels.h"

enum { OPERAND_LEVELS = 127 * 256 + 127, OPERAND_LEVELS_INT8 = 127 };

struct operand_block {
    float scale;
    float sum;        // scale times the sum of the integers: what an offset m is multiplied by
    int32_t start[2]; // where the sum of products begins, for q stored with `zero` added: -zero
                      // times the sum of the integers; of 16 columns each where scales are of 16,
                      // else [0] of all 32
};

enum operand_kind {
    OPERAND_INT8,  // 32 bytes
    OPERAND_SPLIT, // 32 high bytes, 32 low bytes
    OPERAND_WORDS  // 16 bits: of each group of 4 columns 0, 2, 1, 3, to meet bytes of weights
                   // widened by masking and shifting
};

static inline uint64_t operand_step(enum operand_kind kind) // bytes of a block
{
    return sizeof(struct operand_block) + (kind == OPERAND_INT8 ? FORM_BLOCK : 2 * FORM_BLOCK);
}

static inline size_t operand_size(uint64_t blocks, enum operand_kind kind)
{
    return (blocks * operand_step(kind) + 63) / 64 * 64;
}

static inline const struct operand_block *operand_block_at(const char *p)
{
    return (const void *)p;
}

// The largest magnitude's bits: floats without sign are ordered as integers, and what is not finite
// is above all others.
static inline uint32_t operand_largest(const float *x)
{
    uint32_t most = 0;
    for (int i = 0; i < FORM_BLOCK; i++) {
        uint32_t bits = half_f32_bits(x[i]) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/*
 * Rounds to integers of at most `levels`. What is not finite makes the scale NaN; a block below
 * 1e-33 is zero, as its reciprocal is not a number.
 */
static inline void operand_round(const float *x, int32_t levels, const struct form_layout *l,
                                 int32_t q[FORM_BLOCK], struct operand_block *out)
{
    float most = half_bits_f32(operand_largest(x)), scale = most / (float)levels;
    float inverse = (float)levels / most;
    if (half_f32_bits(most) >= 0x7f800000) {
        scale = half_bits_f32(0x7fc00000);
        inverse = 0;
    } else if (most < 1e-33f) {
        scale = inverse = 0;
    }
    int32_t sum[2] = {0, 0};
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 16; i++) {
            // Adding 1.5 * 2^23 leaves no bits for a fraction: rounded to nearest, ties to even.
            float x0 = inverse == 0 ? 0 : x[h * 16 + i];
            float rounded = x0 * inverse + 12582912.0f;
            int32_t n = (int32_t)(half_f32_bits(rounded) - 0x4b400000);
            q[h * 16 + i] = n;
            sum[h] += n;
        }
    int32_t both = sum[0] + sum[1];
    bool halves = l->scale == QUANT_DS;
    out->scale = scale;
    out->sum = scale * (float)both;
    out->start[0] = -l->zero * (halves ? sum[0] : both);
    out->start[1] = halves ? -l->zero * sum[1] : 0;
}

static inline void operand_put(const int32_t q[FORM_BLOCK], enum operand_kind kind, void *out)
{
    int8_t *high = out, *low = high + FORM_BLOCK;
    int16_t *words = out;
    for (int i = 0; i < FORM_BLOCK; i++) {
        int8_t rest = (int8_t)(uint8_t)q[i]; // the low byte as a signed one
        if (kind == OPERAND_WORDS) {
            words[i / 4 * 4 + i % 2 * 2 + i % 4 / 2] = (int16_t)q[i];
        } else if (kind == OPERAND_SPLIT) {
            high[i] = (int8_t)((q[i] - rest) >> 8);
            low[i] = rest;
        } else {
            high[i] = (int8_t)q[i];
        }
    }
}

static inline void operand_fill(const struct form_layout *l, const float *x, enum operand_kind kind,
                                void *operand)
{
    char *at = operand;
    for (uint64_t b = 0; b < l->blocks; b++, x += FORM_BLOCK, at += operand_step(kind)) {
        int32_t q[FORM_BLOCK];
        struct operand_block *block = (void *)at;
        operand_round(x, kind == OPERAND_INT8 ? OPERAND_LEVELS_INT8 : OPERAND_LEVELS, l, q, block);
        operand_put(q, kind, block + 1);
    }
}

// f32 as they are, and zeros to the end.
static inline size_t operand_floats_size(uint64_t cols)
{
    return (cols * sizeof(float) + 63) / 64 * 64;
}

static inline void operand_floats(const struct matrix *m, const float *x, void *operand)
{
    const size_t bytes = m->cols * sizeof *x;
    memcpy(operand, x, bytes);
    memset((char *)operand + bytes, 0, operand_floats_size(m->cols) - bytes);
}
