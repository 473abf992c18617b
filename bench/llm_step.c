// SPDX-License-Identifier: Apache-2.0
/*
 * llm_step - what a step takes and what it must take: the LLM plugin's model and engine without a
 * server, on one backend.
 *
 * Usage: llm_step -k KERNELS.so -m MODEL [-D] [-R READ_TB_S] [-F MATMUL_TFLOP_S] [-l LABEL]
 *                 [-b BATCH,...] [-c CONTEXT] [-n TOKENS] [-p PROMPT,...] [-t STEP_TOKENS]
 *        llm_step ... -w LENGTHS.json [-r RATE] [-s SEED] [-q MAX_SEQS] [-g CACHE_TOKENS] [-o FILE]
 *
 * First form: for each BATCH the median time of a decoding step behind prompts of CONTEXT tokens,
 * beside its floor; then for each PROMPT the time from handing it over to its first token. Second
 * form: the requests of serve/work.h, as llm_serve sends them, and how the mean step stands to its
 * floor. -D: MODEL is a folder without weights, which are made up.
 *
 * Floor   the longer of (weights without an input embedding over READ) and (their operations over
 *         MATMUL), and the KV cache of the sequences over READ. Shares are of that. READ and MATMUL
 *         are what bench/cuda/limits measured, in the same run.
 * Peer    vLLM 0.26.0 on an H100 80GB, CUDA graphs and inductor on, bf16, in one process, as
 * measured for this project; its context was about 1,100 tokens. 0: not measured.
 */
#include "serve/inside.h"
#include "serve/score.h"
#include "serve/work.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIST_MAX = 16, STEPS_MAX = 4096, TTFT_ROUNDS = 5, WARM_STEPS = 4, WARM_SHARE = 16 };

static const struct peer {
    const char *label;       // of -l
    double must_ms, goal_ms; // a step at batch 1
    double step_ms[4];       // at the batches of peer_batch
    double first_ms[3];      // at the prompts of peer_prompt
} peers[] = {
    {"Llama-3.2-1B", 1.05, 0.92, {2.10, 2.44, 3.78, 6.59}, {7.7, 11.5, 45}},
    {"Llama-3.1-8B", 5.4, 5.15, {6.71, 6.99, 10.2, 21.7}, {14, 28, 216}},
    {"Qwen3-0.6B", 0.65, 0.55, {2.34, 2.57, 4.89, 14.0}, {9.8, 24, 38}},
    {"Qwen2.5-7B", 5.1, 4.85, {0}, {0}},
};
static const uint32_t peer_batch[4] = {1, 8, 64, 256}, peer_prompt[3] = {128, 1024, 8192};

struct run {
    struct inside in;
    struct inside_options o;
    const char *label, *lengths, *out;
    double read, matmul; // bytes and operations a second
    uint32_t batch[LIST_MAX], n_batch, prompt[LIST_MAX], n_prompt, context, tokens;
    double rate;
    struct work work;
    struct score score;
    uint32_t first, ended; // sequences that have a token, that have all
};

static struct run run = {.o = {.max_tokens = 8192},
                         .label = "",
                         .read = 3.09e12,
                         .matmul = 780e12,
                         .context = 1024,
                         .tokens = 128,
                         .work = {.low = 0, .high = 0, .seed = 1}};

static void fail(const char *text)
{
    fprintf(stderr, "llm_step: %s\n", text);
    exit(1);
}

static const struct peer *peer_of(const char *label)
{
    static const struct peer none;
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
        if (strcmp(peers[i].label, label) == 0)
            return &peers[i];
    return &none;
}

static double at(const uint32_t *keys, const double *values, size_t n, uint32_t key)
{
    for (size_t i = 0; i < n; i++)
        if (keys[i] == key)
            return values[i];
    return 0;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n ? v[n / 2] : 0;
}

// Seconds that `steps` steps over `tokens` rows in all, which see `context` tokens in all, must
// take.
static double floor_s(double steps, double tokens, double context)
{
    const struct inside_bill *b = &run.in.bill;
    double read = steps * b->weight_bytes / run.read, arithmetic = tokens * b->flops / run.matmul;
    return (read > arithmetic ? read : arithmetic) + context * b->kv_bytes / run.read;
}

/* ---- steps and first tokens ---- */

static void on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    bool *started = user;
    if (why == FINISH_ERROR || !t)
        fail(text ? text : "a sequence failed");
    run.first += !*started;
    *started = true;
    run.ended += why != RUNNING;
}

static void add(uint32_t number, uint32_t n, uint32_t tokens, bool *started)
{
    int32_t *ids = calloc(n, sizeof *ids);
    if (!ids)
        fail("no memory");
    for (uint32_t i = 0; i < n; i++)
        ids[i] = work_id(&run.work, number, i);
    *started = false;
    inside_add(&run.in, ids, n, tokens, 0, started);
    free(ids);
}

// Decodes `tokens` tokens of n sequences; the median step. Those at the ends are not only decodes.
static double step_s(uint32_t n, double *ret_mean)
{
    static double took[STEPS_MAX];
    bool *started = calloc(n, sizeof *started);
    uint32_t steps = 0, good;
    if (!started)
        fail("no memory");
    run.first = run.ended = 0;
    for (uint32_t i = 0; i < n; i++)
        add(i, run.context, run.tokens, &started[i]);
    while (run.first < n)
        inside_step(&run.in);
    double begin = inside_now(), last = begin, now;
    while (run.ended < n) {
        inside_step(&run.in);
        now = inside_now();
        if (steps < STEPS_MAX)
            took[steps++] = now - last;
        last = now;
    }
    free(started);
    good = steps > 3 * WARM_STEPS ? steps - 2 * WARM_STEPS : 0;
    double *from = took + (good ? WARM_STEPS : 0), sum = 0;
    good = good ? good : steps;
    for (uint32_t i = 0; i < good; i++)
        sum += from[i];
    *ret_mean = sum / good;
    return median(from, good);
}

static double first_token_s(uint32_t prompt, uint32_t round)
{
    bool started;
    run.first = run.ended = 0;
    double begin = inside_now();
    add(round, prompt, 1, &started);
    while (run.ended < 1)
        inside_step(&run.in);
    return inside_now() - begin;
}

static void cell(double value)
{
    if (value > 0)
        printf(" %8.2f", value);
    else
        printf("%9s", "-");
}

static void print_steps(const struct peer *peer)
{
    printf("%-14s %6s %9s %9s %9s %7s %9s %9s %9s\n", run.label, "batch", "step ms", "mean",
           "floor", "share", "must", "goal", "vLLM");
    for (uint32_t i = 0; i < run.n_batch; i++) {
        uint32_t n = run.batch[i];
        double mean, s;
        s = step_s(n, &mean);
        double floor = floor_s(1, n, (double)n * (run.context + run.tokens / 2.0));
        printf("%-14s %6u %9.3f %9.3f %9.3f %6.1f%%", "", n, 1e3 * s, 1e3 * mean, 1e3 * floor,
               100 * floor / s);
        cell(n == 1 ? peer->must_ms : 0);
        cell(n == 1 ? peer->goal_ms : 0);
        cell(at(peer_batch, peer->step_ms, 4, n));
        printf("\n");
        fflush(stdout);
    }
}

static void print_first_tokens(const struct peer *peer)
{
    printf("%-14s %6s %9s %9s %9s %7s %29s\n", run.label, "prompt", "first ms", "least", "floor",
           "share", "vLLM");
    for (uint32_t i = 0; i < run.n_prompt; i++) {
        uint32_t n = run.prompt[i], chunks = (n + run.o.max_tokens - 1) / run.o.max_tokens;
        double took[TTFT_ROUNDS], floor = floor_s(chunks, n, 0);
        first_token_s(n, TTFT_ROUNDS);
        for (uint32_t k = 0; k < TTFT_ROUNDS; k++)
            took[k] = first_token_s(n, k);
        double s = median(took, TTFT_ROUNDS);
        printf("%-14s %6u %9.2f %9.2f %9.2f %6.1f%% %20s", "", n, 1e3 * s, 1e3 * took[0],
               1e3 * floor, 100 * floor / s, "");
        cell(at(peer_prompt, peer->first_ms, 3, n));
        printf("\n");
        fflush(stdout);
    }
}

/* ---- a list of requests ---- */

static void on_list_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    struct outcome *o = user;
    uint64_t now_ns = (uint64_t)(inside_now() * 1e9);
    if (why == FINISH_ERROR || !t)
        fail(text ? text : "a sequence failed");
    score_event(&run.score, o, now_ns);
    o->output++;
    if (why != RUNNING)
        score_end(&run.score, o, ANSWERED, now_ns);
}

static void start_job(uint32_t i)
{
    const struct job *j = &run.work.jobs[i];
    struct outcome *o = &run.score.outcomes[i];
    int32_t *ids = calloc(j->prompt, sizeof *ids);
    if (!ids)
        fail("no memory");
    for (uint32_t k = 0; k < j->prompt; k++)
        ids[k] = work_id(&run.work, i, k);
    o->prompt = j->prompt;
    o->sent_ns = (uint64_t)(inside_now() * 1e9);
    inside_add(&run.in, ids, j->prompt, j->output, 0, o);
    free(ids);
}

// Without prompts' own attention and without what they write.
static double list_floor_s(double steps)
{
    double tokens = 0, context = 0;
    for (uint32_t i = 0; i < run.work.n; i++) {
        const struct job *j = &run.work.jobs[i];
        tokens += j->prompt + j->output - 1.0;
        context += (j->output - 1.0) * (j->prompt + j->output / 2.0);
    }
    return floor_s(steps, tokens, context);
}

// The first n requests of the list.
static void run_list(uint32_t n, FILE *table)
{
    struct score *s = &run.score;
    uint32_t whole_n = run.work.n;
    run.work.n = n;
    double begin = inside_now();
    uint32_t sent = 0;
    uint64_t steps = engine_stats(run.in.engine)->steps;
    score_init(s, run.work.n);
    s->begin_ns = (uint64_t)(begin * 1e9);
    while (s->ended < s->n) {
        while (sent < s->n && begin + run.work.jobs[sent].at_s <= inside_now())
            start_job(sent++);
        if (sent > s->ended)
            inside_step(&run.in);
        else
            usleep(50);
    }
    steps = engine_stats(run.in.engine)->steps - steps;
    double whole = (double)(s->end_ns - s->begin_ns) * 1e-9, floor = list_floor_s((double)steps);
    score_header(table);
    score_row(s, run.label, table);
    fprintf(table, "%llu steps of %.2f ms, floor %.2f ms, share %.1f %%; %llu preemptions\n",
            (unsigned long long)steps, 1e3 * whole / (double)steps, 1e3 * floor / (double)steps,
            100 * floor / whole, (unsigned long long)engine_stats(run.in.engine)->preemptions);
    FILE *f = run.out && n == whole_n ? fopen(run.out, "a") : NULL;
    if (f) {
        score_json(s, run.label, f);
        fclose(f);
    }
    score_finish(s);
    run.work.n = whole_n;
}

/* ---- main ---- */

static uint32_t read_list(const char *text, uint32_t *out)
{
    uint32_t n = 0;
    for (char *end; *text && n < LIST_MAX; text = *end == ',' ? end + 1 : end) {
        out[n++] = (uint32_t)strtoul(text, &end, 10);
        if (end == text || out[n - 1] == 0)
            fail("a list of numbers is wanted");
    }
    return n;
}

static void read_options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "k:m:DR:F:l:b:c:n:p:t:w:r:s:q:g:o:")) != -1) {
        switch (option) {
        case 'k':
            run.o.kernels = optarg;
            break;
        case 'm':
            run.o.model = optarg;
            break;
        case 'D':
            run.o.dummy = true;
            break;
        case 'R':
            run.read = 1e12 * strtod(optarg, NULL);
            break;
        case 'F':
            run.matmul = 1e12 * strtod(optarg, NULL);
            break;
        case 'l':
            run.label = optarg;
            break;
        case 'b':
            run.n_batch = read_list(optarg, run.batch);
            break;
        case 'c':
            run.context = (uint32_t)atoi(optarg);
            break;
        case 'n':
            run.tokens = (uint32_t)atoi(optarg);
            break;
        case 'p':
            run.n_prompt = read_list(optarg, run.prompt);
            break;
        case 't':
            run.o.max_tokens = (uint32_t)atoi(optarg);
            break;
        case 'w':
            run.lengths = optarg;
            break;
        case 'r':
            run.rate = strtod(optarg, NULL);
            break;
        case 's':
            run.work.seed = strtoull(optarg, NULL, 10);
            break;
        case 'q':
            run.o.max_seqs = (uint32_t)atoi(optarg);
            break;
        case 'g':
            run.o.kv_tokens = strtoull(optarg, NULL, 10);
            break;
        case 'o':
            run.out = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (!run.o.kernels || !run.o.model || run.read <= 0 || run.matmul <= 0 || run.context < 1 ||
        run.tokens < 2) {
        fprintf(stderr, "usage: llm_step -k KERNELS.so -m MODEL [...], see llm_step.c\n");
        exit(2);
    }
}

static uint32_t greatest(const uint32_t *v, uint32_t n)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

// What the first form needs of sequences, context and cache.
static void size_for_steps(void)
{
    uint32_t each = run.context + run.tokens + SV_BLOCK,
             longest = greatest(run.prompt, run.n_prompt) + SV_BLOCK;
    uint32_t most = greatest(run.batch, run.n_batch);
    run.o.max_seqs = most ? most : 1;
    run.o.max_waiting = run.o.max_seqs;
    run.o.max_context = longest > each ? longest : each;
    run.o.kv_tokens = (uint64_t)run.o.max_seqs * (each + SV_BLOCK) + run.o.max_context;
    run.o.on_token = on_token;
}

static void size_for_list(void)
{
    uint32_t longest = 0;
    work_read(&run.work, run.lengths, 0);
    work_arrivals(&run.work, run.rate);
    for (uint32_t i = 0; i < run.work.n; i++) {
        uint32_t all = run.work.jobs[i].prompt + run.work.jobs[i].output;
        longest = all > longest ? all : longest;
    }
    run.o.max_seqs = run.o.max_seqs ? run.o.max_seqs : 1024;
    run.o.max_waiting = run.work.n;
    run.o.max_context = longest + SV_BLOCK;
    run.o.on_token = on_list_token;
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    if (run.lengths)
        size_for_list();
    else
        size_for_steps();
    inside_open(&run.in, &run.o);
    run.work.high = run.in.vocab;
    fprintf(stderr, "llm_step: %s; loaded in %.2f s\n", run.in.k->about(run.in.dev), run.in.load_s);
    const struct peer *peer = peer_of(run.label);
    if (run.lengths) {
        run_list(run.work.n / WARM_SHARE + 1, stderr); // makes what is made once
        run_list(run.work.n, stdout);
    } else {
        print_steps(peer);
        if (run.n_prompt)
            print_first_tokens(peer);
    }
    work_finish(&run.work);
    inside_close(&run.in);
    return 0;
}
