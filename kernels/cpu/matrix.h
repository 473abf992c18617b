// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * matrix - a weight matrix packed for this processor, and its products with activations.
 *
 * Packing  rows in tiles of MATRIX_TILE, interleaved so that a product streams through memory; made
 *          once from the stored type. Quantised weights stay quantised: in as many bits as they
 *          have, but for the 5- and 6-bit types, which take a byte.
 * Operand  what a token's activations become before a product, once for all tiles: f32 as they are,
 *          or for quantised weights integers in blocks of 32 with a scale. SV_ACT_AUTO: 16 bits,
 *          fine enough that answers are those of f32; SV_ACT_INT8: 8 bits; SV_ACT_F32: f32. An
 *          instruction set for which a coarser one is no faster uses the finer.
 * Order    each output is summed in one fixed order that depends on neither n nor the tile range:
 *          the products of a token are bit-equal alone and in any batch.
 * NaN      an activation that is not finite makes every output of its token NaN or infinite.
 * Thread   matrix_pack_tiles and matrix_mul: any number of threads on disjoint tile ranges; reading
 *          needs no lock.
 */
#include "cpu/isa.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MATRIX_TILE = 16, // rows
    MATRIX_COLS_MAX = 1 << 24
};
#define MATRIX_ROWS_MAX ((uint64_t)1 << 32)

struct matrix {
    uint32_t dtype, form; // form: enum form of form.h
    enum isa isa;
    uint32_t activations;
    uint64_t rows, cols;
    void *data; // aligned to 64; owned, or the caller's
    uint64_t bytes;
    bool borrowed;
};

// 0: this type or number of columns can't be had (cols must be whole blocks of the type), or this
// instruction set is not here.
uint64_t matrix_bytes(enum isa isa, uint32_t activations, uint32_t dtype, uint64_t rows,
                      uint64_t cols);

/*
 * In one go, or memory first and then the tiles, which several threads may share. 0, -400 or -507.
 * matrix_place: into the caller's memory of matrix_bytes, aligned to 64, which outlives the matrix.
 * Many matrices in one region with large pages (madvise) are read 10 to 20 % faster than each in
 * its own small pages.
 */
int matrix_pack(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype,
                const void *stored, uint64_t rows, uint64_t cols);
int matrix_init(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype, uint64_t rows,
                uint64_t cols);
int matrix_place(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype,
                 uint64_t rows, uint64_t cols, void *memory);
void matrix_pack_tiles(struct matrix *m, const void *stored, uint64_t tile_begin,
                       uint64_t tile_end);
void matrix_finish(struct matrix *m);

static inline uint64_t matrix_tiles(const struct matrix *m)
{
    return (m->rows + MATRIX_TILE - 1) / MATRIX_TILE;
}

// Bytes of one token's operand, a multiple of 64; operands are aligned to 64.
size_t matrix_operand_bytes(const struct matrix *m);
void matrix_operand(const struct matrix *m, const float *x, void *operand);
bool matrix_same_operand(const struct matrix *a, const struct matrix *b); // one serves both

// y[t * y_stride + r] = row r . operand t, for t in [0, n) and r in [tile_begin * 16, tile_end *
// 16) but below rows. Operands lie matrix_operand_bytes apart.
void matrix_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                uint64_t tile_end, float *y, size_t y_stride);

// Row r as f32, exactly as its type defines it.
void matrix_row(const struct matrix *m, uint64_t r, float *out);
