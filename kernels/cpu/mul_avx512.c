// SPDX-License-Identifier: Apache-2.0
/*
 * mul_avx512 - products with AVX-512 and VNNI: 16 rows are the 16 lanes of a register.
 *
 * integers  vpdpbusd: 64 products of unsigned weights and signed activations. A block of 32 columns
 *           is an exact sum, then one multiplication by both scales and one addition in f32. Split
 *           activations take two vpdpbusd for the same weights.
 * floats    one FMA for each column, from weights widened in registers.
 * order     blocks (columns) ascending, for every number of tokens.
 * loops     for a chunk of tokens that stays in the second-level cache: each tile, and for it 8
 *           tokens (4, 2, 1 at the end) at a time, which share its loading and unpacking.
 */
#include "cpu/operand.h"

#include <string.h>

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    TOKENS_MAX = 8,
    CHUNK_BYTES = 1 << 20, // of operands
    AHEAD = 3072           // bytes that are fetched before they are used
};

enum mode { MODE_F32, MODE_INT8, MODE_SPLIT, MODES };

static enum mode mode_of(const struct matrix *m)
{
    if (!quant_is(m->dtype) || m->activations == SV_ACT_F32)
        return MODE_F32;
    return m->activations == SV_ACT_INT8 ? MODE_INT8 : MODE_SPLIT;
}

static size_t avx512_operand_bytes(const struct matrix *m)
{
    enum mode mode = mode_of(m);
    if (mode == MODE_F32)
        return operand_floats_size(m->cols);
    return operand_size(m->cols / FORM_BLOCK, mode == MODE_SPLIT ? OPERAND_SPLIT : OPERAND_INT8);
}

static void avx512_operand(const struct matrix *m, const float *x, void *out)
{
    struct form_layout l = form_layout(m->dtype, m->cols);
    enum mode mode = mode_of(m);
    if (mode == MODE_F32)
        operand_floats(m, x, out);
    else
        operand_fill(&l, x, mode == MODE_SPLIT ? OPERAND_SPLIT : OPERAND_INT8, out);
}

INLINE __m512i broadcast4(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE __m512 halves_at(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

// Scales of one block: two where they are of 16 columns.
struct scales {
    __m512 first, second, offset;
};

INLINE struct scales scales_at(enum quant_scale kind, const uint8_t *s, const uint8_t *super)
{
    struct scales out = {.first = _mm512_setzero_ps()};
    if (kind == QUANT_D)
        out.first = halves_at(s);
    if (kind == QUANT_DM) {
        out.first = halves_at(s);
        out.offset = halves_at(s + 32);
    }
    if (kind == QUANT_DS_DMO || kind == QUANT_DS) {
        __m128i one = _mm_loadu_si128((const void *)s);
        __m128i two = _mm_loadu_si128((const void *)(s + 16));
        __m512 d = halves_at(super);
        if (kind == QUANT_DS) {
            out.first = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(one)));
            out.second = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(two)));
        } else {
            out.first = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(one)));
            out.offset =
                _mm512_mul_ps(halves_at(super + 32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(two)));
        }
    }
    return out;
}

// As form_layout() says it, for compilers to know.
INLINE uint64_t block_bytes(bool nibbles, enum quant_scale kind)
{
    return (nibbles ? 256u : 512u) + (kind == QUANT_DM ? 64u : 32u);
}

INLINE uint64_t super_bytes(enum quant_scale kind)
{
    return kind == QUANT_DS_DMO ? 64 : kind == QUANT_DS ? 32 : 0;
}

// Tiles follow one another, so this reaches into the next one; past the end it does nothing.
INLINE void prefetch(const uint8_t *p, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

// Groups v and v + 4 of a block.
INLINE void integers_at(bool nibbles, const uint8_t *block, size_t v, __m512i w[2])
{
    if (nibbles) {
        __m512i both = _mm512_loadu_si512(block + v * 64), mask = _mm512_set1_epi8(15);
        w[0] = _mm512_and_si512(both, mask);
        w[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    } else {
        w[0] = _mm512_loadu_si512(block + v * 64);
        w[1] = _mm512_loadu_si512(block + (v + 4) * 64);
    }
}

struct job {
    const struct matrix *m;
    struct form_layout l;
    const char *operands;
    size_t operand_bytes;
    float *y;
    size_t y_stride;
};

INLINE __mmask16 rows_mask(const struct matrix *m, uint64_t tile)
{
    uint64_t left = m->rows - tile * MATRIX_TILE;
    return (__mmask16)(left >= MATRIX_TILE ? 0xffff : (1u << left) - 1);
}

// The exact sums of a block for one token: of the high and low parts, and again of the second half
// where scales are of 16 columns.
struct sums {
    __m512i high[2], low[2];
};

INLINE struct sums sums_start(const struct operand_block *block, enum quant_scale kind)
{
    const __m512i zero = _mm512_setzero_si512();
    if (kind == QUANT_DM || kind == QUANT_DS_DMO)
        return (struct sums){{zero, zero}, {zero, zero}};
    return (struct sums){
        {zero, zero},
        {broadcast4(&block->start[0]), kind == QUANT_DS ? broadcast4(&block->start[1]) : zero}};
}

INLINE __m512i sums_total(const struct sums *s, size_t half, bool split)
{
    return split ? _mm512_add_epi32(_mm512_slli_epi32(s->high[half], 8), s->low[half])
                 : s->low[half];
}

// Products of groups v (w[0]) and v + 4 (w[1]); x: the token's integers from group v on.
INLINE void sums_add(struct sums *s, const __m512i w[2], const char *x, enum quant_scale kind,
                     bool split)
{
    const int second = kind == QUANT_DS;
    const char *low = split ? x + FORM_BLOCK : x;
    if (split)
        s->high[0] = _mm512_dpbusd_epi32(s->high[0], w[0], broadcast4(x));
    s->low[0] = _mm512_dpbusd_epi32(s->low[0], w[0], broadcast4(low));
    if (split)
        s->high[second] = _mm512_dpbusd_epi32(s->high[second], w[1], broadcast4(x + 16));
    s->low[second] = _mm512_dpbusd_epi32(s->low[second], w[1], broadcast4(low + 16));
}

INLINE __m512 sums_scaled(__m512 acc, const struct sums *sums, const struct scales *s,
                          const struct operand_block *block, enum quant_scale kind, bool split)
{
    const __m512 scale = _mm512_set1_ps(block->scale), sum = _mm512_set1_ps(block->sum);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums_total(sums, 0, split)),
                          _mm512_mul_ps(s->first, scale), acc);
    if (kind == QUANT_DS)
        acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums_total(sums, 1, split)),
                              _mm512_mul_ps(s->second, scale), acc);
    if (kind == QUANT_DM)
        acc = _mm512_fmadd_ps(s->offset, sum, acc);
    if (kind == QUANT_DS_DMO)
        acc = _mm512_fnmadd_ps(s->offset, sum, acc);
    return acc;
}

INLINE void store(const struct job *j, uint64_t tile, size_t t, __m512 sum)
{
    _mm512_mask_storeu_ps(j->y + t * j->y_stride + tile * MATRIX_TILE, rows_mask(j->m, tile), sum);
}

// One tile with T tokens from t0 on, in integers.
INLINE void tile_integers(const struct job *j, uint64_t tile, size_t t0, size_t T, bool nibbles,
                          enum quant_scale kind, bool split)
{
    const uint64_t blocks = j->l.blocks, step = operand_step(split ? OPERAND_SPLIT : OPERAND_INT8);
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const char *x[TOKENS_MAX];
    __m512 acc[TOKENS_MAX];
#pragma GCC unroll 8
    for (size_t t = 0; t < T; t++) {
        x[t] = j->operands + (t0 + t) * j->operand_bytes;
        acc[t] = _mm512_setzero_ps();
    }
    for (uint64_t b = 0; b < blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        prefetch(p, block_bytes(nibbles, kind));
        struct sums sums[TOKENS_MAX];
        for (size_t t = 0; t < T; t++)
            sums[t] = sums_start(operand_block_at(x[t] + b * step), kind);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            __m512i w[2];
            integers_at(nibbles, p, v, w);
            for (size_t t = 0; t < T; t++)
                sums_add(&sums[t], w, x[t] + b * step + sizeof(struct operand_block) + v * 4, kind,
                         split);
        }
        struct scales s = scales_at(kind, p + (nibbles ? 256 : 512), super);
        for (size_t t = 0; t < T; t++)
            acc[t] =
                sums_scaled(acc[t], &sums[t], &s, operand_block_at(x[t] + b * step), kind, split);
    }
    for (size_t t = 0; t < T; t++)
        store(j, tile, t0 + t, acc[t]);
}

// The same with f32 activations: each weight is made as the type defines it.
INLINE void tile_dequantised(const struct job *j, uint64_t tile, size_t t0, size_t T, bool nibbles,
                             enum quant_scale kind)
{
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const __m512i byte = _mm512_set1_epi32(255);
    const __m512i zero = _mm512_set1_epi32(j->l.zero);
    const float *x[TOKENS_MAX];
    __m512 acc[TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
        acc[t] = _mm512_setzero_ps();
    }
    for (uint64_t b = 0; b < j->l.blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        prefetch(p, block_bytes(nibbles, kind));
        struct scales s = scales_at(kind, p + (nibbles ? 256 : 512), super);
        for (size_t g = 0; g < 8; g++) {
            __m512i pair[2];
            integers_at(nibbles, p, g % 4, pair);
            __m512i word = pair[g / 4];
            __m512 scale = kind == QUANT_DS && g >= 4 ? s.second : s.first;
            for (size_t i = 0; i < 4; i++, word = _mm512_srli_epi32(word, 8)) {
                __m512i q = _mm512_sub_epi32(_mm512_and_si512(word, byte), zero);
                __m512 w = _mm512_mul_ps(_mm512_cvtepi32_ps(q), scale);
                if (kind == QUANT_DM)
                    w = _mm512_add_ps(w, s.offset);
                if (kind == QUANT_DS_DMO)
                    w = _mm512_sub_ps(w, s.offset);
                for (size_t t = 0; t < T; t++)
                    acc[t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t][b * FORM_BLOCK + g * 4 + i]),
                                             acc[t]);
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        store(j, tile, t0 + t, acc[t]);
}

// Two columns of a float tile.
INLINE void floats_at(enum form form, const uint8_t *p, uint64_t pair, __m512 w[2])
{
    if (form == FORM_F32) {
        w[0] = _mm512_loadu_ps(p + pair * 128);
        w[1] = _mm512_loadu_ps(p + pair * 128 + 64);
    } else if (form == FORM_F16) {
        w[0] = halves_at(p + pair * 64);
        w[1] = halves_at(p + pair * 64 + 32);
    } else {
        __m512i both = _mm512_loadu_si512(p + pair * 64);
        w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        w[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int32_t)0xffff0000)));
    }
}

INLINE void float_tiles(const struct job *j, uint64_t tile, size_t t0, size_t R, size_t T,
                        enum form form)
{
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile);
    const float *x[TOKENS_MAX];
    __m512 acc[4][TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
        for (size_t r = 0; r < R; r++)
            acc[r][t] = _mm512_setzero_ps();
    }
    uint64_t cols = j->m->cols, pairs = cols / 2;
    for (uint64_t k = 0; k < pairs; k++) {
        __m512 w[4][2];
        for (size_t r = 0; r < R; r++) {
            const uint8_t *part = p + r * j->l.tile_bytes;
            prefetch(part + k * (form == FORM_F32 ? 128 : 64), form == FORM_F32 ? 128 : 64);
            floats_at(form, part, k, w[r]);
        }
        for (size_t i = 0; i < 2; i++)
            for (size_t t = 0; t < T; t++) {
                __m512 one = _mm512_set1_ps(x[t][2 * k + i]);
                for (size_t r = 0; r < R; r++)
                    acc[r][t] = _mm512_fmadd_ps(w[r][i], one, acc[r][t]);
            }
    }
    if (cols % 2)
        for (size_t r = 0; r < R; r++) {
            const uint8_t *last = p + r * j->l.tile_bytes;
            __m512 w = form == FORM_F32   ? _mm512_loadu_ps(last + pairs * 128)
                       : form == FORM_F16 ? halves_at(last + pairs * 64)
                                          : _mm512_castsi512_ps(_mm512_slli_epi32(
                                                _mm512_loadu_si512(last + pairs * 64), 16));
            for (size_t t = 0; t < T; t++)
                acc[r][t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t][cols - 1]), acc[r][t]);
        }
    for (size_t r = 0; r < R; r++)
        for (size_t t = 0; t < T; t++)
            store(j, tile + r, t0 + t, acc[r][t]);
}

typedef void tile_fn(const struct job *, uint64_t tile, size_t t0);

#define ONE(name, T, call)                                                                         \
    static void name##_##T(const struct job *j, uint64_t tile, size_t t0)                          \
    {                                                                                              \
        call;                                                                                      \
    }
#define QUANT(name, nibbles, kind)                                                                 \
    ONE(name##_split, 1, tile_integers(j, tile, t0, 1, nibbles, kind, true))                       \
    ONE(name##_split, 2, tile_integers(j, tile, t0, 2, nibbles, kind, true))                       \
    ONE(name##_split, 4, tile_integers(j, tile, t0, 4, nibbles, kind, true))                       \
    ONE(name##_split, 8, tile_integers(j, tile, t0, 8, nibbles, kind, true))                       \
    ONE(name##_int8, 1, tile_integers(j, tile, t0, 1, nibbles, kind, false))                       \
    ONE(name##_int8, 2, tile_integers(j, tile, t0, 2, nibbles, kind, false))                       \
    ONE(name##_int8, 4, tile_integers(j, tile, t0, 4, nibbles, kind, false))                       \
    ONE(name##_int8, 8, tile_integers(j, tile, t0, 8, nibbles, kind, false))                       \
    ONE(name##_f32, 1, tile_dequantised(j, tile, t0, 1, nibbles, kind))                            \
    ONE(name##_f32, 2, tile_dequantised(j, tile, t0, 2, nibbles, kind))                            \
    ONE(name##_f32, 4, tile_dequantised(j, tile, t0, 4, nibbles, kind))                            \
    ONE(name##_f32, 8, tile_dequantised(j, tile, t0, 8, nibbles, kind))
#define FLOATS(name, form)                                                                         \
    ONE(name##_r1, 1, float_tiles(j, tile, t0, 1, 1, form))                                        \
    ONE(name##_r1, 2, float_tiles(j, tile, t0, 1, 2, form))                                        \
    ONE(name##_r1, 4, float_tiles(j, tile, t0, 1, 4, form))                                        \
    ONE(name##_r1, 8, float_tiles(j, tile, t0, 1, 8, form))                                        \
    ONE(name##_rn, 1, float_tiles(j, tile, t0, 4, 1, form))                                        \
    ONE(name##_rn, 2, float_tiles(j, tile, t0, 4, 2, form))                                        \
    ONE(name##_rn, 4, float_tiles(j, tile, t0, 4, 4, form))                                        \
    ONE(name##_rn, 8, float_tiles(j, tile, t0, 2, 8, form))

QUANT(nibbles_d, true, QUANT_D)
QUANT(nibbles_dm, true, QUANT_DM)
QUANT(nibbles_dsdmo, true, QUANT_DS_DMO)
QUANT(bytes_d, false, QUANT_D)
QUANT(bytes_dm, false, QUANT_DM)
QUANT(bytes_dsdmo, false, QUANT_DS_DMO)
QUANT(bytes_ds, false, QUANT_DS)
FLOATS(f32, FORM_F32)
FLOATS(f16, FORM_F16)
FLOATS(bf16, FORM_BF16)

// Kernels for 1, 2, 4 and 8 tokens.
#define SIZES(name)                                                                                \
    {                                                                                              \
        name##_1, name##_2, name##_4, name##_8                                                     \
    }
#define KINDS(name)                                                                                \
    {                                                                                              \
        [MODE_F32] = SIZES(name##_f32), [MODE_INT8] = SIZES(name##_int8),                          \
        [MODE_SPLIT] = SIZES(name##_split),                                                        \
    }

static tile_fn *const nibble_fns[4][MODES][4] = {[QUANT_D] = KINDS(nibbles_d),
                                                 [QUANT_DM] = KINDS(nibbles_dm),
                                                 [QUANT_DS_DMO] = KINDS(nibbles_dsdmo)};
static tile_fn *const byte_fns[4][MODES][4] = {[QUANT_D] = KINDS(bytes_d),
                                               [QUANT_DM] = KINDS(bytes_dm),
                                               [QUANT_DS_DMO] = KINDS(bytes_dsdmo),
                                               [QUANT_DS] = KINDS(bytes_ds)};
// [form][several tiles at once]: 4 tiles, or 2 with 8 tokens.
static tile_fn *const float_fns[3][2][4] = {[FORM_F32] = {SIZES(f32_r1), SIZES(f32_rn)},
                                            [FORM_F16] = {SIZES(f16_r1), SIZES(f16_rn)},
                                            [FORM_BF16] = {SIZES(bf16_r1), SIZES(bf16_rn)}};

// The tokens [t0, t1) of a run of tiles.
static void mul_chunk(const struct job *j, uint64_t tile_begin, uint64_t tile_end, size_t t0,
                      size_t t1)
{
    const struct matrix *m = j->m;
    if (quant_is(m->dtype)) {
        tile_fn *const *fns =
            (m->form == FORM_NIBBLES ? nibble_fns : byte_fns)[j->l.scale][mode_of(m)];
        for (uint64_t tile = tile_begin; tile < tile_end; tile++)
            for (size_t t = t0; t < t1;) {
                int size = t1 - t >= 8 ? 3 : t1 - t >= 4 ? 2 : t1 - t >= 2 ? 1 : 0;
                fns[size](j, tile, t);
                t += (size_t)1 << size;
            }
        return;
    }
    for (uint64_t tile = tile_begin; tile < tile_end;) {
        uint64_t run = tile_end - tile >= 4 ? 4 : 1;
        for (size_t t = t0; t < t1;) {
            int size = t1 - t >= 8 ? 3 : t1 - t >= 4 ? 2 : t1 - t >= 2 ? 1 : 0;
            tile_fn *fn = float_fns[m->form][run == 4][size];
            fn(j, tile, t);
            if (run == 4 && size == 3)
                fn(j, tile + 2, t);
            t += (size_t)1 << size;
        }
        tile += run;
    }
}

static void avx512_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                       uint64_t tile_end, float *y, size_t y_stride)
{
    struct job j = {.m = m,
                    .l = form_layout(m->dtype, m->cols),
                    .operands = operands,
                    .operand_bytes = avx512_operand_bytes(m),
                    .y_stride = y_stride};
    j.y = y;
    size_t chunk = CHUNK_BYTES / j.operand_bytes / TOKENS_MAX * TOKENS_MAX;
    if (chunk < TOKENS_MAX)
        chunk = TOKENS_MAX;
    for (size_t t = 0; t < n; t += chunk)
        mul_chunk(&j, tile_begin, tile_end, t, n - t < chunk ? n : t + chunk);
}

const struct form_isa form_avx512 = {avx512_operand_bytes, avx512_operand, avx512_mul};
