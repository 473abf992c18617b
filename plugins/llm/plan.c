// SPDX-License-Identifier: Apache-2.0
#include "llm/plan.h"

#include "llm/admit.h"

#include <string.h>

void plan_edit(struct plan *p, const struct seq *q, uint32_t index)
{
    sv_batch *b = p->b;
    uint32_t i = b->n_edits++;
    b->edit_slot[i] = (int32_t)q->slot;
    b->edit_index[i] = (int32_t)index;
    b->edit_block[i] = (int32_t)q->block[index];
    p->edits--;
}

// One block more for q. False: q itself was the one to go.
static bool grow(struct sched *s, struct plan *p, struct seq *q)
{
    while (s->blocks.free == 0) {
        struct list *parked = list_first(&s->parked);
        struct seq *victim = seq_of(parked ? parked : s->running.prev);
        p->preempted |= !parked;
        sched_preempt(s, victim);
        if (victim == q)
            return false;
    }
    q->block[q->n_blocks] = blocks_take(&s->blocks);
    plan_edit(p, q, q->n_blocks++);
    return true;
}

static void put_row(struct plan *p, struct seq *q, uint32_t token, uint32_t at, int32_t want)
{
    uint32_t i = p->b->n_rows++;
    p->b->row_token[i] = (int32_t)token;
    p->b->row_slot[i] = (int32_t)q->slot;
    p->b->row_want[i] = want;
    p->f->row[i] = (struct row){q, at};
    p->f->n_rows++;
    p->rows--;
    q->flying++;
}

// The rows of q's tokens [computed, computed + n), which begin at `first` of the batch.
static void put_rows(struct plan *p, struct seq *q, uint32_t first, uint32_t n)
{
    uint32_t end = q->computed + n;
    for (; q->prompt_logprobs && q->next_prompt_row < q->n_prompt && q->next_prompt_row <= end;
         q->next_prompt_row++)
        put_row(p, q, first + q->next_prompt_row - 1 - q->computed, q->next_prompt_row,
                q->token[q->next_prompt_row]);
    if (end < q->total)
        return;
    put_row(p, q, first + n - 1, q->want == SV_DRAW ? 0 : q->n_prompt, q->want);
    q->total++;
}

void plan_put(struct sched *s, struct plan *p, struct seq *q, uint32_t n)
{
    sv_batch *b = p->b;
    uint32_t first = b->n_tokens;
    if (q->computed < q->known)
        memcpy(b->token + first, q->token + q->computed, n * sizeof *b->token);
    else
        b->token[first] = SV_SAMPLED;
    for (uint32_t i = 0; i < n; i++)
        b->pos[first + i] = (int32_t)(q->computed + i);
    b->seq_slot[b->n_seqs] = (int32_t)q->slot;
    b->seq_tokens[b->n_seqs++] = (int32_t)n;
    b->n_tokens += n;
    p->tokens -= n;
    put_rows(p, q, first, n);
    if (q->computed / SV_BLOCK != (q->computed + n) / SV_BLOCK)
        s->fill[s->n_fill++] = q;
    q->computed += n;
}

uint32_t plan_clip(const struct plan *p, const struct seq *q, uint32_t n)
{
    uint32_t rows = p->rows;
    if (q->prompt_logprobs && q->next_prompt_row < q->n_prompt) {
        uint32_t first = q->next_prompt_row - 1, end = q->computed + n; // tokens with rows
        if (end > q->n_prompt - 1)
            end = q->n_prompt - 1;
        if (end > first && end - first > rows)
            return first + rows - q->computed;
        rows -= end > first ? end - first : 0;
    }
    return q->computed + n == q->total && rows == 0 ? n - 1 : n;
}

// The next decode of the step that is planned is q's.
static void note(struct layout *l, uint32_t i, struct seq *q)
{
    l->seq[i] = q;
    l->slot[i] = (int32_t)q->slot;
    l->row[i] = (struct row){q, 0};
    if (i == 0 || q->limit - q->total < l->left)
        l->left = q->limit - q->total;
}

static void decodes(struct sched *s, struct plan *p)
{
    bool all = true;
    for (struct list *at = s->running.next; at != &s->running; at = at->next) {
        struct seq *q = seq_of(at);
        if (q->total == q->limit) { // its last token is under way
            all = false;
            continue;
        }
        if (seq_lack(q) > 1) {
            p->n_prefill++;
            continue;
        }
        if (p->tokens == 0 || p->rows == 0) {
            all = false;
            continue;
        }
        if (q->computed / SV_BLOCK == q->n_blocks && !grow(s, p, q))
            return; // q was the last in the list
        all &= q->want == SV_DRAW;
        note(&s->layout, p->b->n_seqs, q);
        plan_put(s, p, q, 1);
    }
    s->layout.n = p->b->n_seqs;
    s->layout.left -= p->b->n_seqs > 0; // this step's
    s->layout.valid = all && p->n_prefill == 0;
}

static void prefills(struct sched *s, struct plan *p)
{
    for (struct list *at = s->running.next; p->n_prefill && at != &s->running; at = at->next) {
        struct seq *q = seq_of(at);
        if (seq_lack(q) <= 1 || q->total == q->limit)
            continue;
        p->n_prefill--;
        uint32_t n = seq_lack(q) < p->tokens ? seq_lack(q) : p->tokens;
        n = n ? plan_clip(p, q, n) : 0;
        if (n)
            plan_put(s, p, q, n);
    }
}

// The step's decodes are the ones of the last step, and there is a block for whoever needs one.
static bool again(struct sched *s, struct plan *p)
{
    struct layout *l = &s->layout;
    uint32_t n = l->n;
    if (!l->valid || l->left == 0 || p->tokens < n || p->rows < n || s->blocks.free < n)
        return false;
    sv_batch *b = p->b;
    for (uint32_t i = 0; i < n; i++) {
        struct seq *q = l->seq[i];
        if (q->computed / SV_BLOCK == q->n_blocks)
            grow(s, p, q);
        b->token[i] = q->computed < q->known ? q->last : SV_SAMPLED;
        b->pos[i] = (int32_t)q->computed++;
        q->total++;
        q->flying++;
        if (q->computed % SV_BLOCK == 0)
            s->fill[s->n_fill++] = q;
    }
    size_t size = n * sizeof(int32_t);
    memcpy(b->seq_slot, l->slot, size);
    memcpy(b->seq_tokens, l->one, size);
    memcpy(b->row_token, l->index, size);
    memcpy(b->row_slot, l->slot, size);
    memcpy(b->row_want, l->draw, size);
    memcpy(p->f->row, l->row, n * sizeof *l->row);
    b->n_tokens = b->n_seqs = b->n_rows = p->f->n_rows = n;
    p->tokens -= n;
    p->rows -= n;
    l->left--;
    return true;
}

uint32_t sched_plan(struct sched *s, sv_batch *b, struct flight *f)
{
    uint32_t reserve = s->reserve;
    struct plan p = {.b = b,
                     .f = f,
                     .tokens = s->c->max_tokens - reserve,
                     .rows = s->c->max_rows,
                     .edits = sv_edits_max(s->c->max_tokens, s->c->max_seqs, s->c->max_context)};
    b->n_tokens = b->n_seqs = b->n_rows = b->n_edits = 0;
    f->n_rows = s->n_fill = s->reserve = 0;
    if (!again(s, &p)) {
        decodes(s, &p);
        prefills(s, &p);
    }
    p.tokens += reserve;
    if (!p.preempted)
        admit(s, &p);
    return b->n_tokens;
}
