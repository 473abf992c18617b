// SPDX-License-Identifier: Apache-2.0
#include "cpu/matrix.h"

#include "cpu/form.h"
#include "cpu/half.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    LINE = 64,
    HUGE_MIN = 4 << 20 // bytes from which large pages are asked for: a product walks all of them
};

// One without kernels of its own has the plain ones.
static const struct form_isa *const sets[ISAS] = {
    [ISA_SCALAR] = &form_scalar,
#if defined(__x86_64__)
    [ISA_AVX2] = &form_avx2,
    [ISA_AVX512] = &form_avx512,
#elif defined(__aarch64__)
    [ISA_NEON] = &form_neon,
#endif
};

static uint64_t line_up(uint64_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

enum form form_of(uint32_t dtype)
{
    switch (dtype) {
    case SV_F32:
        return FORM_F32;
    case SV_F16:
        return FORM_F16;
    case SV_BF16:
        return FORM_BF16;
    default:
        return quant_type(dtype).bits == 4 ? FORM_NIBBLES : FORM_BYTES;
    }
}

static void quant_layout(struct form_layout *l, uint32_t dtype, uint64_t cols)
{
    struct quant_type type = quant_type(dtype);
    l->scale = type.scale;
    l->zero = type.zero;
    l->blocks = cols / FORM_BLOCK;
    l->integer_bytes = form_of(dtype) == FORM_NIBBLES ? 4 * FORM_GROUP : 8 * FORM_GROUP;
    l->block_bytes = l->integer_bytes + (type.scale == QUANT_DM ? 64 : 32);
    l->super_bytes = type.scale == QUANT_DS_DMO ? 64 : type.scale == QUANT_DS ? 32 : 0;
    l->tile_bytes = line_up(l->blocks * l->block_bytes + l->blocks / 8 * l->super_bytes);
}

struct form_layout form_layout(uint32_t dtype, uint64_t cols)
{
    struct form_layout l = {.zero = 0};
    switch (form_of(dtype)) {
    case FORM_F32:
        l.tile_bytes = cols * 64;
        break;
    case FORM_F16:
        l.tile_bytes = line_up(cols * 32);
        break;
    case FORM_BF16:
        l.tile_bytes = (cols + 1) / 2 * 64;
        break;
    case FORM_NIBBLES:
    case FORM_BYTES:
    case FORMS:
        quant_layout(&l, dtype, cols);
    }
    return l;
}

uint64_t matrix_bytes(enum isa isa, uint32_t activations, uint32_t dtype, uint64_t rows,
                      uint64_t cols)
{
    sv_dtype_info info = sv_dtype(dtype);
    if (isa >= ISAS || !sets[isa] || !isa_here(isa) || activations > SV_ACT_INT8 || !info.elements)
        return 0;
    if (!rows || !cols || rows > MATRIX_ROWS_MAX || cols > MATRIX_COLS_MAX || cols % info.elements)
        return 0;
    // Below 2^28 tiles of at most 2^24 * 64 bytes: no overflow.
    return (rows + MATRIX_TILE - 1) / MATRIX_TILE * form_layout(dtype, cols).tile_bytes;
}

int matrix_place(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype,
                 uint64_t rows, uint64_t cols, void *memory)
{
    uint64_t bytes = matrix_bytes(isa, activations, dtype, rows, cols);
    if (!bytes)
        return -400;
    assert((uintptr_t)memory % LINE == 0);
    *m = (struct matrix){.dtype = dtype,
                         .form = form_of(dtype),
                         .isa = isa,
                         .activations = activations,
                         .rows = rows,
                         .cols = cols,
                         .data = memory,
                         .bytes = bytes,
                         .borrowed = true};
    return 0;
}

int matrix_init(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype, uint64_t rows,
                uint64_t cols)
{
    uint64_t bytes = matrix_bytes(isa, activations, dtype, rows, cols);
    if (!bytes)
        return -400;
    void *data;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&data, LINE, bytes))
        return -507;
    if (bytes >= HUGE_MIN) { // whole pages inside; refusal costs speed alone
        uintptr_t begin = ((uintptr_t)data + 4095) / 4096 * 4096, end = (uintptr_t)data + bytes;
        (void)madvise((char *)data + (begin - (uintptr_t)data), end - begin, MADV_HUGEPAGE);
    }
    int rc = matrix_place(m, isa, activations, dtype, rows, cols, data);
    m->borrowed = false;
    return rc;
}

int matrix_pack(struct matrix *m, enum isa isa, uint32_t activations, uint32_t dtype,
                const void *stored, uint64_t rows, uint64_t cols)
{
    int rc = matrix_init(m, isa, activations, dtype, rows, cols);
    if (rc == 0)
        matrix_pack_tiles(m, stored, 0, matrix_tiles(m));
    return rc;
}

void matrix_finish(struct matrix *m)
{
    if (!m->borrowed)
        free(m->data);
    *m = (struct matrix){.data = NULL};
}

size_t matrix_operand_bytes(const struct matrix *m)
{
    return sets[m->isa]->operand_bytes(m);
}

void matrix_operand(const struct matrix *m, const float *x, void *operand)
{
    sets[m->isa]->operand(m, x, operand);
}

bool matrix_same_operand(const struct matrix *a, const struct matrix *b)
{
    if (a->isa != b->isa || a->cols != b->cols || a->activations != b->activations)
        return false;
    return a->dtype == b->dtype || (!quant_is(a->dtype) && !quant_is(b->dtype));
}

void matrix_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                uint64_t tile_end, float *y, size_t y_stride)
{
    assert(tile_begin <= tile_end && tile_end <= matrix_tiles(m));
    sets[m->isa]->mul(m, operands, n, tile_begin, tile_end, y, y_stride);
}

static uint16_t half_at(const uint8_t *p, uint64_t i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, sizeof h);
    return h;
}

void form_row_block(const struct matrix *m, const struct form_layout *l, uint64_t r, uint64_t b,
                    float out[FORM_BLOCK])
{
    const uint8_t *tile = form_tile(m, l->tile_bytes, r / MATRIX_TILE);
    uint64_t lane = r % MATRIX_TILE;
    const uint8_t *q = tile + form_block_at(l, b) + lane * 4, *s = q - lane * 4 + l->integer_bytes;
    const uint8_t *super = tile + form_block_at(l, b / 8 * 8) - l->super_bytes;
    float number[FORM_BLOCK];
    for (uint32_t k = 0; k < FORM_BLOCK; k++) {
        uint32_t group = k / 4;
        if (m->form == FORM_BYTES)
            number[k] = (float)(q[group * FORM_GROUP + k % 4] - l->zero);
        else
            number[k] =
                (float)((q[group % 4 * FORM_GROUP + k % 4] >> group / 4 * 4 & 15) - l->zero);
    }
    const uint8_t *halves = l->super_bytes ? super : s;
    float d = half_f16_f32(half_at(halves, lane)), scale[2] = {d, d}, plus = 0;
    if (l->scale == QUANT_DM)
        plus = half_f16_f32(half_at(halves + 32, lane));
    if (l->scale == QUANT_DS_DMO) {
        scale[0] = scale[1] = d * (float)s[lane];
        plus = -(half_f16_f32(half_at(halves + 32, lane)) * (float)s[16 + lane]);
    }
    if (l->scale == QUANT_DS)
        for (int i = 0; i < 2; i++)
            scale[i] = d * (float)(int8_t)s[16 * (uint64_t)i + lane];
    bool sum = l->scale == QUANT_DM || l->scale == QUANT_DS_DMO;
    for (uint32_t k = 0; k < FORM_BLOCK; k++) {
        float product = number[k] * scale[k / 16];
        out[k] = sum ? product + plus : product;
    }
}

static float float_at(const struct matrix *m, const uint8_t *tile, uint64_t lane, uint64_t k)
{
    float f;
    switch (m->form) {
    case FORM_F32:
        memcpy(&f, tile + k * 64 + lane * 4, sizeof f);
        return f;
    case FORM_F16:
        return half_f16_f32(half_at(tile, k * MATRIX_TILE + lane));
    default:
        return half_bf16_f32(half_at(tile + k / 2 * 64, lane * 2 + k % 2));
    }
}

void matrix_row(const struct matrix *m, uint64_t r, float *out)
{
    assert(r < m->rows);
    struct form_layout l = form_layout(m->dtype, m->cols);
    if (quant_is(m->dtype)) {
        for (uint64_t b = 0; b < l.blocks; b++)
            form_row_block(m, &l, r, b, out + b * FORM_BLOCK);
        return;
    }
    const uint8_t *tile = form_tile(m, l.tile_bytes, r / MATRIX_TILE);
    for (uint64_t k = 0; k < m->cols; k++)
        out[k] = float_at(m, tile, r % MATRIX_TILE, k);
}
