// SPDX-License-Identifier: Apache-2.0
#include "cpu/layer.h"

#include "cpu/half.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    EMBED_TOKENS = 8,   // of an item
    MUL_TOKENS = 64,    // of an item at most: their operands stay in the cache nearby
    ITEMS_A_THREAD = 8, // so that threads end at about the same time
    MUL_TILES = 8       // of an item with many tokens
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static float *row_of(const sv_buf *b, uint64_t token)
{
    return b->data + token * b->cols;
}

/* Embedding. */

uint32_t layer_embed_items(struct step *t, const struct op *op)
{
    (void)op;
    return (t->b->n_tokens + EMBED_TOKENS - 1) / EMBED_TOKENS;
}

// cos and sin of the position as transformers has them: the angle is rounded to f32 first.
static void turn(const struct rope *r, uint32_t token, int32_t pos)
{
    uint32_t half = r->dims / 2;
    float *c = r->cos + (size_t)token * half, *s = r->sin + (size_t)token * half;
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)((float)pos * r->own_inv_freq[i]);
        c[i] = (float)cos(angle) * r->scale;
        s[i] = (float)sin(angle) * r->scale;
    }
}

// What the batch says of a token, and what follows for all layers.
static void embed_token(const struct step *t, const struct op *op, uint32_t i)
{
    const sv_session *s = t->s;
    int32_t slot = s->token_slot[i], pos = t->b->pos[i], id = t->b->token[i];
    if (id == SV_SAMPLED)
        id = s->last[slot] < 0 ? 0 : s->last[slot]; // its sequence has ended; nobody looks
    s->history[(uint64_t)(uint32_t)slot * (s->l.max_context + 1) + (uint32_t)pos] = id;
    float *x = row_of(op->y, i);
    matrix_row(&op->w->part[0], (uint64_t)id, x);
    if (op->scale != 1)
        s->dev->lanes->scale(x, op->scale, op->y->cols);
    for (uint32_t r = 0; r < s->n_ropes; r++)
        turn(&s->rope[r], i, pos);
}

void layer_embed(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                 uint64_t number)
{
    (void)thread;
    (void)number;
    uint32_t begin = item * EMBED_TOKENS, end = begin + EMBED_TOKENS;
    for (uint32_t i = begin; i < end && i < t->b->n_tokens; i++)
        embed_token(t, op, i);
}

/* Operands. */

static uint32_t rows_of(const struct step *t, const struct op *op)
{
    return op->kind == OP_HEAD ? t->b->n_rows : t->b->n_tokens;
}

// Of one token, or row of the batch. operands: of all tokens, with room for `cap`.
static void operand_of(const struct step *t, const struct op *op, uint32_t row, float *normed,
                       char *operands, uint64_t cap)
{
    uint32_t token = op->kind == OP_HEAD ? (uint32_t)t->b->row_token[row] : row;
    const float *x = row_of(op->x, token);
    if (op->norm.w) {
        t->s->dev->lanes->norm(x, op->norm.w, op->norm.eps, op->norm.offset, op->x->cols, normed);
        x = normed;
    }
    for (uint32_t i = 0; i < op->w->n_parts; i++) {
        const struct matrix *m = &op->w->part[i];
        if (i == 0 || op->operand_at[i] > op->operand_at[i - 1])
            matrix_operand(m, x,
                           operands + op->operand_at[i] * cap + row * matrix_operand_bytes(m));
    }
}

uint32_t layer_operand_items(struct step *t, const struct op *op)
{
    uint32_t rows = rows_of(t, op);
    t->lazy = rows <= LAZY_TOKENS;
    return t->lazy ? 0 : rows;
}

void layer_operand(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number)
{
    (void)number;
    operand_of(t, op, item, t->s->scratch[thread].row, t->s->operands, t->s->operand_rows);
}

/* Products. */

// Items of an op: tiles in groups of a multiple of `unit`, tokens in chunks.
static uint32_t cut(struct step *t, const struct op *op, uint64_t tiles, uint32_t unit)
{
    uint32_t rows = rows_of(t, op), chunks = (rows + MUL_TOKENS - 1) / MUL_TOKENS;
    if (!chunks)
        return 0;
    struct cut *c = &t->cut;
    c->chunks = chunks;
    c->tokens = (rows + chunks - 1) / chunks;
    c->all_tiles = tiles;
    uint64_t items = (uint64_t)t->s->dev->c.threads * ITEMS_A_THREAD;
    uint64_t each = tiles * chunks / items, most = TILE_FLOATS / MATRIX_TILE / c->tokens;
    if (rows > LAZY_TOKENS)
        most = least(most, MUL_TILES);
    each = least(each < unit ? unit : each / unit * unit, most < unit ? unit : most / unit * unit);
    c->tiles = (uint32_t)each;
    c->groups = (uint32_t)((tiles + each - 1) / each);
    return c->groups * chunks;
}

struct piece { // of a product
    uint64_t tile, tile_end;
    uint64_t row;    // of the weight
    uint32_t rows;   // [row, row + rows)
    uint32_t token;  // or row of the batch
    uint32_t tokens; // [token, token + tokens)
};

static struct piece piece_of(const struct step *t, const struct op *op, uint32_t item,
                             uint64_t rows)
{
    const struct cut *c = &t->cut;
    struct piece p = {.tile = (uint64_t)(item % c->groups) * c->tiles,
                      .token = item / c->groups * c->tokens};
    p.tile_end = least(p.tile + c->tiles, c->all_tiles);
    p.row = p.tile * MATRIX_TILE;
    p.rows = (uint32_t)(least(p.tile_end * MATRIX_TILE, rows) - p.row);
    p.tokens = (uint32_t)least(c->tokens, rows_of(t, op) - p.token);
    return p;
}

// Operands of a part for the tokens from `token` on.
static const char *operands_of(const struct step *t, const struct op *op, uint32_t part,
                               uint32_t token, struct scratch *mine, uint64_t number)
{
    const char *operands = t->lazy ? mine->operands : t->s->operands;
    uint64_t cap = t->lazy ? LAZY_TOKENS : t->s->operand_rows;
    if (t->lazy && mine->made != number) {
        for (uint32_t i = 0; i < rows_of(t, op); i++)
            operand_of(t, op, i, mine->row, mine->operands, cap);
        mine->made = number;
    }
    return operands + op->operand_at[part] * cap + token * matrix_operand_bytes(&op->w->part[part]);
}

// y[tokens][p->rows] of a part into scratch.
static void multiply(const struct step *t, const struct op *op, uint32_t part,
                     const struct piece *p, struct scratch *mine, uint64_t number, float *y)
{
    const char *operands = operands_of(t, op, part, p->token, mine, number);
    // The product writes from row `row` on.
    float *base = (float *)((uintptr_t)y - p->row * sizeof *y);
    matrix_mul(&op->w->part[part], operands, p->tokens, p->tile, p->tile_end, base, p->rows);
    const float *bias = op->w->bias[part];
    for (uint32_t i = 0; i < p->tokens && bias; i++)
        t->s->dev->lanes->add(y + (size_t)i * p->rows, bias + p->row, p->rows);
}

uint32_t layer_project_items(struct step *t, const struct op *op)
{
    return cut(t, op, matrix_tiles(&op->w->part[0]), 1);
}

void layer_project(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number)
{
    struct piece p = piece_of(t, op, item, op->w->part[0].rows);
    struct scratch *mine = &t->s->scratch[thread];
    multiply(t, op, 0, &p, mine, number, mine->tile[0]);
    for (uint32_t i = 0; i < p.tokens; i++)
        t->s->dev->lanes->add(row_of(op->y, p.token + i) + p.row,
                              mine->tile[0] + (size_t)i * p.rows, p.rows);
}

uint32_t layer_gate_up_items(struct step *t, const struct op *op)
{
    return cut(t, op, matrix_tiles(&op->w->part[0]), 1);
}

void layer_gate_up(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number)
{
    struct piece p = piece_of(t, op, item, op->w->part[0].rows);
    struct scratch *mine = &t->s->scratch[thread];
    const struct lanes *lanes = t->s->dev->lanes;
    for (uint32_t i = 0; i < 2; i++)
        multiply(t, op, i, &p, mine, number, mine->tile[i]);
    void (*gate)(float *, const float *, size_t) =
        op->activation == SV_SILU ? lanes->silu : lanes->gelu;
    for (uint32_t i = 0; i < p.tokens; i++) {
        float *g = mine->tile[0] + (size_t)i * p.rows;
        gate(g, mine->tile[1] + (size_t)i * p.rows, p.rows);
        memcpy(row_of(op->y, p.token + i) + p.row, g, p.rows * sizeof *g);
    }
}

/* Queries, keys and values: an item has whole heads, so what follows needs no one else. */

static uint32_t head_unit(uint32_t head_dim) // tiles that hold whole heads
{
    uint32_t a = head_dim, b = MATRIX_TILE;
    assert(a > 0);
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return head_dim / a;
}

uint32_t layer_qkv_items(struct step *t, const struct op *op)
{
    uint64_t tiles = 0;
    uint32_t unit = head_unit(t->s->l.head_dim);
    for (uint32_t i = 0; i < 3; i++)
        tiles += (matrix_tiles(&op->w->part[i]) + unit - 1) / unit * unit;
    return cut(t, op, tiles, unit);
}

static void put_kv(const struct step *t, const struct op *op, uint32_t part, uint32_t token,
                   uint32_t head, const float *x, uint16_t *half)
{
    const sv_session *s = t->s;
    uint32_t dim = s->l.head_dim, lane = (uint32_t)t->b->pos[token] % SV_BLOCK, size;
    char *kv = session_kv(s, op->layer, s->token_block[token], head);
    const char *from = (const char *)x;
    size = kv_bytes(s->l.kv_dtype);
    if (size == 2) {
        s->dev->lanes->narrow(s->l.kv_dtype, x, dim, half);
        from = (const char *)half;
    }
    if (part == 2) {
        memcpy(kv + (size_t)(SV_BLOCK + lane) * dim * size, from, (size_t)dim * size);
        return;
    }
    for (uint32_t d = 0; d < dim; d++) // K lies transposed
        memcpy(kv + ((size_t)d * SV_BLOCK + lane) * size, from + (size_t)d * size, size);
}

// A head of a token, projected: norm, rotation, and where it belongs.
static void put_head(const struct step *t, const struct op *op, uint32_t part, uint32_t token,
                     uint32_t head, float *x, uint16_t *half)
{
    const struct lanes *lanes = t->s->dev->lanes;
    uint32_t dim = t->s->l.head_dim;
    const struct op_norm *norm = part == 0 ? &op->q_norm : &op->k_norm;
    if (part < 2 && norm->w)
        lanes->norm(x, norm->w, norm->eps, norm->offset, dim, x);
    if (part < 2 && op->rope) {
        uint32_t turns = op->rope->dims / 2;
        const float *c = op->rope->cos + (size_t)token * turns;
        const float *s = op->rope->sin + (size_t)token * turns;
        if (op->rope->style == SV_ROPE_HALF)
            lanes->rope_half(x, c, s, turns);
        else
            lanes->rope_pairs(x, c, s, turns);
    }
    if (part == 0)
        memcpy(row_of(op->y, token) + (size_t)head * dim, x, dim * sizeof *x);
    else
        put_kv(t, op, part, token, head, x, half);
}

// The part of an item that lies in one part of the weight.
static void qkv_part(const struct step *t, const struct op *op, uint32_t part,
                     const struct piece *p, struct scratch *mine, uint64_t number)
{
    uint32_t dim = t->s->l.head_dim, heads = p->rows / dim;
    multiply(t, op, part, p, mine, number, mine->tile[0]);
    for (uint32_t i = 0; i < p->tokens; i++)
        for (uint32_t h = 0; h < heads; h++)
            put_head(t, op, part, p->token + i, (uint32_t)(p->row / dim) + h,
                     mine->tile[0] + ((size_t)i * heads + h) * dim, mine->half);
}

void layer_qkv(struct step *t, const struct op *op, uint32_t item, uint32_t thread, uint64_t number)
{
    struct piece all = piece_of(t, op, item, UINT64_MAX);
    uint32_t unit = head_unit(t->s->l.head_dim);
    uint64_t begin = 0;
    for (uint32_t part = 0; part < 3; part++) {
        const struct matrix *m = &op->w->part[part];
        uint64_t tiles = matrix_tiles(m), end = begin + (tiles + unit - 1) / unit * unit;
        struct piece p = all;
        p.tile = all.tile > begin ? all.tile - begin : 0;
        p.tile_end = all.tile_end > begin ? least(all.tile_end - begin, tiles) : 0;
        begin = end;
        if (p.tile >= p.tile_end)
            continue;
        p.row = p.tile * MATRIX_TILE;
        p.rows = (uint32_t)(least(p.tile_end * MATRIX_TILE, m->rows) - p.row);
        qkv_part(t, op, part, &p, &t->s->scratch[thread], number);
    }
}

/* Logits. */

uint32_t layer_logits_items(struct step *t, const struct op *op)
{
    return cut(t, op, matrix_tiles(&op->w->part[0]), 1);
}

void layer_logits(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                  uint64_t number)
{
    const struct matrix *m = &op->w->part[0];
    struct piece p = piece_of(t, op, item, m->rows);
    const char *operands = operands_of(t, op, 0, p.token, &t->s->scratch[thread], number);
    float *y = t->s->logits + (uint64_t)p.token * t->s->l.vocab;
    matrix_mul(m, operands, p.tokens, p.tile, p.tile_end, y, t->s->l.vocab);
    for (uint32_t i = 0; i < p.tokens && op->w->bias[0]; i++)
        t->s->dev->lanes->add(y + (size_t)i * t->s->l.vocab + p.row, op->w->bias[0] + p.row,
                              p.rows);
}

uint32_t layer_sample_items(struct step *t, const struct op *op)
{
    (void)op;
    return t->b->n_rows;
}

void layer_sample(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                  uint64_t number)
{
    (void)op;
    (void)number;
    sv_session *s = t->s;
    uint32_t slot = (uint32_t)t->b->row_slot[item];
    struct sample_row row = {
        .lanes = s->dev->lanes,
        .logits = s->logits + (uint64_t)item * s->l.vocab,
        .vocab = s->l.vocab,
        .s = &s->slot[slot],
        .history = s->history + (uint64_t)slot * (s->l.max_context + 1),
        .n_history = (uint32_t)t->b->pos[t->b->row_token[item]] + 1,
    };
    struct result *r = t->result;
    struct sample_result got = {.top_id = r->top_id + (size_t)item * SV_TOP_MAX,
                                .top_logprob = r->top_logprob + (size_t)item * SV_TOP_MAX};
    sample(&row, t->b->row_want[item], &s->scratch[thread].sample, &got);
    r->token[item] = got.token;
    r->rank[item] = got.rank;
    r->logprob[item] = got.logprob;
}
