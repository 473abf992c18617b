// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * matrix - a weight matrix packed for this processor, and its products with activations.
 *
 * Packing  rows in tiles of MATRIX_TILE, interleaved so that a product streams through memory; made
 *          once from the stored type. Quantised weights stay quantised.
 * Operand  what a token's activations become before a product, once for all tiles: f32 as they are,
 *          or for quantised weights integers in blocks with a scale. SV_ACT_AUTO: fine enough that
 *          answers are those of f32 (16 bits); SV_ACT_INT8: 8 bits; SV_ACT_F32: f32.
 * Order    each output is summed in one fixed order that depends on neither n nor the tile range:
 *          the products of a token are bit-equal alone and in any batch.
 * Thread   packing: one at a time; products: any number of threads on disjoint tile ranges.
 */
#include "cpu/isa.h"

#include <stddef.h>
#include <stdint.h>

enum { MATRIX_TILE = 16 }; // rows

struct matrix {
    uint32_t dtype, form; // form: which packing and kernels; matrix.c's table
    enum isa isa;
    uint32_t activations;
    uint64_t rows, cols;
    void *data; // owned, aligned to 64
    uint64_t bytes;
};

// 0: this type or number of columns can't be had (cols must be whole blocks of the type).
uint64_t matrix_bytes(enum isa isa, uint32_t activations, uint32_t dtype, uint64_t rows,
                      uint64_t cols);
int matrix_pack(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype,
                const void *stored, uint64_t rows, uint64_t cols); // 0, -400 or -507
void matrix_finish(struct matrix *m);

// Bytes of one token's operand, a multiple of 64.
size_t matrix_operand_bytes(const struct matrix *m);
void matrix_operand(const struct matrix *m, const float *x, void *operand);

// y[t * y_stride + r] = row r . operand t, for t in [0, n) and r in [tile_begin * 16, tile_end *
// 16) but below rows. Operands lie matrix_operand_bytes apart.
void matrix_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                uint64_t tile_end, float *y, size_t y_stride);

// Row r as f32, exactly as its type defines it.
void matrix_row(const struct matrix *m, uint64_t r, float *out);
