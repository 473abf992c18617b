// SPDX-License-Identifier: Apache-2.0
#include "llm/metrics.h"

#include "base/check.h"
#include "llm/exchange.h"

enum { LABELS = 96, MODEL_BYTES = 64, NAME = 320 };

static const double ttft_s[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double token_s[] = {.0005, .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                                 .4,    .5,   .75,   1,    2.5, 5,    7.5, 10,   20, 40,  80};
static const double request_s[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                   30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double step_tokens[] = {1,   8,    16,   32,   64,   128,  256,
                                     512, 1024, 2048, 4096, 8192, 16384};
static const double choices[] = {1, 2, 5, 10, 20};

// 1, 2, 5, 10, ... up to max.
static uint32_t ladder(double *out, uint32_t room, uint64_t max)
{
    static const uint64_t steps[] = {1, 2, 5};
    uint32_t n = 0;
    for (uint64_t power = 1; power <= max; power *= 10)
        for (uint32_t i = 0; i < 3 && steps[i] * power <= max && n < room; i++)
            out[n++] = (double)(steps[i] * power);
    return n;
}

// The id as a label's value, cut so that the core's labels have room beside it.
static void label(const char *id, char out[LABELS])
{
    size_t n = 0;
    const char *c = id;
    for (; *c && n < MODEL_BYTES; c++) {
        if (*c == '"' || *c == '\\')
            out[n++] = '\\';
        out[n++] = *c == '\n' ? ' ' : *c;
    }
    for (bool within = (*c & 0xc0) == 0x80; within && n > 0;) // cut before the character
        within = (out[--n] & 0xc0) == 0x80;
    out[n] = '\0';
}

struct maker {
    struct metrics *m;
    char model[LABELS];
};

static sv_metric *make(const struct maker *k, int kind, const char *name, const char *more,
                       const char *help, const double *bounds, uint32_t n)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s{model_name=\"%s\",engine=\"0\"%s%s}", name, k->model,
             *more ? "," : "", more);
    return k->m->host->metric(k->m->host, kind, full, help, bounds, n);
}

static sv_metric *counter(const struct maker *k, const char *name, const char *more,
                          const char *help)
{
    return make(k, SV_COUNTER, name, more, help, NULL, 0);
}

static sv_metric *gauge(const struct maker *k, const char *name, const char *more, const char *help)
{
    return make(k, SV_GAUGE, name, more, help, NULL, 0);
}

#define HISTOGRAM(k, name, help, bounds)                                                           \
    make(k, SV_HISTOGRAM, name, "", help, bounds, (uint32_t)ARRAY_LEN(bounds))

static void make_gauges(const struct maker *k, const struct metrics_conf *c)
{
    struct metrics *m = k->m;
    char more[96];
    m->running = gauge(k, "vllm:num_requests_running", "", "Sequences that run.");
    m->waiting = gauge(k, "vllm:num_requests_waiting", "", "Sequences that wait in the engine.");
    m->waiting_capacity = gauge(k, "vllm:num_requests_waiting_by_reason", "reason=\"capacity\"",
                                "Sequences that wait, by why.");
    m->waiting_deferred = gauge(k, "vllm:num_requests_waiting_by_reason", "reason=\"deferred\"",
                                "Sequences that wait, by why.");
    m->kv_usage = gauge(k, "vllm:kv_cache_usage_perc", "", "KV blocks in use; 1 is all of them.");
    m->blocks_used = gauge(k, "llm_kv_blocks_used", "", "KV blocks held by running sequences.");
    snprintf(more, sizeof more,
             "block_size=\"16\",num_gpu_blocks=\"%u\",enable_prefix_caching=\"%s\"", c->n_blocks,
             c->prefix_cache ? "True" : "False");
    m->host->record(gauge(k, "vllm:cache_config_info", more, "How the KV cache is set up."), 1);
}

static void make_counters(const struct maker *k)
{
    static const char *const ends[FINISHED] = {"stop", "length", "abort", "error"};
    struct metrics *m = k->m;
    m->prompt_tokens = counter(k, "vllm:prompt_tokens_total", "", "Prompt tokens read.");
    m->generation_tokens = counter(k, "vllm:generation_tokens_total", "", "Tokens generated.");
    m->computed = counter(k, "vllm:prompt_tokens_by_source_total", "source=\"local_compute\"",
                          "Prompt tokens, by where they came from.");
    m->cached = counter(k, "vllm:prompt_tokens_by_source_total", "source=\"local_cache_hit\"",
                        "Prompt tokens, by where they came from.");
    m->cached_total = counter(k, "vllm:prompt_tokens_cached_total", "",
                              "Prompt tokens that came out of the prefix cache.");
    m->preemptions = counter(k, "vllm:num_preemptions_total", "",
                             "Sequences that gave their KV blocks to others.");
    m->prefix_queries =
        counter(k, "vllm:prefix_cache_queries_total", "", "Tokens looked for in the prefix cache.");
    m->prefix_hits = counter(k, "vllm:prefix_cache_hits_total", "", "Tokens found there.");
    for (int i = 0; i < FINISHED; i++) {
        char more[48];
        snprintf(more, sizeof more, "finished_reason=\"%s\"", ends[i]);
        m->success[i] =
            counter(k, "vllm:request_success_total", more, "Sequences, by how they ended.");
    }
}

static void make_histograms(const struct maker *k, const struct metrics_conf *c)
{
    struct metrics *m = k->m;
    double tokens[32];
    uint32_t n = ladder(tokens, ARRAY_LEN(tokens), c->max_model_len);
    m->request_prompt = make(k, SV_HISTOGRAM, "vllm:request_prompt_tokens", "",
                             "Prompt tokens of a sequence.", tokens, n);
    m->request_generation = make(k, SV_HISTOGRAM, "vllm:request_generation_tokens", "",
                                 "Tokens generated for a sequence.", tokens, n);
    m->params_max = make(k, SV_HISTOGRAM, "vllm:request_params_max_tokens", "",
                         "max_tokens of requests.", tokens, n);
    m->params_n = HISTOGRAM(k, "vllm:request_params_n", "n of requests.", choices);
    m->iteration = HISTOGRAM(k, "vllm:iteration_tokens_total", "Tokens of a step.", step_tokens);
    m->ttft = HISTOGRAM(k, "vllm:time_to_first_token_seconds", "From arrival to the first token.",
                        ttft_s);
    m->itl =
        HISTOGRAM(k, "vllm:inter_token_latency_seconds", "From one token to the next.", token_s);
    m->per_token = HISTOGRAM(k, "vllm:request_time_per_output_token_seconds",
                             "Mean time of a sequence's tokens after the first.", token_s);
    m->e2e =
        HISTOGRAM(k, "vllm:e2e_request_latency_seconds", "From arrival to the end.", request_s);
    m->queue =
        HISTOGRAM(k, "vllm:request_queue_time_seconds", "From arrival to admission.", request_s);
    m->inference = HISTOGRAM(k, "vllm:request_inference_time_seconds",
                             "From admission to the last token.", request_s);
    m->prefill = HISTOGRAM(k, "vllm:request_prefill_time_seconds",
                           "From admission to the first token.", request_s);
    m->decode = HISTOGRAM(k, "vllm:request_decode_time_seconds",
                          "From the first token to the last.", request_s);
}

static void init_maker(struct maker *k, struct metrics *m, const char *model)
{
    k->m = m;
    label(model, k->model);
}

void metrics_init(struct metrics *m, const sv_host *h, const struct metrics_conf *c)
{
    struct maker k;
    *m = (struct metrics){.host = h};
    init_maker(&k, m, c->model);
    make_gauges(&k, c);
    make_counters(&k);
    make_histograms(&k, c);
}

void metrics_load(struct metrics *m, const char *phase, double seconds)
{
    char full[96];
    snprintf(full, sizeof full, "llm_start_seconds{phase=\"%s\"}", phase);
    m->host->record(
        m->host->metric(m->host, SV_GAUGE, full, "How long the start took, by phase.", NULL, 0),
        seconds);
}

void metrics_memory(struct metrics *m, const char *part, uint64_t bytes)
{
    char full[96];
    snprintf(full, sizeof full, "llm_memory_bytes{part=\"%s\"}", part);
    m->host->record(
        m->host->metric(m->host, SV_GAUGE, full, "Memory of the model, by part.", NULL, 0),
        (double)bytes);
}

static void add(struct metrics *m, sv_metric *to, uint64_t now, uint64_t before)
{
    if (now > before)
        m->host->record(to, (double)(now - before));
}

void metrics_step(struct metrics *m, const struct engine_stats *s)
{
    const struct engine_stats *b = &m->seen;
    add(m, m->prompt_tokens, s->prompt_tokens, b->prompt_tokens);
    add(m, m->generation_tokens, s->generated_tokens, b->generated_tokens);
    add(m, m->cached, s->cached_tokens, b->cached_tokens);
    add(m, m->cached_total, s->cached_tokens, b->cached_tokens);
    uint64_t prompts = s->prompt_tokens - b->prompt_tokens;
    uint64_t cached = s->cached_tokens - b->cached_tokens;
    add(m, m->computed, prompts, cached);
    add(m, m->preemptions, s->preemptions, b->preemptions);
    add(m, m->prefix_queries, s->prefix_queries, b->prefix_queries);
    add(m, m->prefix_hits, s->prefix_hits, b->prefix_hits);
    if (s->steps > b->steps)
        m->host->record(m->iteration, s->step_tokens);
    if (s->running != b->running)
        m->host->record(m->running, s->running);
    if (s->waiting != b->waiting) {
        m->host->record(m->waiting, s->waiting);
        m->host->record(m->waiting_capacity, s->waiting);
    }
    if (s->blocks_used != b->blocks_used && s->blocks_total) {
        m->host->record(m->kv_usage, (double)s->blocks_used / s->blocks_total);
        m->host->record(m->blocks_used, s->blocks_used);
    }
    m->seen = *s;
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

void metrics_token(struct metrics *m, const struct choice *c, uint64_t now_ns)
{
    if (c->last_ns)
        m->host->record(m->itl, seconds(c->last_ns, now_ns));
    else
        m->host->record(m->ttft, seconds(c->x->arrived_ns, now_ns));
}

void metrics_choice(struct metrics *m, const struct choice *c, enum metrics_finish why,
                    uint64_t now_ns)
{
    const sv_host *h = m->host;
    h->record(m->success[why], 1);
    h->record(m->e2e, seconds(c->x->arrived_ns, now_ns));
    h->record(m->request_generation, c->n_tokens);
    if (!c->admitted_ns)
        return;
    h->record(m->queue, seconds(c->x->arrived_ns, c->admitted_ns));
    if (!c->first_ns)
        return;
    h->record(m->prefill, seconds(c->admitted_ns, c->first_ns));
    h->record(m->decode, seconds(c->first_ns, c->last_ns));
    h->record(m->inference, seconds(c->admitted_ns, c->last_ns));
    if (c->n_tokens > 1)
        h->record(m->per_token, seconds(c->first_ns, c->last_ns) / (c->n_tokens - 1));
}
