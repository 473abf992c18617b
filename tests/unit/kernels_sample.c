// SPDX-License-Identifier: Apache-2.0
/*
 * The sampler against one that sorts, and against what it promises of its draws.
 */
#include "cpu/draw.h"
#include "kernels/world.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB_MAX = 60000, HISTORY = 64, LISTS = 40 };

static uint64_t seed = 99;

// A row and all it needs.
struct bench {
    const struct lanes *lanes;
    uint32_t vocab;
    float logits[VOCAB_MAX];
    int32_t history[HISTORY];
    uint32_t n_history;
    struct sampling s;
    struct sample_scratch t;
    struct oracle_choice choice[VOCAB_MAX];
    int32_t top_id[SV_TOP_MAX];
    float top_logprob[SV_TOP_MAX];
    struct sample_result out;
};

static struct bench *bench_create(const struct lanes *lanes)
{
    struct bench *b = calloc(1, sizeof *b);
    *b = (struct bench){.lanes = lanes};
    b->t.w = malloc(VOCAB_MAX * sizeof(float));
    b->t.id = malloc(VOCAB_MAX * sizeof(uint32_t));
    b->t.count = calloc(VOCAB_MAX, sizeof(uint32_t));
    b->t.most = malloc((VOCAB_MAX / 64 + 1) * sizeof(float));
    b->t.sum = malloc((VOCAB_MAX / CHUNK_IDS + 1) * sizeof(double));
    b->out.top_id = b->top_id;
    b->out.top_logprob = b->top_logprob;
    return b;
}

static void bench_destroy(struct bench *b)
{
    sampling_finish(&b->s);
    free(b->t.w);
    free(b->t.id);
    free(b->t.count);
    free(b->t.most);
    free(b->t.sum);
    free(b);
}

static sv_sampling plain(void)
{
    return (sv_sampling){.size = sizeof(sv_sampling), .top_p = 1, .repetition = 1};
}

static void set(struct bench *b, const sv_sampling *a)
{
    assert_int_equal(sampling_set(&b->s, a, b->vocab, HISTORY), 0);
}

static int32_t run(struct bench *b, int32_t want)
{
    const struct sample_row r = {b->lanes, b->logits, b->vocab, &b->s, b->history, b->n_history};
    sample(&r, want, &b->t, &b->out);
    for (uint32_t i = 0; i < b->n_history; i++)
        assert_int_equal(b->t.count[b->history[i]], 0);
    return b->out.token;
}

// The id that a share u of the whole falls on, ids ascending; -1: too near an edge to tell.
static int32_t inverse(struct bench *b, const sv_sampling *a, double u)
{
    static double p[VOCAB_MAX];
    oracle_sample(b->logits, b->vocab, a, b->history, b->n_history, b->choice);
    for (uint32_t i = 0; i < b->vocab; i++)
        p[b->choice[i].id] = b->choice[i].p;
    double sum = 0;
    for (uint32_t i = 0; i < b->vocab; i++) {
        if (p[i] > 0 && u < sum + p[i])
            return u - sum < 2e-6 || sum + p[i] - u < 2e-6 ? -1 : (int32_t)i;
        sum += p[i];
    }
    return -1;
}

static double share(uint64_t random)
{
    return (double)(random >> 11) * 0x1p-53;
}

static void fill_logits(struct bench *b, float size, bool ties)
{
    for (uint32_t i = 0; i < b->vocab; i++) {
        b->logits[i] = size * random_normal(&seed);
        if (ties)
            b->logits[i] = rintf(b->logits[i] * 2) / 2;
    }
}

// Every id that is kept is drawn by the shares of its interval, next to both edges.
static void check_set(struct bench *b, const sv_sampling *a)
{
    static double p[VOCAB_MAX];
    oracle_sample(b->logits, b->vocab, a, NULL, 0, b->choice);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < b->vocab; i++) {
        p[b->choice[i].id] = b->choice[i].p;
        kept += b->choice[i].p > 0;
    }
    double sum = 0, edge = 2e-6;
    uint32_t step = kept / 50 + 1, at = 0;
    for (uint32_t i = 0; i < b->vocab; i++) {
        double begin = sum, end = sum += p[i];
        if (p[i] < 3 * edge || at++ % step)
            continue;
        const double shares[] = {begin + edge, (begin + end) / 2, end - edge};
        for (int k = 0; k < 3; k++) {
            b->lanes->divide(b->logits, a->temperature, b->vocab, b->t.w);
            uint64_t random = (uint64_t)(shares[k] * 0x1p53) << 11;
            int32_t id =
                draw(b->lanes, &b->t, b->vocab, a, b->lanes->best(b->t.w, b->vocab), random);
            if (id == (int32_t)i)
                continue;
            print_error("vocab %u, T %g, top_k %u, top_p %g, min_p %g: %g gives %d, not %u of %u\n",
                        b->vocab, (double)a->temperature, a->top_k, (double)a->top_p,
                        (double)a->min_p, shares[k], id, i, kept);
            fail();
        }
    }
}

static void sets(const struct lanes *l)
{
    struct bench *b = bench_create(l);
    static const uint32_t vocabs[] = {1, 2, 17, 64, 65, 1000, 4097, 49152};
    for (uint32_t i = 0; i < world_cases(96); i++) {
        b->vocab = vocabs[i % 8];
        fill_logits(b, i % 3 ? 3 : 0.1f, i % 4 == 1);
        sv_sampling a = plain();
        a.temperature = i % 5 ? 0.8f : 1.7f;
        if (i & 1)
            a.top_k = 1 + random_below(&seed, i % 7 ? 60 : b->vocab + 3);
        if (i & 2)
            a.top_p = i % 6 ? 0.9f : 0.05f;
        if (i & 4)
            a.top_p = 0.9999f;
        if (i & 8)
            a.min_p = 0.02f;
        check_set(b, &a);
    }
    bench_destroy(b);
}

static void each_isa(void (*test)(const struct lanes *))
{
    for (enum isa isa = 0; isa < ISAS; isa++)
        if (world_tests(isa))
            test(lanes_of(isa));
}

static void thresholds_keep_the_sorted_set(void **state)
{
    (void)state;
    each_isa(sets);
}

static void random_ids(int32_t *id, uint32_t n, uint32_t vocab)
{
    for (uint32_t i = 0; i < n; i++)
        id[i] = (int32_t)random_below(&seed, vocab);
}

// Any mix of everything, as a row of a step is sampled.
static void mixes(const struct lanes *l)
{
    struct bench *b = bench_create(l);
    uint32_t told = 0;
    for (uint32_t i = 0; i < world_cases(3000); i++) {
        b->vocab = 3 + random_below(&seed, i % 10 ? 60 : 3000);
        fill_logits(b, 2, i % 3 == 0);
        int32_t list[4][LISTS];
        float bias[LISTS];
        for (int k = 0; k < 4; k++)
            random_ids(list[k], LISTS, b->vocab);
        for (int k = 0; k < LISTS; k++)
            bias[k] = k % 5 ? 3 * random_normal(&seed) : -INFINITY;
        b->n_history = random_below(&seed, HISTORY + 1);
        random_ids(b->history, b->n_history, b->vocab);
        int32_t bad[] = {1, list[3][0], 2, list[3][1], list[3][2], 3, 0, 0, 0};
        if (b->n_history > 2) // what would be said now
            memcpy(bad + 6, b->history + b->n_history - 2, 8);
        bad[8] = list[3][3];
        sv_sampling a = plain();
        a.seed = i * UINT64_C(0x9e3779b97f4a7c15);
        a.history = b->history;
        a.n_history = b->n_history;
        a.prompt_len = random_below(&seed, b->n_history + 1);
        const uint32_t on = random_u32(&seed);
        a.temperature = on & 1 ? 0.9f : 0;
        a.top_k = on & 2 ? 1 + random_below(&seed, b->vocab) : 0;
        a.top_p = on & 4 ? 0.8f : 1;
        a.min_p = on & 8 ? 0.1f : 0;
        a.repetition = on & 16 ? 1.3f : 1;
        a.frequency = on & 32 ? 0.4f : 0;
        a.presence = on & 64 ? -0.3f : 0;
        a.stop = list[0];
        a.n_stop = on & 128 ? 3 : 0;
        a.min_tokens = random_below(&seed, HISTORY);
        a.bias_id = list[1];
        a.bias = bias;
        a.n_bias = on & 256 ? 12 : 0;
        a.allowed = list[2];
        a.n_allowed = on & 512 ? 20 : 0;
        a.bad = bad;
        a.n_bad = on & 1024 ? 9 : 0;
        set(b, &a);
        double u = share(sample_random(a.seed, a.n_history - a.prompt_len));
        int32_t want = inverse(b, &a, u), have = run(b, SV_DRAW);
        bool none = b->choice[0].p == 0, tell = want >= 0 || none; // none: every id is banned
        told += tell;
        if (tell && want != have) {
            print_error("case %u (%x): %d, not %d\n", i, on, have, want);
            fail();
        }
    }
    assert_true(told > world_cases(2500));
    bench_destroy(b);
}

static void mixes_are_the_oracles(void **state)
{
    (void)state;
    each_isa(mixes);
}

// One row is one test: ten ids with falling logits 5, 4.5, 4 ... and what is chosen greedily.
static const struct {
    const char *name;
    int32_t stop[2], bad[6], allowed[3], bias_id;
    float bias, repetition, frequency, presence;
    uint32_t n_stop, n_bad, n_allowed, min_tokens, prompt_len, n_history;
    int32_t history[4];
    int32_t want;
} rows[] = {
    {.name = "nothing", .want = 0},
    {.name = "stop ids before min_tokens", .stop = {0, 1}, .n_stop = 2, .min_tokens = 1, .want = 2},
    {.name = "stop ids once there are enough",
     .stop = {0},
     .n_stop = 1,
     .min_tokens = 2,
     .n_history = 3,
     .prompt_len = 1,
     .want = 0},
    {.name = "stop ids with one too few",
     .stop = {0},
     .n_stop = 1,
     .min_tokens = 3,
     .n_history = 3,
     .prompt_len = 1,
     .want = 1},
    {.name = "a bad word of one id", .bad = {1, 0}, .n_bad = 2, .want = 1},
    {.name = "a bad word of three",
     .bad = {3, 7, 8, 0},
     .n_bad = 4,
     .n_history = 3,
     .prompt_len = 1,
     .history = {5, 7, 8},
     .want = 1},
    {.name = "one that began in the prompt",
     .bad = {3, 7, 8, 0},
     .n_bad = 4,
     .n_history = 3,
     .prompt_len = 2,
     .history = {5, 7, 8},
     .want = 0},
    {.name = "one that was not said to the end",
     .bad = {3, 7, 8, 0},
     .n_bad = 4,
     .n_history = 3,
     .history = {7, 8, 5},
     .want = 0},
    {.name = "allowed ids", .allowed = {9, 4, 6}, .n_allowed = 3, .want = 4},
    {.name = "a bias", .bias_id = 3, .bias = 1.6f, .want = 3},
    {.name = "a ban", .bias_id = 0, .bias = -INFINITY, .want = 1},
    {.name = "repetition counts the prompt",
     .repetition = 2,
     .n_history = 1,
     .prompt_len = 1,
     .history = {0},
     .want = 1},
    {.name = "presence does not",
     .presence = 2,
     .n_history = 1,
     .prompt_len = 1,
     .history = {0},
     .want = 0},
    {.name = "presence", .presence = 0.6f, .n_history = 3, .history = {0, 0, 0}, .want = 1},
    {.name = "frequency, once", .frequency = 0.4f, .n_history = 1, .history = {0}, .want = 0},
    {.name = "frequency, twice", .frequency = 0.4f, .n_history = 2, .history = {0, 0}, .want = 1},
};

static void processors_one_by_one(void **state)
{
    (void)state;
    struct bench *b = bench_create(lanes_of(isa_best()));
    b->vocab = 10;
    for (uint32_t i = 0; i < 10; i++)
        b->logits[i] = 5 - 0.5f * (float)i;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sv_sampling a = plain();
        a.stop = rows[i].stop;
        a.n_stop = rows[i].n_stop;
        a.min_tokens = rows[i].min_tokens;
        a.bad = rows[i].bad;
        a.n_bad = rows[i].n_bad;
        a.allowed = rows[i].allowed;
        a.n_allowed = rows[i].n_allowed;
        a.bias_id = &rows[i].bias_id;
        a.bias = &rows[i].bias;
        a.n_bias = rows[i].bias != 0;
        a.repetition = rows[i].repetition > 0 ? rows[i].repetition : 1;
        a.frequency = rows[i].frequency;
        a.presence = rows[i].presence;
        a.history = rows[i].history;
        a.n_history = b->n_history = rows[i].n_history;
        a.prompt_len = rows[i].prompt_len;
        memcpy(b->history, rows[i].history, sizeof rows[i].history);
        set(b, &a);
        if (run(b, SV_DRAW) != rows[i].want) {
            print_error("%s: %d, not %d\n", rows[i].name, b->out.token, rows[i].want);
            fail();
        }
    }
    bench_destroy(b);
}

// 10^6 draws of a hundred ids: chi-square of 99 degrees; 180 is beyond 1 - 10^-6.
static void draws_are_distributed(void **state)
{
    (void)state;
    enum { IDS = 100 };
    const uint32_t draws = world_cases(1000000);
    struct bench *b = bench_create(lanes_of(isa_best()));
    b->vocab = IDS;
    fill_logits(b, 1, false);
    sv_sampling a = plain();
    a.temperature = 1.3f;
    a.seed = 42;
    oracle_sample(b->logits, IDS, &a, NULL, 0, b->choice);
    static uint32_t count[IDS];
    b->lanes->divide(b->logits, a.temperature, IDS, b->t.w);
    struct lanes_best best = b->lanes->best(b->t.w, IDS);
    for (uint64_t i = 0; i < draws; i++) {
        b->lanes->divide(b->logits, a.temperature, IDS, b->t.w);
        count[draw(b->lanes, &b->t, IDS, &a, best, sample_random(a.seed, i))]++;
    }
    double chi = 0;
    for (uint32_t i = 0; i < IDS; i++) {
        double want = b->choice[i].p * draws, off = count[b->choice[i].id] - want;
        chi += off * off / want;
    }
    assert_true(chi > 40 && chi < 180);
    bench_destroy(b);
}

// Random123's kat_vectors, philox4x32 10: a counter and a key of zeros.
static void random_numbers_are_philox(void **state)
{
    (void)state;
    assert_true(sample_random(0, 0) == UINT64_C(0xe169c58d6627e8d5));
    assert_true(sample_random(1, 0) != sample_random(0, 0));
    assert_true(sample_random(UINT64_C(1) << 40, 0) != sample_random(0, 0));
    assert_true(sample_random(0, 1) != sample_random(0, 0));
}

static void draws_repeat(void **state)
{
    (void)state;
    struct bench *a = bench_create(lanes_of(isa_best())), *b = bench_create(lanes_of(isa_best()));
    a->vocab = b->vocab = 5000;
    fill_logits(a, 2, false);
    memcpy(b->logits, a->logits, sizeof a->logits);
    uint32_t differ = 0;
    for (uint32_t i = 0; i < 50; i++) {
        sv_sampling s = plain();
        s.temperature = 1;
        s.top_p = i % 2 ? 0.9f : 1;
        s.seed = i;
        set(a, &s);
        set(b, &s);
        int32_t first = run(a, SV_DRAW);
        memset(b->t.w, 0xff, 5000 * sizeof *b->t.w); // what was in the scratch is nobody's business
        assert_int_equal(run(b, SV_DRAW), first);
        a->n_history = 1; // the next token
        differ += run(a, SV_DRAW) != first;
        a->n_history = 0;
    }
    assert_true(differ > 40);
    bench_destroy(a);
    bench_destroy(b);
}

static void near(float have, double want)
{
    assert_true(fabs((double)have - want) < 1e-6 + 2e-7 * fabs(want));
}

static void logprobs(const struct lanes *l)
{
    struct bench *b = bench_create(l);
    for (uint32_t i = 0; i < 40; i++) {
        b->vocab = i % 4 ? 5 + random_below(&seed, 40000) : 7;
        fill_logits(b, 4, i % 3 == 0);
        sv_sampling a = plain();
        a.logprobs = 1 + random_below(&seed, SV_TOP_MAX + 1);
        float bias = -5; // they are of the raw logits
        a.bias_id = &(int32_t){0};
        a.bias = &bias;
        a.n_bias = 1;
        set(b, &a);
        int32_t id = (int32_t)random_below(&seed, b->vocab), rank = 1;
        assert_int_equal(run(b, id), id);
        for (uint32_t j = 0; j < b->vocab; j++)
            rank += b->logits[j] > b->logits[id];
        assert_int_equal(b->out.rank, rank);
        near(b->out.logprob, oracle_logprob(b->logits, b->vocab, id));
        const sv_sampling none = plain();
        oracle_sample(b->logits, b->vocab, &none, NULL, 0, b->choice);
        uint32_t k = a.logprobs - 1 < b->vocab ? a.logprobs - 1 : b->vocab;
        assert_int_equal(b->out.n_top, k);
        for (uint32_t j = 0; j < k; j++) {
            assert_int_equal(b->top_id[j], b->choice[j].id);
            near(b->top_logprob[j], oracle_logprob(b->logits, b->vocab, b->top_id[j]));
        }
    }
    bench_destroy(b);
}

static void logprobs_are_of_the_raw_logits(void **state)
{
    (void)state;
    each_isa(logprobs);
}

static void what_cannot_be_drawn(void **state)
{
    (void)state;
    struct bench *b = bench_create(lanes_of(isa_best()));
    b->vocab = 100;
    static const float poison[] = {NAN, INFINITY, -INFINITY};
    for (uint32_t i = 0; i < 6; i++) {
        fill_logits(b, 1, false);
        sv_sampling a = plain();
        a.temperature = i % 2 ? 1 : 0;
        a.logprobs = 3;
        set(b, &a);
        assert_true(run(b, SV_DRAW) >= 0);
        b->logits[i * 19] = poison[i / 2];
        assert_int_equal(run(b, SV_DRAW), -1);
        assert_int_equal(run(b, 5), -1);
    }
    fill_logits(b, 1, false);
    sv_sampling a = plain();
    float ban = -INFINITY; // all that is allowed is banned as well
    a.allowed = a.bias_id = &(int32_t){9};
    a.bias = &ban;
    a.n_allowed = a.n_bias = 1;
    for (int i = 0; i < 2; i++) {
        a.temperature = (float)i;
        set(b, &a);
        assert_int_equal(run(b, SV_DRAW), -1);
    }
    bench_destroy(b);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    enum { CASES = 16 };
    struct sampling s = {.lists = NULL};
    int32_t ids[] = {3, 4, 5}, above = 10, bad[] = {3, 1, 2};
    float bias = NAN;
    for (int i = 0; i < CASES; i++) {
        sv_sampling a = plain();
        a.history = ids;
        a.n_history = 3;
        sv_sampling good = a;
        assert_int_equal(sampling_set(&s, &good, 10, 3), 0);
        switch (i) {
        case 0:
            a.size = 8;
            break;
        case 1:
            a.temperature = -1;
            break;
        case 2:
            a.temperature = NAN;
            break;
        case 3:
            a.top_p = NAN;
            break;
        case 4:
            a.min_p = 2;
            break;
        case 5:
            a.repetition = 0;
            break;
        case 6:
            a.frequency = INFINITY;
            break;
        case 7:
            a.logprobs = SV_TOP_MAX + 2;
            break;
        case 8:
            a.n_history = 4;
            break;
        case 9:
            a.prompt_len = 4;
            break;
        case 10:
            a.stop = &above;
            a.n_stop = 1;
            break;
        case 11:
            a.allowed = &above;
            a.n_allowed = 1;
            break;
        case 12:
            a.bad = bad;
            a.n_bad = 3;
            break;
        case 13:
            a.bias_id = ids;
            a.bias = &bias;
            a.n_bias = 1;
            break;
        case 14:
            a.history = &above;
            a.n_history = 1;
            break;
        default:
            a.presence = NAN;
        }
        if (sampling_set(&s, &a, 10, 3) != -400) {
            print_error("case %d was taken\n", i);
            fail();
        }
    }
    sampling_finish(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_keep_the_sorted_set),
        cmocka_unit_test(mixes_are_the_oracles),
        cmocka_unit_test(processors_one_by_one),
        cmocka_unit_test(draws_are_distributed),
        cmocka_unit_test(random_numbers_are_philox),
        cmocka_unit_test(draws_repeat),
        cmocka_unit_test(logprobs_are_of_the_raw_logits),
        cmocka_unit_test(what_cannot_be_drawn),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
