// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * seq - one sequence of the engine: its tokens, the blocks that hold their KV, how far it is.
 *
 *   0 ........ computed ........ known ........ total ........ limit
 *     KV is in    |  tokens that  |  drawn by a   |
 *     the blocks  |  the host has |  launch under |
 *     (launched)  |               |  way          |
 *
 * Lack     total - computed tokens have to be computed before the next one can be drawn: 1 while it
 *          decodes; all of them after admission, but for those that the prefix cache gave.
 * Owner    the scheduler's lists. A seq that ended while rows of it are under way is SEQ_GONE until
 *          the last has landed.
 * Memory   one allocation for the struct and its copies of the parameters' arrays, one for the page
 *          table, one for the tokens, which doubles: nothing is allocated per token.
 */
#include "base/list.h"
#include "llm/blocks.h"
#include "llm/engine.h"

enum seq_state {
    SEQ_WAITING, // on sched.waiting; has neither slot nor blocks
    SEQ_ASIDE,   // on sched.aside: as WAITING, but paused
    SEQ_RUNNING, // on sched.running
    SEQ_PARKED,  // on sched.parked: as RUNNING, but paused
    SEQ_FAILED,  // on sched.failed: the device does not take it; ends in this step
    SEQ_GONE     // on no list
};

enum { SEQ_ALIGN = 128, SEQ_STOPS = 4 };

struct seq {
    // The two cache lines that a decode step touches. Between two steps a model has driven all of
    // them out of the near caches, so there are no more of them, and the loops fetch ahead.
    struct list node; // first
    int32_t *token;   // owned [cap_tokens], known of them filled
    const int32_t *stop;
    void *user;
    uint32_t computed, known, total, limit;
    uint32_t flying; // rows of launches under way
    int32_t last;    // token[known - 1]

    uint32_t n_prompt, n_blocks, n_stop, cap_tokens, slot;
    int32_t want; // SV_DRAW, or with max_tokens = 0 the id its last row asks for
    int32_t stop_here[SEQ_STOPS];
    enum seq_state state;
    uint32_t logprobs;            // sampling.logprobs
    bool prompt_logprobs, priced; // priced: its tokens are in the prefix cache's counters
    uint32_t *block;              // owned [blocks of limit], n_blocks of them filled

    // What of it has names: blocks [0, settled) are computed, [0, named) have their place in the
    // chain, which goes on with `chain`.
    uint32_t settled, named;
    struct chain chain;
    // Waits for that block while it still holds content of that serial and is pending.
    uint32_t wait_block;
    uint64_t wait_serial;
    uint32_t need;   // free blocks it lacked when it was looked at last
    uint64_t looked; // stats.steps of that

    uint32_t next_prompt_row; // prompt token whose logprob is to be asked for next
    uint32_t cached;
    uint64_t arrival, admitted_ns, salt[2];
    int32_t priority;
    sv_sampling sampling; // arrays point behind the struct
};
_Static_assert(offsetof(struct seq, settled) <= SEQ_ALIGN, "a decode step touches more");

// p has been checked. max_context counts the prompt.
struct seq *seq_create(const struct seq_params *p, uint32_t max_context);
void seq_destroy(struct seq *s);

void seq_append(struct seq *s, int32_t token); // known < limit

// Why it ends now that its last token is known; RUNNING: it does not.
static inline enum finish seq_verdict(const struct seq *s)
{
    for (uint32_t i = 0; i < s->n_stop; i++)
        if (s->stop[i] == s->last && s->known - s->n_prompt > s->sampling.min_tokens)
            return FINISH_STOP;
    return s->known >= s->limit ? FINISH_LENGTH : RUNNING;
}

static inline void seq_fetch(const struct seq *s)
{
    __builtin_prefetch(s, 1);
    __builtin_prefetch((const char *)s + SEQ_ALIGN / 2, 1);
}

static inline uint32_t seq_lack(const struct seq *s)
{
    return s->total - s->computed;
}

static inline uint32_t blocks_of(uint32_t n_tokens)
{
    return (n_tokens + SV_BLOCK - 1) / SV_BLOCK;
}
