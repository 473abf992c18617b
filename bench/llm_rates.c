// SPDX-License-Identifier: Apache-2.0
/*
 * llm_rates - the rates of a language model without server, HTTP and text: model and engine,
 * driven by token ids.
 *
 * Usage: llm_rates MODEL THREADS auto|f32|int8 SEQUENCES PROMPT TOKENS ROUNDS
 * SEQUENCES prompts of PROMPT random ids at once, TOKENS greedy ones each. Prints one JSON object a
 * round: prompt and decode tokens/s, and the microseconds of a decoding step at the median.
 */
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/engine.h"
#include "llm/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VOCAB_LOW = 1000, BUDGET = 2048, STEPS_MAX = 1 << 16 };

extern const sv_kernels sv_kernels_v1;

struct run {
    struct engine *engine;
    uint32_t seqs, prompt, tokens, vocab;
    uint32_t first, ended; // sequences that have their first token, and all of them
    uint64_t random;
};

struct user { // what on_token gets
    struct run *run;
    bool started;
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *text)
{
    fprintf(stderr, "llm_rates: %s\n", text);
    exit(1);
}

static void on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    struct user *u = user;
    if (why == FINISH_ERROR || !t)
        fail(text ? text : "a sequence failed");
    u->run->first += !u->started;
    u->started = true;
    u->run->ended += why != RUNNING;
}

static sv_program *program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    return model_program(arg, n_tokens, n_rows);
}

static int32_t next_id(struct run *r)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)(VOCAB_LOW + (r->random >> 33) % (r->vocab - VOCAB_LOW));
}

static void add(struct run *r, struct user *u)
{
    struct err err;
    struct seq *seq;
    int32_t *ids = xcalloc(r->prompt, sizeof *ids);
    for (uint32_t i = 0; i < r->prompt; i++)
        ids[i] = next_id(r);
    *u = (struct user){.run = r};
    const struct seq_params p = {
        .prompt = ids,
        .n_prompt = r->prompt,
        .max_tokens = r->tokens,
        .sampling = {.size = sizeof p.sampling, .top_p = 1, .repetition = 1},
        .user = u,
    };
    if (engine_add(r->engine, &p, &seq, &err) < 0)
        fail(err.msg);
    xfree(ids);
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void one_round(struct run *r)
{
    static double step_s[STEPS_MAX];
    struct err err;
    struct user *users = xcalloc(r->seqs, sizeof *users);
    uint32_t steps = 0;
    double begin = now_s(), read = begin, last;
    r->first = r->ended = 0;
    for (uint32_t i = 0; i < r->seqs; i++)
        add(r, &users[i]);
    while (r->ended < r->seqs) {
        bool decoding = r->first == r->seqs;
        last = now_s();
        if (engine_step(r->engine, &err) < 0)
            fail(err.msg);
        if (decoding && steps < STEPS_MAX)
            step_s[steps++] = now_s() - last;
        else
            read = now_s();
    }
    last = now_s();
    qsort(step_s, steps, sizeof *step_s, by_value);
    double n = r->seqs;
    printf("{\"prompt\":%.1f,\"decode\":%.1f,\"step_us\":%.0f}\n", n * r->prompt / (read - begin),
           steps ? n * (r->tokens - 1) / (last - read) : 0, steps ? 1e6 * step_s[steps / 2] : 0);
    fflush(stdout);
    xfree(users);
}

static void start(struct run *r, char **argv)
{
    const sv_kernels *k = &sv_kernels_v1;
    char why[SV_WHY_MAX];
    struct err err;
    struct model *m;
    struct model_memory memory;
    sv_dev *dev;
    const sv_dev_options o = {.size = sizeof o,
                              .threads = (uint32_t)atoi(argv[2]),
                              .activations = strcmp(argv[3], "int8") == 0  ? SV_ACT_INT8
                                             : strcmp(argv[3], "f32") == 0 ? SV_ACT_F32
                                                                           : SV_ACT_AUTO};
    const struct model_limits l = {.max_tokens = BUDGET,
                                   .max_seqs = r->seqs,
                                   .max_rows = r->seqs,
                                   .max_context = r->prompt + r->tokens + SV_BLOCK,
                                   .kv_dtype = SV_F16,
                                   .kv_bytes = 1u << 30};
    if (model_open(argv[1], &m, &err) < 0 || model_check(m, &err) < 0 ||
        model_plan(m, k, &o, &l, &memory, &err) < 0)
        fail(err.msg);
    if (k->open(&o, &dev, why) < 0)
        fail(why);
    if (model_load(m, k, dev, &o, &l, NULL, NULL, &err) < 0)
        fail(err.msg);
    r->vocab = model_spec(m)->vocab;
    const struct engine_config c = {.max_seqs = r->seqs,
                                    .max_waiting = r->seqs,
                                    .max_tokens = BUDGET,
                                    .max_rows = r->seqs,
                                    .max_context = l.max_context,
                                    .n_blocks = memory.n_blocks,
                                    .vocab = r->vocab,
                                    .chunked_prefill = true,
                                    .on_token = on_token};
    if (engine_create(&c, k, model_session(m), program, m, &r->engine, &err) < 0)
        fail(err.msg);
    fprintf(stderr, "llm_rates: %s\n", k->about(dev));
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr,
                "usage: llm_rates MODEL THREADS auto|f32|int8 SEQUENCES PROMPT TOKENS ROUNDS\n");
        return 2;
    }
    struct run r = {.seqs = (uint32_t)atoi(argv[4]),
                    .prompt = (uint32_t)atoi(argv[5]),
                    .tokens = (uint32_t)atoi(argv[6]),
                    .random = 1};
    int rounds = atoi(argv[7]);
    if (r.seqs < 1 || r.prompt < 1 || r.tokens < 1 || rounds < 1)
        fail("counts must be 1 at least");
    start(&r, argv);
    one_round(&r); // warms
    for (int i = 0; i < rounds; i++)
        one_round(&r);
    return 0;
}
