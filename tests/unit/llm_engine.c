// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "llm_engine_world.h"

static const struct engine_config roomy = {.max_seqs = 16,
                                           .max_waiting = 16,
                                           .max_tokens = 64,
                                           .max_rows = 64,
                                           .max_context = 256,
                                           .n_blocks = 128,
                                           .vocab = 1000,
                                           .prefix_cache = true,
                                           .chunked_prefill = true};

static void finish(struct job *j)
{
    job_check(j);
    free(j);
}

// One sequence at a time; every length around a block's and a chunk's end.
static void alone(void **state)
{
    (void)state;
    static const uint32_t prompts[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200, 255};
    static const uint32_t tokens[] = {0, 1, 2, 16, 17, 40, 1000};
    static const uint32_t budgets[] = {1, 7, 16, 64, 300};
    for (size_t b = 0; b < 5; b++)
        for (uint32_t depth = 1; depth <= 2; depth++) {
            struct engine_config c = roomy;
            c.max_tokens = budgets[b];
            struct world *w = world_create(c, depth);
            for (size_t i = 0; i < 13 * 7; i++) {
                struct job *j = job_create(prompts[i / 7], tokens[i % 7], 1 + i / 7);
                j->p.prompt_logprobs = i % 3 == 0;
                assert_int_equal(job_add(w, j), 0);
                world_run(w);
                finish(j);
            }
            world_destroy(w);
        }
}

static void ends(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++) {
        struct world *w = world_create(roomy, depth);
        struct job *first = job_create(20, 50, 5);
        assert_int_equal(job_add(w, first), 0);
        world_run(w);
        assert_int_equal(first->n_out, 50);
        assert_int_equal(first->why, FINISH_LENGTH);
        struct job *stopped = job_create(20, 50, 5), *later = job_create(20, 50, 5);
        stopped->p.n_stop = later->p.n_stop = 1;
        stopped->stop[0] = later->stop[0] = first->out[9];
        later->p.sampling.min_tokens = 10; // so that token 9 cannot be that one
        assert_int_equal(job_add(w, stopped), 0);
        assert_int_equal(job_add(w, later), 0);
        world_run(w);
        assert_int_equal(stopped->n_out, 10); // with the stop id
        assert_int_equal(stopped->why, FINISH_STOP);
        assert_true(later->n_out > 10);
        assert_memory_equal(later->out, first->out, 9 * sizeof(int32_t));
        struct job *full = job_create(250, 50, 6);
        assert_int_equal(job_add(w, full), 0);
        world_run(w);
        assert_int_equal(full->n_out, 6); // 256 tokens in all
        assert_int_equal(full->why, FINISH_LENGTH);
        finish(first);
        finish(stopped);
        finish(later);
        finish(full);
        world_destroy(w);
    }
}

static void refuses(void **state)
{
    (void)state;
    struct engine_config c = roomy;
    c.n_blocks = 10; // 160 tokens
    c.max_seqs = c.max_waiting = 2;
    struct world *w = world_create(c, 1);
    struct job *j = job_create(160, 1, 1);
    assert_int_equal(job_add(w, j), SV_E_INVALID); // and no room for a token
    j->p.max_tokens = 0;
    assert_int_equal(job_add(w, j), 0);
    world_run(w);
    finish(j);
    int32_t bad_words[] = {2, 5, 6, 1, 7};
    struct {
        const char *name;
        int32_t token, stop, bias, n_bad, bad_0, top;
        int want;
    } rows[] = {
        {"good", 5, 5, 5, 5, 2, 20, 0},
        {"prompt", 1000, 5, 5, 5, 2, 0, SV_E_INVALID},
        {"negative", -1, 5, 5, 5, 2, 0, SV_E_INVALID},
        {"stop", 5, 1000, 5, 5, 2, 0, SV_E_INVALID},
        {"bias", 5, 5, -7, 5, 2, 0, SV_E_INVALID},
        {"bad word's length", 5, 5, 5, 5, 5, 0, SV_E_INVALID},
        {"bad word's negative length", 5, 5, 5, 5, -1, 0, SV_E_INVALID},
        {"bad word's id", 5, 5, 5, 5, 1, 0, 0}, // 1 5, 6 ...: too long
        {"top", 5, 5, 5, 5, 2, 21, SV_E_INVALID},
    };
    rows[7].want = SV_E_INVALID;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        j = job_create(3, 2, 1);
        j->prompt[1] = rows[i].token;
        j->p.n_stop = 1;
        j->stop[0] = rows[i].stop;
        float bias = 1;
        bad_words[0] = rows[i].bad_0;
        j->p.sampling.n_bias = 1;
        j->p.sampling.bias_id = &rows[i].bias;
        j->p.sampling.bias = &bias;
        j->p.sampling.n_bad = (uint32_t)rows[i].n_bad;
        j->p.sampling.bad = bad_words;
        j->p.sampling.logprobs = 1 + (uint32_t)rows[i].top;
        if (job_add(w, j) != rows[i].want)
            fail_msg("%s", rows[i].name);
        bad_words[0] = 99; // they were copied
        world_run(w);
        free(j);
    }
    struct job *all[5];
    for (int i = 0; i < 5; i++) {
        all[i] = job_create(3, 2, 1);
        assert_int_equal(engine_room(w->e), 4 - (i < 4 ? i : 4));
        assert_int_equal(job_add(w, all[i]), i < 4 ? 0 : SV_E_OVERLOADED);
    }
    world_run(w);
    free(all[4]);
    for (int i = 0; i < 4; i++)
        finish(all[i]);
    world_destroy(w);
    c.chunked_prefill = false;
    struct err err = {0};
    struct engine *e;
    assert_int_equal(engine_create(&c, &(sv_kernels){.depth = 1}, NULL, NULL, NULL, &e, &err),
                     SV_E_INVALID);
    assert_non_null(strstr(err.msg, "256"));
    c.max_rows = 0;
    assert_int_equal(engine_create(&c, &(sv_kernels){.depth = 1}, NULL, NULL, NULL, &e, &err),
                     SV_E_INVALID);
}

// What of a second prompt comes out of the cache, and what the counters say.
static void cache(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t first, second, other_from; // second differs from that token on
        uint64_t salt[2];
        bool off, prompt_logprobs;
        uint32_t want;
    } rows[] = {
        {"same, 3 blocks and a bit", 50, 50, 50, {0, 0}, false, false, 48},
        {"same, whole blocks: the last token is computed", 48, 48, 48, {0, 0}, false, false, 32},
        {"one block and a token", 17, 17, 17, {0, 0}, false, false, 16},
        {"one block", 16, 16, 16, {0, 0}, false, false, 0},
        {"longer", 48, 100, 48, {0, 0}, false, false, 48},
        {"differs in block 2", 64, 64, 20, {0, 0}, false, false, 16},
        {"differs at once", 64, 64, 0, {0, 0}, false, false, 0},
        {"salt", 64, 64, 64, {1, 0}, false, false, 0},
        {"salt's other half", 64, 64, 64, {0, 1}, false, false, 0},
        {"off", 64, 64, 64, {0, 0}, true, false, 0},
        {"prompt logprobs", 64, 64, 64, {0, 0}, false, true, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint32_t depth = 1; depth <= 2; depth++) {
            struct engine_config c = roomy;
            c.prefix_cache = !rows[i].off;
            struct world *w = world_create(c, depth);
            struct job *a = job_create(rows[i].first, 5, 1), *b = job_create(rows[i].second, 40, 1);
            for (uint32_t t = rows[i].other_from; t < rows[i].second; t++)
                b->prompt[t] = (b->prompt[t] + 1) % 1000 + (b->prompt[t] == FAKE_NAN - 1);
            b->p.salt[0] = rows[i].salt[0];
            b->p.salt[1] = rows[i].salt[1];
            b->p.prompt_logprobs = rows[i].prompt_logprobs;
            assert_int_equal(job_add(w, a), 0);
            world_run(w);
            uint64_t computed = w->f->tokens;
            assert_int_equal(job_add(w, b), 0);
            struct seq *s = b->seq;
            while (b->n_out == 0)
                world_step(w);
            if (seq_cached(s) != rows[i].want)
                fail_msg("%s: %u", rows[i].name, seq_cached(s));
            assert_true(w->f->tokens - computed >= rows[i].second - rows[i].want);
            assert_true(w->f->tokens - computed <= rows[i].second - rows[i].want + depth - 1);
            const struct engine_stats *t = engine_stats(w->e);
            assert_int_equal(t->prefix_hits, rows[i].want);
            assert_int_equal(t->cached_tokens, rows[i].want);
            assert_int_equal(t->prompt_tokens, rows[i].first + rows[i].second);
            uint32_t asked =
                rows[i].prompt_logprobs ? rows[i].first : rows[i].first + rows[i].second;
            assert_int_equal(t->prefix_queries, rows[i].off ? 0 : asked);
            world_run(w);
            assert_int_equal(t->generated_tokens, 45);
            finish(a);
            finish(b);
            world_destroy(w);
        }
}

// Output is cached as well: a conversation's next turn finds the answer before it.
static void cache_of_output(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++) {
        struct world *w = world_create(roomy, depth);
        struct job *a = job_create(20, 61, 1), *b = job_create(100, 1, 2);
        assert_int_equal(job_add(w, a), 0);
        world_run(w);
        memcpy(b->prompt, a->prompt, 20 * sizeof(int32_t));
        memcpy(b->prompt + 20, a->out, 61 * sizeof(int32_t));
        assert_int_equal(job_add(w, b), 0);
        world_run(w);
        assert_int_equal(engine_stats(w->e)->prefix_hits, 80); // of 81; the last was not computed
        finish(a);
        finish(b);
        world_destroy(w);
    }
}

// n = 8: the prompt is computed once, then each child its last tokens.
static void children(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++)
        for (uint32_t budget = 20; budget <= 200; budget += 90) {
            struct engine_config c = roomy;
            c.max_tokens = budget;
            struct world *w = world_create(c, depth);
            struct job *j[9];
            for (uint64_t i = 0; i < 8; i++) {
                j[i] = job_create(150, 10, 1);
                j[i]->p.sampling.seed = i;
                assert_int_equal(job_add(w, j[i]), 0);
            }
            j[8] = job_create(30, 10, 2); // may pass those who wait
            assert_int_equal(job_add(w, j[8]), 0);
            world_run(w);
            assert_int_equal(w->f->tokens, 150 + 7 * (150 - 144) + 30 + 9 * 9);
            assert_true(j[8]->first_step <= j[1]->first_step);
            for (uint64_t i = 0; i < 9; i++)
                finish(j[i]);
            world_destroy(w);
        }
}

// The one they wait for is paused or goes away half-way.
static void children_orphaned(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++)
        for (int paused = 0; paused < 2; paused++) {
            struct engine_config c = roomy;
            c.max_tokens = 20;
            struct world *w = world_create(c, depth);
            struct job *j[3];
            for (int i = 0; i < 3; i++) {
                j[i] = job_create(150, 10, 1);
                assert_int_equal(job_add(w, j[i]), 0);
            }
            for (int i = 0; i < 3; i++)
                world_step(w);
            assert_int_equal(engine_stats(w->e)->running, 1);
            if (paused) {
                engine_pause(w->e, j[0]->seq, true);
            } else {
                engine_abort(w->e, j[0]->seq);
                j[0]->aborted = true;
            }
            world_run(w);
            assert_true(j[1]->ended && j[2]->ended && !j[0]->ended);
            assert_int_equal(w->f->tokens, 60 + (150 - 48) + 9 + (150 - 144) + 9);
            if (paused)
                engine_pause(w->e, j[0]->seq, false);
            world_run(w);
            for (int i = 0; i < 3; i++)
                finish(j[i]);
            world_destroy(w);
        }
}

// Six blocks, three sequences that grow to 3 blocks each: who has to go?
static void preemption(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool priority;
        int32_t prio[3];
        int paused, last; // last: who ends last
        uint32_t want;
    } rows[] = {
        {"youngest", false, {0, 0, 0}, -1, 2, 1},
        {"priorities are not looked at", false, {2, 1, 0}, -1, 2, 1},
        {"lowest priority", true, {2, 1, 0}, -1, 0, 1},
        {"lowest priority in the middle", true, {0, 1, 0}, -1, 1, 1},
        {"youngest of equal priority", true, {1, 1, 1}, -1, 2, 1},
        {"paused before youngest", false, {0, 0, 0}, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint32_t depth = 1; depth <= 2; depth++) {
            struct engine_config c = roomy;
            c.n_blocks = 6;
            c.priority = rows[i].priority;
            struct world *w = world_create(c, depth);
            struct job *j[3];
            for (int k = 0; k < 3; k++) {
                j[k] = job_create(20, 26, (uint64_t)k);
                j[k]->p.priority = rows[i].prio[k];
                assert_int_equal(job_add(w, j[k]), 0);
            }
            for (int k = 0; k < 4; k++)
                world_step(w);
            assert_int_equal(engine_stats(w->e)->running, 3);
            if (rows[i].paused >= 0)
                engine_pause(w->e, j[rows[i].paused]->seq, true);
            world_run(w);
            assert_true(rows[i].paused < 0 || !j[rows[i].paused]->ended);
            if (rows[i].paused >= 0)
                engine_pause(w->e, j[rows[i].paused]->seq, false);
            world_run(w);
            assert_int_equal(engine_stats(w->e)->preemptions, rows[i].want);
            assert_int_equal(engine_stats(w->e)->prefix_queries, 3 * 20); // once each
            for (int k = 0; k < 3; k++)
                if (j[k]->last_step > j[rows[i].last]->last_step)
                    fail_msg("%s: %d ended after %d", rows[i].name, k, rows[i].last);
            for (int k = 0; k < 3; k++)
                finish(j[k]);
            world_destroy(w);
        }
}

// A step in which somebody was preempted admits nobody, though there may be room.
static void no_admission_after_preemption(void **state)
{
    (void)state;
    struct engine_config c = roomy;
    c.n_blocks = 6;
    struct world *w = world_create(c, 1);
    struct job *small = job_create(5, 5, 9), *j[3];
    assert_int_equal(job_add(w, small), 0);
    engine_pause(w->e, small->seq, true);
    for (int k = 0; k < 3; k++) {
        j[k] = job_create(k == 1 ? 17 : 20, 26, (uint64_t)k); // grows later, so a block is left
        assert_int_equal(job_add(w, j[k]), 0);
    }
    for (int k = 0; k < 13; k++) // one token each, then up to 32 of KV
        world_step(w);
    assert_int_equal(engine_stats(w->e)->preemptions, 0);
    engine_pause(w->e, small->seq, false); // the oldest
    world_step(w);
    assert_int_equal(engine_stats(w->e)->preemptions, 1);
    assert_int_equal(engine_stats(w->e)->running, 2);
    world_run(w);
    for (int k = 0; k < 3; k++)
        finish(j[k]);
    finish(small);
    world_destroy(w);
}

static void queue_order(void **state)
{
    (void)state;
    static const struct {
        bool priority;
        int order[4];
    } rows[] = {{false, {0, 1, 2, 3}}, {true, {3, 1, 2, 0}}};
    static const int32_t prio[] = {5, 0, 0, -1};
    for (int i = 0; i < 2; i++) {
        struct engine_config c = roomy;
        c.max_seqs = 1;
        c.priority = rows[i].priority;
        struct world *w = world_create(c, 1);
        struct job *j[4];
        for (int k = 0; k < 4; k++) {
            j[k] = job_create(20, 5, (uint64_t)k);
            j[k]->p.priority = prio[k];
            assert_int_equal(job_add(w, j[k]), 0);
        }
        world_run(w);
        for (int k = 0; k + 1 < 4; k++)
            assert_true(j[rows[i].order[k]]->last_step < j[rows[i].order[k + 1]]->first_step);
        for (int k = 0; k < 4; k++)
            finish(j[k]);
        world_destroy(w);
    }
}

// A prompt is admitted when all of it has a place, not before; nobody behind it passes.
static void admission(void **state)
{
    (void)state;
    struct engine_config c = roomy;
    c.n_blocks = 8;
    struct world *w = world_create(c, 1);
    struct job *a = job_create(60, 4, 1), *b = job_create(70, 4, 2), *d = job_create(10, 4, 3);
    assert_int_equal(job_add(w, a), 0);
    assert_int_equal(job_add(w, b), 0); // 5 blocks; 4 are free
    assert_int_equal(job_add(w, d), 0);
    assert_int_equal(seq_admitted_ns(b->seq), 0);
    world_step(w);
    assert_int_equal(engine_stats(w->e)->running, 1);
    assert_int_equal(engine_stats(w->e)->waiting, 2);
    assert_int_equal(engine_stats(w->e)->blocks_used, 4);
    assert_true(seq_admitted_ns(a->seq) > 0);
    world_run(w);
    assert_true(b->first_step > a->last_step);
    finish(a);
    finish(b);
    finish(d);
    world_destroy(w);
}

static void aborts(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++) {
        struct world *w = world_create(roomy, depth);
        struct job *a = job_create(60, 50, 1), *b = job_create(100, 50, 2),
                   *d = job_create(9, 9, 3);
        d->abort_at = 4; // from within on_token
        assert_int_equal(job_add(w, a), 0);
        assert_int_equal(job_add(w, b), 0);
        assert_int_equal(job_add(w, d), 0);
        world_step(w); // a and four tokens of b
        assert_int_equal(engine_stats(w->e)->blocks_used, 4 + 7);
        engine_abort(w->e, b->seq);
        b->aborted = true;
        assert_int_equal(engine_stats(w->e)->blocks_used, 4);
        world_step(w);
        world_step(w);
        assert_int_equal(engine_stats(w->e)->running, 2);
        engine_abort(w->e, a->seq); // rows of it are under way with depth 2
        a->aborted = true;
        assert_int_equal(engine_stats(w->e)->blocks_used, 1);
        engine_check(w->e);
        world_run(w);
        assert_int_equal(d->n_out, 4);
        struct job *e = job_create(60, 5, 1);
        assert_int_equal(job_add(w, e), 0);
        world_run(w);
        assert_int_equal(engine_stats(w->e)->prefix_hits, 48); // what a has computed is still known
        finish(a);
        finish(b);
        finish(d);
        finish(e);
        world_destroy(w);
    }
}

// A paused one gets nothing, holds what it has, and goes first when others need it.
static void pauses(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct engine_config c = roomy;
        if (kind > 1) // the slot is what b lacks
            c.max_seqs = 1;
        else
            c.n_blocks = 8;
        struct world *w = world_create(c, 1 + kind % 2);
        struct job *a = job_create(60, 50, 1), *b = job_create(100, 5, 2);
        assert_int_equal(job_add(w, a), 0);
        world_step(w);
        world_step(w);
        engine_pause(w->e, a->seq, true);
        engine_pause(w->e, a->seq, true);
        world_run(w);
        uint32_t n = a->n_out;
        assert_in_range(n, 1, 4);
        assert_int_equal(engine_stats(w->e)->running, 1);
        assert_true(engine_stats(w->e)->blocks_used >= 4);
        assert_int_equal(job_add(w, b), 0); // 7 blocks
        world_run(w);
        assert_int_equal(engine_stats(w->e)->preemptions, 1);
        assert_true(b->ended);
        assert_int_equal(a->n_out, n);
        assert_int_equal(engine_stats(w->e)->waiting, 1);
        engine_pause(w->e, a->seq, false);
        world_run(w);
        finish(a);
        finish(b);
        world_destroy(w);
    }
}

// Logits that are not numbers end their own sequence, and its blocks are not handed on.
static void nan_row(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++) {
        struct world *w = world_create(roomy, depth);
        struct job *a = job_create(60, 20, 1), *b = job_create(60, 20, 1),
                   *d = job_create(60, 20, 1);
        a->p.sampling.seed = 9;
        b->prompt[5] = FAKE_NAN;
        assert_int_equal(job_add(w, a), 0);
        assert_int_equal(job_add(w, b), 0);
        world_run(w);
        assert_int_equal(b->why, FINISH_ERROR);
        assert_non_null(strstr(b->text, "not numbers"));
        assert_int_equal(engine_stats(w->e)->prefix_hits, 0);
        assert_int_equal(job_add(w, d), 0);
        struct job *again = job_create(60, 20, 1);
        again->prompt[5] = FAKE_NAN;
        assert_int_equal(job_add(w, again), 0);
        world_run(w);
        assert_int_equal(engine_stats(w->e)->prefix_hits, 48); // d's alone
        finish(a);
        finish(b);
        finish(d);
        finish(again);
        world_destroy(w);
    }
}

static void slot_refused(void **state)
{
    (void)state;
    struct world *w = world_create(roomy, 2);
    struct job *a = job_create(60, 20, 1), *b = job_create(60, 20, 2), *d = job_create(60, 20, 3);
    b->p.sampling.top_k = FAKE_SLOT_BAD;
    assert_int_equal(job_add(w, a), 0);
    assert_int_equal(job_add(w, b), 0);
    assert_int_equal(job_add(w, d), 0);
    b->n_want = 0;
    b->want_why = FINISH_ERROR;
    world_run(w);
    assert_non_null(strstr(b->text, "sampling"));
    finish(a);
    finish(b);
    finish(d);
    world_destroy(w);
}

static void device_lost(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++)
        for (int where = 0; where < 3; where++) {
            bool told = where == 1 || (where == 2 && depth == 2); // collect() was asked
            struct engine_config c = roomy;
            c.max_seqs = 4;
            struct world *w = world_create(c, depth);
            struct job *j[8];
            for (int i = 0; i < 8; i++) {
                j[i] = job_create(20, 20, (uint64_t)i);
                assert_int_equal(job_add(w, j[i]), 0);
            }
            int64_t *const fails[] = {&w->f->fail_launch, &w->f->fail_collect, &w->f->fail_batch};
            *fails[where] = 8;
            if (where == 2) // the step under way has failed, and so does all that comes after
                w->f->fail_collect = 7 + (depth == 1);
            int rc;
            struct err err = {0};
            while ((rc = engine_step(w->e, &err)) > 0)
                if (j[3]->seq && j[3]->n_out == 2)
                    engine_pause(w->e, j[3]->seq, true);
            assert_int_equal(rc, SV_E_FATAL);
            assert_int_equal(err.code, SV_E_FATAL);
            assert_true(!told || strstr(err.msg, "the fake device is lost"));
            engine_check(w->e);
            for (int i = 0; i < 8; i++) {
                assert_true(j[i]->ended);
                assert_int_equal(j[i]->why, FINISH_ERROR);
                assert_string_equal(j[i]->text, err.msg);
                assert_memory_equal(j[i]->out, j[i]->want, j[i]->n_out * sizeof(int32_t));
            }
            assert_int_equal(engine_step(w->e, &err), SV_E_FATAL);
            struct job *late = job_create(20, 20, 1);
            assert_int_equal(job_add(w, late), SV_E_FATAL);
            free(late);
            for (int i = 0; i < 8; i++)
                free(j[i]);
            world_destroy(w);
        }
}

// A long prompt beside streams: with chunks no stream misses a step; without, the prompt is read in
// one step, and comes to its turn though the streams leave too little of the budget.
static void chunks(void **state)
{
    (void)state;
    for (uint32_t depth = 1; depth <= 2; depth++)
        for (int kind = 0; kind < 3; kind++) {
            bool chunked = kind > 0, older = kind > 1; // older: than the streams
            struct engine_config c = roomy;
            c.max_tokens = chunked ? 32 : 256;
            c.chunked_prefill = chunked;
            struct world *w = world_create(c, depth);
            struct job *j[9];
            for (int i = 0; i < 9; i++)
                j[i] = job_create(i < 8 ? 3 : 250, i < 8 ? 60 : 3, (uint64_t)i);
            if (older) {
                assert_int_equal(job_add(w, j[8]), 0);
                engine_pause(w->e, j[8]->seq, true);
            }
            for (int i = 0; i < 8; i++)
                assert_int_equal(job_add(w, j[i]), 0);
            for (uint32_t i = 0; i < depth; i++)
                world_step(w);
            assert_int_equal(j[7]->n_out, 1);
            if (older)
                engine_pause(w->e, j[8]->seq, false);
            else
                assert_int_equal(job_add(w, j[8]), 0);
            uint32_t most = 0, steps = 0, missed = 0;
            for (; j[8]->n_out == 0; steps++) {
                uint32_t before = j[7]->n_out;
                world_step(w);
                most = w->f->last_tokens > most ? w->f->last_tokens : most;
                missed += j[7]->n_out == before;
            }
            assert_true(steps <= (chunked ? 250 / (32 - 8) + 1 : 3) + depth);
            assert_int_equal(most, chunked ? 32 : 256);
            assert_int_equal(missed, chunked ? 0 : 1);
            world_run(w);
            for (int i = 0; i < 9; i++)
                finish(j[i]);
            world_destroy(w);
        }
}

// Rows of prompt logprobs beyond max_rows go to later steps.
static void prompt_rows(void **state)
{
    (void)state;
    for (uint32_t rows = 1; rows <= 7; rows += 2)
        for (uint32_t depth = 1; depth <= 2; depth++) {
            struct engine_config c = roomy;
            c.max_rows = rows;
            struct world *w = world_create(c, depth);
            struct job *a = job_create(40, 10, 1), *b = job_create(40, 0, 1);
            a->p.prompt_logprobs = b->p.prompt_logprobs = true;
            a->p.sampling.logprobs = 3;
            assert_int_equal(job_add(w, a), 0);
            assert_int_equal(job_add(w, b), 0);
            world_run(w);
            assert_int_equal(w->f->rows, 2 * 39 + 10 + 1);
            finish(a);
            finish(b);
            world_destroy(w);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(ends),
        cmocka_unit_test(refuses),
        cmocka_unit_test(cache),
        cmocka_unit_test(cache_of_output),
        cmocka_unit_test(children),
        cmocka_unit_test(children_orphaned),
        cmocka_unit_test(preemption),
        cmocka_unit_test(queue_order),
        cmocka_unit_test(no_admission_after_preemption),
        cmocka_unit_test(admission),
        cmocka_unit_test(aborts),
        cmocka_unit_test(pauses),
        cmocka_unit_test(nan_row),
        cmocka_unit_test(slot_refused),
        cmocka_unit_test(device_lost),
        cmocka_unit_test(chunks),
        cmocka_unit_test(prompt_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
