// SPDX-License-Identifier: Apache-2.0
/*
 * Packed products of every type, instruction set and kind of activations, against sums in double
 * over the weights as dequant() gives them.
 */
#include "cpu/matrix.h"

#include "cpu/dequant.h"
#include "cpu/half.h"
#include "kernels/kernels.h"
#include "kernels/world.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS_MAX = 33 };

static uint64_t seed = 1;

static uint16_t random_f16(float size)
{
    return half_f32_f16(size * random_normal(&seed));
}

// Random rows of a type, with scales as models have them.
static uint8_t *random_rows(uint32_t dtype, uint64_t rows, uint64_t cols)
{
    sv_dtype_info info = sv_dtype(dtype);
    uint64_t blocks = rows * cols / info.elements;
    uint8_t *data = malloc(blocks * info.bytes);
    for (uint64_t b = 0; b < blocks; b++) {
        uint8_t *p = data + b * info.bytes;
        for (uint32_t i = 0; i < info.bytes; i++)
            p[i] = (uint8_t)random_u32(&seed);
        float f = 0.05f * random_normal(&seed);
        uint16_t d = random_f16(0.01f), m = random_f16(0.05f);
        if (dtype == SV_F32)
            memcpy(p, &f, 4);
        else if (dtype == SV_F16 || dtype == SV_BF16) {
            d = dtype == SV_F16 ? half_f32_f16(f) : half_f32_bf16(f);
            memcpy(p, &d, 2);
        } else if (dtype == SV_Q6_K) {
            d = random_f16(0.0001f);
            memcpy(p + 208, &d, 2);
        } else {
            if (dtype == SV_Q4_K || dtype == SV_Q5_K)
                d = random_f16(0.0002f), m = random_f16(0.001f);
            memcpy(p, &d, 2);
            if (dtype == SV_Q4_1 || dtype == SV_Q5_1 || dtype == SV_Q4_K || dtype == SV_Q5_K)
                memcpy(p + 2, &m, 2);
        }
    }
    return data;
}

// Every byte the same, but for scales of 1.
static void fill_blocks(uint8_t *data, uint32_t dtype, uint64_t elements, uint8_t byte)
{
    sv_dtype_info info = sv_dtype(dtype);
    const uint16_t one = 0x3c00;
    for (uint64_t b = 0; b < elements / info.elements; b++) {
        uint8_t *p = data + b * info.bytes;
        memset(p, byte, info.bytes);
        memcpy(p + (dtype == SV_Q6_K ? 208 : 0), &one, 2);
        if (dtype == SV_Q4_1 || dtype == SV_Q5_1 || dtype == SV_Q4_K || dtype == SV_Q5_K)
            memcpy(p + 2, &one, 2);
    }
}

struct setup {
    struct matrix m;
    uint8_t *stored;
    float *weights, *x; // [rows][cols], [TOKENS_MAX][cols]
    char *operands;
    float *want_y, *y;    // [TOKENS_MAX][rows]
    double *exact, *most; // likewise: the product, and how far off it may be
};

/*
 * The bound of a product's error. f32: each of n sums and products rounds once, and the types with
 * an offset add it in terms of its own size, so |q d x| + |m x| stands for |w x|. Activations of
 * 8 and 16 bits: each is off by half a step of its block's scale, max|x| / 127 or / 32639.
 */
static double bound(const struct setup *s, uint64_t r, size_t t)
{
    const float *w = s->weights + r * s->m.cols, *x = s->x + t * s->m.cols;
    double n = (double)s->m.cols, sum = 0, step_sum = 0;
    for (uint64_t b = 0; b < s->m.cols; b += 32) {
        double most = 0, weight = 0, largest_w = 0;
        uint64_t end = b + 32 < s->m.cols ? b + 32 : s->m.cols;
        for (uint64_t k = b; k < end; k++) {
            most = fmax(most, fabs((double)x[k]));
            weight += fabs((double)w[k]);
            largest_w = fmax(largest_w, fabs((double)w[k]));
            sum += fabs((double)x[k]) * fabs((double)w[k]);
        }
        // The integers and the offset cancel at most to this.
        for (uint64_t k = b; k < end; k++)
            sum += 2 * fabs((double)x[k]) * largest_w;
        step_sum += most * weight;
    }
    double error =
        sum * (n / 4 + 2) * 0x1p-24 + 1e-30; // errors of n roundings don't all point one way
    if (quant_is(s->m.dtype) && s->m.activations == SV_ACT_AUTO)
        error += step_sum / 32639 / 2;
    if (quant_is(s->m.dtype) && s->m.activations == SV_ACT_INT8)
        error += step_sum / 127 / 2;
    return error;
}

static void set_exact(struct setup *s)
{
    uint64_t rows = s->m.rows, cols = s->m.cols;
    for (size_t t = 0; t < TOKENS_MAX; t++)
        for (uint64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (uint64_t k = 0; k < cols; k++)
                sum += (double)s->weights[r * cols + k] * (double)s->x[t * cols + k];
            s->exact[t * rows + r] = sum;
            s->most[t * rows + r] = bound(s, r, t);
        }
}

static void setup_init(struct setup *s, enum isa isa, uint32_t act, uint32_t dtype, uint64_t rows,
                       uint64_t cols)
{
    *s = (struct setup){.stored = random_rows(dtype, rows, cols)};
    assert_int_equal(matrix_pack(&s->m, isa, act, dtype, s->stored, rows, cols), 0);
    assert_int_equal(s->m.bytes, matrix_bytes(isa, act, dtype, rows, cols));
    s->weights = malloc(rows * cols * sizeof(float));
    dequant(dtype, s->stored, rows * cols, s->weights);
    s->x = malloc(TOKENS_MAX * cols * sizeof(float));
    for (uint64_t i = 0; i < TOKENS_MAX * cols; i++) {
        s->x[i] = random_normal(&seed);
        if (random_u32(&seed) % 100 == 0) // as models have them, some are far larger
            s->x[i] *= 50;
    }
    size_t bytes = matrix_operand_bytes(&s->m);
    assert_int_equal(bytes % 64, 0);
    s->operands = aligned_alloc(64, TOKENS_MAX * bytes);
    for (size_t t = 0; t < TOKENS_MAX; t++)
        matrix_operand(&s->m, s->x + t * cols, s->operands + t * bytes);
    s->y = malloc(TOKENS_MAX * rows * sizeof(float));
    s->want_y = malloc(TOKENS_MAX * rows * sizeof(float));
    s->exact = malloc(TOKENS_MAX * rows * sizeof(double));
    s->most = malloc(TOKENS_MAX * rows * sizeof(double));
}

static void setup_finish(struct setup *s)
{
    matrix_finish(&s->m);
    free(s->stored);
    free(s->weights);
    free(s->x);
    free(s->operands);
    free(s->y);
    free(s->want_y);
    free(s->exact);
    free(s->most);
}

static void check_product(struct setup *s, size_t n)
{
    uint64_t rows = s->m.rows;
    for (uint64_t i = 0; i < TOKENS_MAX * rows; i++)
        s->y[i] = -1234;
    matrix_mul(&s->m, s->operands, n, 0, matrix_tiles(&s->m), s->y, rows);
    for (size_t t = 0; t < TOKENS_MAX; t++)
        for (uint64_t r = 0; r < rows; r++) {
            float have = s->y[t * rows + r];
            if (t >= n) {
                assert_true(have == -1234); // nothing beyond what was asked for
                continue;
            }
            double want = s->exact[t * rows + r], most = s->most[t * rows + r];
            double error = fabs((double)have - want);
            if (!(error <= most)) {
                print_error("%s %s activations %u, %zu tokens: token %zu row %u: %g, not %g: off "
                            "by %g > %g\n",
                            isa_name(s->m.isa), sv_dtype(s->m.dtype).name, s->m.activations, n, t,
                            (unsigned)r, (double)have, want, error, most);
                fail();
            }
        }
}

static const uint64_t shapes[][2] = {{1, 256}, {37, 768}};

#define FOR_ALL(isa, act, dtype)                                                                   \
    for (enum isa isa = 0; isa < ISAS; isa++)                                                      \
        for (uint32_t act = 0; world_tests(isa) && act <= SV_ACT_INT8; act++)                      \
            for (uint32_t dtype = 0; dtype < SV_DTYPES; dtype++)

static void near_double(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 33};
    FOR_ALL(isa, act, dtype)
    {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct setup s;
            setup_init(&s, isa, act, dtype, shapes[i][0], shapes[i][1]);
            set_exact(&s);
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
                check_product(&s, counts[c]);
            setup_finish(&s);
        }
    }
}

// Alone, in a batch of any size, at any place of it, in any split of the tiles: the same bits.
static void same_bits_in_any_batch(void **state)
{
    (void)state;
    enum { ROWS = 100, COLS = 512 };
    FOR_ALL(isa, act, dtype)
    {
        struct setup s;
        setup_init(&s, isa, act, dtype, ROWS, COLS);
        size_t bytes = matrix_operand_bytes(&s.m);
        uint64_t tiles = matrix_tiles(&s.m);
        for (size_t t = 0; t < TOKENS_MAX; t++)
            matrix_mul(&s.m, s.operands + t * bytes, 1, 0, tiles, s.want_y + t * ROWS, ROWS);
        for (size_t n = 2; n <= TOKENS_MAX; n++) {
            size_t first = random_u32(&seed) % (TOKENS_MAX - n + 1);
            uint64_t cut = random_u32(&seed) % (tiles + 1);
            memset(s.y, 0xff, sizeof(float) * TOKENS_MAX * ROWS);
            matrix_mul(&s.m, s.operands + first * bytes, n, cut, tiles, s.y, ROWS);
            matrix_mul(&s.m, s.operands + first * bytes, n, 0, cut, s.y, ROWS);
            assert_memory_equal(s.y, s.want_y + first * ROWS, n * ROWS * sizeof(float));
        }
        setup_finish(&s);
    }
}

static void rows_as_stored(void **state)
{
    (void)state;
    enum { ROWS = 21, COLS = 768 };
    float row[COLS];
    FOR_ALL(isa, act, dtype)
    {
        struct setup s;
        setup_init(&s, isa, act, dtype, ROWS, COLS);
        for (uint64_t r = 0; r < ROWS; r++) {
            matrix_row(&s.m, r, row);
            assert_memory_equal(row, s.weights + r * COLS, sizeof row);
        }
        setup_finish(&s);
    }
}

// Whatever lay there before, the same bytes: nothing of a tile is left as it was. In two goes as in
// one.
static void packs_every_byte(void **state)
{
    (void)state;
    FOR_ALL(isa, act, dtype)
    {
        const uint64_t rows = 37, cols = quant_is(dtype) ? 768 : 767;
        uint8_t *stored = random_rows(dtype, rows, cols);
        uint64_t bytes = matrix_bytes(isa, act, dtype, rows, cols);
        assert_int_equal(bytes % 64, 0);
        uint8_t *memory[2];
        for (int i = 0; i < 2; i++) {
            struct matrix m;
            memory[i] = aligned_alloc(64, bytes);
            memset(memory[i], i ? 0xff : 0, bytes);
            assert_int_equal(matrix_place(&m, isa, act, dtype, rows, cols, memory[i]), 0);
            assert_int_equal(m.bytes, bytes);
            matrix_pack_tiles(&m, stored, i, matrix_tiles(&m));
            matrix_pack_tiles(&m, stored, 0, i);
            matrix_finish(&m); // leaves the memory to us
        }
        assert_memory_equal(memory[0], memory[1], bytes);
        free(memory[0]);
        free(memory[1]);
        free(stored);
    }
}

// An operand made for one matrix serves the other where it says so, and gives the same bits.
static void operands_are_shared(void **state)
{
    (void)state;
    enum { ROWS = 16, COLS = 256 };
    FOR_ALL(isa, act, dtype)
    {
        struct setup s, other;
        setup_init(&s, isa, act, dtype, ROWS, COLS);
        for (uint32_t d = 0; d < SV_DTYPES; d++) {
            setup_init(&other, isa, act, d, ROWS, COLS);
            bool same = matrix_same_operand(&s.m, &other.m);
            assert_true(same || d != dtype);
            assert_true(!same || matrix_operand_bytes(&s.m) == matrix_operand_bytes(&other.m));
            if (same) {
                matrix_operand(&other.m, s.x, other.operands);
                matrix_mul(&s.m, other.operands, 1, 0, 1, other.y, ROWS);
                matrix_mul(&s.m, s.operands, 1, 0, 1, s.y, ROWS);
                assert_memory_equal(other.y, s.y, ROWS * sizeof(float));
            }
            setup_finish(&other);
        }
        setup_init(&other, isa, act, dtype, ROWS, 2 * COLS);
        assert_false(matrix_same_operand(&s.m, &other.m));
        setup_finish(&other);
        setup_finish(&s);
    }
}

// Columns that fill no vector; floats alone have them.
static void odd_columns(void **state)
{
    (void)state;
    for (enum isa isa = 0; isa < ISAS; isa++)
        for (uint32_t dtype = SV_F32; isa_here(isa) && dtype <= SV_BF16; dtype++)
            for (uint64_t cols = 1; cols < 70; cols += 1 + cols / 5) {
                struct setup s;
                setup_init(&s, isa, SV_ACT_AUTO, dtype, 19, cols);
                set_exact(&s);
                check_product(&s, 5);
                float row[70];
                matrix_row(&s.m, 18, row);
                assert_memory_equal(row, s.weights + 18 * cols, cols * sizeof(float));
                setup_finish(&s);
            }
}

// Zero, tiny, huge and broken activations.
static void extreme_activations(void **state)
{
    (void)state;
    enum { ROWS = 16, COLS = 256 };
    FOR_ALL(isa, act, dtype)
    {
        struct setup s;
        setup_init(&s, isa, act, dtype, ROWS, COLS);
        size_t bytes = matrix_operand_bytes(&s.m);
        static const float sizes[] = {0, 1e-45f, 1e-39f, 1e-30f, 1e20f, NAN, INFINITY};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            for (uint64_t k = 0; k < COLS; k++)
                s.x[k] = random_normal(&seed);
            for (uint64_t k = 64; k < 96; k++) // one block; a broken one has one broken number
                s.x[k] = isfinite(sizes[i]) ? sizes[i] : k == 77 ? sizes[i] : 1;
            matrix_operand(&s.m, s.x, s.operands);
            if (isfinite(sizes[i])) {
                set_exact(&s);
                check_product(&s, 1);
                continue;
            }
            matrix_mul(&s.m, s.operands, 1, 0, 1, s.y, ROWS);
            for (int r = 0; r < ROWS; r++)
                assert_false(isfinite(s.y[r]));
        }
        assert_true(bytes > 0);
        setup_finish(&s);
    }
}

// The largest integers of weights and activations, of one sign, in every place: where sums
// overflow.
static void largest_sums(void **state)
{
    (void)state;
    enum { ROWS = 16, COLS = 256 };
    static const float tops[] = {1, -1, 32384.0f / 32639,
                                 -32384.0f / 32639}; // the last: low = -128
    FOR_ALL(isa, act, dtype)
    {
        if (!quant_is(dtype))
            continue;
        struct setup s;
        setup_init(&s, isa, act, dtype, ROWS, COLS);
        for (int fill = 0; fill < 3; fill++) {
            static const uint8_t fills[] = {0xff, 0x80, 0x7f};
            fill_blocks(s.stored, dtype, (uint64_t)ROWS * COLS, fills[fill]);
            matrix_pack_tiles(&s.m, s.stored, 0, 1);
            dequant(dtype, s.stored, (size_t)ROWS * COLS, s.weights);
            for (size_t t = 0; t < 4; t++) {
                for (uint64_t k = 0; k < COLS; k++)
                    s.x[t * COLS + k] = k % 32 == 5 ? copysignf(1, tops[t]) : tops[t];
                matrix_operand(&s.m, s.x + t * COLS, s.operands + t * matrix_operand_bytes(&s.m));
            }
            set_exact(&s);
            check_product(&s, 4);
        }
        setup_finish(&s);
    }
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        uint32_t isa, act, dtype;
        uint64_t rows, cols;
    } rows[] = {
        {ISAS, SV_ACT_AUTO, SV_F32, 16, 32},
        {ISA_SCALAR, SV_ACT_INT8 + 1, SV_F32, 16, 32},
        {ISA_SCALAR, SV_ACT_AUTO, SV_DTYPES, 16, 32},
        {ISA_SCALAR, SV_ACT_AUTO, UINT32_MAX, 16, 32},
        {ISA_SCALAR, SV_ACT_AUTO, SV_F32, 0, 32},
        {ISA_SCALAR, SV_ACT_AUTO, SV_F32, 16, 0},
        {ISA_SCALAR, SV_ACT_AUTO, SV_Q4_0, 16, 33},
        {ISA_SCALAR, SV_ACT_AUTO, SV_Q8_0, 16, 48},
        {ISA_SCALAR, SV_ACT_AUTO, SV_Q4_K, 16, 128},
        {ISA_SCALAR, SV_ACT_AUTO, SV_Q6_K, 16, 576},
        {ISA_SCALAR, SV_ACT_AUTO, SV_F32, 16, MATRIX_COLS_MAX + 1ull},
        {ISA_SCALAR, SV_ACT_AUTO, SV_F32, MATRIX_ROWS_MAX + 1, 32},
        {ISA_SCALAR, SV_ACT_AUTO, SV_F32, UINT64_MAX, UINT64_MAX},
        {ISA_SCALAR, SV_ACT_AUTO, SV_BF16, UINT64_MAX / 2 + 1, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct matrix m = {.rows = 7};
        assert_int_equal(
            matrix_bytes(rows[i].isa, rows[i].act, rows[i].dtype, rows[i].rows, rows[i].cols), 0);
        assert_int_equal(matrix_pack(&m, rows[i].isa, rows[i].act, rows[i].dtype, NULL,
                                     rows[i].rows, rows[i].cols),
                         -400);
        assert_int_equal(m.rows, 7);
    }
#if !defined(__SANITIZE_ADDRESS__) // stops the program instead
    // Fits the limits, and no memory.
    struct matrix m;
    assert_int_equal(
        matrix_init(&m, ISA_SCALAR, SV_ACT_AUTO, SV_F32, MATRIX_ROWS_MAX, MATRIX_COLS_MAX), -507);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_double),
        cmocka_unit_test(same_bits_in_any_batch),
        cmocka_unit_test(rows_as_stored),
        cmocka_unit_test(odd_columns),
        cmocka_unit_test(extreme_activations),
        cmocka_unit_test(largest_sums),
        cmocka_unit_test(packs_every_byte),
        cmocka_unit_test(operands_are_shared),
        cmocka_unit_test(refuses),
    };
    for (enum isa isa = 0; isa < ISAS; isa++)
        if (!isa_here(isa))
            printf("no %s here\n", isa_name(isa));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
