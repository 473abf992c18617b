// SPDX-License-Identifier: Apache-2.0
/*
 * pack - stored rows into tiles. A model's start waits for this: the common types move words of 4
 * bytes and nothing else.
 *
 * order  a run of columns of each of the 16 rows, then the next: what is written stays in the
 *        first-level cache until its lines are full.
 */
#include "cpu/form.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <string.h>

enum { RUN_BYTES = 16 << 10 }; // of a tile, about

struct run {
    const struct matrix *m;
    struct form_layout l;
    uint8_t *tile;
    uint64_t k, end; // columns
};

// Words (of 4 bytes) of one row into its lane of 16-word lines.
static void spread(uint8_t *line, const uint8_t *row, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        memcpy(line + i * 64, row + i * 4, 4);
}

static void pack_floats(const struct run *run, uint64_t lane, const uint8_t *row)
{
    uint64_t k = run->k, n = run->end - k;
    switch (run->m->form) {
    case FORM_F32:
        spread(run->tile + k * 64 + lane * 4, row + k * 4, n);
        break;
    case FORM_F16:
        for (uint8_t *out = run->tile + lane * 2; k < run->end; k++)
            memcpy(out + k * 32, row + k * 2, 2);
        break;
    default: // runs begin at pairs
        spread(run->tile + k / 2 * 64 + lane * 4, row + k * 2, n / 2);
        if (n % 2) {
            uint32_t last = row[run->end * 2 - 2] | (uint32_t)row[run->end * 2 - 1] << 8;
            memcpy(run->tile + run->end / 2 * 64 + lane * 4, &last, 4);
        }
    }
}

// Q4_0 and Q4_1: nibbles are paired as stored.
static void pack_plain_nibbles(const struct run *run, uint64_t lane, const uint8_t *row)
{
    const struct form_layout *l = &run->l;
    uint64_t halves = l->scale == QUANT_DM ? 2 : 1, stored = 16 + 2 * halves;
    for (uint64_t b = run->k / FORM_BLOCK; b < run->end / FORM_BLOCK; b++) {
        uint8_t *block = run->tile + b * l->block_bytes, *scale = block + 256 + lane * 2;
        const uint8_t *p = row + b * stored;
        memcpy(scale, p, 2);
        if (halves == 2)
            memcpy(scale + 32, p + 2, 2);
        spread(block + lane * 4, p + 2 * halves, 4);
    }
}

static void pack_plain_bytes(const struct run *run, uint64_t lane, const uint8_t *row)
{
    const struct form_layout *l = &run->l;
    for (uint64_t b = run->k / FORM_BLOCK; b < run->end / FORM_BLOCK; b++) {
        uint8_t *block = run->tile + b * l->block_bytes, *line = block + lane * 4;
        const uint8_t *p = row + b * 34;
        memcpy(block + l->integer_bytes + lane * 2, p, 2);
        for (size_t i = 0; i < 8; i++) {
            uint32_t word;
            memcpy(&word, p + 2 + i * 4, 4);
            word ^= 0x80808080;
            memcpy(line + i * 64, &word, 4);
        }
    }
}

static void pack_integers(bool nibbles, uint8_t *line, const uint8_t *q)
{
    uint32_t word[8];
    memcpy(word, q, sizeof word);
    for (size_t g = 0; g < (nibbles ? 4 : 8); g++) {
        uint32_t w = nibbles ? word[g] | word[g + 4] << 4 : word[g];
        memcpy(line + g * 64, &w, 4);
    }
}

// One block of the stored type, taken apart: `first` is its first block of 32 columns.
static void pack_quant(const struct run *run, uint64_t lane, uint64_t first, uint32_t elements,
                       const struct quant *q)
{
    const struct form_layout *l = &run->l;
    for (uint64_t i = 0; i < elements / FORM_BLOCK; i++) {
        uint8_t *block = run->tile + form_block_at(l, first + i);
        uint8_t *scale = block + l->integer_bytes;
        pack_integers(run->m->form == FORM_NIBBLES, block + lane * 4, q->q + i * FORM_BLOCK);
        if (l->scale == QUANT_DS_DMO) {
            scale[lane] = q->s[i];
            scale[16 + lane] = q->o[i];
        } else if (l->scale == QUANT_DS) {
            scale[lane] = q->s[2 * i];
            scale[16 + lane] = q->s[2 * i + 1];
        }
    }
    uint8_t *block = run->tile + form_block_at(l, first);
    uint8_t *halves = l->super_bytes ? block - l->super_bytes : block + l->integer_bytes;
    memcpy(halves + lane * 2, &q->d, 2);
    if (l->scale == QUANT_DM || l->scale == QUANT_DS_DMO)
        memcpy(halves + 32 + lane * 2, &q->m, 2);
}

static void pack_row(const struct run *run, uint64_t lane, const uint8_t *row)
{
    uint32_t dtype = run->m->dtype;
    if (!quant_is(dtype)) {
        pack_floats(run, lane, row);
    } else if (dtype == SV_Q4_0 || dtype == SV_Q4_1) {
        pack_plain_nibbles(run, lane, row);
    } else if (dtype == SV_Q8_0) {
        pack_plain_bytes(run, lane, row);
    } else {
        struct quant_type type = quant_type(dtype);
        for (uint64_t k = run->k; k < run->end; k += type.elements) {
            struct quant q;
            quant_read(dtype, row + k / type.elements * type.bytes, &q);
            pack_quant(run, lane, k / FORM_BLOCK, type.elements, &q);
        }
    }
}

void matrix_pack_tiles(struct matrix *m, const void *stored, uint64_t tile_begin, uint64_t tile_end)
{
    assert(tile_begin <= tile_end && tile_end <= matrix_tiles(m));
    struct run run = {.m = m, .l = form_layout(m->dtype, m->cols)};
    sv_dtype_info info = sv_dtype(m->dtype);
    assert(info.elements > 0);
    const uint64_t row_bytes = m->cols / info.elements * info.bytes, bytes = run.l.tile_bytes;
    // Columns of a run: whole blocks of any type.
    const uint64_t columns = RUN_BYTES * m->cols / bytes / QUANT_MAX * QUANT_MAX + QUANT_MAX;
    for (uint64_t t = tile_begin; t < tile_end; t++) {
        run.tile = (uint8_t *)m->data + t * bytes;
        const uint64_t first = t * MATRIX_TILE, left = m->rows - first;
        const uint64_t n = left < MATRIX_TILE ? left : MATRIX_TILE;
        const uint8_t *rows = (const uint8_t *)stored + first * row_bytes;
        // Rows that are not there, and what pads the end, are zeros.
        if (n < MATRIX_TILE)
            memset(run.tile, 0, bytes);
        else
            memset(run.tile + bytes - 64, 0, 64);
        for (run.k = 0; run.k < m->cols; run.k = run.end) {
            run.end = m->cols - run.k < columns ? m->cols : run.k + columns;
            for (uint64_t r = 0; r < n; r++)
                pack_row(&run, r, rows + r * row_bytes);
        }
    }
}
