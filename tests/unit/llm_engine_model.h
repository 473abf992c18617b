// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * llm_engine_model - the "model" and the memory of the fake backend in llm_engine_fake.h.
 *
 * A cell of a KV block holds a hash of (all cells before it as the page table gives them, token,
 * position); the next token is a hash of all cells up to the row's. So a wrong or stale block, a
 * block given out twice or a token not recomputed changes what comes out. fake_answer() works the
 * same out from plain arrays, without blocks. A prompt that has the token FAKE_NAN gives no
 * numbers.
 */
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FAKE_NAN = 13, FAKE_RUBBISH = 0x5a, FAKE_SLOT_BAD = 77 };

struct fake_slot {
    sv_sampling a; // stop, history point to what we own
    int32_t *stop, *history;
    int32_t sampled;
    uint32_t n_known; // history filled
};

struct fake_result {
    sv_result r;
    int32_t *token, *rank, *top_id;
    float *logprob, *top_logprob;
};

struct fake {
    sv_limits l;
    uint32_t depth, context_blocks;
    uint64_t *cell;  // [n_blocks * SV_BLOCK]
    int32_t *table;  // [max_seqs * context_blocks]
    int32_t *writer; // [n_blocks] sequence of this batch that writes it, or -1
    struct fake_slot *slot;
    sv_batch b;
    uint32_t max_edits;
    struct fake_result result[8];
    int64_t ticket, collected;
    int64_t fail_batch, fail_launch, fail_collect; // that ticket fails; 0: none
    uint64_t tokens, rows;                         // computed in all
    uint32_t last_tokens, last_seqs;
};

static inline uint64_t fake_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t fake_see(uint64_t cell, uint32_t pos)
{
    return fake_mix(cell + 0x9e3779b97f4a7c15u * (pos + 1));
}

static inline uint64_t fake_cell(uint64_t seen, int32_t token, uint32_t pos)
{
    return fake_mix(seen ^ fake_mix(((uint64_t)pos << 32) + (uint32_t)token));
}

static inline bool fake_banned(const sv_sampling *a, int32_t token, uint32_t number)
{
    for (uint32_t i = 0; i < a->n_stop; i++)
        if (a->stop[i] == token && number < a->min_tokens)
            return true;
    return token == FAKE_NAN;
}

// The token with that number (from 0) of the output, given a hash of all that was read.
static inline int32_t fake_draw(uint64_t seen, const sv_sampling *a, uint32_t number,
                                uint32_t vocab)
{
    uint64_t h = seen ^ fake_mix(a->seed + number);
    int32_t token;
    do {
        h = fake_mix(h + 1);
        token = (int32_t)(h % vocab);
    } while (fake_banned(a, token, number));
    return token;
}

static inline float fake_logprob(uint64_t seen, int32_t token)
{
    return -(float)(fake_mix(seen + (uint64_t)token) % 10000) / 1000;
}

// Output of the model read from plain arrays. Returns how many tokens went into out[max].
static inline uint32_t fake_answer(const int32_t *prompt, uint32_t n, const sv_sampling *a,
                                   uint32_t vocab, int32_t *out, float *logprob, uint32_t max)
{
    uint64_t seen = 0;
    int32_t token = 0;
    for (uint32_t pos = 0, made = 0; made < max; pos++) {
        token = pos < n ? prompt[pos] : token;
        seen += fake_see(fake_cell(seen, token, pos), pos);
        if (pos + 1 < n)
            continue;
        token = fake_draw(seen, a, made, vocab);
        logprob[made] = fake_logprob(seen, token);
        out[made++] = token;
        for (uint32_t i = 0; i < a->n_stop; i++)
            if (a->stop[i] == token)
                return made;
    }
    return max;
}

static inline struct fake *fake_of(sv_session *s)
{
    return (struct fake *)(void *)s;
}

static inline void *fake_room(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static inline int32_t *fake_ints(uint32_t n)
{
    return fake_room(n, sizeof(int32_t));
}

static inline struct fake *fake_create(const sv_limits *l, uint32_t depth)
{
    struct fake *f = fake_room(1, sizeof *f);
    f->l = *l;
    f->depth = depth;
    f->context_blocks = (l->max_context + SV_BLOCK - 1) / SV_BLOCK;
    f->max_edits = (uint32_t)sv_edits_max(l->max_tokens, l->max_seqs, l->max_context);
    f->cell = fake_room((size_t)l->n_blocks * SV_BLOCK, sizeof *f->cell);
    f->writer = fake_ints(l->n_blocks);
    f->table = fake_ints(l->max_seqs * f->context_blocks);
    memset(f->table, -1, l->max_seqs * f->context_blocks * sizeof *f->table);
    f->slot = fake_room(l->max_seqs, sizeof *f->slot);
    for (uint32_t i = 0; i < l->max_seqs; i++)
        f->slot[i].history = fake_ints(l->max_context + 1);
    f->b = (sv_batch){.token = fake_ints(l->max_tokens),
                      .pos = fake_ints(l->max_tokens),
                      .seq_slot = fake_ints(l->max_seqs),
                      .seq_tokens = fake_ints(l->max_seqs),
                      .row_token = fake_ints(l->max_rows),
                      .row_slot = fake_ints(l->max_rows),
                      .row_want = fake_ints(l->max_rows),
                      .edit_slot = fake_ints(f->max_edits),
                      .edit_index = fake_ints(f->max_edits),
                      .edit_block = fake_ints(f->max_edits)};
    for (uint32_t i = 0; i <= depth; i++) {
        struct fake_result *r = &f->result[i];
        r->token = fake_ints(l->max_rows);
        r->rank = fake_ints(l->max_rows);
        r->top_id = fake_ints(l->max_rows * SV_TOP_MAX);
        r->logprob = fake_room(l->max_rows, sizeof(float));
        r->top_logprob = fake_room((size_t)l->max_rows * SV_TOP_MAX, sizeof(float));
    }
    return f;
}

static inline void fake_destroy(struct fake *f)
{
    for (uint32_t i = 0; i < f->l.max_seqs; i++) {
        free(f->slot[i].stop);
        free(f->slot[i].history);
    }
    for (uint32_t i = 0; i <= f->depth; i++) {
        struct fake_result *r = &f->result[i];
        free(r->token);
        free(r->rank);
        free(r->top_id);
        free(r->logprob);
        free(r->top_logprob);
    }
    int32_t *all[] = {f->b.token,      f->b.pos,       f->b.seq_slot, f->b.seq_tokens,
                      f->b.row_token,  f->b.row_slot,  f->b.row_want, f->b.edit_slot,
                      f->b.edit_index, f->b.edit_block};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(f->cell);
    free(f->writer);
    free(f->table);
    free(f->slot);
    free(f);
}
