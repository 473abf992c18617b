// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * engine - continuous batching over a paged KV cache: which sequences take part in a step, with how
 * many tokens, in which blocks. Knows token ids alone: no text, no HTTP.
 *
 *   engine_add --> WAITING --admit--> RUNNING --token--> ... --> finished (on_token with a reason)
 *                     ^                  |
 *                     +---- preempt -----+   its blocks go back, its tokens stay
 *
 * Step    1. every running sequence gets the tokens it still lacks within the budget: first those
 *         that decode, oldest first, then prompts; when blocks are short the youngest is preempted
 *         to the front of the waiting ones (a paused one before it);
 *         2. when none was preempted, waiting ones are admitted while slots, budget and blocks for
 *         their whole prompt last, after a look into the prefix cache (vLLM v1's order).
 * Cache   a full block is found by (what is before it, its tokens, the salt), compared in full;
 *         freed blocks stay findable until they are needed, least recently used first.
 * Depth   as many launches are under way as the backend allows. A sequence that ends while one is
 *         has a row there for nothing. Launches run in order, so blocks are free at once.
 * Bounds  max_seqs + max_waiting sequences, max_seqs of them running; engine_add refuses beyond.
 *         max_context is cut to what the cache holds as a whole: whoever runs can always finish.
 * Owner   a seq is the engine's from engine_add until its last on_token or engine_abort.
 * Thread  one at a time. on_token and on_prompt are called from within engine_step; they may call
 *         all functions but engine_step and engine_destroy.
 */
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct seq;
struct err;

enum finish { RUNNING = 0, FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR };

struct token_info { // valid during on_token
    int32_t token;
    bool has_logprob;
    float logprob;
    int32_t rank;
    uint32_t n_top;
    const int32_t *top_id;
    const float *top_logprob;
};

struct seq_params {
    const int32_t *prompt; // copied
    uint32_t n_prompt;     // >= 1
    uint32_t
        max_tokens; // of output; >= 0. 0: the prompt is read (prompt_logprobs), nothing sampled
    const int32_t *stop; // ids that end it, copied; the caller leaves out eos for ignore_eos
    uint32_t n_stop;
    sv_sampling sampling; // arrays copied; history, prompt_len and n_stop are the engine's business
    bool prompt_logprobs; // on_prompt for every prompt token but the first; no cache lookup then
    uint64_t salt[2];     // of the prefix cache; 0, 0: none
    int32_t priority;     // lower first; used by policy "priority"
    void *user;
};

// Called once for each token sampled, in order; `why` != RUNNING: the last call of this seq. A stop
// id that ended it comes with FINISH_STOP as t->token. FINISH_ERROR: t is NULL, text says why.
// With max_tokens 0 the only call has t NULL and FINISH_LENGTH.
typedef void engine_on_token(void *user, const struct token_info *t, enum finish why,
                             const char *text);
// Logprobs of prompt token i (i >= 1) given those before it.
typedef void engine_on_prompt(void *user, uint32_t i, const struct token_info *t);

struct engine_config {
    uint32_t max_seqs, max_waiting, max_tokens /* of a step: the budget */, max_rows, max_context;
    uint32_t n_blocks;
    uint32_t vocab;
    bool prefix_cache, chunked_prefill, priority;
    engine_on_token *on_token;
    engine_on_prompt *on_prompt;
};

struct engine_stats { // counters since the start, gauges now
    uint64_t prompt_tokens, cached_tokens, generated_tokens, preemptions, prefix_queries,
        prefix_hits, steps;
    uint32_t running, waiting, blocks_used, blocks_total; // used: held by a running sequence
    uint32_t step_tokens, step_seqs;                      // of the last step
};

// `program` gives the recorded program of a batch (model_program with its model), or NULL.
typedef sv_program *engine_program(void *arg, uint32_t n_tokens, uint32_t n_rows);
// SV_E_INVALID: a size is 0, or without chunked_prefill max_tokens is less than max_context.
int engine_create(const struct engine_config *c, const sv_kernels *k, sv_session *session,
                  engine_program *program, void *arg, struct engine **ret, struct err *err);
void engine_destroy(struct engine *e); // every seq must have ended: engine_abort them first

// SV_E_INVALID: the prompt and a token don't fit max_context or the cache as a whole, or an id is
// not in the vocabulary. SV_E_OVERLOADED: full. SV_E_FATAL: the device failed before.
int engine_add(struct engine *e, const struct seq_params *p, struct seq **ret, struct err *err);
// Frees its blocks now; no more calls for it. Not from within on_token of the seq that ends there.
void engine_abort(struct engine *e, struct seq *s);
// Not scheduled while paused; what it holds stays (it may be preempted).
void engine_pause(struct engine *e, struct seq *s, bool paused);
uint32_t seq_cached(const struct seq *s); // prompt tokens that came out of the prefix cache
uint32_t seq_generated(const struct seq *s);
uint64_t seq_admitted_ns(const struct seq *s); // CLOCK_MONOTONIC of its first admission; 0: waiting

// One step: launches, then hands out the tokens of the oldest step under way. 1: call again,
// 0: nothing to do, < 0: the device failed (SV_E_FATAL).
int engine_step(struct engine *e, struct err *err);
const struct engine_stats *engine_stats(const struct engine *e);
uint32_t engine_room(const struct engine *e); // seqs that engine_add would still take
void engine_check(const struct engine *e);    // CHECKs all invariants; walks everything, for tests
