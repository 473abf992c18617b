// SPDX-License-Identifier: Apache-2.0
#include "cpu/attend.h"

#include <math.h>
#include <string.h>

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t segments(const sv_session *s, int32_t pos) // that hold the keys [0, pos]
{
    return (uint32_t)pos / s->segment_keys + 1;
}

static void put_tiles(sv_session *s, uint32_t token, uint32_t n, uint32_t slot, int32_t pos)
{
    uint32_t most = s->attend_rows / s->group;
    for (uint32_t i = 0; i < n; i += most) {
        uint32_t len = least(most, n - i);
        s->work[s->n_work++] = (struct attend_work){
            .token = token + i,
            .n = len,
            .slot = slot,
            .pos = pos + (int32_t)i,
            .end = segments(s, pos + (int32_t)(i + len) - 1),
            .ways = 1,
        };
    }
}

// Cuts work w in up to `ways` of whole segments; the first stays at its place.
static void split_work(sv_session *s, uint32_t w, uint32_t ways, uint32_t pair)
{
    struct attend_work *work = &s->work[w];
    uint32_t all = work->end, each = (all + ways - 1) / ways;
    ways = (all + each - 1) / each;
    work->pair = pair;
    work->ways = ways;
    work->end = least(each, all);
    for (uint32_t i = 1; i < ways; i++) {
        s->work[s->n_work] = *work;
        s->work[s->n_work].segment = i * each;
        s->work[s->n_work++].end = least((i + 1) * each, all);
    }
}

void attend_plan(struct step *t)
{
    sv_session *s = t->s;
    s->n_work = 0;
    for (uint32_t i = 0, token = 0; i < t->b->n_seqs; i++) {
        uint32_t n = (uint32_t)t->b->seq_tokens[i];
        put_tiles(s, token, n, (uint32_t)t->b->seq_slot[i], t->b->pos[token]);
        token += n;
    }
    uint32_t heads = s->l.kv_heads, works = s->n_work, pairs = works * heads;
    if (!pairs || works > s->pairs_max || pairs > s->pairs_max)
        return;
    uint32_t ways = least(SEGMENTS_MAX, (4 * s->dev->c.threads + pairs - 1) / pairs);
    for (uint32_t i = 0; i < works && ways > 1; i++)
        if (s->work[i].n == 1 && s->work[i].end > 1)
            split_work(s, i, ways, i * heads);
}

uint32_t attend_items(struct step *t, const struct op *op)
{
    (void)op;
    sv_session *s = t->s;
    for (uint32_t i = 0; i < s->n_work; i++)
        for (uint32_t h = 0; h < s->l.kv_heads && s->work[i].ways > 1; h++)
            atomic_store_explicit(&s->pair_left[s->work[i].pair + h], s->work[i].ways,
                                  memory_order_relaxed);
    return s->n_work * s->l.kv_heads;
}

// All that one item needs.
struct tile {
    sv_session *s;
    const struct lanes *lanes;
    const struct op *op;
    const struct attend_work *w;
    struct scratch *mine;
    uint32_t head, rows, dim;
};

static void gather(const struct tile *t)
{
    size_t n = (size_t)t->s->group * t->dim;
    const float *q = t->op->x->data + (uint64_t)t->w->token * t->op->x->cols + t->head * n;
    for (uint32_t i = 0; i < t->w->n; i++)
        memcpy(t->mine->q + i * n, q + i * t->op->x->cols, n * sizeof *q);
}

// The keys a row may see.
static void range(const struct tile *t, uint32_t row, int64_t *lo, int64_t *hi)
{
    int64_t pos = t->w->pos + (int64_t)(row / t->s->group);
    *hi = pos + 1;
    *lo = t->op->window && pos + 1 > t->op->window ? pos + 1 - t->op->window : 0;
}

static uint8_t clamp(int64_t key, int64_t first)
{
    return (uint8_t)(key <= first ? 0 : key - first >= UNIT_KEYS ? UNIT_KEYS : key - first);
}

// Which keys of the unit each row sees; false: none at all.
static bool ranges(const struct tile *t, int64_t first)
{
    bool any = false;
    for (uint32_t r = 0; r < t->rows; r++) {
        int64_t lo, hi;
        range(t, r, &lo, &hi);
        t->mine->lo[r] = clamp(lo, first);
        t->mine->hi[r] = clamp(hi, first);
        if (t->mine->lo[r] >= t->mine->hi[r])
            t->mine->lo[r] = t->mine->hi[r] = 0;
        any |= t->mine->hi[r] > 0;
    }
    return any;
}

// The blocks of a unit that any row sees.
static void seen(const struct tile *t, uint32_t *begin, uint32_t *end)
{
    uint32_t lo = UNIT_KEYS, hi = 0;
    for (uint32_t r = 0; r < t->rows; r++) {
        if (t->mine->hi[r] == 0)
            continue;
        lo = least(lo, t->mine->lo[r]);
        hi = t->mine->hi[r] > hi ? t->mine->hi[r] : hi;
    }
    *begin = lo / SV_BLOCK;
    *end = (hi + SV_BLOCK - 1) / SV_BLOCK;
}

static const int32_t *pages_of(const struct tile *t, int64_t first)
{
    return t->s->page_table + (uint64_t)t->w->slot * t->s->pages + first / SV_BLOCK;
}

// Few rows read K and V as they are stored; more of them share a copy in f32. Of a block nobody
// sees the scores are masked and the values not read: another one stands for it. (Prefetching the
// next unit makes it slower: 2.0 -> 2.8 ms for 35 MB with AVX-512.)
static void load(const struct tile *t, int64_t first, struct unit *u)
{
    const sv_session *s = t->s;
    uint32_t dtype = s->l.kv_dtype, begin, end;
    size_t n = (size_t)SV_BLOCK * t->dim;
    bool copy = dtype != SV_F32 && t->rows > UNIT_FEW;
    const int32_t *page = pages_of(t, first);
    seen(t, &begin, &end);
    u->dtype = copy ? SV_F32 : dtype;
    for (uint32_t b = begin; b < end; b++) {
        const char *k = session_kv(s, t->op->layer, page[b], t->head);
        u->k[b] = k;
        u->v[b] = k + n * kv_bytes(dtype);
        if (!copy)
            continue;
        t->lanes->widen(dtype, u->k[b], n, t->mine->k + b * n);
        t->lanes->widen(dtype, u->v[b], n, t->mine->v + b * n);
        u->k[b] = t->mine->k + b * n;
        u->v[b] = t->mine->v + b * n;
    }
    for (uint32_t b = 0; b < UNIT_BLOCKS; b++)
        if (b < begin || b >= end) {
            u->k[b] = u->k[begin];
            u->v[b] = u->v[begin];
        }
}

static void begin(const struct tile *t, float *most, float *sum, float *out)
{
    for (uint32_t r = 0; r < t->rows; r++) {
        most[r] = -INFINITY;
        sum[r] = 0;
    }
    memset(out, 0, (size_t)t->rows * t->dim * sizeof *out);
}

// A segment's state into part, and most, sum from attend_rows on.
static void segment(const struct tile *t, uint32_t number)
{
    struct scratch *m = t->mine;
    uint32_t shift = t->s->attend_rows;
    struct unit u = {.rows = t->rows,
                     .head_dim = t->dim,
                     .scale = t->op->scale,
                     .q = m->q,
                     .lo = m->lo,
                     .hi = m->hi,
                     .most = m->most + shift,
                     .sum = m->sum + shift,
                     .out = m->part,
                     .p = m->p};
    begin(t, u.most, u.sum, u.out);
    int64_t key = (int64_t)number * t->s->segment_keys, end = key + t->s->segment_keys;
    int64_t last = (int64_t)t->w->pos + t->w->n; // of the tile, plus one
    for (; key < end && key < last; key += UNIT_KEYS) {
        if (!ranges(t, key))
            continue;
        load(t, key, &u);
        t->lanes->unit(&u);
    }
}

// Row r's state takes in a later segment's, if that saw anything.
static void fold_row(const struct tile *t, uint32_t r, float most, float sum, const float *out)
{
    if (most == -INFINITY && sum == 0)
        return;
    t->lanes->fold(&t->mine->most[r], &t->mine->sum[r], t->mine->out + (size_t)r * t->dim, most,
                   sum, out, t->dim);
}

static float *partial(const struct tile *t, uint32_t segment, uint32_t r)
{
    uint64_t at = t->w->pair + t->head;
    at = (at * SEGMENTS_MAX + segment) * t->s->group + r;
    return t->s->partial + at * (t->dim + 2);
}

static void keep(const struct tile *t, uint32_t number)
{
    const struct scratch *m = t->mine;
    for (uint32_t r = 0; r < t->rows; r++) {
        float *to = partial(t, number, r);
        to[0] = m->most[t->s->attend_rows + r];
        to[1] = m->sum[t->s->attend_rows + r];
        memcpy(to + 2, m->part + (size_t)r * t->dim, t->dim * sizeof *to);
    }
}

static void fold_kept(const struct tile *t)
{
    uint32_t all = segments(t->s, t->w->pos);
    begin(t, t->mine->most, t->mine->sum, t->mine->out);
    for (uint32_t i = 0; i < all; i++)
        for (uint32_t r = 0; r < t->rows; r++) {
            const float *from = partial(t, i, r);
            fold_row(t, r, from[0], from[1], from + 2);
        }
}

// The first one that the first row sees; the other rows see nothing before it either.
static uint32_t first_segment(const struct tile *t)
{
    int64_t lo, hi;
    range(t, 0, &lo, &hi);
    uint32_t first = (uint32_t)(lo / t->s->segment_keys);
    return first > t->w->segment ? first : t->w->segment;
}

static void fold_here(const struct tile *t)
{
    const struct scratch *m = t->mine;
    begin(t, m->most, m->sum, m->out);
    for (uint32_t i = first_segment(t); i < t->w->end; i++) {
        segment(t, i);
        for (uint32_t r = 0; r < t->rows; r++)
            fold_row(t, r, m->most[t->s->attend_rows + r], m->sum[t->s->attend_rows + r],
                     m->part + (size_t)r * t->dim);
    }
}

static void scatter(const struct tile *t)
{
    uint32_t group = t->s->group;
    for (uint32_t r = 0; r < t->rows; r++) {
        const float *from = t->mine->out + (size_t)r * t->dim;
        float *to = t->op->y->data + (uint64_t)(t->w->token + r / group) * t->op->y->cols +
                    ((size_t)t->head * group + r % group) * t->dim;
        float by = 1 / t->mine->sum[r];
        for (uint32_t d = 0; d < t->dim; d++)
            to[d] = from[d] * by;
    }
}

void attend_run(struct step *step, const struct op *op, uint32_t item, uint32_t thread,
                uint64_t number)
{
    (void)number;
    sv_session *s = step->s;
    const struct attend_work *w = &s->work[item / s->l.kv_heads];
    struct tile t = {.s = s,
                     .lanes = s->dev->lanes,
                     .op = op,
                     .w = w,
                     .mine = &s->scratch[thread],
                     .head = item % s->l.kv_heads,
                     .rows = w->n * s->group,
                     .dim = s->l.head_dim};
    gather(&t);
    if (w->ways == 1) {
        fold_here(&t);
        scatter(&t);
        return;
    }
    for (uint32_t i = w->segment; i < w->end; i++) {
        segment(&t, i);
        keep(&t, i);
    }
    if (atomic_fetch_sub_explicit(&s->pair_left[w->pair + t.head], 1, memory_order_acq_rel) > 1)
        return;
    fold_kept(&t);
    scatter(&t);
}
