// SPDX-License-Identifier: Apache-2.0
#include "llm/sched.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

// What is still free of the step that is planned.
struct step {
    sv_batch *b;
    struct flight *f;
    uint32_t tokens, rows;
    uint32_t n_prefill; // running sequences that lack more than one token
    bool preempted;     // somebody who was running
};

static struct seq *seq_of(struct list *node)
{
    return (struct seq *)(void *)node;
}

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

// From the end where its place most often is: newcomers are last, preempted ones first.
static void insert(struct sched *s, struct list *list, struct seq *q, bool from_front)
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
    insert(s, &s->waiting, q, false);
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
        insert(s, &s->running, q, false);
        stall(s, q, BLOCK_STALLED, BLOCK_PENDING);
        break;
    case SEQ_WAITING:
        q->state = SEQ_ASIDE;
        list_push(&s->aside, &q->node);
        break;
    case SEQ_ASIDE:
        q->state = SEQ_WAITING;
        insert(s, &s->waiting, q, true);
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

static void preempt(struct sched *s, struct seq *q)
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
        insert(s, &s->waiting, q, true);
}

static void edit(struct step *st, const struct seq *q, uint32_t index)
{
    sv_batch *b = st->b;
    uint32_t i = b->n_edits++;
    b->edit_slot[i] = (int32_t)q->slot;
    b->edit_index[i] = (int32_t)index;
    b->edit_block[i] = (int32_t)q->block[index];
}

// One block more for q. False: q itself was the one to go.
static bool grow(struct sched *s, struct step *st, struct seq *q)
{
    while (s->blocks.free == 0) {
        struct list *parked = list_first(&s->parked);
        struct seq *victim = seq_of(parked ? parked : s->running.prev);
        st->preempted |= !parked;
        preempt(s, victim);
        if (victim == q)
            return false;
    }
    q->block[q->n_blocks] = blocks_take(&s->blocks);
    edit(st, q, q->n_blocks++);
    return true;
}

static void put_row(struct step *st, struct seq *q, uint32_t token, uint32_t at, int32_t want)
{
    uint32_t i = st->b->n_rows++;
    st->b->row_token[i] = (int32_t)token;
    st->b->row_slot[i] = (int32_t)q->slot;
    st->b->row_want[i] = want;
    st->f->row[i] = (struct row){q, at};
    st->f->n_rows++;
    st->rows--;
    q->flying++;
}

// The rows of q's tokens [computed, computed + n), which begin at `first` of the batch.
static void put_rows(struct step *st, struct seq *q, uint32_t first, uint32_t n)
{
    uint32_t end = q->computed + n;
    for (; q->prompt_logprobs && q->next_prompt_row < q->n_prompt && q->next_prompt_row <= end;
         q->next_prompt_row++)
        put_row(st, q, first + q->next_prompt_row - 1 - q->computed, q->next_prompt_row,
                q->token[q->next_prompt_row]);
    if (end < q->total)
        return;
    put_row(st, q, first + n - 1, q->want == SV_DRAW ? 0 : q->n_prompt, q->want);
    q->total++;
}

static void put(struct sched *s, struct step *st, struct seq *q, uint32_t n)
{
    sv_batch *b = st->b;
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
    st->tokens -= n;
    put_rows(st, q, first, n);
    if (q->computed / SV_BLOCK != (q->computed + n) / SV_BLOCK)
        s->fill[s->n_fill++] = q;
    q->computed += n;
}

// How many of q's next n tokens the rows that are left allow.
static uint32_t clip_to_rows(const struct step *st, const struct seq *q, uint32_t n)
{
    uint32_t rows = st->rows;
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

static void decodes(struct sched *s, struct step *st)
{
    bool all = true;
    for (struct list *at = s->running.next; at != &s->running; at = at->next) {
        struct seq *q = seq_of(at);
        if (q->total == q->limit) { // its last token is under way
            all = false;
            continue;
        }
        if (seq_lack(q) > 1) {
            st->n_prefill++;
            continue;
        }
        if (st->tokens == 0 || st->rows == 0) {
            all = false;
            continue;
        }
        if (q->computed / SV_BLOCK == q->n_blocks && !grow(s, st, q))
            return; // q was the last in the list
        all &= q->want == SV_DRAW;
        note(&s->layout, st->b->n_seqs, q);
        put(s, st, q, 1);
    }
    s->layout.n = st->b->n_seqs;
    s->layout.left -= st->b->n_seqs > 0; // this step's
    s->layout.valid = all && st->n_prefill == 0;
}

static void prefills(struct sched *s, struct step *st)
{
    for (struct list *at = s->running.next; st->n_prefill && at != &s->running; at = at->next) {
        struct seq *q = seq_of(at);
        if (seq_lack(q) <= 1 || q->total == q->limit)
            continue;
        st->n_prefill--;
        uint32_t n = seq_lack(q) < st->tokens ? seq_lack(q) : st->tokens;
        n = n ? clip_to_rows(st, q, n) : 0;
        if (n)
            put(s, st, q, n);
    }
}

// The step's decodes are the ones of the last step, and there is a block for whoever needs one.
static bool again(struct sched *s, struct step *st)
{
    struct layout *l = &s->layout;
    uint32_t n = l->n;
    if (!l->valid || l->left == 0 || st->tokens < n || st->rows < n || s->blocks.free < n)
        return false;
    sv_batch *b = st->b;
    for (uint32_t i = 0; i < n; i++) {
        struct seq *q = l->seq[i];
        if (q->computed / SV_BLOCK == q->n_blocks)
            grow(s, st, q);
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
    memcpy(st->f->row, l->row, n * sizeof *l->row);
    b->n_tokens = b->n_seqs = b->n_rows = st->f->n_rows = n;
    st->tokens -= n;
    st->rows -= n;
    l->left--;
    return true;
}

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

// Whether there are blocks for q with its n hits, if `helped` more were free.
static bool fits(const struct sched *s, const struct seq *q, uint32_t n, uint32_t helped)
{
    uint32_t need = blocks_of(q->known) - n;
    for (uint32_t i = 0; i < n; i++)
        need += s->blocks.block[s->hits[i]].refs == 0;
    return need <= s->blocks.free + helped;
}

// A slot and blocks for q with its n hits; parked sequences go for it when that is enough.
static bool make_room(struct sched *s, const struct seq *q, uint32_t n)
{
    uint32_t parked = 0;
    if (!fits(s, q, n, 0))
        list_for_each (at, &s->parked)
            parked += seq_of(at)->n_blocks;
    if (!fits(s, q, n, parked))
        return false;
    while (s->n_slots == 0 || !fits(s, q, n, 0)) {
        if (list_empty(&s->parked))
            return false;
        preempt(s, seq_of(list_first(&s->parked)));
    }
    return true;
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

static void take_blocks(struct sched *s, struct step *st, struct seq *q, uint32_t n_hits)
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
        edit(st, q, q->n_blocks);
    q->computed = n_hits * SV_BLOCK;
}

enum admission { ADMITTED, PASSED, FULL };

static enum admission admit_one(struct sched *s, struct step *st, struct seq *q)
{
    if (q->flying || still_waits(s, q))
        return PASSED;
    uint32_t hits = look_up(s, q);
    if (q->wait_block != BLOCK_NONE)
        return PASSED;
    uint32_t n = q->known - hits * SV_BLOCK;
    if (!s->c->chunked_prefill && n > st->tokens) {
        s->reserve = n;
        return FULL;
    }
    if (!make_room(s, q, hits))
        return FULL;
    if (!set_slot(s, q))
        return PASSED;
    take_blocks(s, st, q, hits);
    count(s, q, hits);
    list_remove(&q->node);
    q->state = SEQ_RUNNING;
    insert(s, &s->running, q, false);
    s->n_running++;
    s->n_waiting--;
    s->layout.valid = false;
    put(s, st, q, clip_to_rows(st, q, n < st->tokens ? n : st->tokens));
    return ADMITTED;
}

static void admit(struct sched *s, struct step *st)
{
    list_for_each_safe (at, &s->waiting)
        if (st->tokens == 0 || st->rows == 0 || admit_one(s, st, seq_of(at)) == FULL)
            return;
}

uint32_t sched_plan(struct sched *s, sv_batch *b, struct flight *f)
{
    uint32_t reserve = s->reserve;
    struct step st = {.b = b, .f = f, .tokens = s->c->max_tokens - reserve, .rows = s->c->max_rows};
    b->n_tokens = b->n_seqs = b->n_rows = b->n_edits = 0;
    f->n_rows = s->n_fill = s->reserve = 0;
    if (!again(s, &st)) {
        decodes(s, &st);
        prefills(s, &st);
    }
    st.tokens += reserve;
    if (!st.preempted)
        admit(s, &st);
    return b->n_tokens;
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
