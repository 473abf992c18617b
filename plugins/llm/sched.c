// SPDX-License-Identifier: Apache-2.0
#include "llm/sched.h"

#include "base/check.h"
#include "base/mem.h"

void sched_init(struct sched *s, const struct engine_config *c, const sv_kernels *k,
                sv_session *session, struct engine_stats *stats)
{
    *s = (struct sched){.c = c, .k = k, .session = session, .stats = stats, .n_slots = c->max_seqs};
    blocks_init(&s->blocks, c->n_blocks);
    list_init(&s->running);
    list_init(&s->parked);
    list_init(&s->waiting);
    list_init(&s->aside);
    list_init(&s->failed);
    size_t n = c->max_seqs;
    s->slot = xcalloc(n, sizeof *s->slot);
    s->fill = xcalloc(n, sizeof(void *));
    s->hits = xcalloc(blocks_of(c->max_context), sizeof *s->hits);
    s->layout = (struct layout){.seq = xcalloc(n, sizeof(void *)),
                                .slot = xcalloc(n, sizeof(int32_t)),
                                .one = xcalloc(n, sizeof(int32_t)),
                                .index = xcalloc(n, sizeof(int32_t)),
                                .draw = xcalloc(n, sizeof(int32_t)),
                                .row = xcalloc(n, sizeof(struct row))};
    for (uint32_t i = 0; i < c->max_seqs; i++) {
        s->slot[i] = c->max_seqs - 1 - i;
        s->layout.one[i] = 1;
        s->layout.index[i] = (int32_t)i;
        s->layout.draw[i] = SV_DRAW;
    }
}

void sched_finish(struct sched *s)
{
    blocks_finish(&s->blocks);
    xfree(s->slot);
    xfree(s->fill);
    xfree(s->hits);
    xfree(s->layout.seq);
    xfree(s->layout.slot);
    xfree(s->layout.one);
    xfree(s->layout.index);
    xfree(s->layout.draw);
    xfree(s->layout.row);
    *s = (struct sched){0};
}

static bool before(const struct sched *s, const struct seq *a, const struct seq *b)
{
    if (s->c->priority && a->priority != b->priority)
        return a->priority < b->priority;
    return a->arrival < b->arrival;
}

// From the end where its place most often is: newcomers come last, preempted ones first.
void sched_insert(struct sched *s, struct list *list, struct seq *q, bool from_front)
{
    struct list *next = list;
    if (from_front)
        for (next = list->next; next != list && before(s, seq_of(next), q);)
            next = next->next;
    else
        while (next->prev != list && before(s, q, seq_of(next->prev)))
            next = next->prev;
    list_push(next, &q->node); // before `next`
}

void sched_add(struct sched *s, struct seq *q)
{
    q->arrival = ++s->arrivals;
    q->state = SEQ_WAITING;
    sched_insert(s, &s->waiting, q, false);
    s->n_waiting++;
}

// Whether its blocks are worth waiting for.
static void stall(struct sched *s, struct seq *q, enum block_state from, enum block_state to)
{
    for (uint32_t i = q->settled; i < q->named; i++)
        if (s->blocks.block[q->block[i]].state == from)
            s->blocks.block[q->block[i]].state = to;
}

void sched_pause(struct sched *s, struct seq *q, bool paused)
{
    enum seq_state from = q->state;
    if (from == SEQ_GONE || from == SEQ_FAILED ||
        paused == (from == SEQ_PARKED || from == SEQ_ASIDE))
        return;
    list_remove(&q->node);
    switch (from) {
    case SEQ_RUNNING:
        q->state = SEQ_PARKED;
        list_push(&s->parked, &q->node);
        stall(s, q, BLOCK_PENDING, BLOCK_STALLED);
        break;
    case SEQ_PARKED:
        q->state = SEQ_RUNNING;
        sched_insert(s, &s->running, q, false);
        stall(s, q, BLOCK_STALLED, BLOCK_PENDING);
        break;
    case SEQ_WAITING:
        q->state = SEQ_ASIDE;
        list_push(&s->aside, &q->node);
        break;
    case SEQ_ASIDE:
        q->state = SEQ_WAITING;
        sched_insert(s, &s->waiting, q, true);
        break;
    case SEQ_FAILED:
    case SEQ_GONE:
        break;
    }
    s->layout.valid = false;
}

static bool holds(const struct seq *q)
{
    return q->state == SEQ_RUNNING || q->state == SEQ_PARKED;
}

static void give_back(struct sched *s, struct seq *q)
{
    blocks_release(&s->blocks, q->block, q->n_blocks);
    s->slot[s->n_slots++] = q->slot;
    q->n_blocks = q->computed = q->settled = q->named = 0;
    s->n_running--;
    s->layout.valid = false;
}

void sched_remove(struct sched *s, struct seq *q)
{
    CHECK(q->state != SEQ_GONE);
    list_remove(&q->node);
    if (holds(q))
        give_back(s, q);
    else if (q->state != SEQ_FAILED)
        s->n_waiting--;
    q->state = SEQ_GONE;
}

void sched_preempt(struct sched *s, struct seq *q)
{
    bool paused = q->state == SEQ_PARKED;
    list_remove(&q->node);
    give_back(s, q);
    s->n_waiting++;
    s->stats->preemptions++;
    q->state = paused ? SEQ_ASIDE : SEQ_WAITING;
    if (paused)
        list_push(&s->aside, &q->node);
    else
        sched_insert(s, &s->waiting, q, true);
}

// Names and frees for all what of q is full, computed and known by now.
static void settle(struct sched *s, struct seq *q)
{
    uint32_t full = (q->computed < q->known ? q->computed : q->known) / SV_BLOCK;
    for (; q->settled < full; q->settled++) {
        struct block *x = &s->blocks.block[q->block[q->settled]];
        if (q->settled == q->named) {
            blocks_name(&s->blocks, q->block[q->settled], &q->chain,
                        q->token + (size_t)q->settled * SV_BLOCK, BLOCK_READY);
            q->named++;
        } else if (x->state != BLOCK_PLAIN) {
            x->state = BLOCK_READY;
        }
    }
}

void sched_launched(struct sched *s)
{
    for (uint32_t i = 0; s->c->prefix_cache && i < s->n_fill; i++)
        settle(s, s->fill[i]);
}

void sched_told(struct sched *s, struct seq *q)
{
    if (s->c->prefix_cache && q->known % SV_BLOCK == 0 && q->computed >= q->known)
        settle(s, q);
}

void sched_forget(struct sched *s, struct seq *q)
{
    for (uint32_t i = 0; i < q->n_blocks; i++)
        blocks_forget(&s->blocks, q->block[i]);
}

static uint32_t check_list(const struct sched *s, const struct list *list, enum seq_state state)
{
    uint32_t n = 0;
    bool sorted = state == SEQ_RUNNING || state == SEQ_WAITING;
    for (struct list *at = list->next; at != list; at = at->next, n++) {
        const struct seq *q = seq_of(at);
        CHECK(q->state == state && at->next->prev == at);
        CHECK(!sorted || at->next == list || before(s, q, seq_of(at->next)));
        CHECK(q->known <= q->total && q->total <= q->limit && q->computed <= q->total);
        CHECK(holds(q) || q->n_blocks + q->computed + q->settled + q->named == 0);
        CHECK(q->settled <= q->named && q->settled <= q->computed / SV_BLOCK);
        CHECK(q->computed <= q->n_blocks * SV_BLOCK);
    }
    return n;
}

static void count_holders(const struct list *list, uint32_t *refs, bool *slots)
{
    for (struct list *at = list->next; at != list; at = at->next) {
        const struct seq *q = seq_of(at);
        CHECK(!slots[q->slot]);
        slots[q->slot] = true;
        for (uint32_t i = 0; i < q->n_blocks; i++)
            refs[q->block[i]]++;
    }
}

void sched_check(const struct sched *s)
{
    uint32_t *refs = xcalloc(s->blocks.n, sizeof *refs);
    bool *slots = xcalloc(s->c->max_seqs, sizeof *slots);
    uint32_t running = check_list(s, &s->running, SEQ_RUNNING);
    uint32_t parked = check_list(s, &s->parked, SEQ_PARKED);
    uint32_t waiting = check_list(s, &s->waiting, SEQ_WAITING);
    CHECK(s->n_running == running + parked);
    CHECK(s->n_waiting == waiting + check_list(s, &s->aside, SEQ_ASIDE));
    CHECK(s->n_slots + s->n_running == s->c->max_seqs);
    count_holders(&s->running, refs, slots);
    count_holders(&s->parked, refs, slots);
    for (uint32_t i = 0; i < s->n_slots; i++)
        CHECK(!slots[s->slot[i]]);
    blocks_check(&s->blocks, refs);
    xfree(refs);
    xfree(slots);
}
