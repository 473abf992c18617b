// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sched - which sequences take part in the next step, with how many tokens, in which blocks.
 *
 *   sched_add -> waiting --admit--> running <--pause--> parked      parked, aside: paused, with and
 *                  ^  ^---preempt-----+                   |         without slot and blocks
 *                  +--pause--> aside <-----preempt--------+
 *
 * Order    lists but `parked` are sorted by arrival, with policy "priority" by (priority, arrival).
 * Step     1. decodes: one token each, oldest first. Who finds no block for it has somebody
 *             preempted: the sequence parked longest, else the youngest running, itself at last.
 *          2. prompts under way get what is left of the budget, oldest first.
 *          3. when nobody running was preempted: admission, in order, while slots, budget, rows and
 *             blocks for all known tokens last; parked ones are preempted for it.
 * Whole    without chunked_prefill a prompt is taken whole or not at all; when decodes leave too
 *          little of the budget for it, the next step keeps that much for it.
 * Sharing  a sequence whose next blocks another one is about to compute waits for them if they are
 *          at least half of what it lacks; the others behind it may pass.
 * Cost     a step whose decodes are those of the step before, in the same order, copies their slots
 *          and rows from `layout`; new tokens, positions and blocks alone are worked out.
 * Bounds   everything is allocated at init but the sequences.
 * Thread   one. Never calls out but to kernels->slot.
 */
#include "llm/blocks.h"
#include "llm/engine.h"
#include "llm/seq.h"

struct row { // of a launch under way
    struct seq *seq;
    uint32_t at; // 0: a token was drawn; i < n_prompt: logprob of prompt token i; n_prompt: the end
};

struct flight { // a launch under way
    int64_t ticket;
    uint32_t n_rows;
    struct row *row; // owned [max_rows]
};

// Decode part of the last step, for as long as `valid`. All arrays [max_seqs].
struct layout {
    bool valid;
    uint32_t n, left; // left: steps until the first of them has drawn its last token
    struct seq **seq;
    int32_t *slot, *one, *index, *draw; // one: 1, 1, ...; index: 0, 1, ...; draw: SV_DRAW ...
    struct row *row;
};

struct sched {
    const struct engine_config *c; // borrowed from the engine
    const sv_kernels *k;           // borrowed, outlives us
    sv_session *session;           // likewise
    struct engine_stats *stats;    // borrowed from the engine
    struct blocks blocks;
    struct list running, parked, waiting, aside;
    struct list failed;            // kernels->slot refused them; the engine says so and ends them
    uint32_t n_running, n_waiting; // parked and aside included
    uint32_t *slot;                // owned [max_seqs]: slots nobody has, n_slots of them
    uint32_t n_slots;
    uint32_t reserve; // tokens of the next step that are kept for a whole prompt
    uint64_t arrivals;
    struct seq **fill; // owned [max_seqs]: who has a block filled by this step, n_fill of them
    uint32_t n_fill;
    struct layout layout;
    uint32_t *hits; // owned [blocks of max_context]: what the cache has for the one to be admitted
};

void sched_init(struct sched *s, const struct engine_config *c, const sv_kernels *k,
                sv_session *session, struct engine_stats *stats);
void sched_finish(struct sched *s);

void sched_add(struct sched *s, struct seq *q);
void sched_remove(struct sched *s, struct seq *q); // off its list, blocks and slot back; SEQ_GONE
void sched_pause(struct sched *s, struct seq *q, bool paused);

// Writes the next step into b and its rows into f. Returns its tokens; 0: nothing can be done now.
uint32_t sched_plan(struct sched *s, sv_batch *b, struct flight *f);
// The step was launched: from now on others may read what it fills.
void sched_launched(struct sched *s);
// q has got a token. Names the block that it completed, if its KV is under way already.
void sched_told(struct sched *s, struct seq *q);
void sched_forget(struct sched *s,
                  struct seq *q); // q's blocks hold no good KV: nobody may hit them

void sched_check(const struct sched *s);

// For plan.c and admit.c.
static inline struct seq *seq_of(struct list *node)
{
    return (struct seq *)(void *)node;
}
void sched_insert(struct sched *s, struct list *list, struct seq *q, bool from_front); // in order
void sched_preempt(struct sched *s, struct seq *q);
