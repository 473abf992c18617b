// SPDX-License-Identifier: Apache-2.0
#include "cpu/session.h"

#include "cpu/program.h"

#include <stdlib.h>
#include <string.h>

// Numbers of the session that follow from the limits.
struct shape {
    uint32_t pages, group, attend_rows, segment_keys, work_max, pairs_max;
    uint64_t operand_bytes, operands, edits;
};

static struct shape shape_of(const struct device_config *c, const sv_limits *l)
{
    struct shape s = {.pages = (l->max_context + SV_BLOCK - 1) / SV_BLOCK,
                      .group = l->heads / l->kv_heads};
    s.attend_rows = s.group > 32 ? s.group : 32 / s.group * s.group;
    uint32_t keys = (l->max_context + SEGMENTS_MAX - 1) / SEGMENTS_MAX;
    s.segment_keys = (keys + UNIT_KEYS - 1) / UNIT_KEYS * UNIT_KEYS;
    if (s.segment_keys < SEGMENT_MIN)
        s.segment_keys = SEGMENT_MIN;
    s.pairs_max = c->threads > 1 && l->kv_heads < 2 * c->threads ? 2 * c->threads : 0;
    s.work_max = l->max_tokens + s.pairs_max * SEGMENTS_MAX;
    s.operand_bytes = device_round(size_mul(l->widths, sizeof(float)));
    s.operands = l->max_tokens > l->max_rows ? l->max_tokens : l->max_rows;
    s.edits = sv_edits_max(l->max_tokens, l->max_seqs, l->max_context);
    return s;
}

// Lays things one behind another; with memory NULL only measures.
struct layout {
    char *memory;
    uint64_t used;
};

static void *lay(struct layout *at, uint64_t n, uint64_t size)
{
    uint64_t begin = at->used, bytes = size_mul(n, size);
    at->used = size_add(begin, bytes > UINT64_MAX - DEVICE_ALIGN ? bytes : device_round(bytes));
    return at->memory ? at->memory + begin : NULL;
}

static void lay_batch(struct layout *at, const sv_limits *l, const struct shape *z, sv_session *s)
{
    sv_batch *b = &s->batch;
    int32_t **const by_token[] = {&b->token, &b->pos, &s->token_slot, &s->token_block};
    int32_t **const by_seq[] = {&b->seq_slot, &b->seq_tokens, &s->last};
    int32_t **const by_row[] = {&b->row_token, &b->row_slot, &b->row_want};
    int32_t **const by_edit[] = {&b->edit_slot, &b->edit_index, &b->edit_block};
    for (size_t i = 0; i < 4; i++)
        *by_token[i] = lay(at, l->max_tokens, 4);
    for (size_t i = 0; i < 3; i++) {
        *by_seq[i] = lay(at, l->max_seqs, 4);
        *by_row[i] = lay(at, l->max_rows, 4);
        *by_edit[i] = lay(at, z->edits, 4);
    }
    s->page_table = lay(at, (uint64_t)l->max_seqs * z->pages, 4);
    s->mapped = lay(at, l->max_seqs, 4);
    s->history = lay(at, l->max_seqs * ((uint64_t)l->max_context + 1), 4);
    s->seen = lay(at, l->max_seqs, 8);
    s->slot = lay(at, l->max_seqs, sizeof *s->slot);
}

static void lay_results(struct layout *at, const sv_limits *l, sv_session *s)
{
    for (uint32_t i = 0; i < SESSION_RESULTS; i++) {
        struct result *r = &s->result[i];
        r->token = lay(at, l->max_rows, 4);
        r->rank = lay(at, l->max_rows, 4);
        r->logprob = lay(at, l->max_rows, 4);
        r->top_id = lay(at, l->max_rows, 4ull * SV_TOP_MAX);
        r->top_logprob = lay(at, l->max_rows, 4ull * SV_TOP_MAX);
    }
}

static void lay_scratch(struct layout *at, const sv_limits *l, const struct shape *z,
                        struct scratch *t)
{
    uint64_t rows = z->attend_rows, dim = l->head_dim;
    for (int i = 0; i < 2; i++)
        t->tile[i] = lay(at, TILE_FLOATS, 4);
    t->row = lay(at, l->widths, 4);
    t->operands = lay(at, LAZY_TOKENS, z->operand_bytes);
    t->q = lay(at, rows * dim, 4);
    t->out = lay(at, rows * dim, 4);
    t->part = lay(at, rows * dim, 4);
    t->p = lay(at, rows * UNIT_KEYS, 4);
    t->most = lay(at, 2 * rows, 4);
    t->sum = lay(at, 2 * rows, 4);
    t->lo = lay(at, rows, 1);
    t->hi = lay(at, rows, 1);
    t->k = lay(at, UNIT_KEYS * dim, 4);
    t->v = lay(at, UNIT_KEYS * dim, 4);
    t->half = lay(at, dim, 2);
    t->sample.w = lay(at, l->vocab, 4);
    t->sample.id = lay(at, l->vocab, 4);
    t->sample.count = lay(at, l->vocab, 4);
    t->sample.most = lay(at, l->vocab / 64 + 1, 4);
    t->sample.sum = lay(at, l->vocab / CHUNK_IDS + 1, 8);
}

static void lay_all(struct layout *at, const struct device_config *c, const sv_limits *l,
                    sv_session *s)
{
    struct shape z = shape_of(c, l);
    lay(at, 1, sizeof *s);
    lay_batch(at, l, &z, s);
    lay_results(at, l, s);
    s->logits = lay(at, l->max_rows, 4ull * l->vocab);
    s->floats = lay(at, l->max_tokens, size_mul(l->widths, 4));
    s->operands = lay(at, z.operands, z.operand_bytes);
    for (uint32_t i = 0; i < SESSION_ROPES; i++) {
        s->rope[i].cos = lay(at, (uint64_t)l->max_tokens * (l->head_dim / 2), 4);
        s->rope[i].sin = lay(at, (uint64_t)l->max_tokens * (l->head_dim / 2), 4);
    }
    s->work = lay(at, z.work_max, sizeof *s->work);
    s->partial = lay(at, (uint64_t)z.pairs_max * SEGMENTS_MAX * z.group, 4ull * (l->head_dim + 2));
    s->pair_left = lay(at, z.pairs_max, sizeof *s->pair_left);
    s->scratch = lay(at, c->threads, sizeof *s->scratch);
    struct scratch none;
    for (uint32_t i = 0; i < c->threads; i++)
        lay_scratch(at, l, &z, at->memory ? &s->scratch[i] : &none);
    s->kv = lay(at, l->n_blocks, session_block_bytes(l));
}

uint64_t session_block_bytes(const sv_limits *l)
{
    uint64_t vectors = size_mul((uint64_t)l->layers * l->kv_heads, 2ull * SV_BLOCK);
    return size_mul(vectors, (uint64_t)l->head_dim * kv_bytes(l->kv_dtype));
}

struct bound {
    const char *name;
    uint64_t value, most;
};

static int check_heads(const sv_limits *l, char *why)
{
    if (l->heads % l->kv_heads)
        return why_set(why, -400, "session: %u kv heads do not divide %u heads", l->kv_heads,
                       l->heads);
    if (l->head_dim % 2)
        return why_set(why, -400, "session: head_dim %u is odd", l->head_dim);
    if (l->kv_dtype > SV_BF16)
        return why_set(why, -400, "session: KV of type %s; it must be F32, F16 or BF16",
                       sv_dtype(l->kv_dtype).name);
    return 0;
}

static int check_limits(const sv_limits *l, char *why)
{
    if (!l || l->size < sizeof *l)
        return why_set(why, -400, "sv_limits has %u bytes, not %zu", l ? l->size : 0, sizeof *l);
    const struct bound bounds[] = {
        {"max_tokens", l->max_tokens, 1 << 20}, {"max_seqs", l->max_seqs, 1 << 16},
        {"max_rows", l->max_rows, 1 << 20},     {"max_context", l->max_context, 1 << 24},
        {"n_blocks", l->n_blocks, INT32_MAX},   {"layers", l->layers, 1 << 16},
        {"heads", l->heads, 1 << 12},           {"kv_heads", l->kv_heads, 1 << 12},
        {"head_dim", l->head_dim, 512},         {"vocab", l->vocab, 1 << 24},
        {"widths", l->widths, 1 << 26}};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].value == 0 || bounds[i].value > bounds[i].most)
            return why_set(why, -400, "session: %s is %llu; it must be 1 to %llu", bounds[i].name,
                           (unsigned long long)bounds[i].value, (unsigned long long)bounds[i].most);
    return check_heads(l, why);
}

uint64_t session_bytes(const struct device_config *c, const sv_limits *l, char *why)
{
    if (check_limits(l, why) < 0)
        return 0;
    struct layout at = {.used = 0};
    struct sv_session none;
    lay_all(&at, c, l, &none);
    return device_page(at.used);
}

int session_make(sv_dev *d, const sv_limits *l, sv_session **ret, char *why)
{
    uint64_t bytes = session_bytes(&d->c, l, why);
    if (!bytes)
        return -400;
    void *memory = device_map(d, bytes);
    if (!memory)
        return why_set(why, -507,
                       "no memory for a session of %llu bytes, %llu of them for %u KV "
                       "blocks",
                       (unsigned long long)bytes,
                       (unsigned long long)size_mul(l->n_blocks, session_block_bytes(l)),
                       l->n_blocks);
    sv_session *s = memory;
    struct shape z = shape_of(&d->c, l);
    *s = (struct sv_session){.dev = d,
                             .next = d->sessions,
                             .l = *l,
                             .memory = memory,
                             .bytes = bytes,
                             .pages = z.pages,
                             .group = z.group,
                             .attend_rows = z.attend_rows,
                             .segment_keys = z.segment_keys,
                             .work_max = z.work_max,
                             .pairs_max = z.pairs_max,
                             .operand_bytes = z.operand_bytes,
                             .operand_rows = z.operands,
                             .widths_left = l->widths};
    struct layout at = {.memory = memory};
    lay_all(&at, &d->c, l, s);
    for (uint32_t i = 0; i < l->max_seqs; i++)
        s->last[i] = SLOT_NEVER;
    memset(s->page_table, 0xff, (size_t)l->max_seqs * z.pages * sizeof *s->page_table);
    device_large_pages(s->kv, l->n_blocks * session_block_bytes(l));
    d->sessions = s;
    *ret = s;
    return 0;
}

void session_free(sv_session *s)
{
    programs_free(s->programs);
    for (uint32_t i = 0; i < s->l.max_seqs; i++)
        sampling_finish(&s->slot[i]);
    for (uint32_t i = 0; i < s->n_ropes; i++)
        free(s->rope[i].own_inv_freq);
    device_unmap(s->dev, s->memory, s->bytes);
}

int session_buffer(sv_session *s, uint64_t cols, sv_buf **ret, char *why)
{
    if (!cols || cols > s->widths_left)
        return why_set(why, -400, "buffer: %llu columns; of the session's widths %llu are left",
                       (unsigned long long)cols, (unsigned long long)s->widths_left);
    if (s->n_buffers == SESSION_BUFFERS)
        return why_set(why, -400, "buffer: a session has at most %d", SESSION_BUFFERS);
    struct sv_buf *b = &s->buffer[s->n_buffers++];
    uint64_t before = s->l.widths - s->widths_left;
    *b = (struct sv_buf){.cols = cols, .data = s->floats + before * s->l.max_tokens, .session = s};
    s->widths_left -= cols;
    *ret = b;
    return 0;
}

int session_slot(sv_session *s, uint32_t slot, const sv_sampling *a)
{
    if (slot >= s->l.max_seqs)
        return -400;
    int rc = sampling_set(&s->slot[slot], a, s->l.vocab, s->l.max_context);
    if (rc < 0)
        return rc;
    int32_t *history = s->history + (size_t)slot * (s->l.max_context + 1);
    if (a->n_history)
        memcpy(history, a->history, a->n_history * sizeof *history);
    s->last[slot] = SLOT_NEVER;
    return 0;
}

static bool same_rope(const struct rope *have, const sv_rope *r)
{
    return have->style == r->style && have->dims == r->dims && have->scale == r->scale &&
           memcmp(have->own_inv_freq, r->inv_freq, r->dims / 2 * sizeof(float)) == 0;
}

int session_rope(sv_session *s, const sv_rope *r, struct rope **ret, char *why)
{
    if (r->style > SV_ROPE_PAIRS || r->dims % 2 || !r->dims || r->dims > s->l.head_dim ||
        !r->inv_freq)
        return why_set(why, -400, "rope of style %u over %u dimensions; 1 or 2, even, at most %u",
                       r->style, r->dims, s->l.head_dim);
    for (uint32_t i = 0; i < s->n_ropes; i++)
        if (same_rope(&s->rope[i], r)) {
            *ret = &s->rope[i];
            return 0;
        }
    if (s->n_ropes == SESSION_ROPES)
        return why_set(why, -400, "more than %d different ropes", SESSION_ROPES);
    struct rope *own = &s->rope[s->n_ropes];
    own->own_inv_freq = malloc(r->dims / 2 * sizeof(float));
    if (!own->own_inv_freq)
        return why_set(why, -507, "no memory for %u frequencies", r->dims / 2);
    memcpy(own->own_inv_freq, r->inv_freq, r->dims / 2 * sizeof(float));
    own->style = r->style;
    own->dims = r->dims;
    own->scale = r->scale;
    s->n_ropes++;
    *ret = own;
    return 0;
}

int session_collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why)
{
    for (uint32_t i = 0; i < SESSION_RESULTS; i++) {
        struct result *r = &s->result[i];
        if (ticket <= 0 || r->ticket != ticket)
            continue;
        s->collected = ticket;
        *ret = &r->r;
        return 0;
    }
    return why_set(why, -400, "no result of launch %lld; the last was %lld", (long long)ticket,
                   (long long)s->launches);
}

int session_logits(sv_session *s, uint32_t row, float *out)
{
    const struct result *r = &s->result[s->launches % SESSION_RESULTS];
    if (s->collected == 0 || s->collected != s->launches || row >= r->r.n_rows)
        return -400;
    memcpy(out, s->logits + (size_t)row * s->l.vocab, s->l.vocab * sizeof *out);
    return 0;
}
