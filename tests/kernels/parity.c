// SPDX-License-Identifier: Apache-2.0
/*
 * parity - a backend against what `transformers` says of a tiny checkpoint: for machines with a
 * device that CI does not have.
 *
 * Usage: parity KERNELS.so TOLERANCE MODEL...   (folders or .gguf files of tests/data/llm)
 * For each model: the prompt in one chunk, in chunks of 3, and beside another sequence; the logits'
 * error relative to their spread, whether the greedy tokens are those of the reference (a
 * difference is let pass where the two best logits are closer than twice the tolerance), and
 * whether the draws repeat.
 */
#include "base/err.h"
#include "common/json.h"
#include "kernels/kernels.h"
#include "llm/model.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 256, TOKENS = 128, SEQS = 4, REFERENCE_MAX = 1 << 20 };

struct reference {
    int32_t prompt[CONTEXT], greedy[CONTEXT];
    uint32_t n_prompt, n_greedy, n_last;
    const float *logits; // of the last n_last prompt positions, [n_last][vocab]
};

struct bench {
    const sv_kernels *k;
    sv_dev *dev;
    struct model *m;
    uint32_t vocab;
    float *row;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "parity: %s: %s\n", what, why);
    exit(1);
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(REFERENCE_MAX);
    if (!f || !text)
        die(path, "cannot be read");
    *n = fread(text, 1, REFERENCE_MAX, f);
    fclose(f);
    return text;
}

static uint32_t take_ids(yyjson_val *a, int32_t *out)
{
    uint32_t n = 0;
    yyjson_arr_iter it = yyjson_arr_iter_with(a);
    for (yyjson_val *v; (v = yyjson_arr_iter_next(&it)) && n < CONTEXT;)
        out[n++] = (int32_t)yyjson_get_int(v);
    return n;
}

static struct reference read_reference(const char *model)
{
    char path[1024];
    size_t n;
    struct err err;
    struct reference r = {.n_last = 0};
    const char *dot = strrchr(model, '.');
    bool file = dot && strcmp(dot, ".gguf") == 0;
    snprintf(path, sizeof path, "%s%s", model, file ? ".json" : "/reference.json");
    char *text = slurp(path, &n);
    yyjson_doc *doc;
    if (json_parse(text, n, REFERENCE_MAX, &doc, &err) < 0)
        die(path, err.msg);
    yyjson_val *root = yyjson_doc_get_root(doc), *rows = json_get(root, "logits");
    r.n_prompt = take_ids(json_get(root, "prompt"), r.prompt);
    r.n_greedy = take_ids(json_get(root, "greedy"), r.greedy);
    r.n_last = (uint32_t)yyjson_arr_size(rows);
    size_t vocab = yyjson_arr_size(yyjson_arr_get_first(rows));
    float *logits = malloc(r.n_last * vocab * sizeof *logits);
    for (size_t i = 0; i < r.n_last; i++)
        for (size_t j = 0; j < vocab; j++)
            logits[i * vocab + j] =
                (float)yyjson_get_num(yyjson_arr_get(yyjson_arr_get(rows, i), j));
    r.logits = logits;
    yyjson_doc_free(doc);
    free(text);
    return r;
}

static void open_model(struct bench *b, const char *path)
{
    struct err err;
    sv_dev_options o = {.size = sizeof o};
    char why[SV_WHY_MAX] = "";
    struct model_limits l = {.max_tokens = TOKENS,
                             .max_seqs = SEQS,
                             .max_rows = TOKENS,
                             .max_context = CONTEXT,
                             .kv_dtype = strcmp(b->k->name, "cuda") == 0 ? SV_BF16 : SV_F32,
                             .kv_bytes = 16 << 20};
    if (b->k->open(&o, &b->dev, why) < 0)
        die("open", why);
    if (model_open(path, &b->m, &err) < 0 ||
        model_load(b->m, b->k, b->dev, &o, &l, NULL, NULL, &err) < 0)
        die(path, err.msg);
    b->vocab = model_spec(b->m)->vocab;
    b->row = malloc(b->vocab * sizeof *b->row);
}

static void close_model(struct bench *b)
{
    model_close(b->m);
    b->k->close(b->dev);
    free(b->row);
}

static void set_slot(struct bench *b, uint32_t slot, const struct reference *r, float temperature)
{
    sv_sampling s = {.size = sizeof s,
                     .temperature = temperature,
                     .top_p = 0.9f,
                     .repetition = 1,
                     .seed = 7,
                     .logprobs = 6,
                     .history = r->prompt,
                     .n_history = r->n_prompt,
                     .prompt_len = r->n_prompt};
    if (b->k->slot(model_session(b->m), slot, &s) < 0)
        die("slot", "refused");
}

static sv_batch *empty_batch(struct bench *b)
{
    sv_batch *batch = b->k->batch(model_session(b->m));
    batch->n_tokens = batch->n_seqs = batch->n_rows = batch->n_edits = 0;
    return batch;
}

// Adds n tokens of a sequence at pos to the batch; a row for each of the last `rows`. ids: n_prompt
// of a prompt, or NULL: what was sampled last.
static void add(sv_batch *batch, uint32_t slot, const int32_t *ids, uint32_t n_prompt, uint32_t pos,
                uint32_t n, uint32_t rows)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = batch->n_tokens++;
        batch->token[t] = ids ? ids[pos + i] : SV_SAMPLED;
        batch->pos[t] = (int32_t)(pos + i);
        if (i == 0 || (pos + i) % SV_BLOCK == 0) {
            uint32_t e = batch->n_edits++, page = (pos + i) / SV_BLOCK;
            batch->edit_slot[e] = (int32_t)slot;
            batch->edit_index[e] = (int32_t)page;
            batch->edit_block[e] = (int32_t)(page * SEQS + slot); // scattered
        }
        if (i + rows >= n) {
            uint32_t w = batch->n_rows++;
            batch->row_token[w] = (int32_t)t;
            batch->row_slot[w] = (int32_t)slot;
            // Within a prompt there is a next token already.
            batch->row_want[w] = ids && pos + i + 1 < n_prompt ? ids[pos + i + 1] : SV_DRAW;
        }
    }
    batch->seq_slot[batch->n_seqs] = (int32_t)slot;
    batch->seq_tokens[batch->n_seqs++] = (int32_t)n;
}

static const sv_result *run(struct bench *b, const sv_batch *batch)
{
    char why[SV_WHY_MAX] = "";
    const sv_result *r;
    int64_t ticket = b->k->launch(model_program(b->m, batch->n_tokens, batch->n_rows), batch);
    if (ticket < 0)
        die("launch", "refused");
    if (b->k->collect(model_session(b->m), ticket, &r, why) < 0)
        die("collect", why);
    return r;
}

// Largest difference from the reference's row, relative to the spread of its logits.
static double difference(struct bench *b, uint32_t row, const float *want)
{
    double most = 0, spread = 0;
    if (b->k->logits(model_session(b->m), row, b->row) < 0)
        die("logits", "refused");
    for (uint32_t i = 0; i < b->vocab; i++) {
        most = fmax(most, fabs((double)b->row[i] - (double)want[i]));
        spread = fmax(spread, fabs((double)want[i]));
    }
    return most / spread;
}

static double prompt_error(struct bench *b, const struct reference *r, uint32_t chunk, bool beside)
{
    double worst = 0;
    set_slot(b, 0, r, 0);
    set_slot(b, 1, r, 0.8f);
    for (uint32_t pos = 0; pos < r->n_prompt; pos += chunk) {
        uint32_t n = r->n_prompt - pos < chunk ? r->n_prompt - pos : chunk;
        sv_batch *batch = empty_batch(b);
        if (beside)
            add(batch, 1, r->prompt, r->n_prompt, pos, n, 1);
        add(batch, 0, r->prompt, r->n_prompt, pos, n, n);
        run(b, batch);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t left = r->n_prompt - (pos + i); // 1: the last position
            if (left <= r->n_last)
                worst = fmax(worst, difference(b, beside + i,
                                               r->logits + (size_t)(r->n_last - left) * b->vocab));
        }
    }
    return worst;
}

// Two logits of the reference that are closer may change their order.
static double tie(const struct bench *b, const struct reference *r, double tolerance)
{
    double spread = 0;
    for (size_t i = 0; i < (size_t)r->n_last * b->vocab; i++)
        spread = fmax(spread, fabs((double)r->logits[i]));
    return 2 * tolerance * spread;
}

// How many greedy tokens are the reference's until the first that differs beyond a near tie.
static uint32_t greedy(struct bench *b, const struct reference *r, double near)
{
    int32_t ids[CONTEXT];
    const sv_result *got;
    memcpy(ids, r->prompt, r->n_prompt * sizeof *ids);
    set_slot(b, 0, r, 0);
    sv_batch *batch = empty_batch(b);
    add(batch, 0, ids, r->n_prompt, 0, r->n_prompt, 1);
    for (uint32_t i = 0;; i++) {
        got = run(b, batch);
        if (got->token[0] != r->greedy[i]) {
            double gap = (double)(got->top_logprob[0] - got->top_logprob[1]);
            printf("  token %u: %d for %d, gap %.4f\n", i, got->token[0], r->greedy[i], gap);
            if (gap > near)
                return i;
        }
        if (i + 1 == r->n_greedy)
            return r->n_greedy;
        ids[r->n_prompt + i] = r->greedy[i];
        batch = empty_batch(b);
        // The device's own token where it is the reference's.
        add(batch, 0, got->token[0] == r->greedy[i] ? NULL : ids, r->n_prompt, r->n_prompt + i, 1,
            1);
    }
}

static uint64_t draws(struct bench *b, const struct reference *r, bool beside)
{
    uint64_t hash = 0;
    set_slot(b, 0, r, 0.8f);
    set_slot(b, 1, r, 0);
    for (uint32_t i = 0; i < 32; i++) {
        sv_batch *batch = empty_batch(b);
        uint32_t pos = i ? r->n_prompt + i - 1 : 0, n = i ? 1 : r->n_prompt;
        if (beside)
            add(batch, 1, i ? NULL : r->prompt, r->n_prompt, pos, n, 1);
        add(batch, 0, i ? NULL : r->prompt, r->n_prompt, pos, n, 1);
        hash = hash * 1000003 + (uint64_t)run(b, batch)->token[beside];
    }
    return hash;
}

static bool try_model(const sv_kernels *k, const char *path, double tolerance)
{
    struct bench b = {.k = k};
    struct reference r = read_reference(path);
    open_model(&b, path);
    double whole = prompt_error(&b, &r, TOKENS / 2, false), chunks = prompt_error(&b, &r, 3, false);
    double beside = prompt_error(&b, &r, 16, true);
    uint32_t same = greedy(&b, &r, tie(&b, &r, tolerance));
    uint64_t first = draws(&b, &r, false);
    bool repeat = first == draws(&b, &r, false), alone = first == draws(&b, &r, true);
    printf("%s: error %.2e, in chunks %.2e, beside another %.2e; greedy %u of %u; draws %s, %s\n",
           path, whole, chunks, beside, same, r.n_greedy, repeat ? "repeat" : "DIFFER",
           alone ? "the same in a batch" : "others in a batch");
    close_model(&b);
    free((void *)(uintptr_t)r.logits);
    return whole <= tolerance && chunks <= tolerance && beside <= tolerance && same == r.n_greedy &&
           repeat;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return fprintf(stderr, "usage: parity KERNELS.so TOLERANCE MODEL...\n"), 2;
    void *so = dlopen(argv[1], RTLD_NOW);
    const sv_kernels *k = so ? dlsym(so, "sv_kernels_v1") : NULL;
    if (!k)
        die(argv[1], dlerror());
    bool good = true;
    for (int i = 3; i < argc; i++)
        good &= try_model(k, argv[i], strtod(argv[2], NULL));
    puts(good ? "parity: all as the reference" : "parity: FAILED");
    return good ? 0 : 1;
}
