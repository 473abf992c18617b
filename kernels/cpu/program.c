// SPDX-License-Identifier: Apache-2.0
#include "cpu/program.h"

#include "cpu/step.h"

#include <stdlib.h>
#include <string.h>

int program_record(sv_session *s, uint32_t max_tokens, sv_program **ret, char *why)
{
    if (!max_tokens || max_tokens > s->l.max_tokens)
        return why_set(why, -400, "a program of %u tokens; the session takes 1 to %u", max_tokens,
                       s->l.max_tokens);
    sv_program *p = calloc(1, sizeof *p);
    if (!p)
        return why_set(why, -507, "no memory for a program");
    *p = (struct sv_program){.session = s, .next = s->programs, .max_tokens = max_tokens};
    s->programs = p;
    *ret = p;
    return 0;
}

void programs_free(sv_program *list)
{
    while (list) {
        sv_program *next = list->next;
        free(list->ops);
        free(list->phases);
        free(list);
        list = next;
    }
}

__attribute__((format(printf, 3, 4))) static int fail(sv_program *p, int code, const char *fmt, ...)
{
    va_list a;
    va_start(a, fmt);
    if (p->code == 0)
        p->code = why_vset(p->why, code, fmt, a);
    va_end(a);
    return code;
}

static int put(sv_program *p, const struct op *op)
{
    if (p->phases)
        return fail(p, -400, "block %u comes after ready()", p->n_ops);
    if (p->n_ops == p->cap) {
        uint32_t cap = p->cap ? 2 * p->cap : 64;
        struct op *ops = realloc(p->ops, cap * sizeof *ops);
        if (!ops)
            return fail(p, -507, "no memory for %u blocks", cap);
        p->ops = ops;
        p->cap = cap;
    }
    p->ops[p->n_ops++] = *op;
    return 0;
}

static int need_weight(sv_program *p, const char *block, const sv_weight *w, uint32_t role,
                       uint64_t cols)
{
    static const char *const names[] = {"SV_MATRIX", "SV_QKV", "SV_GATE_UP", "SV_TABLE",
                                        "SV_VECTOR"};
    bool table = role == SV_MATRIX && w && w->role == SV_TABLE; // a head may be the table
    if (!w || (w->role != role && !table))
        return fail(p, -400, "%s (block %u): its weight is %s, not %s", block, p->n_ops,
                    w ? names[w->role] : "missing", names[role]);
    if (w->cols != cols)
        return fail(p, -400, "%s (block %u): its weight has %llu columns, its input %llu", block,
                    p->n_ops, (unsigned long long)w->cols, (unsigned long long)cols);
    return 0;
}

// Operands of all parts of a token are made together.
static int place_operands(sv_program *p, struct op *op)
{
    size_t used = 0;
    for (uint32_t i = 0; i < op->w->n_parts; i++) {
        const struct matrix *m = &op->w->part[i];
        op->operand_at[i] = used;
        for (uint32_t j = 0; j < i; j++)
            if (matrix_same_operand(&op->w->part[j], m)) {
                op->operand_at[i] = op->operand_at[j];
                break;
            }
        if (op->operand_at[i] == used)
            used += matrix_operand_bytes(m);
    }
    if (used <= p->session->operand_bytes)
        return 0;
    return fail(p, -400,
                "block %u: %llu columns need %zu bytes a token as operands; the session's widths "
                "give %llu",
                p->n_ops, (unsigned long long)op->w->cols, used,
                (unsigned long long)p->session->operand_bytes);
}

static int need_buffer(sv_program *p, const char *block, const char *name, const sv_buf *b,
                       uint64_t cols)
{
    if (!b || b->session != p->session)
        return fail(p, -400, "%s (block %u): %s is no buffer of this session", block, p->n_ops,
                    name);
    if (cols && b->cols != cols)
        return fail(p, -400, "%s (block %u): %s has %llu columns, not %llu", block, p->n_ops, name,
                    (unsigned long long)b->cols, (unsigned long long)cols);
    return 0;
}

static int need_norm(sv_program *p, const char *block, const char *name, const sv_norm *n,
                     uint64_t cols, struct op_norm *ret)
{
    if (!n->w)
        return 0;
    if (n->w->role != SV_VECTOR || n->w->cols != cols)
        return fail(p, -400, "%s (block %u): %s has %llu numbers, not %llu, or is no vector", block,
                    p->n_ops, name, (unsigned long long)n->w->cols, (unsigned long long)cols);
    *ret = (struct op_norm){n->w->vector, n->eps, n->offset};
    return 0;
}

static int need_layer(sv_program *p, const char *block, uint32_t layer)
{
    if (layer < p->session->l.layers)
        return 0;
    return fail(p, -400, "%s (block %u): layer %u; the session has %u", block, p->n_ops, layer,
                p->session->l.layers);
}

static int need_rows(sv_program *p, const char *block, const sv_weight *w, uint32_t part,
                     uint64_t rows)
{
    if (w->part[part].rows == rows)
        return 0;
    return fail(p, -400, "%s (block %u): part %u of its weight has %llu rows, not %llu", block,
                p->n_ops, part, (unsigned long long)w->part[part].rows, (unsigned long long)rows);
}

int program_embed(sv_program *p, const sv_weight *table, float scale, sv_buf *x)
{
    int rc = need_buffer(p, "embed", "x", x, 0);
    if (rc == 0)
        rc = need_weight(p, "embed", table, SV_TABLE, x->cols);
    if (rc == 0)
        rc = need_rows(p, "embed", table, 0, p->session->l.vocab);
    return rc < 0 ? rc : put(p, &(struct op){.kind = OP_EMBED, .w = table, .scale = scale, .y = x});
}

static int need_rope(sv_program *p, const sv_rope *r, struct op *op)
{
    if (!r || r->style == SV_ROPE_NONE)
        return 0;
    struct rope *rope = NULL;
    char why[SV_WHY_MAX];
    int rc = session_rope(p->session, r, &rope, why);
    op->rope = rope;
    return rc < 0 ? fail(p, rc, "qkv (block %u): %s", p->n_ops, why) : 0;
}

int program_qkv(sv_program *p, const sv_qkv *o)
{
    const sv_limits *l = &p->session->l;
    struct op op = {.kind = OP_QKV, .layer = o->layer, .w = o->w, .x = o->x, .y = o->q};
    uint64_t kv_rows = (uint64_t)l->kv_heads * l->head_dim;
    int rc = need_layer(p, "qkv", o->layer);
    if (rc == 0)
        rc = need_buffer(p, "qkv", "x", o->x, 0);
    if (rc == 0)
        rc = need_buffer(p, "qkv", "q", o->q, (uint64_t)l->heads * l->head_dim);
    if (rc == 0)
        rc = need_weight(p, "qkv", o->w, SV_QKV, o->x->cols);
    if (rc == 0)
        rc = need_rows(p, "qkv", o->w, 0, (uint64_t)l->heads * l->head_dim);
    for (uint32_t i = 1; i < 3 && rc == 0; i++)
        rc = need_rows(p, "qkv", o->w, i, kv_rows);
    if (rc == 0)
        rc = need_norm(p, "qkv", "norm", &o->norm, o->x->cols, &op.norm);
    if (rc == 0)
        rc = need_norm(p, "qkv", "q_norm", &o->q_norm, l->head_dim, &op.q_norm);
    if (rc == 0)
        rc = need_norm(p, "qkv", "k_norm", &o->k_norm, l->head_dim, &op.k_norm);
    if (rc == 0)
        rc = need_rope(p, o->rope, &op);
    if (rc == 0)
        rc = place_operands(p, &op);
    return rc < 0 ? rc : put(p, &op);
}

int program_attend(sv_program *p, const sv_attend *o)
{
    const sv_limits *l = &p->session->l;
    uint64_t cols = (uint64_t)l->heads * l->head_dim;
    int rc = need_layer(p, "attend", o->layer);
    if (rc == 0)
        rc = need_buffer(p, "attend", "q", o->q, cols);
    if (rc == 0)
        rc = need_buffer(p, "attend", "out", o->out, cols);
    return rc < 0 ? rc
                  : put(p, &(struct op){.kind = OP_ATTEND,
                                        .layer = o->layer,
                                        .window = o->window,
                                        .scale = o->scale,
                                        .x = o->q,
                                        .y = o->out});
}

int program_project(sv_program *p, const sv_project *o)
{
    struct op op = {.kind = OP_PROJECT, .w = o->w, .x = o->x, .y = o->y};
    int rc = need_buffer(p, "project", "x", o->x, 0);
    if (rc == 0)
        rc = need_buffer(p, "project", "y", o->y, 0);
    if (rc == 0 && o->x == o->y)
        rc = fail(p, -400, "project (block %u): x and y are the same buffer", p->n_ops);
    if (rc == 0)
        rc = need_weight(p, "project", o->w, SV_MATRIX, o->x->cols);
    if (rc == 0)
        rc = need_rows(p, "project", o->w, 0, o->y->cols);
    if (rc == 0)
        rc = place_operands(p, &op);
    return rc < 0 ? rc : put(p, &op);
}

int program_gate_up(sv_program *p, const sv_gate_up *o)
{
    struct op op = {
        .kind = OP_GATE_UP, .w = o->w, .activation = o->activation, .x = o->x, .y = o->y};
    int rc = need_buffer(p, "gate_up", "x", o->x, 0);
    if (rc == 0)
        rc = need_buffer(p, "gate_up", "y", o->y, 0);
    if (rc == 0 && o->x == o->y)
        rc = fail(p, -400, "gate_up (block %u): x and y are the same buffer", p->n_ops);
    if (rc == 0)
        rc = need_weight(p, "gate_up", o->w, SV_GATE_UP, o->x->cols);
    if (rc == 0)
        rc = need_rows(p, "gate_up", o->w, 0, o->y->cols);
    if (rc == 0)
        rc = need_norm(p, "gate_up", "norm", &o->norm, o->x->cols, &op.norm);
    if (rc == 0 && o->activation > SV_GELU_TANH)
        rc = fail(p, -400, "gate_up (block %u): activation %u; 0 or 1", p->n_ops, o->activation);
    if (rc == 0)
        rc = place_operands(p, &op);
    return rc < 0 ? rc : put(p, &op);
}

int program_head(sv_program *p, const sv_head *o)
{
    struct op op = {.kind = OP_HEAD, .w = o->w, .x = o->x};
    int rc = need_buffer(p, "head", "x", o->x, 0);
    if (rc == 0)
        rc = need_weight(p, "head", o->w, SV_MATRIX, o->x->cols);
    if (rc == 0)
        rc = need_rows(p, "head", o->w, 0, p->session->l.vocab);
    if (rc == 0)
        rc = need_norm(p, "head", "norm", &o->norm, o->x->cols, &op.norm);
    if (rc == 0)
        rc = place_operands(p, &op);
    return rc < 0 ? rc : put(p, &op);
}

int program_ready(sv_program *p, char *why)
{
    if (p->code == 0 && p->phases)
        fail(p, -400, "ready() was called before");
    if (p->code == 0 && p->n_ops == 0)
        fail(p, -400, "a program without a block");
    if (p->code == 0)
        p->n_phases = step_phases(p, NULL);
    if (p->code == 0 && !(p->phases = calloc(p->n_phases, sizeof *p->phases)))
        fail(p, -507, "no memory for %u phases", p->n_phases);
    if (p->code == 0)
        step_phases(p, p->phases);
    return p->code < 0 ? why_set(why, p->code, "%s", p->why) : 0;
}
