// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct's GGUF, named by $SALVER_SMOLLM2 (skipped without), against its weights
// dequantised to f32: the answers token by token, the best token at each step of 200 questions, and
// how far each kind of activations moves the logits. Prints every difference with its gap.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "common/json.h"
#include "kernels/kernels.h"
#include "llm/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 8, TOKENS = 128, CONTEXT = 256, BLOCKS = CONTEXT / SV_BLOCK, KINDS = 3 };

static const double near_tie = 0.1;  // in units of logits, whose spread is 3.4
static const double rms_max = 0.195; // half of what llama.cpp's 8-bit activations make

static const sv_kernels *const k = &sv_kernels_v1;

struct run {
    struct model *m;
    sv_dev *dev;
    bool mapped;
    uint32_t vocab;
    float *logits; // [STEPS][vocab], owned
};

struct tally { // over all questions
    uint32_t steps, same, far;
    double square, most; // of the first logits less those of f32
    uint64_t n;
};

static void open_run(struct run *r, const char *path, uint32_t activations)
{
    sv_dev_options o = {.size = sizeof o, .activations = activations, .isa = getenv("SALVER_ISA")};
    struct model_limits l = {.max_tokens = TOKENS,
                             .max_seqs = 1,
                             .max_rows = STEPS,
                             .max_context = CONTEXT,
                             .kv_dtype = SV_F32,
                             .kv_bytes = 1 << 30};
    sv_sampling greedy = {.size = sizeof greedy, .top_p = 1, .repetition = 1};
    struct model_memory memory;
    struct err err;
    memset(r, 0, sizeof *r);
    if (model_open(path, &r->m, &err) < 0 || model_plan(r->m, k, &o, &l, &memory, &err) < 0)
        fail_msg("%s", err.msg);
    l.kv_bytes = BLOCKS * memory.block;
    assert_int_equal(k->open(&o, &r->dev, err.msg), 0);
    if (model_load(r->m, k, r->dev, &o, &l, NULL, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(k->slot(model_session(r->m), 0, &greedy), 0);
    r->vocab = model_spec(r->m)->vocab;
    r->logits = xcalloc((size_t)STEPS * r->vocab, sizeof *r->logits);
}

static void close_run(struct run *r)
{
    k->close(r->dev);
    model_close(r->m);
    xfree(r->logits);
}

// n tokens from position pos on; logits of the last `rows`. The token drawn last.
static int32_t step(struct run *r, const int32_t *ids, uint32_t n, uint32_t pos, uint32_t rows)
{
    sv_batch *b = k->batch(model_session(r->m));
    const sv_result *result;
    b->n_edits = r->mapped ? 0 : BLOCKS;
    for (uint32_t i = 0; i < b->n_edits; i++) {
        b->edit_slot[i] = 0;
        b->edit_index[i] = b->edit_block[i] = (int32_t)i;
    }
    r->mapped = true;
    b->n_tokens = n;
    b->n_seqs = 1;
    b->n_rows = rows;
    b->seq_slot[0] = 0;
    b->seq_tokens[0] = (int32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        b->token[i] = ids[i];
        b->pos[i] = (int32_t)(pos + i);
    }
    for (uint32_t i = 0; i < rows; i++) {
        b->row_token[i] = (int32_t)(n - rows + i);
        b->row_slot[i] = 0;
        b->row_want[i] = SV_DRAW;
    }
    int64_t ticket = k->launch(model_program(r->m, n, rows), b);
    assert_true(ticket > 0);
    assert_int_equal(k->collect(model_session(r->m), ticket, &result, NULL), 0);
    for (uint32_t i = 0; i < rows; i++)
        assert_int_equal(k->logits(model_session(r->m), i, r->logits + (size_t)i * r->vocab), 0);
    return result->token[rows - 1];
}

static uint32_t read_ids(yyjson_val *array, int32_t *ids, uint32_t cap)
{
    uint32_t n = (uint32_t)yyjson_arr_size(array);
    assert_true(n > 0 && n <= cap);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = yyjson_get_int(yyjson_arr_get(array, i));
    return n;
}

static int32_t best(const float *logits, uint32_t vocab)
{
    uint32_t at = 0;
    for (uint32_t id = 1; id < vocab; id++)
        at = logits[id] > logits[at] ? id : at;
    return (int32_t)at;
}

// Freely, token by token.
static void check_answer(struct run *r, yyjson_val *row)
{
    int32_t ids[CONTEXT], want[CONTEXT];
    uint32_t n = read_ids(json_get(row, "prompt"), ids, CONTEXT);
    uint32_t m = read_ids(json_get(row, "answer"), want, CONTEXT - n);
    int32_t token = step(r, ids, n, 0, 1);
    for (uint32_t i = 0; i < m; i++) {
        if (token != want[i])
            fail_msg("%s: token %u is %d, not %d", json_str(row, "question", "?"), i, (int)token,
                     (int)want[i]);
        token = step(r, &token, 1, n + i, 1);
    }
}

// All steps at once, each after the reference's own tokens.
static void check_steps(struct run *r, yyjson_val *row, const char *kind, struct tally *t)
{
    int32_t ids[CONTEXT];
    yyjson_val *top = json_get(row, "top");
    uint32_t n = read_ids(json_get(row, "prompt"), ids, CONTEXT - STEPS);
    uint32_t steps = (uint32_t)yyjson_arr_size(top);
    for (uint32_t i = 0; i + 1 < steps; i++)
        ids[n + i] = yyjson_get_int(yyjson_arr_get(yyjson_arr_get(yyjson_arr_get(top, i), 0), 0));
    step(r, ids, n + steps - 1, 0, steps);
    for (uint32_t i = 0; i < steps; i++, t->steps++) {
        yyjson_val *first = yyjson_arr_get(yyjson_arr_get(top, i), 0);
        yyjson_val *second = yyjson_arr_get(yyjson_arr_get(top, i), 1);
        int32_t want = yyjson_get_int(yyjson_arr_get(first, 0));
        int32_t got = best(r->logits + (size_t)i * r->vocab, r->vocab);
        double gap =
            yyjson_get_num(yyjson_arr_get(first, 1)) - yyjson_get_num(yyjson_arr_get(second, 1));
        t->same += got == want;
        t->far += got != want && gap >= near_tie;
        if (got != want)
            print_message("  %s: token %u of \"%s\" is %d, not %d: the two best are %.3f apart\n",
                          kind, i, json_str(row, "question", "?"), (int)got, (int)want, gap);
    }
}

// Against f32 (ours, where it is what transformers says): every logit of the first step.
static void add_differences(const struct run *r, const float *f32, struct tally *t)
{
    for (uint32_t id = 0; id < r->vocab; id++) {
        double d = (double)r->logits[id] - (double)f32[id];
        t->square += d * d;
        t->most = fmax(t->most, fabs(d));
    }
    t->n += r->vocab;
}

static void check_first(const struct run *r, yyjson_val *row, uint32_t every, double *most)
{
    yyjson_val *first = json_get(row, "first");
    for (size_t i = 0; i < yyjson_arr_size(first); i++)
        *most = fmax(*most,
                     fabs((double)r->logits[i * every] - yyjson_get_num(yyjson_arr_get(first, i))));
}

static void check_all(struct run runs[KINDS], const char *const kinds[KINDS], yyjson_val *root)
{
    struct tally t[KINDS] = {{0}};
    double off = 0;
    size_t i, n;
    yyjson_val *row;
    yyjson_arr_foreach(json_get(root, "questions"), i, n, row)
    {
        for (int kind = 0; kind < KINDS; kind++) {
            check_steps(&runs[kind], row, kinds[kind], &t[kind]);
            add_differences(&runs[kind], runs[0].logits, &t[kind]);
        }
        check_first(&runs[0], row, (uint32_t)json_int(root, "every", 0), &off);
    }
    assert_int_equal(n, 200);
    print_message("  f32: logits within %.1e of transformers'\n", off);
    for (int kind = 0; kind < KINDS; kind++)
        print_message("  %s: %u of %u tokens the same, logits moved by %.4f rms, %.3f at most\n",
                      kinds[kind], t[kind].same, t[kind].steps, sqrt(t[kind].square / t[kind].n),
                      t[kind].most);
    assert_true(off < 1e-2);
    assert_int_equal(t[0].far + t[1].far, 0);
    assert_true(sqrt(t[1].square / t[1].n) < rms_max);
}

static void agrees_with_f32(void **state)
{
    (void)state;
    static const uint32_t activations[KINDS] = {SV_ACT_F32, SV_ACT_AUTO, SV_ACT_INT8};
    static const char *const kinds[KINDS] = {"f32", "default", "int8"};
    const char *path = getenv("SALVER_SMOLLM2");
    struct run runs[KINDS];
    struct buf text = {0};
    yyjson_doc *doc;
    if (!path)
        skip();
    assert_int_equal(file_read(LLM_DATA "/smollm2_reference.json", 1 << 22, &text, NULL), 0);
    assert_int_equal(json_parse(buf_cstr(&text), buf_len(&text), 1 << 22, &doc, NULL), 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *questions = json_get(root, "questions");
    for (int kind = 0; kind < KINDS; kind++)
        open_run(&runs[kind], path, activations[kind]);
    print_message("  %s\n", k->about(runs[1].dev));
    for (uint32_t i = 0; json_get(yyjson_arr_get(questions, i), "answer"); i++)
        check_answer(&runs[1], yyjson_arr_get(questions, i));
    check_all(runs, kinds, root);
    for (int kind = 0; kind < KINDS; kind++)
        close_run(&runs[kind]);
    yyjson_doc_free(doc);
    buf_finish(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
