// SPDX-License-Identifier: Apache-2.0
#include "llm/engine.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/sched.h"
#include "llm/seq.h"

enum { DEPTH_MAX = 4, BAD_WORDS_MAX = 1 << 16, FETCH_AHEAD = 16 };

struct engine {
    struct engine_config c; // max_context: no more than the cache holds
    const sv_kernels *k;    // borrowed from the caller, outlives us
    sv_session *session;    // likewise
    engine_program *program;
    void *arg;
    struct sched sched;
    struct engine_stats stats;
    struct flight flight[DEPTH_MAX]; // ring: n_flights under way, the oldest at `first`
    uint32_t depth, first, n_flights;
    uint32_t live; // sequences that have not ended
    bool lost;     // the device
};

static int check_config(const struct engine_config *c, struct err *err)
{
    if (!c->max_seqs || !c->max_tokens || !c->max_rows || !c->max_context || !c->n_blocks ||
        !c->vocab)
        return err_set(err, SV_E_INVALID,
                       "engine: max_seqs %u, max_tokens %u, max_rows %u, max_context %u, blocks %u "
                       "and vocabulary %u must be at least 1 each",
                       c->max_seqs, c->max_tokens, c->max_rows, c->max_context, c->n_blocks,
                       c->vocab);
    if (!c->chunked_prefill && c->max_tokens < c->max_context)
        return err_set(err, SV_E_INVALID,
                       "engine: a step of %u tokens does not hold a prompt of %u, which without "
                       "chunked prefill is read in one step; raise the tokens of a step to %u",
                       c->max_tokens, c->max_context, c->max_context);
    return 0;
}

int engine_create(const struct engine_config *c, const sv_kernels *k, sv_session *session,
                  engine_program *program, void *arg, struct engine **ret, struct err *err)
{
    CHECK(k->depth >= 1 && k->depth <= DEPTH_MAX);
    int rc = check_config(c, err);
    if (rc < 0)
        return rc;
    struct engine *e = xcalloc(1, sizeof *e);
    *e = (struct engine){.c = *c,
                         .k = k,
                         .session = session,
                         .program = program,
                         .arg = arg,
                         .depth = k->depth,
                         .stats = {.blocks_total = c->n_blocks}};
    if (e->c.max_context / SV_BLOCK >= c->n_blocks)
        e->c.max_context = c->n_blocks * SV_BLOCK;
    for (uint32_t i = 0; i < e->depth; i++)
        e->flight[i].row = xcalloc(c->max_rows, sizeof *e->flight[i].row);
    sched_init(&e->sched, &e->c, k, session, &e->stats);
    *ret = e;
    return 0;
}

static void landed(struct engine *e)
{
    e->first = e->first + 1 < e->depth ? e->first + 1 : 0;
    e->n_flights--;
}

static void land_for_nothing(struct engine *e)
{
    struct flight *f = &e->flight[e->first];
    for (uint32_t i = 0; i < f->n_rows; i++)
        if (--f->row[i].seq->flying == 0)
            seq_destroy(f->row[i].seq);
    landed(e);
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    CHECK(e->live == 0);
    while (e->n_flights) {
        const sv_result *r;
        e->k->collect(e->session, e->flight[e->first].ticket, &r, NULL);
        land_for_nothing(e);
    }
    for (uint32_t i = 0; i < e->depth; i++)
        xfree(e->flight[i].row);
    sched_finish(&e->sched);
    xfree(e);
}

static void gauge(struct engine *e)
{
    e->stats.running = e->sched.n_running;
    e->stats.waiting = e->sched.n_waiting;
    e->stats.blocks_used = e->c.n_blocks - e->sched.blocks.free;
}

static int check_ids(const struct engine *e, const int32_t *id, uint32_t n, const char *what,
                     struct err *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (id[i] < 0 || (uint32_t)id[i] >= e->c.vocab)
            return err_set(err, SV_E_INVALID,
                           "token id %d of the %s is not in the vocabulary, whose ids are 0 to %u",
                           id[i], what, e->c.vocab - 1);
    return 0;
}

// Each sequence is its length, then its ids; they fill n_bad numbers exactly.
static int check_bad_words(const struct engine *e, const sv_sampling *a, struct err *err)
{
    if (a->n_bad > BAD_WORDS_MAX)
        return err_set(err, SV_E_INVALID, "bad words are %u numbers; at most %d are taken",
                       a->n_bad, BAD_WORDS_MAX);
    for (uint32_t i = 0; i < a->n_bad; i += 1 + (uint32_t)a->bad[i]) {
        if (a->bad[i] < 1 || (uint32_t)a->bad[i] >= a->n_bad - i)
            return err_set(err, SV_E_INVALID, "a bad word of %d tokens has %u", a->bad[i],
                           a->n_bad - i - 1);
        int rc = check_ids(e, a->bad + i + 1, (uint32_t)a->bad[i], "bad words", err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_params(const struct engine *e, const struct seq_params *p, struct err *err)
{
    const sv_sampling *a = &p->sampling;
    uint32_t most = e->c.max_context - (p->max_tokens > 0);
    if (p->n_prompt == 0 || p->n_prompt > most)
        return err_set(err, SV_E_INVALID, "the prompt has %u tokens; it must have 1 to %u",
                       p->n_prompt, most);
    if (p->n_stop > e->c.vocab || a->n_bias > e->c.vocab || a->n_allowed > e->c.vocab)
        return err_set(err, SV_E_INVALID,
                       "%u stop ids, %u biases and %u allowed ids: at most %u each, the vocabulary",
                       p->n_stop, a->n_bias, a->n_allowed, e->c.vocab);
    if (a->logprobs > SV_TOP_MAX + 1)
        return err_set(err, SV_E_INVALID, "%u logprobs of alternatives; at most %d are given",
                       a->logprobs - 1, SV_TOP_MAX);
    int rc = check_ids(e, p->prompt, p->n_prompt, "prompt", err);
    if (rc == 0)
        rc = check_ids(e, p->stop, p->n_stop, "stop ids", err);
    if (rc == 0)
        rc = check_ids(e, a->bias_id, a->n_bias, "biases", err);
    if (rc == 0)
        rc = check_ids(e, a->allowed, a->n_allowed, "allowed ids", err);
    return rc < 0 ? rc : check_bad_words(e, a, err);
}

int engine_add(struct engine *e, const struct seq_params *p, struct seq **ret, struct err *err)
{
    if (e->lost)
        return err_set(err, SV_E_FATAL, "the device failed");
    int rc = check_params(e, p, err);
    if (rc < 0)
        return rc;
    if (engine_room(e) == 0)
        return err_set(err, SV_E_OVERLOADED, "%u sequences are running or waiting, the most",
                       e->live);
    struct seq *q = seq_create(p, e->c.max_context);
    sched_add(&e->sched, q);
    e->live++;
    gauge(e);
    *ret = q;
    return 0;
}

static void gone(struct engine *e, struct seq *q)
{
    sched_remove(&e->sched, q);
    e->live--;
    gauge(e);
}

void engine_abort(struct engine *e, struct seq *q)
{
    gone(e, q);
    if (q->flying == 0)
        seq_destroy(q);
}

void engine_pause(struct engine *e, struct seq *q, bool paused)
{
    sched_pause(&e->sched, q, paused);
}

uint32_t seq_cached(const struct seq *q)
{
    return q->cached;
}

uint32_t seq_generated(const struct seq *q)
{
    return q->known - q->n_prompt;
}

uint64_t seq_admitted_ns(const struct seq *q)
{
    return q->admitted_ns;
}

static void end(struct engine *e, struct seq *q, const struct token_info *t, enum finish why,
                const char *text)
{
    gone(e, q);
    e->c.on_token(q->user, t, why, text);
    if (q->flying == 0)
        seq_destroy(q);
}

// Ends all there are. A callback may abort others, so each is looked for anew.
static void end_list(struct engine *e, struct list *list, const char *text)
{
    for (struct list *at; (at = list_first(list));)
        end(e, (struct seq *)(void *)at, NULL, FINISH_ERROR, text);
}

static int device_lost(struct engine *e, struct err *err, const char *doing, const char *why)
{
    struct err here = {0};
    err_set(&here, SV_E_FATAL, "the device failed %s a step of %u tokens%s%s", doing,
            e->stats.step_tokens, *why ? ": " : "", why);
    e->lost = true;
    end_list(e, &e->sched.running, here.msg);
    end_list(e, &e->sched.parked, here.msg);
    end_list(e, &e->sched.waiting, here.msg);
    end_list(e, &e->sched.aside, here.msg);
    end_list(e, &e->sched.failed, here.msg);
    while (e->n_flights)
        land_for_nothing(e);
    return err_set(err, SV_E_FATAL, "%s", here.msg);
}

// The device does not take a step any more: what the oldest one under way says of it.
static int refused(struct engine *e, struct err *err, const char *doing)
{
    const sv_result *r;
    char why[SV_WHY_MAX] = "";
    int64_t ticket = e->n_flights ? e->flight[e->first].ticket : -1;
    if (ticket > 0)
        e->k->collect(e->session, ticket, &r, why);
    return device_lost(e, err, doing, why);
}

static int launch(struct engine *e, struct err *err)
{
    struct flight *f = &e->flight[(e->first + e->n_flights) % e->depth];
    sv_batch *b = e->k->batch(e->session);
    if (!b)
        return refused(e, err, "before");
    uint32_t n = sched_plan(&e->sched, b, f);
    if (n) {
        e->stats.step_tokens = n;
        e->stats.step_seqs = b->n_seqs;
        e->stats.steps++;
        e->n_flights++;
        sv_program *program = e->program(e->arg, n, b->n_rows);
        f->ticket = program ? e->k->launch(program, b) : SV_E_FATAL;
        if (f->ticket < 0)
            return refused(e, err, program ? "launching" : "recording");
        sched_launched(&e->sched);
    }
    end_list(e, &e->sched.failed, "the device does not take these sampling parameters");
    return (int)(n > 0);
}

static struct token_info info(const struct seq *q, const sv_result *r, uint32_t i)
{
    struct token_info t = {.token = r->token[i], .has_logprob = q->logprobs > 0};
    if (t.has_logprob) {
        t.logprob = r->logprob[i];
        t.rank = r->rank[i];
        t.n_top = q->logprobs - 1;
        t.top_id = r->top_id + (size_t)i * SV_TOP_MAX;
        t.top_logprob = r->top_logprob + (size_t)i * SV_TOP_MAX;
    }
    return t;
}

// After this q may be gone: the callback may have aborted it.
static void drawn(struct engine *e, struct seq *q, const struct token_info *t)
{
    if (q->known == q->n_prompt)
        e->stats.prompt_tokens += q->n_prompt;
    e->stats.generated_tokens++;
    seq_append(q, t->token);
    sched_told(&e->sched, q);
    enum finish why = seq_verdict(q);
    if (why == RUNNING)
        e->c.on_token(q->user, t, RUNNING, NULL);
    else
        end(e, q, t, why, NULL);
}

static void land_row(struct engine *e, const sv_result *r, uint32_t i, const struct row *row)
{
    struct seq *q = row->seq;
    q->flying--;
    if (q->state == SEQ_GONE) {
        if (q->flying == 0)
            seq_destroy(q);
        return;
    }
    if (r->token[i] < 0) {
        sched_forget(&e->sched, q);
        end(e, q, NULL, FINISH_ERROR, "the model's logits are not numbers");
        return;
    }
    struct token_info t = info(q, r, i);
    if (row->at == 0) {
        drawn(e, q, &t);
    } else if (row->at < q->n_prompt) {
        e->c.on_prompt(q->user, row->at, &t);
    } else {
        e->stats.prompt_tokens += q->n_prompt;
        end(e, q, NULL, FINISH_LENGTH, NULL);
    }
}

static int land(struct engine *e, struct err *err)
{
    struct flight *f = &e->flight[e->first];
    const sv_result *r;
    char why[SV_WHY_MAX] = "";
    if (e->k->collect(e->session, f->ticket, &r, why) < 0)
        return device_lost(e, err, "computing", why);
    CHECK(r->n_rows == f->n_rows);
    landed(e);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        if (i + FETCH_AHEAD < f->n_rows)
            seq_fetch(f->row[i + FETCH_AHEAD].seq);
        if (i + FETCH_AHEAD / 2 < f->n_rows) {
            const struct seq *q = f->row[i + FETCH_AHEAD / 2].seq;
            __builtin_prefetch(q->token + q->known, 1);
        }
        land_row(e, r, i, &f->row[i]);
    }
    return 0;
}

int engine_step(struct engine *e, struct err *err)
{
    if (e->lost)
        return err_set(err, SV_E_FATAL, "the device failed");
    int launched = launch(e, err);
    if (launched < 0)
        return launched;
    if (e->n_flights == e->depth || (!launched && e->n_flights)) {
        int rc = land(e, err);
        if (rc < 0)
            return rc;
    }
    gauge(e);
    return e->n_flights || !list_empty(&e->sched.running) || !list_empty(&e->sched.waiting);
}

const struct engine_stats *engine_stats(const struct engine *e)
{
    return &e->stats;
}

uint32_t engine_room(const struct engine *e)
{
    return e->c.max_seqs + e->c.max_waiting - e->live;
}

void engine_check(const struct engine *e)
{
    sched_check(&e->sched);
    CHECK(e->sched.n_running + e->sched.n_waiting == e->live);
    CHECK(e->n_flights <= e->depth);
    for (uint32_t i = 0; i < e->n_flights; i++) {
        const struct flight *f = &e->flight[(e->first + i) % e->depth];
        for (uint32_t j = 0; j < f->n_rows; j++)
            CHECK(f->row[j].seq->flying > 0);
    }
}
