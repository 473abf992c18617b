// SPDX-License-Identifier: Apache-2.0
#include "llm/admit.h"

#include "base/clock.h"
#include "llm/plan.h"
#include "llm/sched.h"

enum { LOOK_AGAIN = 16 }; // steps

// The one whose blocks q waits for is still at it.
static bool still_waits(const struct sched *s, struct seq *q)
{
    if (q->wait_block == BLOCK_NONE)
        return false;
    const struct block *x = &s->blocks.block[q->wait_block];
    if (x->state == BLOCK_PENDING && x->serial == q->wait_serial)
        return true;
    q->wait_block = BLOCK_NONE;
    return false;
}

// Puts what the prefix cache has of q into s->hits and returns how many blocks it is. Sets
// q->wait_block when it is better to wait for more. At least one token is left to compute, and all
// whose logprobs are still wanted.
static uint32_t look_up(struct sched *s, struct seq *q)
{
    uint32_t most = (q->prompt_logprobs ? q->next_prompt_row : q->known) - 1;
    uint32_t n = 0, pending = 0;
    struct chain at = q->chain = blocks_root(q->salt);
    for (uint32_t i = 0; s->c->prefix_cache && i < most / SV_BLOCK; i++) {
        uint32_t b = blocks_find(&s->blocks, &at, q->token + (size_t)i * SV_BLOCK);
        enum block_state state = b == BLOCK_NONE ? BLOCK_PLAIN : s->blocks.block[b].state;
        if (state == BLOCK_PENDING) {
            pending++;
            q->wait_block = b;
            q->wait_serial = s->blocks.block[b].serial;
            continue;
        }
        if (state != BLOCK_READY || pending)
            break;
        s->hits[n++] = b;
        q->chain = at;
    }
    if (2 * pending * SV_BLOCK < q->known - n * SV_BLOCK)
        q->wait_block = BLOCK_NONE;
    return n;
}

// Free blocks that q with its n hits takes.
static uint32_t need(const struct sched *s, const struct seq *q, uint32_t n)
{
    uint32_t blocks = blocks_of(q->known) - n;
    for (uint32_t i = 0; i < n; i++)
        blocks += s->blocks.block[s->hits[i]].refs == 0;
    return blocks;
}

// A slot and blocks for q with its n hits; parked sequences go for it when that is enough.
static bool make_room(struct sched *s, struct seq *q, uint32_t n)
{
    uint32_t parked = 0;
    q->need = need(s, q, n);
    q->looked = s->stats->steps;
    if (q->need > s->blocks.free)
        list_for_each (at, &s->parked)
            parked += seq_of(at)->n_blocks;
    if (q->need > s->blocks.free + parked)
        return false;
    while (s->n_slots == 0 || need(s, q, n) > s->blocks.free) {
        if (list_empty(&s->parked))
            return false;
        sched_preempt(s, seq_of(list_first(&s->parked)));
    }
    return true;
}

// It did not fit a few steps ago, and no more is free now: the cache need not be asked again.
static bool still_short(const struct sched *s, const struct seq *q)
{
    return q->need > s->blocks.free && list_empty(&s->parked) &&
           s->stats->steps - q->looked < LOOK_AGAIN;
}

static bool set_slot(struct sched *s, struct seq *q)
{
    sv_sampling a = q->sampling;
    a.history = q->token;
    a.n_history = q->known;
    a.prompt_len = q->n_prompt;
    q->slot = s->slot[s->n_slots - 1];
    if (s->k->slot(s->session, q->slot, &a) < 0) {
        sched_remove(s, q);
        q->state = SEQ_FAILED;
        list_push(&s->failed, &q->node);
        return false;
    }
    s->n_slots--;
    return true;
}

static void count(struct sched *s, struct seq *q, uint32_t n)
{
    if (q->priced)
        return;
    q->priced = true;
    q->admitted_ns = clock_now_ns();
    if (!s->c->prefix_cache || q->prompt_logprobs)
        return;
    q->cached = n * SV_BLOCK;
    s->stats->prefix_queries += q->n_prompt;
    s->stats->prefix_hits += q->cached;
    s->stats->cached_tokens += q->cached;
}

static void take_blocks(struct sched *s, struct plan *p, struct seq *q, uint32_t n_hits)
{
    for (uint32_t i = 0; i < n_hits; i++) {
        blocks_share(&s->blocks, s->hits[i]);
        q->block[i] = s->hits[i];
    }
    uint32_t n = blocks_of(q->known);
    for (uint32_t i = n_hits; i < n; i++)
        q->block[i] = blocks_take(&s->blocks);
    q->settled = q->named = n_hits;
    for (; s->c->prefix_cache && q->named < q->known / SV_BLOCK; q->named++)
        blocks_name(&s->blocks, q->block[q->named], &q->chain,
                    q->token + (size_t)q->named * SV_BLOCK, BLOCK_PENDING);
    for (q->n_blocks = 0; q->n_blocks < n; q->n_blocks++)
        plan_edit(p, q, q->n_blocks);
    q->computed = n_hits * SV_BLOCK;
    q->need = 0;
}

enum admission { ADMITTED, PASSED, FULL };

static enum admission admit_one(struct sched *s, struct plan *p, struct seq *q)
{
    if (q->flying || still_waits(s, q))
        return PASSED;
    if (still_short(s, q) || blocks_of(q->known) > p->edits)
        return FULL;
    uint32_t hits = look_up(s, q);
    if (q->wait_block != BLOCK_NONE)
        return PASSED;
    uint32_t n = q->known - hits * SV_BLOCK;
    if (!s->c->chunked_prefill && n > p->tokens) {
        s->reserve = n;
        return FULL;
    }
    if (!make_room(s, q, hits))
        return FULL;
    if (!set_slot(s, q))
        return PASSED;
    take_blocks(s, p, q, hits);
    count(s, q, hits);
    list_remove(&q->node);
    q->state = SEQ_RUNNING;
    sched_insert(s, &s->running, q, false);
    s->n_running++;
    s->n_waiting--;
    s->layout.valid = false;
    plan_put(s, p, q, plan_clip(p, q, n < p->tokens ? n : p->tokens));
    return ADMITTED;
}

void admit(struct sched *s, struct plan *p)
{
    if (s->n_slots == 0 && list_empty(&s->parked))
        return;
    list_for_each_safe (at, &s->waiting)
        if (p->tokens == 0 || p->rows == 0 || admit_one(s, p, seq_of(at)) == FULL)
            return;
}
