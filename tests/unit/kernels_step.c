// SPDX-License-Identifier: Apache-2.0
/*
 * Whole steps of random models: against the oracle, bit-equal however they are cut, and refused
 * when a batch makes no sense.
 */
#include "kernels/world.h"

#include "cpu/isa.h"
#include "cpu/session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};

static bool here(const char *isa)
{
    return world_tests((enum isa)isa_find(isa));
}

static const struct {
    const char *name;
    struct oracle_shape s;
} shapes[] = {
    // layers d_model heads kv dim d_ff vocab window style dims base scale eps offset embed
    {"llama", {2, 96, 6, 2, 16, 160, 301, 0, 1, 16, 10000, 1, 1e-5f, 0, 1, false, false, 0}},
    {"pairs", {2, 64, 9, 3, 64, 96, 97, 0, 2, 64, 1e5f, 1, 1e-5f, 0, 1, false, false, 0}},
    {"group of 8", {1, 32, 8, 1, 80, 64, 64, 0, 1, 80, 10000, 1.2f, 1e-6f, 0, 1, true, true, 0}},
    {"window", {2, 64, 4, 4, 128, 64, 129, 37, 1, 128, 1e6f, 1, 1e-6f, 0, 1, true, false, 0}},
    {"gemma", {2, 64, 2, 1, 256, 96, 50, 20, 1, 64, 10000, 1, 1e-6f, 1, 8, false, false, 1}},
    {"odd heads", {2, 32, 5, 5, 8, 64, 33, 0, 1, 4, 100, 1, 1e-5f, 0, 1, false, true, 0}},
    {"no rope", {1, 64, 40, 1, 6, 32, 40, 65, 0, 0, 1, 1, 1e-5f, 0, 1, false, false, 0}},
};
// An emulator takes long for the oracle; every window is shorter than this, too.
#if defined(__aarch64__)
enum { SHAPES = sizeof shapes / sizeof *shapes, LONG = 80 };
#else
enum { SHAPES = sizeof shapes / sizeof *shapes, LONG = 150 };
#endif

static void random_tokens(uint64_t seed, uint32_t vocab, int32_t *token, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        token[i] = (int32_t)random_below(&seed, vocab);
}

static struct world_options options(uint32_t shape, const char *isa, uint32_t threads)
{
    return (struct world_options){
        .shape = shapes[shape].s, .isa = isa, .threads = threads, .seed = 77 + shape};
}

// All rows of a sequence that is computed in chunks of `chunk` tokens.
static void run_chunks(struct world *w, uint32_t slot, const int32_t *token, uint32_t n,
                       uint32_t chunk, float *logits)
{
    uint32_t vocab = w->o.shape.vocab;
    for (uint32_t i = 0; i < n; i += chunk) {
        uint32_t len = n - i < chunk ? n - i : chunk;
        const struct world_part p = {
            .slot = slot, .token = token + i, .n = len, .pos = i, .all_rows = true};
        world_collect(w, world_launch(w, &p, 1));
        for (uint32_t r = 0; r < len; r++)
            assert_int_equal(w->k->logits(w->session, r, logits + (size_t)(i + r) * vocab), 0);
    }
}

static void check_oracle(const struct world_options *o, const char *name, double bound)
{
    struct world w;
    world_open(&w, o);
    uint32_t vocab = o->shape.vocab;
    int32_t token[LONG];
    random_tokens(5, vocab, token, LONG);
    double *want = calloc((size_t)LONG * vocab, sizeof *want);
    float *have = calloc((size_t)LONG * vocab, sizeof *have);
    oracle_logits(&w.model, token, LONG, want);
    run_chunks(&w, 1, token, LONG, 64, have);
    double off = world_error(have, want, (size_t)LONG * vocab);
    if (!(off < bound)) {
        print_error("%s, %s: %g is off by more than %g\n", name, o->isa, off, bound);
        fail();
    }
    free(want);
    free(have);
    world_close(&w);
}

static void logits_are_the_oracles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (uint32_t s = 0; s < SHAPES && here(sets[i]); s++) {
            struct world_options o = options(s, sets[i], 1 + s % 3);
            check_oracle(&o, shapes[s].name, 2e-5);
        }
}

static void types_of_weights_and_cache(void **state)
{
    (void)state;
    static const struct {
        struct world_types t;
        uint32_t kv_dtype, activations;
        double bound;
    } rows[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0}, SV_F16, SV_ACT_AUTO, 4e-3},
        {{0, 0, 0, 0, 0, 0, 0, 0}, SV_BF16, SV_ACT_AUTO, 4e-2},
        {{SV_Q8_0, SV_Q4_1, SV_Q4_1, SV_Q4_1, SV_Q4_1, SV_Q4_1, SV_Q4_1, SV_Q4_1},
         SV_F32,
         SV_ACT_AUTO,
         2e-3},
        {{SV_F16, SV_Q4_0, SV_Q8_0, SV_Q5_1, SV_BF16, SV_Q8_0, SV_F16, SV_Q5_0},
         SV_F32,
         SV_ACT_AUTO,
         2e-3},
        {{SV_BF16, SV_Q8_0, SV_Q4_1, SV_Q8_0, SV_Q4_0, SV_F32, SV_Q8_0, SV_F32},
         SV_F32,
         SV_ACT_F32,
         5e-5},
        {{SV_Q8_0, SV_Q8_0, SV_Q8_0, SV_Q8_0, SV_Q8_0, SV_Q8_0, SV_Q8_0, SV_Q8_0},
         SV_F32,
         SV_ACT_INT8,
         0.2},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows && here(sets[i]); r++) {
            struct world_options o = options(1, sets[i], 2);
            o.types = rows[r].t;
            o.kv_dtype = rows[r].kv_dtype;
            o.activations = rows[r].activations;
            check_oracle(&o, "types", rows[r].bound);
        }
}

// Long enough that single tokens are split over segments.
enum { FAR = 290 };

static void cutting_changes_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (uint32_t s = 0; s < SHAPES && here(sets[i]); s++) {
            uint32_t vocab = shapes[s].s.vocab, last = 0;
            int32_t token[FAR];
            random_tokens(9, vocab, token, FAR);
            size_t bytes = (size_t)FAR * vocab * sizeof(float);
            float *first = calloc(1, bytes), *have = calloc(1, bytes);
            static const struct {
                uint32_t threads, chunk;
            } ways[] = {{1, 64}, {2, 1}, {4, 3}, {3, 7}, {4, 64}, {1, 1}};
            uint32_t n_ways = world_ways(sizeof ways / sizeof *ways);
            for (size_t c = 0; c < n_ways; c++) {
                struct world_options o = options(s, sets[i], ways[c].threads);
                o.max_context = 512;
                o.kv_dtype = s % 3;
                o.types = (struct world_types){.q = SV_Q8_0, .v = s % 2 ? SV_Q4_0 : SV_F32};
                struct world w;
                world_open(&w, &o);
                run_chunks(&w, last++ % 4, token, FAR, ways[c].chunk, c ? have : first);
                world_close(&w);
                if (c && memcmp(first, have, bytes) != 0) {
                    print_error("%s, %s: chunks of %u with %u threads differ\n", shapes[s].name,
                                sets[i], ways[c].chunk, ways[c].threads);
                    fail();
                }
            }
            free(first);
            free(have);
        }
}

// Prompts and single tokens of several sequences in one step, against each alone.
static void a_batch_changes_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        for (uint32_t s = 0; s < SHAPES && here(sets[i]); s++) {
            struct world_options o = options(s, sets[i], 2);
            o.types = (struct world_types){
                .q = SV_Q8_0, .k = SV_Q8_0, .v = SV_Q4_1, .gate = SV_Q4_0, .up = SV_Q4_0};
            struct world alone, batch;
            world_open(&alone, &o);
            world_open(&batch, &o);
            uint32_t vocab = o.shape.vocab;
            int32_t token[4][64];
            float *want = calloc(vocab, sizeof *want), *have = calloc(vocab, sizeof *have);
            for (uint32_t q = 0; q < 4; q++)
                random_tokens(20 + q, vocab, token[q], 64);
            // Sequence 0 and 1 are under way.
            for (uint32_t q = 0; q < 2; q++) {
                const struct world_part p = {.slot = q, .token = token[q], .n = 33 - q * 16};
                world_collect(&alone, world_launch(&alone, &p, 1));
                world_collect(&batch, world_launch(&batch, &p, 1));
            }
            const struct world_part parts[] = {
                {.slot = 1, .token = token[1] + 17, .n = 1, .pos = 17},
                {.slot = 3, .token = token[3], .n = 31},
                {.slot = 0, .token = token[0] + 33, .n = 1, .pos = 33},
                {.slot = 2, .token = token[2], .n = 5}};
            world_collect(&batch, world_launch(&batch, parts, 4));
            for (uint32_t q = 0; q < 4; q++) {
                world_logits(&alone, &parts[q], want);
                assert_int_equal(batch.k->logits(batch.session, q, have), 0);
                assert_memory_equal(want, have, vocab * sizeof *want);
            }
            free(want);
            free(have);
            world_close(&alone);
            world_close(&batch);
        }
}

// What a step samples is the next one's input, without a look at the host.
static void sampled_tokens_stay(void **state)
{
    (void)state;
    struct world_options o = options(0, NULL, 2);
    struct world host, device;
    world_open(&host, &o);
    world_open(&device, &o);
    int32_t prompt[20], next = 0, said[12];
    random_tokens(3, o.shape.vocab, prompt, 20);
    struct world_part p = {.slot = 2, .token = prompt, .n = 20, .draw = true};
    for (uint32_t i = 0; i < 12; i++) {
        said[i] = next = world_collect(&host, world_launch(&host, &p, 1))->token[0];
        p = (struct world_part){.slot = 2, .token = &next, .n = 1, .pos = 20 + i, .draw = true};
    }
    p = (struct world_part){.slot = 2, .token = prompt, .n = 20, .draw = true};
    int64_t before = 0;
    for (uint32_t i = 0; i < 12; i++) { // one launch ahead of collect
        int64_t ticket = world_launch(&device, &p, 1);
        assert_true(ticket > before);
        if (before)
            assert_int_equal(world_collect(&device, before)->token[0], said[i - 1]);
        before = ticket;
        p = (struct world_part){.slot = 2, .n = 1, .pos = 20 + i, .draw = true};
    }
    assert_int_equal(world_collect(&device, before)->token[0], said[11]);
    world_close(&host);
    world_close(&device);
}

// A slot is used again: the page table's new entries replace the old ones.
static void page_table_is_edited(void **state)
{
    (void)state;
    struct world_options o = options(0, NULL, 1);
    struct world w;
    world_open(&w, &o);
    uint32_t vocab = o.shape.vocab;
    int32_t a[40], b[40];
    random_tokens(1, vocab, a, 40);
    random_tokens(2, vocab, b, 40);
    float *want = calloc(vocab, sizeof *want), *have = calloc(vocab, sizeof *have);
    world_logits(&w, &(struct world_part){.slot = 0, .token = a, .n = 40}, want);
    world_logits(&w, &(struct world_part){.slot = 1, .token = b, .n = 40}, have);
    // Slot 1 now reads slot 0's first two blocks, as a prefix in the cache, and goes on as a.
    const struct world_part tail = {.slot = 1, .token = a + 32, .n = 8, .pos = 32};
    sv_batch *batch = w.k->batch(w.session);
    world_batch(&w, batch, &tail, 1);
    uint32_t pages = w.o.max_context / 16;
    for (int32_t i = 0; i < 2; i++) {
        batch->edit_slot[i] = 1;
        batch->edit_index[i] = i;
        batch->edit_block[i] = (int32_t)((uint64_t)i * 7919 % w.limits.n_blocks);
    }
    assert_true(pages > 2);
    batch->n_edits = 2;
    world_collect(&w, w.k->launch(w.program, batch));
    assert_int_equal(w.k->logits(w.session, 0, have), 0);
    assert_memory_equal(want, have, vocab * sizeof *want);
    free(want);
    free(have);
    world_close(&w);
}

static void memory_is_what_was_said(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < SHAPES; s++)
        for (uint32_t threads = 1; threads < 4; threads++) {
            struct world_options o = options(s, NULL, threads);
            o.types.v = s % 2 ? SV_Q8_0 : SV_F16;
            o.kv_dtype = s % 3;
            struct world w;
            world_open(&w, &o);
            assert_int_equal(w.promised, w.dev->used);
            sv_limits more = w.limits;
            more.n_blocks += 4096;
            uint64_t a = w.k->session_bytes(&w.dev_options, &w.limits);
            uint64_t b = w.k->session_bytes(&w.dev_options, &more);
            uint64_t blocks = 4096 * w.k->block_bytes(&w.dev_options, &w.limits);
            assert_true(b - a >= blocks - 4096 && b - a <= blocks + 4096); // whole pages
            world_close(&w);
        }
}

static void no_memory_is_said(void **state)
{
    (void)state;
    struct world_options o = options(0, NULL, 1);
    struct world w;
    world_open(&w, &o);
    sv_limits l = w.limits;
    l.n_blocks = 1 << 30;
    l.layers = 1 << 10;
    sv_session *s;
    char why[SV_WHY_MAX] = "";
    assert_int_equal(w.k->session(w.dev, &l, &s, why), -507);
    assert_non_null(strstr(why, "1073741824 KV blocks"));
    sv_weight_desc d = {.size = sizeof d, .role = SV_MATRIX, .n_parts = 1, .cols = 1 << 20};
    d.part[0] = (sv_part_desc){.data = why, .rows = 1 << 26, .dtype = SV_F32};
    sv_weight *weight;
    why[0] = 0;
    assert_int_equal(w.k->weight(w.dev, &d, &weight, why), -507);
    assert_true(why[0] != 0);
    assert_int_equal(w.promised, w.dev->used);
    world_close(&w);
}

// Each changes one number of a batch that is fine.
static const char *const wrong[] = {"token below",
                                    "token above",
                                    "token never sampled",
                                    "pos below",
                                    "pos above",
                                    "pos gap",
                                    "slot below",
                                    "slot above",
                                    "slot twice",
                                    "seq empty",
                                    "seq long",
                                    "seq short",
                                    "row token",
                                    "row slot",
                                    "row want",
                                    "edit slot",
                                    "edit index",
                                    "edit block",
                                    "no block",
                                    "tokens",
                                    "seqs",
                                    "rows",
                                    "edits",
                                    "no tokens",
                                    "pos past the end"};

static void spoil(const struct world *w, sv_batch *b, size_t how)
{
    const sv_limits *l = &w->limits;
    if (strcmp(wrong[how], "slot twice") ==
        0) { // all else of the second part fits the first's slot
        b->seq_slot[1] = b->row_slot[1] = b->seq_slot[0];
        return;
    }
    int32_t *const at[] = {b->token,      b->token,      b->token,     b->pos,      b->pos,
                           b->pos + 1,    b->seq_slot,   b->seq_slot,  b->seq_slot, b->seq_tokens,
                           b->seq_tokens, b->seq_tokens, b->row_token, b->row_slot, b->row_want,
                           b->edit_slot,  b->edit_index, b->edit_block};
    const int32_t value[] = {-2,
                             (int32_t)l->vocab,
                             SV_SAMPLED,
                             -1,
                             (int32_t)l->max_context,
                             7,
                             -1,
                             (int32_t)l->max_seqs,
                             1,
                             0,
                             INT32_MAX,
                             1,
                             (int32_t)b->n_tokens,
                             1,
                             (int32_t)l->vocab,
                             (int32_t)l->max_seqs,
                             (int32_t)l->max_context / 16,
                             (int32_t)l->n_blocks};
    if (how < sizeof value / sizeof *value) {
        *at[how] = value[how];
        return;
    }
    uint32_t *const counts[] = {&b->n_edits, &b->n_tokens, &b->n_seqs,
                                &b->n_rows,  &b->n_edits,  &b->n_tokens};
    const uint32_t wrong_counts[] = {
        0, l->max_tokens + 1, l->max_seqs + 1, l->max_rows + 1, 1 << 20, 0};
    size_t i = how - sizeof value / sizeof *value;
    if (i < 6)
        *counts[i] = wrong_counts[i];
    else
        for (uint32_t t = 0; t < (uint32_t)b->seq_tokens[0]; t++)
            b->pos[t] = (int32_t)(l->max_context - (uint32_t)b->seq_tokens[0] + 1 + t);
}

static void a_wrong_batch_is_refused(void **state)
{
    (void)state;
    int32_t token[20];
    struct world_options o = options(0, NULL, 1);
    random_tokens(4, o.shape.vocab, token, 20);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct world w;
        world_open(&w, &o);
        const struct world_part parts[] = {{.slot = 0, .token = token, .n = 18},
                                           {.slot = 1, .token = token, .n = 2}};
        sv_batch *b = w.k->batch(w.session);
        world_batch(&w, b, parts, 2);
        sv_batch bad = *b;
        spoil(&w, &bad, i);
        if (w.k->launch(w.program, &bad) >= 0) {
            print_error("%s: was launched\n", wrong[i]);
            fail();
        }
        w.mapped[0] = w.mapped[1] = 0;
        world_collect(&w, world_launch(&w, parts, 2)); // and nothing is broken
        world_close(&w);
    }
}

static void shapes_are_refused(void **state)
{
    (void)state;
    struct world_options o = options(0, NULL, 1);
    struct world w;
    world_open(&w, &o);
    char why[SV_WHY_MAX] = "";
    sv_limits l = w.limits;
    l.kv_heads = 4;
    sv_session *s = NULL;
    assert_int_equal(w.k->session(w.dev, &l, &s, why), -400);
    assert_string_equal(why, "session: 4 kv heads do not divide 6 heads");
    l = w.limits;
    l.head_dim = 0;
    assert_int_equal(w.k->session_bytes(&w.dev_options, &l), 0);
    l = w.limits;
    l.widths = 64 + 96;
    assert_int_equal(w.k->session(w.dev, &l, &s, why), 0);
    sv_buf *x, *y, *z;
    assert_int_equal(w.k->buffer(s, 64, &x, why), 0);
    assert_int_equal(w.k->buffer(s, 96, &y, why), 0);
    assert_int_equal(w.k->buffer(s, 1, &z, why), -400);
    float data[64 * 96] = {0};
    sv_weight_desc d = {.size = sizeof d, .role = SV_MATRIX, .n_parts = 1, .cols = 64};
    d.part[0] = (sv_part_desc){.data = data, .rows = 96, .dtype = SV_F32};
    sv_weight *weight;
    assert_int_equal(w.k->weight(w.dev, &d, &weight, why), 0);
    sv_program *p;
    assert_int_equal(w.k->record(s, 8, &p, why), 0);
    assert_int_equal(w.k->project(p, &(sv_project){weight, y, x}), -400);
    assert_int_equal(w.k->project(p, &(sv_project){weight, x, y}), 0);
    assert_int_equal(w.k->ready(p, why), -400);
    assert_string_equal(why, "project (block 0): its weight has 64 columns, its input 96");
    assert_true(w.k->launch(p, w.k->batch(s)) < 0);
    d.cols = 33;
    d.part[0].dtype = SV_Q8_0;
    assert_int_equal(w.k->weight_bytes(&w.dev_options, &d), 0);
    assert_int_equal(w.k->weight(w.dev, &d, &weight, why), -400);
    assert_non_null(strstr(why, "Q8_0 with 96 rows of 33"));
    world_close(&w);
}

// A sequence whose keys are NaN: its own token is -1, the other's stays what it was.
static void what_is_no_number_is_told(void **state)
{
    (void)state;
    struct world_options o = options(0, NULL, 2);
    struct world w;
    world_open(&w, &o);
    int32_t token[2][9];
    random_tokens(6, o.shape.vocab, token[0], 9);
    random_tokens(7, o.shape.vocab, token[1], 9);
    const struct world_part good = {.slot = 0, .token = token[0], .n = 9, .draw = true};
    int32_t want = world_collect(&w, world_launch(&w, &good, 1))->token[0];
    assert_true(want >= 0);
    const struct world_part first = {.slot = 1, .token = token[1], .n = 8};
    world_collect(&w, world_launch(&w, &first, 1));
    memset(session_kv(w.session, 0, 16 * 7919 % (int32_t)w.limits.n_blocks, 0), 0xff, 64);
    const struct world_part both[] = {
        {.slot = 1, .token = token[1] + 8, .n = 1, .pos = 8, .draw = true}, good};
    const sv_result *r = world_collect(&w, world_launch(&w, both, 2));
    assert_int_equal(r->token[0], -1);
    assert_int_equal(r->token[1], want);
    // The engine may have launched the next step before it knew.
    const struct world_part next = {.slot = 1, .n = 1, .pos = 9, .draw = true};
    world_collect(&w, world_launch(&w, &next, 1));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_the_oracles),    cmocka_unit_test(types_of_weights_and_cache),
        cmocka_unit_test(cutting_changes_no_bit),    cmocka_unit_test(a_batch_changes_no_bit),
        cmocka_unit_test(sampled_tokens_stay),       cmocka_unit_test(page_table_is_edited),
        cmocka_unit_test(memory_is_what_was_said),   cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(a_wrong_batch_is_refused),  cmocka_unit_test(shapes_are_refused),
        cmocka_unit_test(what_is_no_number_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
