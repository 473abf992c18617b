// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * dequant - stored blocks as numbers: f32 rows, or the integers and scales that they are made of.
 *
 * Source   llama.cpp's ggml/src/ggml-common.h (layout) and ggml-quants.c (dequantize_row_*): each
 *          f32 has the same bits, as every product and difference is rounded in the same order.
 * Bytes    little-endian, any alignment.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUANT_MAX = 256 }; // elements of the largest block

// How the integers q of a block become numbers. d, m: f16 of the block; s, o: bytes of a group.
enum quant_scale {
    QUANT_D,      // d * (q - zero)
    QUANT_DM,     // d * q + m
    QUANT_DS_DMO, // (d * s) * q - m * o, groups of 32
    QUANT_DS      // (d * s) * (q - zero), s signed, groups of 16
};

struct quant_type {
    uint32_t elements, bytes; // of a block
    uint32_t bits;            // of q
    int32_t zero;             // for Q8_0 q is the stored number + 128
    enum quant_scale scale;
};

// A block taken apart.
struct quant {
    uint8_t q[QUANT_MAX];
    uint16_t d, m;       // f16
    uint8_t s[16], o[8]; // of each group
};

bool quant_is(uint32_t dtype); // else F32, F16, BF16, or no type at all
struct quant_type quant_type(uint32_t dtype);
void quant_read(uint32_t dtype, const void *block, struct quant *q);
void quant_values(uint32_t dtype, const struct quant *q, float *out);

// n: whole blocks.
void dequant(uint32_t dtype, const void *stored, size_t n, float *out);
