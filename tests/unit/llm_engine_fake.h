// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * llm_engine_fake - a backend without arithmetic that finds the engine's mistakes.
 *
 * Checks   each batch against kernels.h: limits, one place per slot, ascending positions, rows,
 *          page table, history, and that no sequence touches a block another one writes.
 * Depth    tickets are collected in order, `depth` under way at most; arrays of a launched batch
 * and results that are too old are overwritten with rubbish.
 */
#include "llm_engine_model.h"

static inline int fake_slot(sv_session *session, uint32_t slot, const sv_sampling *a)
{
    struct fake *f = fake_of(session);
    assert_true(slot < f->l.max_seqs);
    assert_true(a->n_history >= a->prompt_len && a->prompt_len > 0);
    if (a->top_k == FAKE_SLOT_BAD)
        return -400;
    struct fake_slot *s = &f->slot[slot];
    free(s->stop);
    s->stop = fake_room(a->n_stop, sizeof(int32_t));
    if (a->n_stop)
        memcpy(s->stop, a->stop, a->n_stop * sizeof(int32_t));
    memcpy(s->history, a->history, a->n_history * sizeof(int32_t));
    s->a = *a;
    s->a.stop = s->stop;
    s->n_known = a->n_history;
    s->sampled = -1;
    return 0;
}

static inline sv_batch *fake_batch(sv_session *session)
{
    struct fake *f = fake_of(session);
    return f->ticket + 1 == f->fail_batch ? NULL : &f->b;
}

static inline void fake_edits(struct fake *f, const sv_batch *b)
{
    assert_true(b->n_edits <= f->max_edits);
    for (uint32_t i = 0; i < b->n_edits; i++) {
        assert_in_range(b->edit_slot[i], 0, f->l.max_seqs - 1);
        assert_in_range(b->edit_index[i], 0, f->context_blocks - 1);
        assert_in_range(b->edit_block[i], 0, f->l.n_blocks - 1);
        f->table[(uint32_t)b->edit_slot[i] * f->context_blocks + (uint32_t)b->edit_index[i]] =
            b->edit_block[i];
    }
}

static inline uint32_t fake_block(const struct fake *f, int32_t slot, uint32_t pos)
{
    int32_t block = f->table[(uint32_t)slot * f->context_blocks + pos / SV_BLOCK];
    assert_in_range(block, 0, f->l.n_blocks - 1);
    return (uint32_t)block;
}

// Sizes, places, and who writes which block.
static inline void fake_validate(struct fake *f, const sv_batch *b)
{
    assert_in_range(b->n_tokens, 1, f->l.max_tokens);
    assert_in_range(b->n_seqs, 1, f->l.max_seqs);
    assert_true(b->n_rows <= f->l.max_rows);
    memset(f->writer, -1, f->l.n_blocks * sizeof *f->writer);
    uint32_t token = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        assert_in_range(b->seq_slot[i], 0, f->l.max_seqs - 1);
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(b->seq_slot[i], b->seq_slot[j]);
        assert_in_range(b->seq_tokens[i], 1, b->n_tokens - token);
        for (int32_t j = 0; j < b->seq_tokens[i]; j++, token++) {
            assert_in_range(b->pos[token], 0, f->l.max_context - 1);
            assert_true(j == 0 || b->pos[token] == b->pos[token - 1] + 1);
            uint32_t block = fake_block(f, b->seq_slot[i], (uint32_t)b->pos[token]);
            assert_true(f->writer[block] < 0 || f->writer[block] == (int32_t)i);
            f->writer[block] = (int32_t)i;
        }
    }
    assert_int_equal(token, b->n_tokens);
}

static inline int32_t fake_token(struct fake *f, const sv_batch *b, uint32_t i, int32_t slot)
{
    struct fake_slot *s = &f->slot[slot];
    int32_t token = b->token[i];
    uint32_t pos = (uint32_t)b->pos[i];
    if (token == SV_SAMPLED) {
        token = s->sampled;
        assert_int_equal(pos, s->n_known - 1); // the draw put it there
    }
    assert_in_range(token, 0, f->l.vocab - 1);
    assert_true(pos <= s->n_known);
    if (pos == s->n_known)
        s->history[s->n_known++] = token;
    assert_int_equal(s->history[pos], token);
    return token;
}

// Sum of what the positions [0, end) of a sequence show.
static inline uint64_t fake_read(const struct fake *f, int32_t slot, uint32_t end, int32_t seq)
{
    uint64_t seen = 0;
    for (uint32_t pos = 0; pos < end; pos++) {
        uint32_t block = fake_block(f, slot, pos);
        assert_true(f->writer[block] < 0 || f->writer[block] == seq);
        seen += fake_see(f->cell[(size_t)block * SV_BLOCK + pos % SV_BLOCK], pos);
    }
    return seen;
}

static inline void fake_row(struct fake *f, const sv_batch *b, uint32_t row, int32_t seq,
                            struct fake_result *r)
{
    struct fake_slot *s = &f->slot[b->row_slot[row]];
    uint32_t pos = (uint32_t)b->pos[b->row_token[row]];
    uint64_t seen = fake_read(f, b->row_slot[row], pos + 1, seq);
    int32_t want = b->row_want[row];
    r->token[row] = -1;
    assert_true(want >= SV_DRAW && want < (int)f->l.vocab);
    bool nan = false;
    for (uint32_t i = 0; i <= pos; i++)
        nan |= s->history[i] == FAKE_NAN;
    if (want == SV_DRAW) {
        assert_int_equal(pos, s->n_known - 1);
        uint32_t number = pos + 1 - s->a.prompt_len;
        want = nan ? FAKE_NAN : fake_draw(seen, &s->a, number, f->l.vocab);
        s->sampled = want;
        if (s->n_known < f->l.max_context)
            s->history[s->n_known++] = want;
    }
    if (nan)
        return; // its token stays -1; a launch under way may go on with it, for nothing
    r->token[row] = want;
    r->logprob[row] = fake_logprob(seen, want);
    r->rank[row] = 1 + want % 7;
    for (uint32_t i = 0; i + 1 < s->a.logprobs; i++) {
        r->top_id[row * SV_TOP_MAX + i] = (int32_t)i;
        r->top_logprob[row * SV_TOP_MAX + i] = -(float)i;
    }
}

static inline void fake_run(struct fake *f, const sv_batch *b, struct fake_result *r)
{
    uint32_t row = 0, i = 0;
    for (uint32_t seq = 0; seq < b->n_seqs; seq++) {
        int32_t slot = b->seq_slot[seq];
        for (int32_t j = 0; j < b->seq_tokens[seq]; j++, i++) {
            uint32_t pos = (uint32_t)b->pos[i];
            int32_t token = fake_token(f, b, i, slot);
            f->cell[(size_t)fake_block(f, slot, pos) * SV_BLOCK + pos % SV_BLOCK] =
                fake_cell(fake_read(f, slot, pos, (int32_t)seq), token, pos);
            if (row == b->n_rows || b->row_token[row] != (int32_t)i)
                continue;
            assert_int_equal(b->row_slot[row], slot);
            fake_row(f, b, row++, (int32_t)seq, r);
        }
    }
    assert_int_equal(row, b->n_rows); // in the order of their tokens
    f->tokens += b->n_tokens;
    f->rows += b->n_rows;
}

static inline void fake_rubbish_result(struct fake *f, struct fake_result *r)
{
    size_t n = f->l.max_rows;
    memset(r->token, FAKE_RUBBISH, n * 4);
    memset(r->rank, FAKE_RUBBISH, n * 4);
    memset(r->logprob, FAKE_RUBBISH, n * 4);
    memset(r->top_id, FAKE_RUBBISH, n * 4 * SV_TOP_MAX);
    memset(r->top_logprob, FAKE_RUBBISH, n * 4 * SV_TOP_MAX);
}

static inline void fake_rubbish_batch(struct fake *f)
{
    int32_t *tokens[] = {f->b.token, f->b.pos};
    int32_t *seqs[] = {f->b.seq_slot, f->b.seq_tokens};
    int32_t *rows[] = {f->b.row_token, f->b.row_slot, f->b.row_want};
    int32_t *edits[] = {f->b.edit_slot, f->b.edit_index, f->b.edit_block};
    for (int i = 0; i < 2; i++)
        memset(tokens[i], FAKE_RUBBISH, f->l.max_tokens * 4);
    for (int i = 0; i < 2; i++)
        memset(seqs[i], FAKE_RUBBISH, f->l.max_seqs * 4);
    for (int i = 0; i < 3; i++)
        memset(rows[i], FAKE_RUBBISH, f->l.max_rows * 4);
    for (int i = 0; i < 3; i++)
        memset(edits[i], FAKE_RUBBISH, f->max_edits * 4);
}

static inline int64_t fake_launch(sv_program *p, const sv_batch *b)
{
    struct fake *f = (struct fake *)(void *)p;
    assert_true(f->ticket - f->collected < f->depth);
    f->ticket++;
    if (f->ticket == f->fail_launch)
        return -599;
    struct fake_result *r = &f->result[f->ticket % (f->depth + 1)];
    fake_rubbish_result(f, r);
    fake_edits(f, b);
    fake_validate(f, b);
    fake_run(f, b, r);
    r->r = (sv_result){b->n_rows, r->token, r->logprob, r->rank, r->top_id, r->top_logprob};
    f->last_tokens = b->n_tokens;
    f->last_seqs = b->n_seqs;
    fake_rubbish_batch(f);
    return f->ticket;
}

static inline int fake_collect(sv_session *session, int64_t ticket, const sv_result **ret,
                               char *why)
{
    struct fake *f = fake_of(session);
    assert_int_equal(ticket, f->collected + 1);
    assert_true(ticket <= f->ticket);
    f->collected = ticket;
    if (ticket == f->fail_collect) {
        if (why)
            strcpy(why, "the fake device is lost");
        return -599;
    }
    *ret = &f->result[ticket % (f->depth + 1)].r;
    return 0;
}

static inline sv_program *fake_program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    struct fake *f = arg;
    assert_in_range(n_tokens, 1, f->l.max_tokens);
    assert_true(n_rows <= f->l.max_rows);
    return arg;
}

static inline sv_kernels fake_kernels(uint32_t depth)
{
    return (sv_kernels){.size = sizeof(sv_kernels),
                        .version = SV_KERNELS_VERSION,
                        .name = "fake",
                        .depth = depth,
                        .slot = fake_slot,
                        .batch = fake_batch,
                        .launch = fake_launch,
                        .collect = fake_collect};
}
