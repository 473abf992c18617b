// SPDX-License-Identifier: Apache-2.0
/*
 * logits - what a backend makes of a prompt, as numbers for judge.py.
 *
 * Usage: logits KERNELS.so MODEL IDS N_GREEDY OUT
 * IDS     raw int32: the prompt. Read in pieces of CHUNK, with the logits of every position.
 * OUT     raw: f32 [prompt][vocab], then int32 [N_GREEDY] greedy tokens that follow, then f32
 *         [N_GREEDY]: by how much the logprob of each was above that of the next best.
 */
#include "base/err.h"
#include "kernels/kernels.h"
#include "llm/model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 48, CONTEXT_MAX = 1 << 16 }; // CHUNK: no multiple of a tile of a kernel

struct world {
    const sv_kernels *k;
    sv_dev *dev;
    struct model *m;
    uint32_t vocab, context, n_prompt;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "logits: %s: %s\n", what, why);
    exit(1);
}

static int32_t *read_ids(const char *path, uint32_t *ret_n)
{
    int32_t *ids = malloc(CONTEXT_MAX * sizeof *ids);
    FILE *f = fopen(path, "rb");
    if (!f || !ids)
        die(path, "cannot be read");
    *ret_n = (uint32_t)fread(ids, sizeof *ids, CONTEXT_MAX, f);
    fclose(f);
    if (*ret_n == 0)
        die(path, "is empty");
    return ids;
}

static void open_world(struct world *w, const char *kernels, const char *model)
{
    struct err err;
    char why[SV_WHY_MAX] = "";
    const sv_dev_options o = {.size = sizeof o};
    void *so = dlopen(kernels, RTLD_NOW);
    w->k = so ? dlsym(so, "sv_kernels_v1") : NULL;
    if (!w->k)
        die(kernels, dlerror());
    const struct model_limits l = {.max_tokens = CHUNK,
                                   .max_seqs = 1,
                                   .max_rows = CHUNK,
                                   .max_context = w->context,
                                   .kv_dtype = strcmp(w->k->name, "cuda") == 0 ? SV_BF16 : SV_F32,
                                   .kv_bytes = 1u << 30};
    if (w->k->open(&o, &w->dev, why) < 0)
        die("open", why);
    if (model_open(model, &w->m, &err) < 0 ||
        model_load(w->m, w->k, w->dev, &o, &l, NULL, NULL, &err) < 0)
        die(model, err.msg);
    w->vocab = model_spec(w->m)->vocab;
}

static void set_slot(struct world *w, const int32_t *ids, uint32_t n)
{
    const sv_sampling s = {.size = sizeof s,
                           .top_p = 1,
                           .repetition = 1,
                           .logprobs = 3,
                           .history = ids,
                           .n_history = n,
                           .prompt_len = n};
    if (w->k->slot(model_session(w->m), 0, &s) < 0)
        die("slot", "refused");
}

// n tokens at pos (ids NULL: the one sampled last), a row for each.
static const sv_result *run(struct world *w, const int32_t *ids, uint32_t pos, uint32_t n)
{
    char why[SV_WHY_MAX] = "";
    const sv_result *r;
    sv_batch *b = w->k->batch(model_session(w->m));
    b->n_edits = 0;
    for (uint32_t i = 0; i < n; i++) {
        b->token[i] = ids ? ids[pos + i] : SV_SAMPLED;
        b->pos[i] = (int32_t)(pos + i);
        b->row_token[i] = (int32_t)i;
        b->row_slot[i] = 0;
        // Within a prompt there is a next token already.
        b->row_want[i] = ids && pos + i + 1 < w->n_prompt ? ids[pos + i + 1] : SV_DRAW;
        if (i == 0 || (pos + i) % SV_BLOCK == 0) {
            b->edit_slot[b->n_edits] = 0;
            b->edit_index[b->n_edits] = (int32_t)((pos + i) / SV_BLOCK);
            b->edit_block[b->n_edits++] = (int32_t)((pos + i) / SV_BLOCK);
        }
    }
    b->n_tokens = b->n_rows = n;
    b->n_seqs = 1;
    b->seq_slot[0] = 0;
    b->seq_tokens[0] = (int32_t)n;
    int64_t ticket = w->k->launch(model_program(w->m, n, n), b);
    if (ticket < 0)
        die("launch", "refused");
    if (w->k->collect(model_session(w->m), ticket, &r, why) < 0)
        die("collect", why);
    return r;
}

static void write_logits(struct world *w, const int32_t *ids, uint32_t n, FILE *out)
{
    float *row = malloc(w->vocab * sizeof *row);
    for (uint32_t pos = 0; pos < n; pos += CHUNK) {
        uint32_t m = n - pos < CHUNK ? n - pos : CHUNK;
        run(w, ids, pos, m);
        for (uint32_t i = 0; i < m; i++) {
            if (!row || w->k->logits(model_session(w->m), i, row) < 0)
                die("logits", "refused");
            fwrite(row, sizeof *row, w->vocab, out);
        }
    }
    free(row);
}

// The prompt once more, but for its last token with one row a piece; then one token after another.
static void write_greedy(struct world *w, const int32_t *ids, uint32_t n, uint32_t wanted,
                         FILE *out)
{
    int32_t *tokens = calloc(wanted + 1, sizeof *tokens);
    float *gaps = calloc(wanted + 1, sizeof *gaps);
    if (!tokens || !gaps)
        die("greedy", "no memory");
    set_slot(w, ids, n);
    const sv_result *r = NULL;
    uint32_t last = 0;
    for (uint32_t pos = 0; pos < n; pos += CHUNK) {
        last = n - pos < CHUNK ? n - pos : CHUNK;
        r = run(w, ids, pos, last);
    }
    for (uint32_t i = 0; i < wanted; i++, last = 1) {
        tokens[i] = r->token[last - 1];
        const float *top = r->top_logprob + (size_t)(last - 1) * SV_TOP_MAX;
        gaps[i] = top[0] - top[1];
        if (i + 1 < wanted)
            r = run(w, NULL, n + i, 1);
    }
    fwrite(tokens, sizeof *tokens, wanted, out);
    fwrite(gaps, sizeof *gaps, wanted, out);
    free(tokens);
    free(gaps);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return fprintf(stderr, "usage: logits KERNELS.so MODEL IDS N_GREEDY OUT\n"), 2;
    uint32_t n, wanted = (uint32_t)atoi(argv[4]);
    int32_t *ids = read_ids(argv[3], &n);
    struct world w = {.context = n + wanted + SV_BLOCK, .n_prompt = n};
    open_world(&w, argv[1], argv[2]);
    FILE *out = fopen(argv[5], "wb");
    if (!out)
        die(argv[5], "cannot be written");
    set_slot(&w, ids, n);
    write_logits(&w, ids, n, out);
    write_greedy(&w, ids, n, wanted, out);
    if (fclose(out) != 0)
        die(argv[5], "cannot be written");
    model_close(w.m);
    w.k->close(w.dev);
    free(ids);
    return 0;
}
