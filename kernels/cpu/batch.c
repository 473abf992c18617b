// SPDX-License-Identifier: Apache-2.0
#include "cpu/batch.h"

static bool below(int32_t x, uint64_t end)
{
    return x >= 0 && (uint64_t)x < end;
}

static bool apply_edits(sv_session *s, const sv_batch *b)
{
    if (b->n_edits > sv_edits_max(s->l.max_tokens, s->l.max_seqs, s->l.max_context))
        return false;
    for (uint32_t i = 0; i < b->n_edits; i++) {
        int32_t slot = b->edit_slot[i], index = b->edit_index[i], block = b->edit_block[i];
        if (!below(slot, s->l.max_seqs) || !below(index, s->pages) || !below(block, s->l.n_blocks))
            return false;
        int32_t *table = s->page_table + (uint64_t)(uint32_t)slot * s->pages;
        table[index] = block;
        uint32_t *mapped = &s->mapped[slot];
        while (*mapped < s->pages && table[*mapped] >= 0)
            ++*mapped;
    }
    return true;
}

static bool token_fits(const sv_session *s, int32_t token, int32_t slot)
{
    return below(token, s->l.vocab) || (token == SV_SAMPLED && s->last[slot] != SLOT_NEVER);
}

// Tokens [first, first + n) of a slot.
static bool sequence_fits(sv_session *s, const sv_batch *b, int32_t slot, uint32_t first,
                          uint32_t n)
{
    int32_t pos = b->pos[first];
    if (!below(pos, s->l.max_context) || n > s->l.max_context - (uint32_t)pos ||
        ((uint32_t)pos + n - 1) / SV_BLOCK >= s->mapped[slot])
        return false;
    const int32_t *table = s->page_table + (uint64_t)(uint32_t)slot * s->pages;
    for (uint32_t i = 0; i < n; i++, pos++) {
        if (b->pos[first + i] != pos || !token_fits(s, b->token[first + i], slot))
            return false;
        s->token_slot[first + i] = slot;
        s->token_block[first + i] = table[pos / SV_BLOCK];
    }
    return true;
}

static bool sequences_fit(sv_session *s, const sv_batch *b)
{
    uint32_t first = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        int32_t slot = b->seq_slot[i], n = b->seq_tokens[i];
        if (!below(slot, s->l.max_seqs) || s->seen[slot] == s->launches + 1 || n < 1 ||
            (uint32_t)n > b->n_tokens - first)
            return false;
        s->seen[slot] = s->launches + 1;
        if (!sequence_fits(s, b, slot, first, (uint32_t)n))
            return false;
        first += (uint32_t)n;
    }
    return first == b->n_tokens;
}

static bool rows_fit(const sv_session *s, const sv_batch *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        int32_t token = b->row_token[i], want = b->row_want[i];
        if (!below(token, b->n_tokens) || b->row_slot[i] != s->token_slot[token] ||
            (want != SV_DRAW && !below(want, s->l.vocab)))
            return false;
    }
    return true;
}

int batch_check(const sv_program *p, const sv_batch *b)
{
    sv_session *s = p->session;
    if (!b || p->code < 0 || !p->phases || b->n_tokens > p->max_tokens || !b->n_tokens ||
        b->n_seqs > s->l.max_seqs || b->n_rows > s->l.max_rows || !apply_edits(s, b))
        return -400;
    bool fits = sequences_fit(s, b) && rows_fit(s, b);
    for (uint32_t i = 0; i < b->n_seqs && !fits; i++) // a refused launch has seen nobody
        if (below(b->seq_slot[i], s->l.max_seqs))
            s->seen[b->seq_slot[i]] = 0;
    return fits ? 0 : -400;
}
