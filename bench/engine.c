// SPDX-License-Identifier: Apache-2.0
/*
 * engine - what the LLM engine itself costs: a backend that returns at once, no text, no HTTP.
 *
 * Usage: engine [CORE [RUNNING [ROUNDS]]]
 * Prints ns of a request in a step, medians over ROUNDS of 500 steps with their ranges: CPU time in
 * all, and of it what lies between the return of collect() and the next launch(), when a device
 * that has one launch at a time would wait.
 *
 *   steady  the same sequences decode throughout
 *   cold    likewise, but each launch walks through 64 MiB, as a model's weights do
 *   churn   outputs of 100 to 300 tokens; whoever ends is replaced by one with a prompt of 100
 *           tokens, 64 of them the same for all
 */
#include "llm/engine.h"
#include "base/err.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    STEPS = 500,
    COLD_STEPS = 20,
    COLD_BYTES = 64 << 20,
    WARM = 300,
    ROUNDS_MAX = 201,
    CONTEXT = 1 << 17,
    PROMPT = 100,
    SHARED = 64
};

struct null {
    sv_batch b;
    sv_result r[2]; // of the odd and the even launches
    int32_t *token;
    int64_t ticket;
    double collected_ns, between_ns, backend_ns; // CPU time
    char *weights;                               // NULL: none
    uint64_t sum;
};

enum load_kind { STEADY, COLD, CHURN };
static const char *const kind_names[] = {"steady", "cold", "churn"};

struct load {
    struct null null;
    struct engine *e;
    enum load_kind kind;
    uint32_t luck, ended;
    uint64_t tokens;
};

static void die(const char *what)
{
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int null_slot(sv_session *s, uint32_t slot, const sv_sampling *a)
{
    (void)s, (void)slot, (void)a;
    return 0;
}

static sv_batch *null_batch(sv_session *s)
{
    return &((struct null *)(void *)s)->b;
}

static int64_t null_launch(sv_program *p, const sv_batch *b)
{
    struct null *n = (void *)p;
    double now = cpu_ns();
    if (n->collected_ns > 0)
        n->between_ns += now - n->collected_ns;
    for (size_t i = 0; n->weights && i < COLD_BYTES; i += 64)
        n->sum += (uint64_t)n->weights[i];
    n->ticket++;
    n->r[n->ticket % 2].n_rows = b->n_rows;
    n->backend_ns += cpu_ns() - now;
    return n->ticket;
}

static int null_collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why)
{
    (void)why;
    struct null *n = (void *)s;
    *ret = &n->r[ticket % 2];
    n->collected_ns = cpu_ns();
    return 0;
}

static sv_program *null_program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    (void)n_tokens, (void)n_rows;
    return arg;
}

static void on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    (void)t, (void)text;
    struct load *l = user;
    l->tokens++;
    l->ended += why != RUNNING;
}

static uint32_t luck(struct load *l)
{
    return (l->luck = l->luck * 1664525 + 1013904223) >> 8;
}

static void add(struct load *l)
{
    int32_t prompt[PROMPT], stop[2] = {2, 3};
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = i < SHARED ? i : (int32_t)(luck(l) % 30000);
    struct seq_params p = {.prompt = prompt,
                           .n_prompt = PROMPT,
                           .max_tokens = l->kind == CHURN ? 100 + luck(l) % 200 : CONTEXT,
                           .stop = stop,
                           .n_stop = 2,
                           .user = l};
    struct seq *s;
    struct err err;
    if (engine_add(l->e, &p, &s, &err) < 0)
        die(err.msg);
}

static void steps(struct load *l, uint32_t n)
{
    struct err err;
    for (uint32_t i = 0; i < n; i++) {
        if (engine_step(l->e, &err) < 0)
            die(err.msg);
        for (; l->ended; l->ended--)
            add(l);
    }
}

static int32_t *ints(size_t n)
{
    int32_t *p = calloc(n, sizeof *p);
    if (!p)
        die("no memory");
    return p;
}

static void start(struct load *l, const sv_kernels *k, uint32_t running, uint32_t n_steps)
{
    struct engine_config c = {
        .max_seqs = running,
        .max_waiting = running,
        .max_tokens = 8192,
        .max_rows = running,
        .max_context = CONTEXT,
        .n_blocks = running * (l->kind == CHURN ? 64 : (PROMPT + WARM + n_steps) / SV_BLOCK + 2),
        .vocab = 32000,
        .prefix_cache = true,
        .chunked_prefill = true,
        .on_token = on_token};
    size_t edits = (size_t)running * (CONTEXT / SV_BLOCK);
    l->null.b = (sv_batch){.token = ints(c.max_tokens),
                           .pos = ints(c.max_tokens),
                           .seq_slot = ints(running),
                           .seq_tokens = ints(running),
                           .row_token = ints(running),
                           .row_slot = ints(running),
                           .row_want = ints(running),
                           .edit_slot = ints(edits),
                           .edit_index = ints(edits),
                           .edit_block = ints(edits)};
    l->null.token = ints(running);
    for (uint32_t i = 0; i < running; i++)
        l->null.token[i] = (int32_t)(100 + i);
    l->null.r[0].token = l->null.r[1].token = l->null.token;
    struct err err;
    if (engine_create(&c, k, (sv_session *)(void *)&l->null, null_program, &l->null, &l->e, &err) <
        0)
        die(err.msg);
    for (uint32_t i = 0; i < running; i++)
        add(l);
    steps(l, WARM);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(const char *what, double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    printf("  %s %6.1f (%.1f to %.1f)", what, v[n / 2], v[0], v[n - 1]);
}

static void measure(uint32_t depth, enum load_kind kind, uint32_t running, uint32_t rounds)
{
    struct load l = {.kind = kind, .luck = 1};
    sv_kernels k = {.depth = depth,
                    .slot = null_slot,
                    .batch = null_batch,
                    .launch = null_launch,
                    .collect = null_collect};
    start(&l, &k, running, rounds * STEPS);
    if (kind == COLD) {
        l.null.weights = (char *)ints(COLD_BYTES / sizeof(int32_t));
        memset(l.null.weights, 1, COLD_BYTES); // pages of its own
    }
    double all[ROUNDS_MAX], between[ROUNDS_MAX];
    for (uint32_t i = 0; i < rounds; i++) {
        l.null.between_ns = l.null.backend_ns = l.null.collected_ns = 0;
        uint64_t tokens = l.tokens;
        double from = cpu_ns();
        steps(&l, kind == COLD ? COLD_STEPS : STEPS);
        double n = (double)(l.tokens - tokens);
        all[i] = (cpu_ns() - from - l.null.backend_ns) / n;
        between[i] = l.null.between_ns / n;
    }
    printf("depth %u, %-6s: ", depth, kind_names[kind]);
    print("all", all, rounds);
    print("between", between, rounds);
    printf("  ns a request a step, %u running\n", engine_stats(l.e)->running);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)(argc > 1 ? atoi(argv[1]) : 0), &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("there is no such core");
    uint32_t running = argc > 2 ? (uint32_t)atoi(argv[2]) : 256;
    uint32_t rounds = argc > 3 ? (uint32_t)atoi(argv[3]) : 21;
    if (running < 1 || running > 4096 || rounds < 1 || rounds > ROUNDS_MAX)
        die("RUNNING is 1 to 4096, ROUNDS 1 to 201");
    for (uint32_t depth = 1; depth <= 2; depth++)
        for (enum load_kind kind = STEADY; kind <= CHURN; kind++)
            measure(depth, kind, running, rounds);
    return 0;
}
