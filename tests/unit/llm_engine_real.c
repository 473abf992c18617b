// SPDX-License-Identifier: Apache-2.0
/*
 * 64 mixed sequences of a tiny model on the CPU backend, through a cache too small for them, give
 * the same tokens and the same bits of logprobs as each alone; also with a launch under way while
 * the tokens of the one before are not known yet.
 */
#include "abi/plugin.h"
#include "base/err.h"
#include "llm/engine.h"
#include "llm/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { JOBS = 64, PROMPT = 110, OUTPUT = 60, VOCAB = 320, CONTEXT = 192, ROWS = 64, BLOCKS = 64 };

struct output {
    int32_t token[OUTPUT];
    float logprob[OUTPUT], prompt[PROMPT];
    uint32_t n, n_prompt;
    enum finish why;
};

struct job {
    struct seq_params p;
    int32_t prompt[PROMPT], stop;
    struct output alone, out;
    struct seq *seq;
};

/* the CPU backend, but what a step gave is told one launch later */

enum { LATE = 2 };

static struct {
    sv_session *session;
    sv_result r[LATE + 1];
    int32_t token[LATE + 1][ROWS], rank[LATE + 1][ROWS];
    float logprob[LATE + 1][ROWS];
    int64_t ticket;
} late;

static int64_t late_launch(sv_program *p, const sv_batch *b)
{
    const sv_result *r;
    int64_t ticket = sv_kernels_v1.launch(p, b);
    assert_true(ticket > 0);
    assert_int_equal(sv_kernels_v1.collect(late.session, ticket, &r, NULL), 0);
    int64_t i = ++late.ticket % (LATE + 1);
    memcpy(late.token[i], r->token, r->n_rows * sizeof *r->token);
    memcpy(late.rank[i], r->rank, r->n_rows * sizeof *r->rank);
    memcpy(late.logprob[i], r->logprob, r->n_rows * sizeof *r->logprob);
    late.r[i] = (sv_result){.n_rows = r->n_rows,
                            .token = late.token[i],
                            .logprob = late.logprob[i],
                            .rank = late.rank[i],
                            .top_id = r->top_id,
                            .top_logprob = r->top_logprob};
    return late.ticket;
}

static int late_collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why)
{
    (void)s;
    (void)why;
    *ret = &late.r[ticket % (LATE + 1)];
    return 0;
}

/* the model */

struct real {
    struct model *m;
    sv_dev *dev;
    sv_kernels k;
};

static void open_model(struct real *r)
{
    sv_dev_options o = {.size = sizeof o, .threads = 1};
    struct model_limits l = {.max_tokens = 256,
                             .max_seqs = 8,
                             .max_rows = ROWS,
                             .max_context = CONTEXT,
                             .kv_dtype = SV_F16,
                             .kv_bytes = UINT64_C(1) << 30};
    struct model_memory memory;
    struct err err = {0};
    char why[SV_WHY_MAX] = "";
    *r = (struct real){.k = sv_kernels_v1};
    if (model_open(LLM_DATA "/tiny-llama.gguf", &r->m, &err) < 0 || model_check(r->m, &err) < 0 ||
        model_plan(r->m, &r->k, &o, &l, &memory, &err) < 0)
        fail_msg("%s", err.msg);
    l.kv_bytes = BLOCKS * memory.block;
    if (r->k.open(&o, &r->dev, why) < 0)
        fail_msg("%s", why);
    if (model_load(r->m, &r->k, r->dev, &o, &l, NULL, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    late.session = model_session(r->m);
}

static void close_model(struct real *r)
{
    r->k.close(r->dev);
    model_close(r->m);
}

static sv_program *program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    return model_program(arg, n_tokens, n_rows);
}

/* the jobs */

static uint32_t luck(uint32_t below)
{
    static uint64_t x = 88172645463325252;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)((x >> 11) % below);
}

static void on_token(void *user, const struct token_info *t, enum finish why, const char *text)
{
    struct job *j = user;
    if (text)
        fail_msg("%s", text);
    j->out.why = why;
    if (why != RUNNING)
        j->seq = NULL;
    if (!t)
        return;
    assert_true(j->out.n < OUTPUT);
    j->out.logprob[j->out.n] = t->has_logprob ? t->logprob : 0;
    j->out.token[j->out.n++] = t->token;
}

static void on_prompt(void *user, uint32_t i, const struct token_info *t)
{
    struct job *j = user;
    assert_int_equal(t->token, j->prompt[i]);
    j->out.prompt[i] = t->logprob;
    j->out.n_prompt++;
}

static void draw_job(struct job *j, uint32_t i)
{
    uint32_t text = luck(3), n = 1 + luck(PROMPT), tail = n > 10 ? luck(10) : 0;
    for (uint32_t t = 0; t < n; t++)
        j->prompt[t] =
            t < n - tail ? (int32_t)((t * (7 + text) + 31 * text) % VOCAB) : (int32_t)luck(VOCAB);
    j->stop = (int32_t)luck(VOCAB);
    j->p = (struct seq_params){
        .prompt = j->prompt,
        .n_prompt = n,
        .max_tokens = 1 + luck(OUTPUT),
        .stop = &j->stop,
        .n_stop = 1,
        .prompt_logprobs = luck(6) == 0,
        .priority = (int32_t)luck(3),
        .user = j,
        .sampling = {.size = sizeof(sv_sampling), .top_p = 1, .repetition = 1, .seed = i}};
    sv_sampling *a = &j->p.sampling;
    a->logprobs = luck(2);
    a->min_tokens = luck(4) == 0 ? luck(j->p.max_tokens) : 0;
    if (luck(3) == 0)
        return; // greedy
    a->temperature = 0.5F + 0.25F * (float)luck(6);
    a->top_k = luck(2) ? 5 + luck(60) : 0;
    a->top_p = luck(2) ? 0.8F : 1;
    a->min_p = luck(3) == 0 ? 0.01F : 0;
    a->repetition = luck(3) == 0 ? 1.2F : 1;
    a->presence = luck(3) == 0 ? 0.4F : 0;
    a->frequency = luck(3) == 0 ? 0.3F : 0;
}

static struct engine *open_engine(const struct real *r, const sv_kernels *k, bool small)
{
    struct engine_config c = {.max_seqs = 8,
                              .max_waiting = JOBS,
                              .max_tokens = small ? 48 : 256,
                              .max_rows = small ? 20 : ROWS,
                              .max_context = CONTEXT,
                              .n_blocks = small ? 13 : BLOCKS,
                              .vocab = VOCAB,
                              .prefix_cache = small,
                              .chunked_prefill = true,
                              .priority = small,
                              .on_token = on_token,
                              .on_prompt = on_prompt};
    struct engine *e;
    struct err err = {0};
    if (engine_create(&c, k, model_session(r->m), program, r->m, &e, &err) < 0)
        fail_msg("%s", err.msg);
    return e;
}

static void add(struct engine *e, struct job *j)
{
    struct err err = {0};
    j->out = (struct output){0};
    if (engine_add(e, &j->p, &j->seq, &err) < 0)
        fail_msg("%s", err.msg);
}

static int step(struct engine *e)
{
    struct err err = {0};
    int rc = engine_step(e, &err);
    if (rc < 0)
        fail_msg("%s", err.msg);
    engine_check(e);
    return rc;
}

static void run_alone(const struct real *r, struct job *jobs)
{
    struct engine *e = open_engine(r, &r->k, false);
    for (uint32_t i = 0; i < JOBS; i++) {
        add(e, &jobs[i]);
        while (step(e)) {
        }
        jobs[i].alone = jobs[i].out;
    }
    assert_int_equal(engine_stats(e)->preemptions + engine_stats(e)->prefix_hits, 0);
    engine_destroy(e);
}

// A third at once, the others as it goes on; now and then one is paused for a while.
static void run_together(const struct real *r, const sv_kernels *k, struct job *jobs)
{
    struct engine *e = open_engine(r, k, true);
    uint32_t n = 0;
    for (; n < JOBS / 3; n++)
        add(e, &jobs[n]);
    bool busy = true;
    while (busy || n < JOBS) {
        if (n < JOBS && luck(4) == 0)
            add(e, &jobs[n++]);
        struct job *j = &jobs[luck(n)];
        if (j->seq && luck(3) == 0)
            engine_pause(e, j->seq, luck(2));
        busy = step(e);
        for (uint32_t i = 0; !busy && i < n; i++)
            if (jobs[i].seq) {
                engine_pause(e, jobs[i].seq, false);
                busy = true;
            }
    }
    const struct engine_stats *s = engine_stats(e);
    print_message("%u steps, %u preemptions, %u prompt tokens out of the cache\n",
                  (unsigned)s->steps, (unsigned)s->preemptions, (unsigned)s->prefix_hits);
    assert_true(s->preemptions > 5 && s->prefix_hits > 100);
    assert_int_equal(s->blocks_used, 0);
    engine_destroy(e);
}

static void same_as_alone(void **state)
{
    (void)state;
    struct real r;
    open_model(&r);
    struct job *jobs = calloc(JOBS, sizeof *jobs);
    for (uint32_t i = 0; i < JOBS; i++)
        draw_job(&jobs[i], i);
    run_alone(&r, jobs);
    sv_kernels later = r.k;
    later.depth = LATE;
    later.launch = late_launch;
    later.collect = late_collect;
    for (int kind = 0; kind < 2; kind++) {
        run_together(&r, kind ? &later : &r.k, jobs);
        for (uint32_t i = 0; i < JOBS; i++) {
            assert_int_equal(jobs[i].alone.n, jobs[i].out.n);
            assert_int_equal(jobs[i].alone.n_prompt,
                             jobs[i].p.prompt_logprobs ? jobs[i].p.n_prompt - 1 : 0);
            assert_memory_equal(&jobs[i].alone, &jobs[i].out, sizeof jobs[i].out);
        }
    }
    uint32_t stopped = 0, distinct = 0;
    for (uint32_t i = 0; i < JOBS; i++) {
        stopped += jobs[i].alone.why == FINISH_STOP;
        for (uint32_t t = 1; t < jobs[i].alone.n; t++)
            distinct += jobs[i].alone.token[t] != jobs[i].alone.token[t - 1];
    }
    print_message("%u were stopped, %u tokens differ from the one before\n", stopped, distinct);
    assert_true(stopped > 0 && distinct > JOBS);
    free(jobs);
    close_model(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
