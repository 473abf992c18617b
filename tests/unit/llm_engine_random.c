// SPDX-License-Identifier: Apache-2.0
/*
 * Hundreds of sequences through an engine with a cache far too small for them, by seed: what each
 * is told equals what the model gives it alone, and no block is lost. ENGINE_SEEDS=n runs n seeds.
 */
#include "llm_engine_world.h"

#include <stdio.h>

enum { JOBS = 150 };

struct luck {
    uint64_t state;
};

static uint32_t below(struct luck *l, uint32_t n)
{
    l->state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(fake_mix(l->state) % n);
}

static bool one_in(struct luck *l, uint32_t n)
{
    return below(l, n) == 0;
}

static struct engine_config config(struct luck *l)
{
    struct engine_config c = {.max_seqs = 1 + below(l, 12),
                              .max_waiting = 4 + below(l, 20),
                              .max_context = 40 + below(l, 120),
                              .vocab = 300,
                              .prefix_cache = !one_in(l, 4),
                              .chunked_prefill = !one_in(l, 4),
                              .priority = one_in(l, 3)};
    c.max_tokens = c.chunked_prefill ? 1 + below(l, 100) : c.max_context + below(l, 50);
    c.max_rows = one_in(l, 3) ? 1 + below(l, 6) : c.max_seqs + below(l, 20);
    c.n_blocks = 2 + below(l, 30);
    return c;
}

// Prompts are cut from a few texts, so that many share a beginning.
static void draw_job(struct luck *l, struct job *j, const struct engine_config *c)
{
    uint32_t cache = c->n_blocks * SV_BLOCK;
    uint32_t most = c->max_context < cache ? c->max_context : cache;
    job_prompt_of(j, 1 + below(l, most - 1), c->vocab, below(l, 4));
    for (uint32_t i = j->p.n_prompt - 1; one_in(l, 2) && i + 20 > j->p.n_prompt && i > 0; i--)
        j->prompt[i] = (int32_t)(20 + below(l, 200));
    j->p.max_tokens = one_in(l, 15) ? 0 : 1 + below(l, 60);
    j->p.n_stop = below(l, JOB_STOPS + 1);
    for (uint32_t i = 0; i < j->p.n_stop; i++)
        j->stop[i] = (int32_t)(20 + below(l, 200));
    j->p.sampling.min_tokens = one_in(l, 3) ? below(l, 20) : 0;
    j->p.sampling.seed = below(l, 3);
    j->p.sampling.logprobs = one_in(l, 3) ? 1 + below(l, 5) : 0;
    j->p.prompt_logprobs = one_in(l, 8);
    j->p.salt[0] = one_in(l, 5);
    j->p.salt[1] = one_in(l, 5) ? 1 : 0;
    j->p.priority = (int32_t)below(l, 3) - 1;
    j->abort_at = one_in(l, 10) ? 1 + below(l, 10) : 0;
    if (one_in(l, 30))
        j->prompt[below(l, j->p.n_prompt)] = FAKE_NAN;
}

static void meddle(struct luck *l, struct world *w, struct job *j)
{
    if (!j->seq)
        return;
    if (one_in(l, 12)) {
        uint32_t used = engine_stats(w->e)->blocks_used;
        engine_abort(w->e, j->seq);
        assert_true(engine_stats(w->e)->blocks_used <= used);
        j->aborted = true;
        j->seq = NULL;
    } else {
        engine_pause(w->e, j->seq, one_in(l, 2));
    }
    engine_check(w->e);
}

static struct engine_stats one_seed(uint64_t seed, uint32_t depth)
{
    struct luck l = {seed * 7919};
    struct engine_config c = config(&l);
    struct world *w = world_create(c, depth);
    struct job *jobs = fake_room(JOBS, sizeof *jobs);
    uint32_t added = 0, live = 1;
    for (uint32_t turn = 0; added < JOBS || live; turn++) {
        assert_true(turn < 1000 * JOBS);
        while (added < JOBS && engine_room(w->e) && !one_in(&l, 3)) {
            draw_job(&l, &jobs[added], &c);
            assert_int_equal(job_add(w, &jobs[added++]), 0);
            live = 1;
        }
        if (added && one_in(&l, 4))
            meddle(&l, w, &jobs[below(&l, added)]);
        if (world_step(w) > 0)
            continue;
        live = 0;
        for (uint32_t i = 0; i < added; i++) // nobody else would wake them
            if (jobs[i].seq) {
                live++;
                engine_pause(w->e, jobs[i].seq, false);
            }
    }
    for (uint32_t i = 0; i < JOBS; i++)
        job_check(&jobs[i]);
    struct engine_stats stats = *engine_stats(w->e);
    world_destroy(w);
    free(jobs);
    return stats;
}

static void same_as_alone(void **state)
{
    (void)state;
    const char *asked = getenv("ENGINE_SEEDS"), *from = getenv("ENGINE_SEED");
    uint64_t n = asked ? strtoull(asked, NULL, 10) : 100,
             first = from ? strtoull(from, NULL, 10) : 1;
    struct engine_stats sum = {0};
    for (uint64_t seed = first; seed < first + n; seed++)
        for (uint32_t depth = 1; depth <= 3; depth++) {
            if (from)
                printf("seed %llu, depth %u\n", (unsigned long long)seed, depth);
            struct engine_stats s = one_seed(seed, depth);
            sum.preemptions += s.preemptions;
            sum.prefix_hits += s.prefix_hits;
            sum.generated_tokens += s.generated_tokens;
            sum.steps += s.steps;
        }
    printf("%llu steps, %llu tokens, %llu preemptions, %llu tokens out of the cache\n",
           (unsigned long long)sum.steps, (unsigned long long)sum.generated_tokens,
           (unsigned long long)sum.preemptions, (unsigned long long)sum.prefix_hits);
    if (!asked)
        assert_true(sum.preemptions > 1000 && sum.prefix_hits > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
