// SPDX-License-Identifier: Apache-2.0
/*
 * mul_neon - products with NEON and the dot products of ARMv8.2: a register holds 4 rows, a tile 4.
 *
 * integers  sdot: 16 products of signed bytes. Bytes of weights that need their eighth bit (Q8_0)
 * are made signed again by turning it over; all others are below 128 as they are. Split activations
 * take two sdot for the same weights. floats    one FMA for each column, from weights widened in
 * registers. order     blocks (columns) ascending, for every number of tokens. speed     written
 * without a machine to measure on.
 */
#include "cpu/operand.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    TOKENS_MAX = 4,
    QUADS = 4,
    SIZES = 3,             // kernels for 1, 2 and 4 tokens
    CHUNK_BYTES = 1 << 18, // of operands
    AHEAD = 1024           // bytes that are fetched before they are used
};

enum mode { MODE_F32, MODE_INT8, MODE_SPLIT, MODES };

static enum mode mode_of(const struct matrix *m)
{
    if (!quant_is(m->dtype) || m->activations == SV_ACT_F32)
        return MODE_F32;
    return m->activations == SV_ACT_INT8 ? MODE_INT8 : MODE_SPLIT;
}

static size_t neon_operand_bytes(const struct matrix *m)
{
    enum mode mode = mode_of(m);
    if (mode == MODE_F32)
        return operand_floats_size(m->cols);
    return operand_size(m->cols / FORM_BLOCK, mode == MODE_SPLIT ? OPERAND_SPLIT : OPERAND_INT8);
}

static void neon_operand(const struct matrix *m, const float *x, void *out)
{
    struct form_layout l = form_layout(m->dtype, m->cols);
    if (l.zero == 128)
        l.zero = 0; // the weights are made signed
    enum mode mode = mode_of(m);
    if (mode == MODE_F32)
        operand_floats(m, x, out);
    else
        operand_fill(&l, x, mode == MODE_SPLIT ? OPERAND_SPLIT : OPERAND_INT8, out);
}

struct job {
    const struct matrix *m;
    struct form_layout l;
    const char *operands;
    size_t operand_bytes;
    float *y;
    size_t y_stride;
};

INLINE float32x4_t halves_at(const uint8_t *p) // of four rows
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

// Four bytes as numbers, times d.
INLINE float32x4_t bytes_scaled(float32x4_t d, const uint8_t *p, bool sign)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    uint8x8_t four = vreinterpret_u8_u32(vdup_n_u32(word));
    int32x4_t n = sign ? vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four))))
                       : vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four))));
    return vmulq_f32(d, vcvtq_f32_s32(n));
}

// Scales of a block for 4 rows: two where they are of 16 columns.
struct scales {
    float32x4_t first, second, offset;
};

INLINE struct scales scales_at(enum quant_scale kind, const uint8_t *s, const uint8_t *super,
                               size_t quad)
{
    struct scales out = {.first = vdupq_n_f32(0)};
    s += quad * (kind == QUANT_DS_DMO || kind == QUANT_DS ? 4 : 8);
    super += quad * 8;
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
        __builtin_prefetch(p + AHEAD + i);
}

INLINE void store(const struct job *j, uint64_t tile, size_t quad, size_t t, float32x4_t sum)
{
    uint64_t row = tile * MATRIX_TILE + quad * 4;
    float *y = j->y + t * j->y_stride + row, lanes[4];
    if (row + 4 <= j->m->rows) {
        vst1q_f32(y, sum);
        return;
    }
    vst1q_f32(lanes, sum);
    for (uint64_t i = 0; row + i < j->m->rows; i++)
        y[i] = lanes[i];
}

// The exact sums of a block for one token and 4 rows.
struct sums {
    int32x4_t high[2], low[2]; // [1]: of the second 16 columns where scales are of 16
};

// Four groups of columns, [16 half, 16 half + 16), of quads [quad, quad + Q).
INLINE void sum_half(const uint8_t *p, size_t half, size_t quad, size_t Q, size_t T,
                     const char *const x[], bool nibbles, uint8x16_t flip, bool split, int into,
                     struct sums sums[QUADS][TOKENS_MAX])
{
    int8x16_t w[4][QUADS];
    for (size_t g = 0; g < 4; g++)
        for (size_t q = 0; q < Q; q++) {
            const uint8_t *at = p + (nibbles ? g : 4 * half + g) * FORM_GROUP + (quad + q) * 16;
            uint8x16_t line = vld1q_u8(at);
            if (nibbles)
                line = half ? vshrq_n_u8(line, 4) : vandq_u8(line, vdupq_n_u8(15));
            else
                line = veorq_u8(line, flip);
            w[g][q] = vreinterpretq_s8_u8(line);
        }
    for (size_t t = 0; t < T; t++) {
        int8x16_t high = vld1q_s8((const void *)(x[t] + 16 * half)), low = high;
        if (split)
            low = vld1q_s8((const void *)(x[t] + FORM_BLOCK + 16 * half));
        for (size_t q = 0; q < Q; q++) {
            struct sums *s = &sums[q][t];
            if (split) {
                s->high[into] = vdotq_laneq_s32(s->high[into], w[0][q], high, 0);
                s->high[into] = vdotq_laneq_s32(s->high[into], w[1][q], high, 1);
                s->high[into] = vdotq_laneq_s32(s->high[into], w[2][q], high, 2);
                s->high[into] = vdotq_laneq_s32(s->high[into], w[3][q], high, 3);
            }
            s->low[into] = vdotq_laneq_s32(s->low[into], w[0][q], low, 0);
            s->low[into] = vdotq_laneq_s32(s->low[into], w[1][q], low, 1);
            s->low[into] = vdotq_laneq_s32(s->low[into], w[2][q], low, 2);
            s->low[into] = vdotq_laneq_s32(s->low[into], w[3][q], low, 3);
        }
    }
}

INLINE struct sums sums_start(const struct operand_block *block, enum quant_scale kind)
{
    const int32x4_t zero = vdupq_n_s32(0);
    struct sums s = {{zero, zero}, {zero, zero}};
    if (kind == QUANT_D || kind == QUANT_DS)
        s.low[0] = vdupq_n_s32(block->start[0]);
    if (kind == QUANT_DS)
        s.low[1] = vdupq_n_s32(block->start[1]);
    return s;
}

INLINE float32x4_t sums_total(const struct sums *s, size_t half, bool split)
{
    int32x4_t sum = split ? vaddq_s32(vshlq_n_s32(s->high[half], 8), s->low[half]) : s->low[half];
    return vcvtq_f32_s32(sum);
}

INLINE float32x4_t sums_scaled(float32x4_t acc, const struct sums *sums, const struct scales *s,
                               const struct operand_block *block, enum quant_scale kind, bool split)
{
    acc = vfmaq_f32(acc, sums_total(sums, 0, split), vmulq_n_f32(s->first, block->scale));
    if (kind == QUANT_DS)
        acc = vfmaq_f32(acc, sums_total(sums, 1, split), vmulq_n_f32(s->second, block->scale));
    if (kind == QUANT_DM)
        acc = vfmaq_f32(acc, s->offset, vdupq_n_f32(block->sum));
    if (kind == QUANT_DS_DMO)
        acc = vfmsq_f32(acc, s->offset, vdupq_n_f32(block->sum));
    return acc;
}

// Quads [quad, quad + Q) of a tile with T tokens from t0 on, in integers.
INLINE void quad_integers(const struct job *j, uint64_t tile, size_t t0, size_t quad, size_t Q,
                          size_t T, bool nibbles, enum quant_scale kind, bool split)
{
    const uint64_t step = operand_step(split ? OPERAND_SPLIT : OPERAND_INT8);
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const uint8x16_t flip = vdupq_n_u8(j->l.zero == 128 ? 0x80 : 0);
    const char *x[TOKENS_MAX];
    float32x4_t acc[QUADS][TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = j->operands + (t0 + t) * j->operand_bytes + sizeof(struct operand_block);
        for (size_t q = 0; q < Q; q++)
            acc[q][t] = vdupq_n_f32(0);
    }
    for (uint64_t b = 0; b < j->l.blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        if (quad == 0)
            prefetch(p, block_bytes(nibbles, kind));
        struct sums sums[QUADS][TOKENS_MAX];
        for (size_t q = 0; q < Q; q++)
            for (size_t t = 0; t < T; t++)
                sums[q][t] =
                    sums_start(operand_block_at(x[t] - sizeof(struct operand_block)), kind);
        sum_half(p, 0, quad, Q, T, x, nibbles, flip, split, 0, sums);
        sum_half(p, 1, quad, Q, T, x, nibbles, flip, split, kind == QUANT_DS, sums);
        for (size_t q = 0; q < Q; q++) {
            struct scales s = scales_at(kind, p + integer_bytes(nibbles), super, quad + q);
            for (size_t t = 0; t < T; t++)
                acc[q][t] =
                    sums_scaled(acc[q][t], &sums[q][t], &s,
                                operand_block_at(x[t] - sizeof(struct operand_block)), kind, split);
        }
        for (size_t t = 0; t < T; t++)
            x[t] += step;
    }
    for (size_t q = 0; q < Q; q++)
        for (size_t t = 0; t < T; t++)
            store(j, tile, quad + q, t0 + t, acc[q][t]);
}

// The same with f32 activations: each weight is made as the type defines it.
INLINE void quad_dequantised(const struct job *j, uint64_t tile, size_t t0, size_t quad, size_t T,
                             bool nibbles, enum quant_scale kind)
{
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile), *super = p;
    const uint32x4_t byte = vdupq_n_u32(nibbles ? 15 : 255);
    const int32x4_t zero = vdupq_n_s32(j->l.zero);
    const float *x[TOKENS_MAX];
    float32x4_t acc[TOKENS_MAX];
    for (size_t t = 0; t < T; t++) {
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
        acc[t] = vdupq_n_f32(0);
    }
    for (uint64_t b = 0; b < j->l.blocks; b++, p += block_bytes(nibbles, kind)) {
        if (b % 8 == 0 && super_bytes(kind)) {
            super = p;
            p += super_bytes(kind);
        }
        struct scales s = scales_at(kind, p + integer_bytes(nibbles), super, quad);
        for (size_t g = 0; g < 8; g++) {
            uint32x4_t word =
                vreinterpretq_u32_u8(vld1q_u8(p + quad * 16 + (nibbles ? g % 4 : g) * FORM_GROUP));
            if (nibbles && g >= 4)
                word = vshrq_n_u32(word, 4);
            float32x4_t scale = kind == QUANT_DS && g >= 4 ? s.second : s.first;
            for (size_t i = 0; i < 4; i++, word = vshrq_n_u32(word, 8)) {
                int32x4_t q = vsubq_s32(vreinterpretq_s32_u32(vandq_u32(word, byte)), zero);
                float32x4_t w = vmulq_f32(vcvtq_f32_s32(q), scale);
                if (kind == QUANT_DM)
                    w = vaddq_f32(w, s.offset);
                if (kind == QUANT_DS_DMO)
                    w = vsubq_f32(w, s.offset);
                for (size_t t = 0; t < T; t++)
                    acc[t] = vfmaq_n_f32(acc[t], w, x[t][b * FORM_BLOCK + g * 4 + i]);
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        store(j, tile, quad, t0 + t, acc[t]);
}

// Two columns, or the first alone, of a quad of a float tile.
INLINE void floats_at(enum form form, const uint8_t *p, uint64_t pair, size_t quad, bool two,
                      float32x4_t w[2])
{
    if (form == FORM_F32) {
        p += pair * 128 + quad * 16;
        w[0] = vreinterpretq_f32_u8(vld1q_u8(p));
        if (two)
            w[1] = vreinterpretq_f32_u8(vld1q_u8(p + 64));
    } else if (form == FORM_F16) {
        p += pair * 64 + quad * 8;
        w[0] = halves_at(p);
        if (two)
            w[1] = halves_at(p + 32);
    } else {
        uint32x4_t both = vreinterpretq_u32_u8(vld1q_u8(p + pair * 64 + quad * 16));
        w[0] = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
        w[1] = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000)));
    }
}

INLINE void tile_floats(const struct job *j, uint64_t tile, size_t t0, size_t T, enum form form)
{
    const uint64_t cols = j->m->cols, pairs = cols / 2, pair_bytes = form == FORM_F32 ? 128 : 64;
    const uint8_t *p = form_tile(j->m, j->l.tile_bytes, tile);
    const float *x[TOKENS_MAX];
    float32x4_t acc[QUADS][TOKENS_MAX], w[2];
    for (size_t t = 0; t < T; t++) {
        x[t] = (const void *)(j->operands + (t0 + t) * j->operand_bytes);
        for (size_t q = 0; q < QUADS; q++)
            acc[q][t] = vdupq_n_f32(0);
    }
    for (uint64_t k = 0; k < pairs; k++) {
        prefetch(p + k * pair_bytes, pair_bytes);
        for (size_t q = 0; q < QUADS; q++) {
            floats_at(form, p, k, q, true, w);
            for (size_t i = 0; i < 2; i++)
                for (size_t t = 0; t < T; t++)
                    acc[q][t] = vfmaq_n_f32(acc[q][t], w[i], x[t][2 * k + i]);
        }
    }
    for (size_t q = 0; q < QUADS; q++) {
        if (cols % 2)
            floats_at(form, p, pairs, q, false, w);
        for (size_t t = 0; t < T; t++) {
            if (cols % 2)
                acc[q][t] = vfmaq_n_f32(acc[q][t], w[0], x[t][cols - 1]);
            store(j, tile, q, t0 + t, acc[q][t]);
        }
    }
}

typedef void tile_fn(const struct job *, uint64_t tile, size_t t0);

#define ONE(name, T, ...)                                                                          \
    static void name##_##T(const struct job *j, uint64_t tile, size_t t0)                          \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }
#define INTEGERS(name, nibbles, kind, split)                                                       \
    ONE(name, 1, quad_integers(j, tile, t0, 0, 4, 1, nibbles, kind, split))                        \
    ONE(name, 2, quad_integers(j, tile, t0, 0, 2, 2, nibbles, kind, split);                        \
        quad_integers(j, tile, t0, 2, 2, 2, nibbles, kind, split))                                 \
    ONE(name, 4, quad_integers(j, tile, t0, 0, 2, 4, nibbles, kind, split);                        \
        quad_integers(j, tile, t0, 2, 2, 4, nibbles, kind, split))
#define DEQUANTISED(name, T, nibbles, kind)                                                        \
    ONE(name, T,                                                                                   \
        for (size_t q = 0; q < QUADS; q++) quad_dequantised(j, tile, t0, q, T, nibbles, kind))
#define QUANT(name, nibbles, kind)                                                                 \
    INTEGERS(name##_split, nibbles, kind, true)                                                    \
    INTEGERS(name##_int8, nibbles, kind, false)                                                    \
    DEQUANTISED(name##_f32, 1, nibbles, kind)                                                      \
    DEQUANTISED(name##_f32, 2, nibbles, kind)                                                      \
    DEQUANTISED(name##_f32, 4, nibbles, kind)
#define FLOATS(name, form)                                                                         \
    ONE(name, 1, tile_floats(j, tile, t0, 1, form))                                                \
    ONE(name, 2, tile_floats(j, tile, t0, 2, form))                                                \
    ONE(name, 4, tile_floats(j, tile, t0, 4, form))

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

#define EACH(name)                                                                                 \
    {                                                                                              \
        name##_1, name##_2, name##_4                                                               \
    }
#define EACH_MODE(name)                                                                            \
    {                                                                                              \
        EACH(name##_f32), EACH(name##_int8), EACH(name##_split)                                    \
    }

static tile_fn *const nibble_fns[4][MODES][SIZES] = {[QUANT_D] = EACH_MODE(nibbles_d),
                                                     [QUANT_DM] = EACH_MODE(nibbles_dm),
                                                     [QUANT_DS_DMO] = EACH_MODE(nibbles_dsdmo)};
static tile_fn *const byte_fns[4][MODES][SIZES] = {[QUANT_D] = EACH_MODE(bytes_d),
                                                   [QUANT_DM] = EACH_MODE(bytes_dm),
                                                   [QUANT_DS_DMO] = EACH_MODE(bytes_dsdmo),
                                                   [QUANT_DS] = EACH_MODE(bytes_ds)};
static tile_fn *const float_fns[3][SIZES] = {
    [FORM_F32] = EACH(f32), [FORM_F16] = EACH(f16), [FORM_BF16] = EACH(bf16)};

// The largest kernel for up to n tokens.
static int size_for(size_t n)
{
    return n >= 4 ? 2 : n >= 2 ? 1 : 0;
}

static void neon_mul(const struct matrix *m, const void *operands, size_t n, uint64_t tile_begin,
                     uint64_t tile_end, float *y, size_t y_stride)
{
    struct job j = {.m = m,
                    .l = form_layout(m->dtype, m->cols),
                    .operands = operands,
                    .operand_bytes = neon_operand_bytes(m),
                    .y_stride = y_stride};
    j.y = y;
    tile_fn *const *fns =
        !quant_is(m->dtype)
            ? float_fns[m->form]
            : (m->form == FORM_NIBBLES ? nibble_fns : byte_fns)[j.l.scale][mode_of(m)];
    size_t chunk = CHUNK_BYTES / j.operand_bytes / TOKENS_MAX * TOKENS_MAX;
    if (chunk < TOKENS_MAX)
        chunk = TOKENS_MAX;
    for (size_t t0 = 0; t0 < n; t0 += chunk) {
        size_t t1 = n - t0 < chunk ? n : t0 + chunk;
        for (uint64_t tile = tile_begin; tile < tile_end; tile++)
            for (size_t t = t0; t < t1; t += (size_t)1 << size_for(t1 - t))
                fns[size_for(t1 - t)](&j, tile, t);
    }
}

const struct form_isa form_neon = {neon_operand_bytes, neon_operand, neon_mul};
