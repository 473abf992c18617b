// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * form - how a packed matrix lies in memory, and the table of functions of an instruction set.
 *
 * Tile     16 rows. Floats: for each column 16 numbers; BF16: for each pair of columns 16 pairs.
 *          Quantised: blocks of 32 columns, their integers and behind them their scales, so that a
 *          product reads one stream of bytes.
 * Integers 8 groups of 4 columns: group g is [16 rows][4 columns]. Bytes: 8 times 64 bytes.
 *          Nibbles: 4 times 64 bytes, group v in the low nibbles of the v-th and group v + 4 in the
 *          high ones, which is how the stored types pair them.
 * Scales   of 16 rows: D: f16 d; DM: f16 d, f16 m; DS_DMO: u8 s, u8 o; DS: s8 s of the first 16
 *          columns, s of the others. The last two have before each 8 blocks: f16 d (and m).
 * Padding  rows past the last are zeros.
 */
#include "cpu/dequant.h"
#include "cpu/matrix.h"

enum form { FORM_F32, FORM_F16, FORM_BF16, FORM_NIBBLES, FORM_BYTES, FORMS };

enum { FORM_BLOCK = 32, FORM_GROUP = 64 }; // columns; bytes of 4 columns of 16 rows

struct form_layout {
    enum quant_scale scale;
    int32_t zero;
    uint64_t blocks;                     // of a row
    uint64_t integer_bytes, block_bytes; // of a block of 16 rows; with its scales
    uint64_t super_bytes;                // before each 8 blocks
    uint64_t tile_bytes;
};

struct form_layout form_layout(uint32_t dtype, uint64_t cols);
enum form form_of(uint32_t dtype);

// Block b (32 columns) of row r, exactly. Quantised forms.
void form_row_block(const struct matrix *m, const struct form_layout *l, uint64_t r, uint64_t b,
                    float out[FORM_BLOCK]);

// Where in a tile block b begins.
static inline uint64_t form_block_at(const struct form_layout *l, uint64_t b)
{
    return b * l->block_bytes + (b / 8 + 1) * l->super_bytes;
}

static inline const uint8_t *form_tile(const struct matrix *m, uint64_t tile_bytes, uint64_t tile)
{
    return (const uint8_t *)m->data + tile * tile_bytes;
}

// What an instruction set brings; the functions of matrix.h of the same names.
struct form_isa {
    size_t (*operand_bytes)(const struct matrix *);
    void (*operand)(const struct matrix *, const float *x, void *out);
    void (*mul)(const struct matrix *, const void *operands, size_t n, uint64_t tile_begin,
                uint64_t tile_end, float *y, size_t y_stride);
};

extern const struct form_isa form_scalar, form_avx2, form_avx512, form_neon;
