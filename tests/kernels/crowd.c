// SPDX-License-Identifier: Apache-2.0
/*
 * crowd - a sequence gets the same greedy tokens alone and among many, but for near ties.
 *
 * Usage: crowd KERNELS.so MODEL [SEQUENCES [TOKENS [GAP]]]
 * SEQUENCES (256) prompts of 1 to PROMPT_MAX random ids, TOKENS (48) each. Every ALONE-th runs
 * alone first; then all come in waves, so that prompts are read beside sequences that decode. Where
 * a token differs, the two best logprobs of the lone run were less than GAP (0.1) apart, or it is a
 * failure; what follows differs by right and is not looked at. Then all once more: a second run in
 * the same waves must give the same tokens to the last.
 */
#include "serve/inside.h"
#include "serve/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT_MAX = 400, ALONE = 4, WAVES = 8, WAVE_STEPS = 5, STEP_TOKENS = 1024 };

struct text { // of one sequence
    uint32_t n, ended;
    int32_t *tokens;
    float *gaps; // between the two best
};

static struct inside in;
static struct work work = {.seed = 11};
static uint32_t sequences = 256, tokens = 48, ended;

static void *must(void *p)
{
    if (p)
        return p;
    fprintf(stderr, "crowd: no memory\n");
    exit(1);
}

static void on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    struct text *x = user;
    if (why == FINISH_ERROR || !t) {
        fprintf(stderr, "crowd: %s\n", text ? text : "a sequence failed");
        exit(1);
    }
    x->gaps[x->n] = t->n_top > 1 ? t->top_logprob[0] - t->top_logprob[1] : 0;
    x->tokens[x->n++] = t->token;
    ended += why != RUNNING;
}

static uint32_t length_of(uint32_t i)
{
    return 1 + (uint32_t)work_id(&work, UINT32_MAX, i) % PROMPT_MAX;
}

static void start(uint32_t i, struct text *x)
{
    int32_t ids[PROMPT_MAX];
    uint32_t n = length_of(i);
    for (uint32_t k = 0; k < n; k++)
        ids[k] = work_id(&work, i, k);
    x->n = 0;
    inside_add(&in, ids, n, tokens, 3, x);
}

static struct text *make_texts(void)
{
    struct text *x = must(calloc(sequences, sizeof *x));
    for (uint32_t i = 0; i < sequences; i++) {
        x[i].tokens = must(calloc(tokens, sizeof *x[i].tokens));
        x[i].gaps = must(calloc(tokens, sizeof *x[i].gaps));
    }
    return x;
}

static void free_texts(struct text *x)
{
    for (uint32_t i = 0; i < sequences; i++) {
        free(x[i].tokens);
        free(x[i].gaps);
    }
    free(x);
}

static void run_alone(struct text *x)
{
    for (uint32_t i = 0; i < sequences; i += ALONE) {
        ended = 0;
        start(i, &x[i]);
        while (ended < 1)
            inside_step(&in);
    }
}

static void run_together(struct text *x)
{
    uint32_t each = (sequences + WAVES - 1) / WAVES;
    ended = 0;
    for (uint32_t i = 0; i < sequences; i++) {
        start(i, &x[i]);
        for (uint32_t k = 0; i % each == each - 1 && k < WAVE_STEPS; k++)
            inside_step(&in);
    }
    while (ended < sequences)
        inside_step(&in);
}

// How many of the lone runs differ beyond the gap.
static uint32_t compare(const struct text *alone, const struct text *together, float gap)
{
    uint32_t same = 0, ties = 0, bad = 0;
    float widest = 0;
    for (uint32_t i = 0; i < sequences; i += ALONE) {
        uint32_t k = 0;
        while (k < tokens && alone[i].tokens[k] == together[i].tokens[k])
            k++;
        same += k == tokens;
        if (k == tokens)
            continue;
        widest = alone[i].gaps[k] > widest ? alone[i].gaps[k] : widest;
        ties += alone[i].gaps[k] <= gap;
        bad += alone[i].gaps[k] > gap;
        printf("sequence %u, prompt %u, token %u: %d alone, %d among %u; gap %.4f\n", i,
               length_of(i), k, alone[i].tokens[k], together[i].tokens[k], sequences,
               (double)alone[i].gaps[k]);
    }
    printf("crowd: %u of %u the same, %u part at near ties (widest gap %.4f), %u beyond %.2f\n",
           same, same + ties + bad, ties, (double)widest, bad, (double)gap);
    return bad;
}

static uint32_t repeats(const struct text *a, const struct text *b)
{
    uint32_t differ = 0;
    for (uint32_t i = 0; i < sequences; i++)
        differ += memcmp(a[i].tokens, b[i].tokens, tokens * sizeof *a[i].tokens) != 0;
    printf("crowd: %u of %u differ in a second run of the same waves\n", differ, sequences);
    return differ;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 6)
        return fprintf(stderr, "usage: crowd KERNELS.so MODEL [SEQUENCES [TOKENS [GAP]]]\n"), 2;
    sequences = argc > 3 ? (uint32_t)atoi(argv[3]) : sequences;
    tokens = argc > 4 ? (uint32_t)atoi(argv[4]) : tokens;
    float gap = argc > 5 ? strtof(argv[5], NULL) : 0.1f;
    if (sequences < 1 || tokens < 1)
        return fprintf(stderr, "crowd: at least one of each\n"), 2;
    uint32_t context = PROMPT_MAX + tokens + SV_BLOCK;
    inside_open(&in, &(struct inside_options){.kernels = argv[1],
                                              .model = argv[2],
                                              .max_seqs = sequences,
                                              .max_waiting = sequences,
                                              .max_tokens = STEP_TOKENS,
                                              .max_context = context,
                                              .kv_tokens = (uint64_t)sequences * context,
                                              .on_token = on_token});
    work.high = in.vocab;
    struct text *alone = make_texts(), *first = make_texts(), *second = make_texts();
    run_alone(alone);
    run_together(first);
    run_together(second);
    uint32_t bad = compare(alone, first, gap) + repeats(first, second);
    free_texts(alone);
    free_texts(first);
    free_texts(second);
    inside_close(&in);
    puts(bad ? "crowd: FAILED" : "crowd: as alone");
    return bad > 0;
}
