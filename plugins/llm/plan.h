// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * plan - the step that is being put together: its batch, its rows, what is left of its bounds.
 *
 * sched_plan() fills one in the order of sched.h: decodes, prompts under way, admission. Nothing is
 * taken back once it was put in: who can be preempted comes later than whoever needs the block.
 */
#include "llm/sched.h"

struct plan {
    sv_batch *b;           // borrowed from the backend
    struct flight *f;      // borrowed from the engine
    uint32_t tokens, rows; // that may still be put in
    uint64_t edits;        // likewise, of the page table
    uint32_t n_prefill;    // running sequences that lack more than one token
    bool preempted;        // somebody who was running
};

// Tells the device of a block of q's.
void plan_edit(struct plan *p, const struct seq *q, uint32_t index);
// How many of q's next n tokens the rows that are left allow.
uint32_t plan_clip(const struct plan *p, const struct seq *q, uint32_t n);
// q's next n tokens, with the rows that are wanted of them.
void plan_put(struct sched *s, struct plan *p, struct seq *q, uint32_t n);
