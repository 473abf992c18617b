// SPDX-License-Identifier: Apache-2.0
/*
 * mul_scalar - products in plain C, for any processor; activations stay f32, whatever was asked.
 *
 * order  columns ascending, a product rounded and then added, as the oracle of the other kernels
 * shape  16 rows are 16 lanes, so that compilers find the vectors that a processor has
 */
#include "cpu/operand.h"

#include <string.h>

enum { TOKENS = 8 }; // that share one decoding of the weights

static size_t scalar_operand_bytes(const struct matrix *m)
{
    return operand_floats_size(m->cols);
}

// Columns [k, k + n) of a tile, n <= 32, as [n][16].
static void decode(const struct matrix *m, const struct form_layout *l, uint64_t tile, uint64_t k,
                   uint64_t n, float w[FORM_BLOCK][MATRIX_TILE])
{
    const uint8_t *p = form_tile(m, l->tile_bytes, tile);
    if (m->form == FORM_F32) {
        memcpy(w, p + k * 64, n * 64);
        return;
    }
    for (uint64_t r = 0; r < MATRIX_TILE; r++) {
        if (m->form == FORM_NIBBLES || m->form == FORM_BYTES) {
            float row[FORM_BLOCK];
            form_row_block(m, l, tile * MATRIX_TILE + r, k / FORM_BLOCK, row);
            for (uint64_t i = 0; i < n; i++)
                w[i][r] = row[i];
            continue;
        }
        for (uint64_t i = 0; i < n; i++) {
            bool half = m->form == FORM_F16;
            uint64_t at = half ? (k + i) * 32 + r * 2 : (k + i) / 2 * 64 + r * 4 + (k + i) % 2 * 2;
            uint16_t h;
            memcpy(&h, p + at, sizeof h);
            w[i][r] = half ? half_f16_f32(h) : half_bf16_f32(h);
        }
    }
}

static void tile_tokens(const struct matrix *m, const struct form_layout *l, uint64_t tile,
                        const char *operands, size_t operand_bytes, size_t n,
                        float acc[TOKENS][MATRIX_TILE])
{
    float w[FORM_BLOCK][MATRIX_TILE];
    memset(acc, 0, n * sizeof acc[0]);
    for (uint64_t k = 0; k < m->cols; k += FORM_BLOCK) {
        uint64_t len = m->cols - k < FORM_BLOCK ? m->cols - k : FORM_BLOCK;
        decode(m, l, tile, k, len, w);
        for (size_t t = 0; t < n; t++) {
            const float *x = (const float *)(const void *)(operands + t * operand_bytes) + k;
            for (uint64_t i = 0; i < len; i++)
                for (int r = 0; r < MATRIX_TILE; r++)
                    acc[t][r] += w[i][r] * x[i];
        }
    }
}

static void scalar_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                       uint64_t tile_end, float *y, size_t y_stride)
{
    struct form_layout l = form_layout(m->dtype, m->cols);
    size_t bytes = scalar_operand_bytes(m);
    for (uint64_t tile = tile_begin; tile < tile_end; tile++) {
        uint64_t row = tile * MATRIX_TILE;
        size_t rows = m->rows - row < MATRIX_TILE ? (size_t)(m->rows - row) : MATRIX_TILE;
        for (size_t t = 0; t < n; t += TOKENS) {
            float acc[TOKENS][MATRIX_TILE];
            size_t some = n - t < TOKENS ? n - t : TOKENS;
            tile_tokens(m, &l, tile, (const char *)operands + t * bytes, bytes, some, acc);
            for (size_t i = 0; i < some; i++)
                memcpy(y + (t + i) * y_stride + row, acc[i], rows * sizeof(float));
        }
    }
}

const struct form_isa form_scalar = {scalar_operand_bytes, operand_floats, scalar_mul};
