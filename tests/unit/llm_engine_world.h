// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * llm_engine_world - an engine over the fake backend, and jobs that know what they should be told.
 */
#include "base/err.h"
#include "llm/engine.h"
#include "llm_engine_fake.h"

enum { JOB_TOKENS = 512, JOB_STOPS = 4 };

struct job {
    struct seq_params p;
    int32_t prompt[JOB_TOKENS], stop[JOB_STOPS];
    struct seq *seq; // NULL: not added, or ended
    int32_t out[JOB_TOKENS];
    uint32_t n_out, n_prompt_rows, abort_at; // abort_at: by on_token, with that many tokens
    struct engine *e;
    enum finish why;
    bool aborted, ended;
    uint64_t first_step, last_step; // of the engine, when the first and last token came
    char text[128];
    // what it must be
    int32_t want[JOB_TOKENS];
    float want_logprob[JOB_TOKENS];
    uint32_t n_want;
    enum finish want_why;
};

struct world {
    struct fake *f;
    sv_kernels k;
    struct engine *e;
    struct engine_config c;
};

static inline void job_token(void *user, const struct token_info *t, enum finish why,
                             const char *text)
{
    struct job *j = user;
    assert_false(j->ended || j->aborted);
    assert_non_null(j->seq);
    j->last_step = engine_stats(j->e)->steps;
    if (why == FINISH_ERROR) {
        assert_null(t);
        assert_non_null(text);
        strncpy(j->text, text, sizeof j->text - 1);
    } else if (j->p.max_tokens == 0) {
        assert_null(t);
    } else {
        assert_non_null(t);
        assert_true(j->n_out < j->n_want);
        assert_int_equal(t->has_logprob, j->p.sampling.logprobs > 0 || j->p.prompt_logprobs);
        if (t->has_logprob) {
            assert_true(t->logprob == j->want_logprob[j->n_out]);
            assert_int_equal(t->rank, 1 + t->token % 7);
        }
        if (j->n_out == 0)
            j->first_step = j->last_step;
        j->out[j->n_out++] = t->token;
        assert_int_equal(j->n_out, seq_generated(j->seq));
    }
    j->why = why;
    if (why != RUNNING) {
        j->ended = true;
        j->seq = NULL;
    } else if (j->abort_at && j->n_out == j->abort_at) {
        j->aborted = true;
        engine_abort(j->e, j->seq);
        j->seq = NULL;
    }
}

static inline void job_prompt(void *user, uint32_t i, const struct token_info *t)
{
    struct job *j = user;
    assert_int_equal(i, j->n_prompt_rows + 1);
    assert_int_equal(t->token, j->prompt[i]);
    uint64_t seen = 0;
    for (uint32_t pos = 0; pos < i; pos++)
        seen += fake_see(fake_cell(seen, j->prompt[pos], pos), pos);
    assert_true(t->has_logprob && t->logprob == fake_logprob(seen, j->prompt[i]));
    j->n_prompt_rows++;
}

static inline struct world *world_create(struct engine_config c, uint32_t depth)
{
    struct world *w = fake_room(1, sizeof *w);
    c.on_token = job_token;
    c.on_prompt = job_prompt;
    w->c = c;
    w->k = fake_kernels(depth);
    sv_limits l = {.size = sizeof l,
                   .max_tokens = c.max_tokens,
                   .max_seqs = c.max_seqs,
                   .max_rows = c.max_rows,
                   .max_context = c.max_context,
                   .n_blocks = c.n_blocks,
                   .vocab = c.vocab};
    w->f = fake_create(&l, depth);
    struct err err = {0};
    if (engine_create(&c, &w->k, (sv_session *)(void *)w->f, fake_program, w->f, &w->e, &err) < 0)
        fail_msg("%s", err.msg);
    return w;
}

static inline void world_destroy(struct world *w)
{
    engine_check(w->e);
    assert_int_equal(engine_stats(w->e)->blocks_used, 0);
    engine_destroy(w->e);
    fake_destroy(w->f);
    free(w);
}

// What the job should give, within the world's bounds.
static inline void job_expect(struct job *j, const struct engine_config *c)
{
    uint32_t context = c->max_context, cache = c->n_blocks * SV_BLOCK;
    uint32_t room = (context < cache ? context : cache) - j->p.n_prompt;
    uint32_t max = j->p.max_tokens < room ? j->p.max_tokens : room;
    sv_sampling a = j->p.sampling;
    a.stop = j->stop;
    a.n_stop = j->p.n_stop;
    j->n_want = fake_answer(j->prompt, j->p.n_prompt, &a, c->vocab, j->want, j->want_logprob, max);
    j->want_why = FINISH_LENGTH;
    for (uint32_t i = 0; j->n_want && i < a.n_stop; i++)
        if (j->want[j->n_want - 1] == j->stop[i])
            j->want_why = FINISH_STOP;
    for (uint32_t i = 0; i < j->p.n_prompt; i++)
        if (j->prompt[i] == FAKE_NAN) {
            j->n_want = 0;
            j->want_why = FINISH_ERROR;
        }
}

static inline int job_add(struct world *w, struct job *j)
{
    struct err err = {0};
    int32_t prompt[JOB_TOKENS], stop[JOB_STOPS]; // the engine copies them
    memcpy(prompt, j->prompt, sizeof prompt);
    memcpy(stop, j->stop, sizeof stop);
    j->p.prompt = prompt;
    j->p.stop = stop;
    j->p.user = j;
    j->p.sampling.size = sizeof(sv_sampling);
    j->e = w->e;
    if (j->p.n_prompt < w->c.max_context)
        job_expect(j, &w->c);
    int rc = engine_add(w->e, &j->p, &j->seq, &err);
    memset(prompt, FAKE_RUBBISH, sizeof prompt);
    memset(stop, FAKE_RUBBISH, sizeof stop);
    assert_int_equal(rc, err.code);
    return rc;
}

// Its tokens are those it should give, as far as it got.
static inline void job_check(const struct job *j)
{
    assert_true(j->ended != j->aborted);
    assert_true(j->n_out <= j->n_want);
    assert_memory_equal(j->out, j->want, j->n_out * sizeof *j->out);
    if (j->aborted)
        return;
    assert_int_equal(j->why, j->want_why);
    assert_int_equal(j->n_out, j->n_want);
    if (j->p.prompt_logprobs && j->why != FINISH_ERROR)
        assert_int_equal(j->n_prompt_rows, j->p.n_prompt - 1);
}

static inline int world_step(struct world *w)
{
    struct err err = {0};
    int rc = engine_step(w->e, &err);
    assert_int_equal(rc < 0 ? rc : 0, err.code);
    engine_check(w->e);
    return rc;
}

// Until there is nothing to do.
static inline void world_run(struct world *w)
{
    for (int i = 0; world_step(w) > 0; i++)
        assert_true(i < 100000);
}

// A prompt whose tokens follow from `seed`; FAKE_NAN is not among them.
static inline void job_prompt_of(struct job *j, uint32_t n, uint32_t vocab, uint64_t seed)
{
    j->p.n_prompt = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t h = fake_mix(seed * 1000003 + i);
        j->prompt[i] = (int32_t)(h % vocab);
        if (j->prompt[i] == FAKE_NAN)
            j->prompt[i]++;
    }
}

static inline struct job *job_create(uint32_t n_prompt, uint32_t max_tokens, uint64_t seed)
{
    struct job *j = fake_room(1, sizeof *j);
    job_prompt_of(j, n_prompt, 1000, seed);
    j->p.max_tokens = max_tokens;
    return j;
}
