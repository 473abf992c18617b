// SPDX-License-Identifier: Apache-2.0
/*
 * mul_avx2 - products with AVX2 and FMA: 8 rows, half a tile, are the 8 lanes of a register.
 *
 * nibbles   vpmaddubsw: unsigned weights below 16 by signed bytes of activations, in pairs. Of a
 *           block a 16-bit lane sums 16 products, at most 16 * 15 * 128 = 30720, so they are added
 *           in 16 bits and widened once.
 * bytes     vpmaddwd: weights widened to 16 bits by activations of 16 bits; vpmaddubsw could
 *           overflow, and avoiding that costs as much. So 8-bit activations would gain nothing.
 * floats    one FMA for each column, from weights widened in registers.
 * order     blocks (columns) ascending, for every number of tokens.
 */
#include "cpu/operand.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    TOKENS_MAX = 4,
    HALVES_MAX = 4,
    SIZES = 3,             // kernels for 1, 2 and 4 tokens
    CHUNK_BYTES = 1 << 18, // of operands
    AHEAD = 3072           // bytes that are fetched before they are used
};

enum mode { MODE_F32, MODE_INT8, MODE_FINE, MODES };

static enum mode mode_of(const struct matrix *m)
{
    if (!quant_is(m->dtype) || m->activations == SV_ACT_F32)
        return MODE_F32;
    return m->activations == SV_ACT_INT8 && m->form == FORM_NIBBLES ? MODE_INT8 : MODE_FINE;
}

static enum operand_kind kind_of(const struct matrix *m)
{
    if (m->form == FORM_BYTES)
        return OPERAND_WORDS;
    return mode_of(m) == MODE_INT8 ? OPERAND_INT8 : OPERAND_SPLIT;
}

static size_t avx2_operand_bytes(const struct matrix *m)
{
    if (mode_of(m) == MODE_F32)
        return operand_floats_size(m->cols);
    return operand_size(m->cols / FORM_BLOCK, kind_of(m));
}

static void avx2_operand(const struct matrix *m, const float *x, void *out)
{
    struct form_layout l = form_layout(m->dtype, m->cols);
    enum mode mode = mode_of(m);
    if (mode == MODE_F32)
        operand_floats(m, x, out);
    else
        operand_fill(&l, x, kind_of(m), out);
}

struct job {
    const struct matrix *m;
    struct form_layout l;
    const char *operands;
    size_t operand_bytes;
    float *y;
    size_t y_stride;
};

INLINE __m256i broadcast4(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

INLINE __m256 halves_at(const uint8_t *p) // of eight rows
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

INLINE __m256i load(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

// Scales of a block for 8 rows: two where they are of 16 columns.
struct scales {
    __m256 first, second, offset;
};

INLINE __m256 bytes_scaled(__m256 d, const uint8_t *p, bool sign)
{
    __m128i eight = _mm_loadl_epi64((const void *)p);
    __m256i n = sign ? _mm256_cvtepi8_epi32(eight) : _mm256_cvtepu8_epi32(eight);
    return _mm256_mul_ps(d, _mm256_cvtepi32_ps(n));
}

INLINE struct scales scales_at(enum quant_scale kind, const uint8_t *s, const uint8_t *super,
                               size_t half)
{
    struct scales out = {.first = _mm256_setzero_ps()};
    s += half * (kind == QUANT_DS_DMO || kind == QUANT_DS ? 8 : 16);
    super += half * 16;
    switch (kind) {
    case QUANT_D:
        out.first = halves_at(s);
        break;
    case QUANT_DM:
        out.first = halves_at(s);
        out.offset = halves_at(s + 32);
        break;
    case QUANT_DS_DMO:
        out.first = bytes_scaled(halves_at(super), s, false);
        out.offset = bytes_scaled(halves_at(super + 32), s + 16, false);
        break;
    case QUANT_DS:
        out.first = bytes_scaled(halves_at(super), s, true);
        out.second = bytes_scaled(halves_at(super), s + 16, true);
        break;
    }
    return out;
}

// As form_layout() says it, for compilers to know.
INLINE uint64_t integer_bytes(bool nibbles)
{
    return nibbles ? 4 * FORM_GROUP : 8 * FORM_GROUP;
}

INLINE uint64_t block_bytes(bool nibbles, enum quant_scale kind)
{
    return integer_bytes(nibbles) + (kind == QUANT_DM ? 64u : 32u);
}

INLINE uint64_t super_bytes(enum quant_scale kind)
{
    return kind == QUANT_DS_DMO ? 64 : kind == QUANT_DS ? 32 : 0;
}

INLINE void prefetch(const uint8_t *p, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

INLINE void store(const struct job *j, uint64_t tile, size_t half, size_t t, __m256 sum)
{
    uint64_t row = tile * MATRIX_TILE + half * 8;
    float *y = j->y + t * j->y_stride + row;
    if (row + 8 <= j->m->rows) {
        _mm256_storeu_ps(y, sum);
    } else if (row < j->m->rows) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        __m256i left = _mm256_set1_epi32((int32_t)(j->m->rows - row));
        _mm256_maskstore_ps(y, _mm256_cmpgt_epi32(left, lanes), sum);
    }
}

// The exact sums of a block of nibbles for T tokens.
INLINE void nibble_sums(const uint8_t *p, const char *const x[], size_t T, bool split,
                        __m256i sums[][2])
{
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i high[TOKENS_MAX], low[TOKENS_MAX];
    for (size_t t = 0; t < T; t++)
        high[t] = low[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        __m256i both = load(p + v * FORM_GROUP), w[2];
        w[0] = _mm256_and_si256(both, mask);
        w[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        for (size_t i = 0; i < 2; i++)
            for (size_t t = 0; t < T; t++) {
                const char *at = x[t] + 4 * (v + 4 * i);
                high[t] = _mm256_add_epi16(high[t], _mm256_maddubs_epi16(w[i], broadcast4(at)));
                if (split)
                    low[t] = _mm256_add_epi16(
                        low[t], _mm256_maddubs_epi16(w[i], broadcast4(at + FORM_BLOCK)));
            }
    }
    for (size_t t = 0; t < T; t++) {
        __m256i sum = _mm256_madd_epi16(high[t], ones);
        if (split)
            sum = _mm256_add_epi32(_mm256_slli_epi32(sum, 8), _mm256_madd_epi16(low[t], ones));
        sums[t][0] = _mm256_add_epi32(sums[t][0], sum);
    }
}

// Likewise of bytes; of 16 columns each in two sums where scales are so.
INLINE void byte_sums(const uint8_t *p, const char *const x[], size_t T, bool halves,
                      __m256i sums[][2])
{
    const __m256i mask = _mm256_set1_epi16(255);
#pragma GCC unroll 8
    for (size_t g = 0; g < 8; g++) {
        __m256i w = load(p + g * FORM_GROUP);
        __m256i even = _mm256_and_si256(w, mask), odd = _mm256_srli_epi16(w, 8);
        for (size_t t = 0; t < T; t++) {
            __m256i *sum = &sums[t][halves && g >= 4];
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even, broadcast4(x[t] + 8 * g)));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd, broadcast4(x[t] + 8 * g + 4)));
        }
    }
}

INLINE __m256 scaled(__m256 acc, const __m256i sums[2], const struct scales *s,
                     const struct operand_block *block, enum quant_scale kind)
{
    const __m256 scale = _mm256_set1_ps(block->scale), sum = _mm256_set1_ps(block->sum);
    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[0]), _mm256_mul_ps(s->first, scale), acc);
    if (kind == QUANT_DS)
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[1]), _mm256_mul_ps(s->second, scale), acc);
    if (kind == QUANT_DM)
        acc = _mm256_fmadd_ps(s->offset, sum, acc);
    if (kind == QUANT_DS_DMO)
        acc = _mm256_fnmadd_ps(s->offset, sum, acc);
    return acc;
}

// Halves [half, half + H) of a tile with T tokens from t0 on, in integers.
INLINE void half_integers(const struct job *j, uint64_t tile, size_t t0, size_t half, size_t H,
                          size_t T, bool nibbles, enum quant_scale kind, bool split)
{
    const uint64_t step = operand_step(!nibbles ? OPERAND_WORDS
                                       : split  ? OPERAND_SPLIT
                                                : OPERAND_INT8);
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const char *x[TOKENS_MAX];
    __m256 acc[2][TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = j->operands + (t0 + t) * j->operand_bytes + sizeof(struct operand_block);
        for (size_t h = 0; h < H; h++)
            acc[h][t] = _mm256_setzero_ps();
    }
    for (uint64_t b = 0; b < j->l.blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        if (half == 0)
            prefetch(p, block_bytes(nibbles, kind));
        for (size_t h = 0; h < H; h++) {
            __m256i sums[TOKENS_MAX][2];
            const bool offset = kind == QUANT_DM || kind == QUANT_DS_DMO;
            for (size_t t = 0; t < T; t++) {
                const struct operand_block *block =
                    operand_block_at(x[t] - sizeof(struct operand_block));
                sums[t][0] = offset ? _mm256_setzero_si256() : broadcast4(&block->start[0]);
                sums[t][1] =
                    kind == QUANT_DS ? broadcast4(&block->start[1]) : _mm256_setzero_si256();
            }
            const uint8_t *mine = p + (half + h) * 32;
            if (nibbles)
                nibble_sums(mine, x, T, split, sums);
            else
                byte_sums(mine, x, T, kind == QUANT_DS, sums);
            struct scales s = scales_at(kind, p + integer_bytes(nibbles), super, half + h);
            for (size_t t = 0; t < T; t++)
                acc[h][t] = scaled(acc[h][t], sums[t], &s,
                                   operand_block_at(x[t] - sizeof(struct operand_block)), kind);
        }
        for (size_t t = 0; t < T; t++)
            x[t] += step;
    }
    for (size_t h = 0; h < H; h++)
        for (size_t t = 0; t < T; t++)
            store(j, tile, half + h, t0 + t, acc[h][t]);
}

// The same with f32 activations: each weight is made as the type defines it.
INLINE void half_dequantised(const struct job *j, uint64_t tile, size_t t0, size_t half, size_t T,
                             bool nibbles, enum quant_scale kind)
{
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const __m256i byte = _mm256_set1_epi32(nibbles ? 15 : 255);
    const __m256i zero = _mm256_set1_epi32(j->l.zero);
    const float *x[TOKENS_MAX];
    __m256 acc[TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
        acc[t] = _mm256_setzero_ps();
    }
    for (uint64_t b = 0; b < j->l.blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        struct scales s = scales_at(kind, p + integer_bytes(nibbles), super, half);
        for (size_t g = 0; g < 8; g++) {
            __m256i word = load(p + half * 32 + (nibbles ? g % 4 : g) * FORM_GROUP);
            if (nibbles && g >= 4)
                word = _mm256_srli_epi32(word, 4);
            __m256 scale = kind == QUANT_DS && g >= 4 ? s.second : s.first;
            for (size_t i = 0; i < 4; i++, word = _mm256_srli_epi32(word, 8)) {
                __m256i q = _mm256_sub_epi32(_mm256_and_si256(word, byte), zero);
                __m256 w = _mm256_mul_ps(_mm256_cvtepi32_ps(q), scale);
                if (kind == QUANT_DM)
                    w = _mm256_add_ps(w, s.offset);
                if (kind == QUANT_DS_DMO)
                    w = _mm256_sub_ps(w, s.offset);
                for (size_t t = 0; t < T; t++)
                    acc[t] = _mm256_fmadd_ps(w, _mm256_set1_ps(x[t][b * FORM_BLOCK + g * 4 + i]),
                                             acc[t]);
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        store(j, tile, half, t0 + t, acc[t]);
}

// Two columns, or the first alone, of half a float tile.
INLINE void floats_at(enum form form, const uint8_t *p, uint64_t pair, size_t half, bool two,
                      __m256 w[2])
{
    if (form == FORM_F32) {
        p += pair * 128 + half * 32;
        w[0] = _mm256_loadu_ps((const void *)p);
        if (two)
            w[1] = _mm256_loadu_ps((const void *)(p + 64));
    } else if (form == FORM_F16) {
        p += pair * 64 + half * 16;
        w[0] = halves_at(p);
        if (two)
            w[1] = halves_at(p + 32);
    } else {
        __m256i both = load(p + pair * 64 + half * 32);
        w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        w[1] = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int32_t)0xffff0000)));
    }
}

// H halves, of `tile` and the next.
INLINE void float_halves(const struct job *j, uint64_t tile, size_t t0, size_t H, size_t T,
                         enum form form)
{
    const uint64_t cols = j->m->cols, pairs = cols / 2, pair_bytes = form == FORM_F32 ? 128 : 64;
    const uint8_t *p[HALVES_MAX];
    const float *x[TOKENS_MAX];
    __m256 acc[HALVES_MAX][TOKENS_MAX];
    for (size_t t = 0; t < T; t++)
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
    for (size_t h = 0; h < H; h++) {
        p[h] = form_tile(j->m, j->l.tile_bytes, tile + h / 2);
        for (size_t t = 0; t < T; t++)
            acc[h][t] = _mm256_setzero_ps();
    }
    for (uint64_t k = 0; k < pairs; k++) {
        __m256 w[HALVES_MAX][2];
        for (size_t h = 0; h < H; h++) {
            if (h % 2 == 0)
                prefetch(p[h] + k * pair_bytes, pair_bytes);
            floats_at(form, p[h], k, h % 2, true, w[h]);
        }
        for (size_t i = 0; i < 2; i++)
            for (size_t t = 0; t < T; t++) {
                __m256 one = _mm256_set1_ps(x[t][2 * k + i]);
                for (size_t h = 0; h < H; h++)
                    acc[h][t] = _mm256_fmadd_ps(w[h][i], one, acc[h][t]);
            }
    }
    for (size_t h = 0; h < H; h++)
        for (size_t t = 0; t < T; t++) {
            if (cols % 2) {
                __m256 w[2];
                floats_at(form, p[h], pairs, h % 2, false, w);
                acc[h][t] = _mm256_fmadd_ps(w[0], _mm256_set1_ps(x[t][cols - 1]), acc[h][t]);
            }
            store(j, tile + h / 2, h % 2, t0 + t, acc[h][t]);
        }
}

typedef void tile_fn(const struct job *, uint64_t tile, size_t t0);

#define ONE(name, T, ...)                                                                          \
    static void name##_##T(const struct job *j, uint64_t tile, size_t t0)                          \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }
#define INTEGERS(name, nibbles, kind, split)                                                       \
    ONE(name, 1, half_integers(j, tile, t0, 0, 2, 1, nibbles, kind, split))                        \
    ONE(name, 2, half_integers(j, tile, t0, 0, 2, 2, nibbles, kind, split))                        \
    ONE(name, 4, half_integers(j, tile, t0, 0, 1, 4, nibbles, kind, split);                        \
        half_integers(j, tile, t0, 1, 1, 4, nibbles, kind, split))
#define BOTH(T, nibbles, kind)                                                                     \
    half_dequantised(j, tile, t0, 0, T, nibbles, kind);                                            \
    half_dequantised(j, tile, t0, 1, T, nibbles, kind)
#define DEQUANTISED(name, nibbles, kind)                                                           \
    ONE(name, 1, BOTH(1, nibbles, kind))                                                           \
    ONE(name, 2, BOTH(2, nibbles, kind)) ONE(name, 4, BOTH(4, nibbles, kind))
#define NIBBLES(name, kind)                                                                        \
    INTEGERS(name##_fine, true, kind, true)                                                        \
    INTEGERS(name##_int8, true, kind, false)                                                       \
    DEQUANTISED(name##_f32, true, kind)
#define BYTES(name, kind)                                                                          \
    INTEGERS(name##_fine, false, kind, true)                                                       \
    DEQUANTISED(name##_f32, false, kind)
#define FLOATS(name, form)                                                                         \
    ONE(name##_r1, 1, float_halves(j, tile, t0, 2, 1, form))                                       \
    ONE(name##_r1, 2, float_halves(j, tile, t0, 2, 2, form))                                       \
    ONE(name##_r1, 4, float_halves(j, tile, t0, 2, 4, form))                                       \
    ONE(name##_r2, 1, float_halves(j, tile, t0, 4, 1, form))                                       \
    ONE(name##_r2, 2, float_halves(j, tile, t0, 4, 2, form))

NIBBLES(nibbles_d, QUANT_D)
NIBBLES(nibbles_dm, QUANT_DM)
NIBBLES(nibbles_dsdmo, QUANT_DS_DMO)
BYTES(bytes_d, QUANT_D)
BYTES(bytes_dm, QUANT_DM)
BYTES(bytes_dsdmo, QUANT_DS_DMO)
BYTES(bytes_ds, QUANT_DS)
FLOATS(f32, FORM_F32)
FLOATS(f16, FORM_F16)
FLOATS(bf16, FORM_BF16)

#define EACH(name)                                                                                 \
    {                                                                                              \
        name##_1, name##_2, name##_4                                                               \
    }
#define NIBBLE_MODES(name)                                                                         \
    {                                                                                              \
        EACH(name##_f32), EACH(name##_int8), EACH(name##_fine)                                     \
    }
#define BYTE_MODES(name)                                                                           \
    {                                                                                              \
        [MODE_F32] = EACH(name##_f32), [MODE_FINE] = EACH(name##_fine)                             \
    }

static tile_fn *const nibble_fns[4][MODES][SIZES] = {[QUANT_D] = NIBBLE_MODES(nibbles_d),
                                                     [QUANT_DM] = NIBBLE_MODES(nibbles_dm),
                                                     [QUANT_DS_DMO] = NIBBLE_MODES(nibbles_dsdmo)};
static tile_fn *const byte_fns[4][MODES][SIZES] = {[QUANT_D] = BYTE_MODES(bytes_d),
                                                   [QUANT_DM] = BYTE_MODES(bytes_dm),
                                                   [QUANT_DS_DMO] = BYTE_MODES(bytes_dsdmo),
                                                   [QUANT_DS] = BYTE_MODES(bytes_ds)};
static tile_fn *const float_fns[3][SIZES] = {
    [FORM_F32] = EACH(f32_r1), [FORM_F16] = EACH(f16_r1), [FORM_BF16] = EACH(bf16_r1)};
// Of two tiles, for few tokens: more sums under way.
static tile_fn *const pair_fns[3][2] = {[FORM_F32] = {f32_r2_1, f32_r2_2},
                                        [FORM_F16] = {f16_r2_1, f16_r2_2},
                                        [FORM_BF16] = {bf16_r2_1, bf16_r2_2}};

// The largest kernel for up to n tokens.
static int size_for(size_t n)
{
    return n >= 4 ? 2 : n >= 2 ? 1 : 0;
}

// The tokens [t0, t1) of a run of tiles.
static void mul_chunk(const struct job *j, uint64_t tile_begin, uint64_t tile_end, size_t t0,
                      size_t t1)
{
    const struct matrix *m = j->m;
    const bool floats = !quant_is(m->dtype);
    tile_fn *const *fns =
        floats ? float_fns[m->form]
               : (m->form == FORM_NIBBLES ? nibble_fns : byte_fns)[j->l.scale][mode_of(m)];
    for (uint64_t tile = tile_begin, run; tile < tile_end; tile += run) {
        run = floats && tile_end - tile >= 2 ? 2 : 1;
        for (size_t t = t0; t < t1;) {
            int size = size_for(t1 - t);
            if (run == 2 && size < 2) {
                pair_fns[m->form][size](j, tile, t);
            } else {
                for (uint64_t i = 0; i < run; i++)
                    fns[size](j, tile + i, t);
            }
            t += (size_t)1 << size;
        }
    }
}

static void avx2_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                     uint64_t tile_end, float *y, size_t y_stride)
{
    struct job j = {.m = m,
                    .l = form_layout(m->dtype, m->cols),
                    .operands = operands,
                    .operand_bytes = avx2_operand_bytes(m),
                    .y_stride = y_stride};
    j.y = y;
    size_t chunk = CHUNK_BYTES / j.operand_bytes / TOKENS_MAX * TOKENS_MAX;
    if (chunk < TOKENS_MAX)
        chunk = TOKENS_MAX;
    for (size_t t = 0; t < n; t += chunk)
        mul_chunk(&j, tile_begin, tile_end, t, n - t < chunk ? n : t + chunk);
}

const struct form_isa form_avx2 = {avx2_operand_bytes, avx2_operand, avx2_mul};
