// SPDX-License-Identifier: Apache-2.0
// Each tiny checkpoint of tests/data/llm on the CPU backend, in every instruction set this
// processor has, against what transformers says of it: logits, 64 greedy tokens, and the same bits
// in chunks and in company. What is under test is the model code; the kernels have tests of their
// own.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "common/file.h"
#include "common/json.h"
#include "cpu/isa.h"
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

enum { PROMPT = 45, POSITIONS = 3, GREEDY = 64, VOCAB = 320, SLOTS = 4, CONTEXT = 128 };
enum { BLOCKS = CONTEXT / SV_BLOCK }; // of a slot

struct reference {
    int32_t prompt[PROMPT], greedy[GREEDY];
    float logits[POSITIONS][VOCAB];
};

struct run {
    struct model *m;
    sv_dev *dev;
    uint32_t n_edits;
    int32_t token;               // the last one sampled
    float logits[PROMPT][VOCAB]; // of the rows of the last step
};

static const sv_kernels *const k = &sv_kernels_v1;

static void read_reference(const char *path, struct reference *r)
{
    struct buf text = {0};
    yyjson_doc *doc;
    assert_int_equal(file_read(path, 1 << 20, &text, NULL), 0);
    assert_int_equal(json_parse(buf_cstr(&text), buf_len(&text), 1 << 20, &doc, NULL), 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *logits = json_get(root, "logits");
    assert_int_equal(yyjson_arr_size(json_get(root, "prompt")), PROMPT);
    assert_int_equal(yyjson_arr_size(json_get(root, "greedy")), GREEDY);
    assert_int_equal(yyjson_arr_size(logits), POSITIONS);
    for (size_t i = 0; i < PROMPT; i++)
        r->prompt[i] = yyjson_get_int(yyjson_arr_get(json_get(root, "prompt"), i));
    for (size_t i = 0; i < GREEDY; i++)
        r->greedy[i] = yyjson_get_int(yyjson_arr_get(json_get(root, "greedy"), i));
    for (size_t i = 0; i < POSITIONS; i++)
        for (size_t id = 0; id < VOCAB; id++)
            r->logits[i][id] = (float)yyjson_get_num(yyjson_arr_get(yyjson_arr_get(logits, i), id));
    yyjson_doc_free(doc);
    buf_finish(&text);
}

static void open_slots(const struct run *r)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        sv_sampling greedy = {.size = sizeof greedy, .top_p = 1, .repetition = 1};
        assert_int_equal(k->slot(model_session(r->m), slot, &greedy), 0);
    }
}

static void open_run(struct run *r, const char *path, const char *isa, uint32_t activations)
{
    sv_dev_options o = {.size = sizeof o, .threads = 2, .activations = activations, .isa = isa};
    struct model_limits l = {.max_tokens = 64,
                             .max_seqs = SLOTS,
                             .max_rows = PROMPT,
                             .max_context = CONTEXT,
                             .kv_dtype = SV_F32};
    struct model_memory memory;
    struct err err = {0};
    char why[SV_WHY_MAX] = "";
    memset(r, 0, sizeof *r);
    if (model_open(path, &r->m, &err) < 0 || model_check(r->m, &err) < 0)
        fail_msg("%s", err.msg);
    l.kv_bytes = UINT64_C(1) << 30;
    assert_int_equal(model_plan(r->m, k, &o, &l, &memory, &err), 0);
    l.kv_bytes = SLOTS * BLOCKS * memory.block;
    if (k->open(&o, &r->dev, why) < 0)
        fail_msg("%s", why);
    if (model_load(r->m, k, r->dev, &o, &l, NULL, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(model_blocks(r->m), SLOTS * BLOCKS);
    open_slots(r);
}

static void close_run(struct run *r)
{
    k->close(r->dev);
    model_close(r->m);
}

// Slot s has the blocks s, s + SLOTS, s + 2 * SLOTS ...: none beside another.
static void map_blocks(const struct run *r, sv_batch *b)
{
    if (r->n_edits)
        return;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        for (uint32_t i = 0; i < BLOCKS; i++, b->n_edits++) {
            b->edit_slot[b->n_edits] = (int32_t)slot;
            b->edit_index[b->n_edits] = (int32_t)i;
            b->edit_block[b->n_edits] = (int32_t)(slot + i * SLOTS);
        }
}

static sv_batch *begin(const struct run *r)
{
    sv_batch *b = k->batch(model_session(r->m));
    b->n_tokens = b->n_seqs = b->n_rows = b->n_edits = 0;
    map_blocks(r, b);
    return b;
}

// n tokens of a sequence from position pos on, with logits of the last `rows` of them.
static void add(sv_batch *b, uint32_t slot, const int32_t *ids, uint32_t n, uint32_t pos,
                uint32_t rows)
{
    for (uint32_t i = 0; i < n; i++, b->n_tokens++) {
        b->token[b->n_tokens] = ids[i];
        b->pos[b->n_tokens] = (int32_t)(pos + i);
        if (i + rows < n)
            continue;
        b->row_token[b->n_rows] = (int32_t)b->n_tokens;
        b->row_slot[b->n_rows] = (int32_t)slot;
        b->row_want[b->n_rows++] = SV_DRAW;
    }
    b->seq_slot[b->n_seqs] = (int32_t)slot;
    b->seq_tokens[b->n_seqs++] = (int32_t)n;
}

static void launch(struct run *r, const sv_batch *b)
{
    const sv_result *result;
    char why[SV_WHY_MAX] = "";
    uint32_t rows = b->n_rows;
    int64_t ticket = k->launch(model_program(r->m, b->n_tokens, b->n_rows), b);
    assert_true(ticket > 0);
    if (k->collect(model_session(r->m), ticket, &result, why) < 0)
        fail_msg("%s", why);
    r->n_edits = 1;
    assert_int_equal(result->n_rows, rows);
    for (uint32_t i = 0; i < rows; i++)
        assert_int_equal(k->logits(model_session(r->m), i, r->logits[i]), 0);
    r->token = rows ? result->token[rows - 1] : -1;
}

// The prompt in chunks; logits of its last positions end up in the last rows of the last chunks.
static void prefill(struct run *r, const struct reference *ref, uint32_t slot, uint32_t chunk,
                    float ret[POSITIONS][VOCAB])
{
    uint32_t first = PROMPT - POSITIONS; // the first position that counts
    for (uint32_t at = 0; at < PROMPT; at += chunk) {
        uint32_t n = PROMPT - at < chunk ? PROMPT - at : chunk;
        uint32_t rows = at + n <= first ? 0 : at >= first ? n : at + n - first;
        sv_batch *b = begin(r);
        add(b, slot, ref->prompt + at, n, at, rows);
        launch(r, b);
        for (uint32_t i = 0; i < rows; i++)
            memcpy(ret[at + n - rows + i - first], r->logits[i], sizeof *ret);
    }
}

static int32_t best(const float *logits)
{
    int32_t at = 0;
    for (int32_t id = 1; id < VOCAB; id++)
        at = logits[id] > logits[at] ? id : at;
    return at;
}

// Decodes on in the given slot, alone.
static void decode(struct run *r, const struct reference *ref, uint32_t slot, const char *what)
{
    for (uint32_t i = 0; i < GREEDY; i++) {
        if (r->token != ref->greedy[i])
            fail_msg("%s: token %u is %d, not %d", what, i, (int)r->token, (int)ref->greedy[i]);
        sv_batch *b = begin(r);
        add(b, slot, &r->token, 1, PROMPT + i, 1);
        launch(r, b);
        assert_int_equal(r->token, best(r->logits[0]));
    }
}

// The largest difference, in units of the larger of 1 and the logit.
static double worst(float got[POSITIONS][VOCAB], const struct reference *ref)
{
    double most = 0;
    for (uint32_t i = 0; i < POSITIONS; i++)
        for (uint32_t id = 0; id < VOCAB; id++) {
            double want = (double)ref->logits[i][id];
            most = fmax(most, fabs((double)got[i][id] - want) / fmax(1, fabs(want)));
        }
    return most;
}

static void check_chunks(struct run *r, const struct reference *ref, float whole[POSITIONS][VOCAB],
                         const char *what)
{
    static const uint32_t chunks[] = {1, 3, 16};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        float got[POSITIONS][VOCAB];
        prefill(r, ref, 1, chunks[i], got);
        if (memcmp(got, whole, sizeof got) != 0)
            fail_msg("%s: in chunks of %u its logits differ", what, chunks[i]);
    }
}

/*
 * Slot 2 again, in company: slot 0 decodes, slot 3 reads another prompt beside it, each with logits
 * of its own.
 */
static void check_company(struct run *r, const struct reference *ref, float whole[POSITIONS][VOCAB],
                          const char *what)
{
    static const uint32_t chunks[] = {7, 19, 16, 3};
    int32_t other[PROMPT], next = ref->greedy[0];
    uint32_t at = 0;
    float got[POSITIONS][VOCAB];
    for (uint32_t i = 0; i < PROMPT; i++)
        other[i] = ref->prompt[PROMPT - 1 - i];
    prefill(r, ref, 0, PROMPT, got);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; at += chunks[i++]) {
        bool last = at + chunks[i] == PROMPT;
        sv_batch *b = begin(r);
        add(b, 3, other + at, chunks[i] - 1, at - (uint32_t)i, 1);
        add(b, 2, ref->prompt + at, chunks[i], at, last ? POSITIONS : 1);
        add(b, 0, &next, 1, PROMPT + (uint32_t)i, 1);
        launch(r, b);
        next = r->token;
        assert_int_equal(next, ref->greedy[i + 1]);
        if (last && memcmp(r->logits[1], whole, POSITIONS * sizeof *whole) != 0)
            fail_msg("%s: in company its logits differ", what);
    }
    assert_int_equal(at, PROMPT);
}

static void check_decode_in_company(struct run *r, const struct reference *ref, const char *what)
{
    float got[POSITIONS][VOCAB];
    int32_t next[SLOTS];
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        prefill(r, ref, slot, 16, got);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        next[slot] = ref->greedy[0];
    for (uint32_t i = 0; i + 1 < GREEDY; i++) {
        sv_batch *b = begin(r);
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            add(b, slot, &next[slot], 1, PROMPT + i, 1);
        launch(r, b);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            next[slot] = best(r->logits[slot]);
            if (next[slot] != ref->greedy[i + 1] ||
                memcmp(r->logits[slot], r->logits[0], sizeof *r->logits) != 0)
                fail_msg("%s: token %u of slot %u differs", what, i + 1, slot);
        }
    }
}

static void check_run(const char *path, const struct reference *ref, const char *isa,
                      uint32_t activations, double bound)
{
    struct run *r = malloc(sizeof *r);
    float whole[POSITIONS][VOCAB];
    char what[512];
    snprintf(what, sizeof what, "%s, %s, activations %u", path, isa, (unsigned)activations);
    open_run(r, path, isa, activations);
    prefill(r, ref, 0, PROMPT, whole);
    double off = worst(whole, ref);
    print_message("  %-44s off by %.1e\n", what + sizeof LLM_DATA, off);
    if (!(off <= bound))
        fail_msg("%s: its logits are off by %.3g; at most %.3g", what, off, bound);
    decode(r, ref, 0, what);
    check_chunks(r, ref, whole, what);
    check_company(r, ref, whole, what);
    check_decode_in_company(r, ref, what);
    close_run(r);
    free(r);
}

static void agrees(void **state)
{
    const char *name = *state;
    char path[512], answers[600];
    struct reference ref;
    bool folder = !strstr(name, ".gguf");
    snprintf(path, sizeof path, "%s/%s", LLM_DATA, name);
    snprintf(answers, sizeof answers, "%s%s", path, folder ? "/reference.json" : ".json");
    read_reference(answers, &ref);
    for (int isa = 0; isa < ISAS; isa++) {
        if (!isa_here((enum isa)isa))
            continue;
        check_run(path, &ref, isa_name((enum isa)isa), SV_ACT_F32, 1e-4);
        if (!folder)
            check_run(path, &ref, isa_name((enum isa)isa), SV_ACT_AUTO, 5e-3);
    }
}

#define CHECKPOINT(name)                                                                           \
    {                                                                                              \
        name, agrees, NULL, NULL, (void *)(uintptr_t)name                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECKPOINT("tiny-llama"),           CHECKPOINT("tiny-llama.gguf"),
        CHECKPOINT("tiny-llama-bias"),      CHECKPOINT("tiny-llama-bias.gguf"),
        CHECKPOINT("tiny-llama3"),          CHECKPOINT("tiny-llama3.gguf"),
        CHECKPOINT("tiny-mistral"),         CHECKPOINT("tiny-mistral.gguf"),
        CHECKPOINT("tiny-qwen2"),           CHECKPOINT("tiny-qwen2-yarn"),
        CHECKPOINT("tiny-qwen2-yarn.gguf"), CHECKPOINT("tiny-qwen3"),
        CHECKPOINT("tiny-qwen3.gguf"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
