// SPDX-License-Identifier: Apache-2.0
/*
 * What is done on vectors of floats, for every instruction set here, against sums in double.
 */
#include "cpu/lanes.h"

#include "cpu/half.h"
#include "kernels/world.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 1100 };

static uint64_t seed = 5;

static void fill(float *x, size_t n, float size)
{
    for (size_t i = 0; i < n; i++)
        x[i] = size * random_normal(&seed);
}

static void near(float have, double want, double bound, const char *what, size_t i)
{
    if (fabs((double)have - want) <= bound)
        return;
    print_error("%s: element %zu is %.9g, not %.9g\n", what, i, (double)have, want);
    fail();
}

static void each_isa(void (*test)(const struct lanes *))
{
    for (enum isa isa = 0; isa < ISAS; isa++)
        if (world_tests(isa))
            test(lanes_of(isa));
}

static const size_t sizes[] = {1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 80, 576, 1000, N};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void norms(const struct lanes *l)
{
    float x[N], w[N], out[N];
    for (size_t s = 0; s < SIZES; s++) {
        size_t n = sizes[s];
        fill(x, n, 3);
        fill(w, n, 1);
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)x[i];
        double by = 1 / sqrt(sum / (double)n + 1e-5);
        l->norm(x, w, 1e-5f, 1, n, out);
        for (size_t i = 0; i < n; i++) {
            double want = (double)x[i] * by * ((double)w[i] + 1);
            near(out[i], want, 1e-6 * (1 + fabs(want)), "norm", i);
        }
        l->norm(x, w, 1e-5f, 1, n, x);
        assert_memory_equal(x, out, n * sizeof *x);
    }
}

static void test_norm(void **state)
{
    (void)state;
    each_isa(norms);
}

static void rotations(const struct lanes *l)
{
    float x[2 * N], h[2 * N], p[2 * N], c[N], s[N];
    for (size_t k = 0; k < SIZES; k++) {
        size_t half = sizes[k];
        fill(x, 2 * half, 2);
        for (size_t i = 0; i < half; i++) {
            c[i] = cosf((float)i);
            s[i] = sinf((float)i);
        }
        memcpy(h, x, sizeof x);
        memcpy(p, x, sizeof x);
        l->rope_half(h, c, s, half);
        l->rope_pairs(p, c, s, half);
        for (size_t i = 0; i < half; i++) {
            double ci = (double)c[i], si = (double)s[i];
            double a = (double)x[i], b = (double)x[i + half];
            near(h[i], a * ci - b * si, 2e-6, "half", i);
            near(h[i + half], b * ci + a * si, 2e-6, "half", i + half);
            a = (double)x[2 * i];
            b = (double)x[2 * i + 1];
            near(p[2 * i], a * ci - b * si, 2e-6, "pairs", 2 * i);
            near(p[2 * i + 1], b * ci + a * si, 2e-6, "pairs", 2 * i + 1);
        }
    }
}

static void test_rotations(void **state)
{
    (void)state;
    each_isa(rotations);
}

static void activations(const struct lanes *l)
{
    float g[N], u[N], a[N], b[N];
    for (size_t k = 0; k < SIZES; k++) {
        size_t n = sizes[k];
        fill(g, n, k % 2 ? 30 : 3);
        fill(u, n, 1);
        memcpy(a, g, sizeof g);
        memcpy(b, g, sizeof g);
        l->silu(a, u, n);
        l->gelu(b, u, n);
        for (size_t i = 0; i < n; i++) {
            double x = (double)g[i], y = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
            double silu = x / (1 + exp(-x)) * (double)u[i];
            double gelu = 0.5 * x * (1 + tanh(y)) * (double)u[i];
            near(a[i], silu, 1e-6 * (1e-3 + fabs(silu)), "silu", i);
            near(b[i], gelu, 3e-6 * (1e-1 + fabs(gelu)), "gelu", i);
        }
    }
    float nan[3] = {NAN, INFINITY, -200}, one[3] = {1, 1, 1};
    l->silu(nan, one, 3);
    assert_true(isnan(nan[0]) && isinf(nan[1]) && fabsf(nan[2]) < 1e-30f);
}

static void test_activations(void **state)
{
    (void)state;
    each_isa(activations);
}

// exp over all of its range, to two units in the last place.
static void exps(const struct lanes *l)
{
    enum { STEPS = 200000 };
    float *x = malloc(STEPS * sizeof *x), *w = malloc(STEPS * sizeof *x);
    double sums[STEPS / CHUNK_IDS + 1], total = 0, wanted = 0;
    for (int i = 0; i < STEPS; i++)
        w[i] = x[i] = -90 * (float)i / STEPS;
    l->weights(w, STEPS, 0, -INFINITY, 0, sums);
    for (size_t i = 0; i < STEPS; i++) {
        double want = x[i] < -87.33f ? 0 : exp((double)x[i]);
        near(w[i], want, want * 0x1p-22, "exp", i);
        wanted += want;
    }
    for (size_t i = 0; i < STEPS / CHUNK_IDS + 1; i++)
        total += sums[i];
    assert_true(fabs(total - wanted) < 1e-6 * wanted);
    assert_true(fabs(l->exp_sum(x, STEPS, 0) - wanted) < 1e-6 * wanted);
    assert_true(w[0] == 1);
    float few[5] = {0, -1, -2, -3, -INFINITY};
    l->weights(few, 5, 0, -2, 0.3f, sums);
    assert_true(few[1] > 0 && few[2] == 0 && few[3] == 0 && few[4] == 0);
    free(x);
    free(w);
}

static void test_exp(void **state)
{
    (void)state;
    each_isa(exps);
}

static void halves(const struct lanes *l)
{
    enum { ALL = 1 << 16 };
    uint16_t *h = malloc(ALL * 2), *back = malloc(ALL * 2);
    float *f = malloc((ALL + N) * sizeof *f);
    for (uint32_t i = 0; i < ALL; i++)
        h[i] = (uint16_t)i;
    for (uint32_t dtype = SV_F16; dtype <= SV_BF16; dtype++) {
        l->widen(dtype, h, ALL, f);
        for (uint32_t i = 0; i < ALL; i++) {
            float want = dtype == SV_F16 ? half_f16_f32(h[i]) : half_bf16_f32(h[i]);
            assert_memory_equal(&f[i], &want, 4);
        }
        fill(f, N, 1e-5f); // f16: subnormal ones as well
        fill(f + N / 2, N / 2, 40000);
        f[3] = INFINITY;
        f[5] = -0.0f;
        l->narrow(dtype, f, N, back);
        for (uint32_t i = 0; i < N; i++)
            assert_int_equal(back[i], dtype == SV_F16 ? half_f32_f16(f[i]) : half_f32_bf16(f[i]));
    }
    free(h);
    free(back);
    free(f);
}

static void test_halves(void **state)
{
    (void)state;
    each_isa(halves);
}

struct attention {
    uint32_t rows, dim, dtype;
    uint16_t half[2][4 * 16 * 256]; // k, v as they are stored

    float q[40 * 256], k[4 * 16 * 256], v[4 * 16 * 256], out[40 * 256], p[40 * UNIT_KEYS];
    float most[40], sum[40];
    uint8_t lo[40], hi[40];
};

static struct unit unit_of(struct attention *a)
{
    struct unit u = {.rows = a->rows,
                     .head_dim = a->dim,
                     .dtype = a->dtype,
                     .scale = 0.3f,
                     .q = a->q,
                     .lo = a->lo,
                     .hi = a->hi,
                     .most = a->most,
                     .sum = a->sum,
                     .out = a->out,
                     .p = a->p};
    for (uint32_t b = 0; b < UNIT_BLOCKS; b++) {
        size_t at = (size_t)b * 16 * a->dim;
        u.k[b] = a->dtype ? (const void *)(a->half[0] + at) : a->k + at;
        u.v[b] = a->dtype ? (const void *)(a->half[1] + at) : a->v + at;
    }
    return u;
}

static void begin(struct attention *a)
{
    for (uint32_t r = 0; r < a->rows; r++) {
        a->most[r] = -INFINITY;
        a->sum[r] = 0;
    }
    memset(a->out, 0, sizeof a->out);
}

static void check_row(const struct attention *a, uint32_t r)
{
    double p[UNIT_KEYS] = {0}, sum = 0;
    for (uint32_t j = a->lo[r]; j < a->hi[r]; j++) {
        for (uint32_t d = 0; d < a->dim; d++)
            p[j] +=
                (double)a->q[r * a->dim + d] * (double)a->k[(j / 16 * a->dim + d) * 16 + j % 16];
        sum += p[j] = exp((double)0.3f * p[j]);
    }
    for (uint32_t d = 0; d < a->dim; d++) {
        double want = 0;
        for (uint32_t j = a->lo[r]; j < a->hi[r]; j++)
            want += p[j] / sum * (double)a->v[j * a->dim + d];
        if (a->lo[r] < a->hi[r])
            near(a->out[r * a->dim + d] / a->sum[r], want, 2e-5, "attend", d);
        else
            assert_true(a->out[r * a->dim + d] == 0);
    }
}

// K and V as the cache has them; what they are then is what is checked against.
static void store(struct attention *a)
{
    float *const f[] = {a->k, a->v};
    for (uint32_t i = 0; i < 2 * 64 * a->dim && a->dtype; i++) {
        float *x = &f[i % 2][i / 2];
        uint16_t *h = &a->half[i % 2][i / 2];
        *h = a->dtype == SV_F16 ? half_f32_f16(*x) : half_f32_bf16(*x);
        *x = a->dtype == SV_F16 ? half_f16_f32(*h) : half_bf16_f32(*h);
    }
}

// Rows of all kinds of ranges; keys out of range are NaN and infinity, and nobody notices.
static void units(const struct lanes *l)
{
    static const uint32_t dims[] = {2, 6, 8, 20, 64, 80, 96, 128, 256};
    struct attention *a = malloc(sizeof *a);
    for (uint32_t i = 0; i < 90; i++) {
        a->dim = dims[i % 9];
        a->rows = 1 + random_below(&seed, 40);
        fill(a->q, (size_t)a->rows * a->dim, 1);
        fill(a->k, (size_t)64 * a->dim, 1);
        fill(a->v, (size_t)64 * a->dim, 1);
        uint8_t top = (uint8_t)(1 + random_below(&seed, 64)), low = 0;
        for (uint32_t r = 0; r < a->rows; r++) {
            if (random_below(&seed, 3) == 0)
                low = (uint8_t)random_below(&seed, top);
            a->lo[r] = i % 3 ? low : 0;
            a->hi[r] = i % 5 ? (uint8_t)(a->lo[r] + random_below(&seed, top - a->lo[r] + 1u)) : top;
        }
        for (uint32_t j = top; j < 64; j++)
            for (uint32_t d = 0; d < a->dim; d++) {
                a->k[(j / 16 * a->dim + d) * 16 + j % 16] = j % 2 ? NAN : INFINITY;
                a->v[j * a->dim + d] = NAN;
            }
        a->dtype = i / 9 % 3;
        store(a);
        begin(a);
        struct unit u = unit_of(a);
        l->unit(&u);
        for (uint32_t r = 0; r < a->rows; r++)
            check_row(a, r);
    }
    free(a);
}

static void test_units(void **state)
{
    (void)state;
    each_isa(units);
}

// Rows together, and each alone: the same bits.
static void rows_alone(const struct lanes *l)
{
    struct attention *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    for (uint32_t i = 0; i < 20; i++) {
        a->dim = i % 2 ? 64 : 80;
        a->rows = 1 + i;
        fill(a->q, (size_t)a->rows * a->dim, 1);
        fill(a->k, (size_t)64 * a->dim, 1);
        fill(a->v, (size_t)64 * a->dim, 1);
        for (uint32_t r = 0; r < a->rows; r++) {
            a->lo[r] = 0;
            a->hi[r] = (uint8_t)(40 + r / 3);
        }
        *b = *a;
        begin(a);
        struct unit u = unit_of(a);
        l->unit(&u);
        l->unit(&u); // a second one, on top of the state of the first
        begin(b);
        for (uint32_t r = 0; r < a->rows; r++) {
            u = unit_of(b);
            u.rows = 1;
            u.q += r * a->dim;
            u.lo += r;
            u.hi += r;
            u.most += r;
            u.sum += r;
            u.out += r * a->dim;
            l->unit(&u);
            l->unit(&u);
        }
        assert_memory_equal(a->out, b->out, (size_t)a->rows * a->dim * 4);
        assert_memory_equal(a->sum, b->sum, a->rows * 4);
    }
    free(a);
    free(b);
}

static void test_rows_alone(void **state)
{
    (void)state;
    each_isa(rows_alone);
}

static void folds(const struct lanes *l)
{
    float a[80], b[80], most = 3, sum = 2;
    double want[80], wa = exp(3 - 4.5), wb = 1;
    fill(a, 80, 1);
    fill(b, 80, 1);
    for (size_t i = 0; i < 80; i++)
        want[i] = (double)a[i] * wa + (double)b[i] * wb;
    l->fold(&most, &sum, a, 4.5f, 7, b, 80);
    assert_true(most == 4.5f);
    near(sum, 2 * wa + 7, 1e-6, "sum", 0);
    for (size_t i = 0; i < 80; i++)
        near(a[i], want[i], 1e-6, "fold", i);
    // Into what has seen nothing: the other state as it is.
    float none[80] = {0};
    most = -INFINITY;
    sum = 0;
    l->fold(&most, &sum, none, 4.5f, 7, b, 80);
    assert_true(most == 4.5f && sum == 7);
    assert_memory_equal(none, b, sizeof b);
}

static void test_fold(void **state)
{
    (void)state;
    each_isa(folds);
}

static void logits(const struct lanes *l)
{
    enum { MANY = 5000 };
    static float x[MANY], y[MANY], most[MANY / 64 + 1];
    uint32_t id[MANY];
    for (uint32_t i = 0; i < 60; i++) {
        size_t n = 1 + random_below(&seed, i % 2 ? 100 : MANY);
        for (size_t j = 0; j < n; j++) // many equal ones
            x[j] = rintf(8 * random_normal(&seed)) / 4;
        size_t best = 0, above = 0, found = 0;
        for (size_t j = 0; j < n; j++) {
            best = x[j] > x[best] ? j : best;
            above += x[j] > 1;
        }
        struct lanes_best b = l->best(x, n);
        assert_true(b.id == (int32_t)best && b.value == x[best] && b.finite);
        assert_int_equal(l->count_above(x, n, 1), above);
        size_t have = l->find(x, n, 1, 2, id, MANY);
        double sum = 0;
        for (size_t j = 0; j < n; j++) {
            sum += x[j] >= 1 ? (double)x[j] : 0;
            if (x[j] >= 1 && x[j] < 2)
                assert_true(found < have && id[found++] == j);
        }
        assert_int_equal(found, have);
        assert_true(l->sum_from(x, n, 1) == sum); // quarters add up without a rounding
        memcpy(y, x, n * sizeof *x);
        double sums[MANY / CHUNK_IDS + 1], total = 0;
        l->keep_from(y, n, 1, sums);
        for (size_t j = 0; j < n; j++)
            assert_true(y[j] == (x[j] >= 1 ? x[j] : 0));
        for (size_t j = 0; j < n; j += CHUNK_IDS)
            total += sums[j / CHUNK_IDS];
        assert_true(total == sum);
        l->most64(x, n, most);
        for (size_t j = 0; j < n; j++)
            assert_true(x[j] <= most[j / 64]);
        l->divide(x, 0.7f, n, y);
        for (size_t j = 0; j < n; j++)
            assert_true(y[j] == x[j] / 0.7f);
        x[random_below(&seed, (uint32_t)n)] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
        assert_false(l->best(x, n).finite);
    }
}

static void test_logits(void **state)
{
    (void)state;
    each_isa(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),        cmocka_unit_test(test_rotations),
        cmocka_unit_test(test_activations), cmocka_unit_test(test_exp),
        cmocka_unit_test(test_halves),      cmocka_unit_test(test_units),
        cmocka_unit_test(test_rows_alone),  cmocka_unit_test(test_fold),
        cmocka_unit_test(test_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
