// SPDX-License-Identifier: Apache-2.0
/*
 * pack - stored rows into tiles. A model's start waits for this: the common types move words of 4
 * bytes and nothing else, about 5 bytes a cycle.
 */
#include "cpu/form.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <string.h>

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

// Words (of 4 bytes) of one row into its lane of 16-word lines.
static void spread(uint8_t *line, const uint8_t *row, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        memcpy(line + i * 64, row + i * 4, 4);
}

static void pack_f16_row(uint8_t *tile, uint64_t lane, const uint8_t *row, uint64_t cols)
{
    for (uint64_t k = 0; k < cols; k++)
        memcpy(tile + k * 32 + lane * 2, row + k * 2, 2);
}

static void pack_float_row(const struct matrix *m, uint8_t *tile, uint64_t lane, const uint8_t *row)
{
    switch (m->form) {
    case FORM_F32:
        spread(tile + lane * 4, row, m->cols);
        break;
    case FORM_F16:
        pack_f16_row(tile, lane, row, m->cols);
        break;
    default:
        spread(tile + lane * 4, row, m->cols / 2);
        if (m->cols % 2)
            memcpy(tile + m->cols / 2 * 64 + lane * 4, row + (m->cols - 1) * 2, 2);
    }
}

// Q4_0 and Q4_1: nibbles are paired as stored.
static void pack_plain_nibbles(const struct form_layout *l, uint8_t *tile, uint64_t lane,
                               const uint8_t *row)
{
    uint64_t halves = l->scale == QUANT_DM ? 2 : 1;
    for (uint64_t b = 0; b < l->blocks; b++, row += 16 + 2 * halves) {
        uint8_t *block = tile + b * l->block_bytes, *scale = block + l->integer_bytes + lane * 2;
        memcpy(scale, row, 2);
        if (halves == 2)
            memcpy(scale + 32, row + 2, 2);
        spread(block + lane * 4, row + 2 * halves, 4);
    }
}

static void pack_plain_bytes(const struct form_layout *l, uint8_t *tile, uint64_t lane,
                             const uint8_t *row)
{
    for (uint64_t b = 0; b < l->blocks; b++, row += 34) {
        uint8_t *block = tile + b * l->block_bytes, *line = block + lane * 4;
        memcpy(block + l->integer_bytes + lane * 2, row, 2);
        for (size_t i = 0; i < 8; i++) {
            uint32_t word = load32(row + 2 + i * 4) ^ 0x80808080;
            memcpy(line + i * 64, &word, 4);
        }
    }
}

static void pack_integers(const struct form_layout *l, uint8_t *line, const uint8_t *q)
{
    for (size_t g = 0; g < 8; g++)
        for (size_t i = 0; i < 4; i++) {
            if (l->integer_bytes == 8ull * FORM_GROUP)
                line[g * 64 + i] = q[g * 4 + i];
            else if (g < 4)
                line[g * 64 + i] = (uint8_t)(q[g * 4 + i] | q[16 + g * 4 + i] << 4);
        }
}

// One block of the stored type, taken apart: `first` is its first block of 32 columns.
static void pack_quant(const struct form_layout *l, uint8_t *tile, uint64_t lane, uint64_t first,
                       uint32_t elements, const struct quant *q)
{
    for (uint64_t i = 0; i < elements / FORM_BLOCK; i++) {
        uint8_t *block = tile + form_block_at(l, first + i), *scale = block + l->integer_bytes;
        pack_integers(l, block + lane * 4, q->q + i * FORM_BLOCK);
        if (l->scale == QUANT_DS_DMO) {
            scale[lane] = q->s[i];
            scale[16 + lane] = q->o[i];
        } else if (l->scale == QUANT_DS) {
            scale[lane] = q->s[2 * i];
            scale[16 + lane] = q->s[2 * i + 1];
        }
    }
    uint8_t *block = tile + form_block_at(l, first);
    uint8_t *halves = l->super_bytes ? block - l->super_bytes : block + l->integer_bytes;
    memcpy(halves + lane * 2, &q->d, 2);
    if (l->scale == QUANT_DM || l->scale == QUANT_DS_DMO)
        memcpy(halves + 32 + lane * 2, &q->m, 2);
}

static void pack_row(const struct matrix *m, const struct form_layout *l, uint8_t *tile,
                     uint64_t lane, const uint8_t *row)
{
    if (!quant_is(m->dtype)) {
        pack_float_row(m, tile, lane, row);
    } else if (m->dtype == SV_Q4_0 || m->dtype == SV_Q4_1) {
        pack_plain_nibbles(l, tile, lane, row);
    } else if (m->dtype == SV_Q8_0) {
        pack_plain_bytes(l, tile, lane, row);
    } else {
        struct quant_type type = quant_type(m->dtype);
        for (uint64_t k = 0; k < m->cols; k += type.elements, row += type.bytes) {
            struct quant q;
            quant_read(m->dtype, row, &q);
            pack_quant(l, tile, lane, k / FORM_BLOCK, type.elements, &q);
        }
    }
}

void matrix_pack_tiles(struct matrix *m, const void *stored, uint64_t tile_begin, uint64_t tile_end)
{
    assert(tile_begin <= tile_end && tile_end <= matrix_tiles(m));
    struct form_layout l = form_layout(m->dtype, m->cols);
    sv_dtype_info info = sv_dtype(m->dtype);
    assert(info.elements > 0);
    uint64_t row_bytes = m->cols / info.elements * info.bytes;
    for (uint64_t t = tile_begin; t < tile_end; t++) {
        uint8_t *tile = (uint8_t *)m->data + t * l.tile_bytes;
        uint64_t first = t * MATRIX_TILE;
        uint64_t n = m->rows - first < MATRIX_TILE ? m->rows - first : MATRIX_TILE;
        // Rows that are not there, and the ends of parts, are zeros.
        memset(tile, 0, l.tile_bytes);
        for (uint64_t r = 0; r < n; r++)
            pack_row(m, &l, tile, r, (const uint8_t *)stored + (first + r) * row_bytes);
    }
}
