// SPDX-License-Identifier: Apache-2.0
#include "cuda/gemm_state.h"
#include "cuda/mega.h"
#include "cuda/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EIGHTS = 64 };

/*
 * Sizes with a kernel of their own, then eights up to EIGHTS (all cost about what the weights do),
 * then four an octave: at most a fifth of a step is padding.
 */
uint32_t program_buckets(const sv_session *s, uint32_t tokens[SV_BUCKETS_MAX])
{
    const uint32_t most = s->limits.max_tokens;
    uint32_t n = 0, step = 8;
    for (uint32_t m = 1; m < 8 && m < most; m *= 2)
        tokens[n++] = m;
    for (uint32_t m = 8; m < most && n < SV_BUCKETS_MAX - 1; m += step) {
        tokens[n++] = m;
        if (m >= EIGHTS && (m & (m - 1)) == 0)
            step = m / 4;
    }
    tokens[n++] = most;
    return n;
}

static void failed(sv_program *p, int code, const char *block, const char *text)
{
    if (p->code < 0)
        return;
    p->code = code;
    fail(p->why, code, "%s: %s", block, text);
}

static void check(sv_program *p, cudaError_t e, const char *block)
{
    if (e != cudaSuccess)
        failed(p, e == cudaErrorNotSupported ? -400 : -599, block, cudaGetErrorString(e));
}

// What was captured since the last part becomes one.
static void make_part(sv_program *p, const char *block)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(p->stream, &graph);
    step_part *parts = (step_part *)realloc(p->parts, (p->n_parts + 1) * sizeof *parts);
    if (parts)
        p->parts = parts;
    cudaGraphExec_t made = NULL;
    if (e == cudaSuccess)
        e = parts ? cudaGraphInstantiate(&made, graph, 0) : cudaErrorMemoryAllocation;
    check(p, e, block);
    if (graph)
        cudaGraphDestroy(graph);
    if (e != cudaSuccess)
        return;
    step_part *part = &p->parts[p->n_parts++];
    part->graph = made;
    snprintf(part->block, sizeof part->block, "%s", block);
}

// What e says of a block; by block, ends its part and begins the next one's.
static void block_done(sv_program *p, cudaError_t e, const char *block)
{
    check(p, e, block);
    if (!p->session->dev->by_block || p->code < 0)
        return;
    char name[sizeof p->parts->block];
    snprintf(name, sizeof name, "%s of layer %u", block, p->layer);
    make_part(p, name);
    check(p, cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeRelaxed), name);
}

// Captures from here on.
static int begin(sv_program *p, char *why)
{
    p->changes = p->session->dev->gemm->changes;
    p->layer = 0;
    if (!cuda_ok(cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeRelaxed),
                 "cudaStreamBeginCapture", why))
        return -599;
    p->mega = mega_begin(p->session, p->max_tokens);
    if (!p->mega) // else with the embedding
        prepare_run(p->session->v, p->stream);
    block_done(p, cudaSuccess, "prepare");
    return 0;
}

int program_record(sv_session *s, uint32_t max_tokens, sv_program **ret, char *why)
{
    if (max_tokens == 0 || max_tokens > s->limits.max_tokens)
        return fail(why, -400, "a program of %u tokens; the session has %u", max_tokens,
                    s->limits.max_tokens);
    sv_program *p = (sv_program *)calloc(1, sizeof *p);
    if (!p)
        return fail(why, -507, "no memory");
    p->next = s->programs;
    s->programs = p;
    p->session = s;
    p->max_tokens = max_tokens;
    p->max_rows = max_tokens < s->limits.max_rows ? max_tokens : s->limits.max_rows;
    p->stream = s->dev->stream;
    int rc = begin(p, why);
    if (rc == 0)
        *ret = p;
    return rc;
}

static void run_embed(sv_program *p, program_block *block)
{
    const sv_weight *table = block->embed.table;
    const float scale = block->embed.scale;
    sv_buf *x = block->embed.x;
    if (!table->data || table->cols != x->cols || table->rows < p->session->limits.vocab)
        failed(p, -400, "embed", "the table does not fit the buffer or the vocabulary");
    if (p->code < 0)
        return;
    x->f32 = true;
    if (p->mega)
        prepare_one_run(p->session->v, table, scale, (float *)x->data, p->stream);
    else
        embed_run(p->session->v, table, scale, (float *)x->data, p->max_tokens, p->stream);
    block_done(p, cudaGetLastError(), "embed");
}

static bool norm_fits(const sv_norm *n, uint64_t cols)
{
    return !n->w || (n->w->vector && n->w->cols == cols);
}

static bool same_rope(const rope_table *t, const sv_rope *r)
{
    return t->style == r->style && t->dims == r->dims && t->scale == r->scale &&
           memcmp(t->host, r->inv_freq, r->dims / 2 * sizeof(float)) == 0;
}

// The device's copy of a rope's frequencies; programs of one session share it.
static const rope_table *rope_of(sv_session *s, const sv_rope *r, char *why)
{
    for (rope_table *t = s->ropes; t; t = t->next)
        if (same_rope(t, r))
            return t;
    rope_table *t = (rope_table *)calloc(1, sizeof *t);
    if (!t)
        return fail(why, -507, "no memory"), nullptr;
    *t = {s->ropes, NULL, r->style, r->dims, r->scale, {}};
    memcpy(t->host, r->inv_freq, r->dims / 2 * sizeof(float));
    s->ropes = t;
    void *at = NULL;
    if (!cuda_ok(cudaMalloc(&at, sizeof t->host), "cudaMalloc", why))
        return NULL;
    t->inv_freq = (float *)at;
    // Steps are on a stream that does not wait for this copy's.
    cudaError_t e = cudaMemcpy(at, t->host, sizeof t->host, cudaMemcpyHostToDevice);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(cudaStreamLegacy);
    return cuda_ok(e, "copy of frequencies", why) ? t : NULL;
}

// A projection of m rows; of a residual, normed, where x is one.
static gemm gemm_of(const sv_program *p, const sv_weight *w, const sv_buf *x, uint32_t m)
{
    gemm g = {};
    g.m = m;
    g.n = (uint32_t)w->rows;
    g.k = (uint32_t)w->cols;
    g.w = w->data;
    if (x->f32)
        g.residual = (const float *)x->data;
    else
        g.x = (const bf16 *)x->data;
    g.normed = p->session->normed;
    g.wide = session_wide(p->session, w->cols, w->rows);
    return g;
}

static void set_norm(gemm *g, const sv_norm *n)
{
    g->norm = n->w ? n->w->vector : NULL;
    g->eps = n->eps;
    g->offset = n->offset;
}

static void run_qkv(sv_program *p, program_block *block)
{
    sv_qkv *b = &block->qkv;
    if (b->rope) // the caller's, or one where this block was before
        b->rope = &block->rope;
    sv_session *s = p->session;
    const sv_limits *l = &s->limits;
    uint64_t rows = (uint64_t)(l->heads + 2 * l->kv_heads) * l->head_dim;
    if (b->layer >= l->layers || b->w->rows != rows || b->w->cols != b->x->cols || !b->x->f32 ||
        b->q->cols != (uint64_t)l->heads * l->head_dim || !norm_fits(&b->norm, b->x->cols) ||
        !norm_fits(&b->q_norm, l->head_dim) || !norm_fits(&b->k_norm, l->head_dim) ||
        (b->rope && (b->rope->dims > l->head_dim || b->rope->dims % 2)) ||
        !session_wide(s, b->x->cols, rows))
        failed(p, -400, "qkv", "the shapes of weight, buffers, norms or rope don't fit the limits");
    if (p->code < 0)
        return;
    p->layer = b->layer;
    rope_args a = {};
    if (b->rope && b->rope->style != SV_ROPE_NONE) {
        const rope_table *t = rope_of(s, b->rope, p->why);
        if (!t) {
            p->code = -507;
            return;
        }
        block->rope.inv_freq = t->host;
        a.inv_freq = t->inv_freq;
        a.style = t->style;
        a.dims = t->dims;
        a.scale = t->scale;
    }
    a.bias = b->w->bias;
    a.q_norm = b->q_norm.w ? b->q_norm.w->vector : NULL;
    a.k_norm = b->k_norm.w ? b->k_norm.w->vector : NULL;
    a.q_eps = b->q_norm.eps;
    a.k_eps = b->k_norm.eps;
    a.q_offset = b->q_norm.offset;
    a.k_offset = b->k_norm.offset;
    gemm g = gemm_of(p, b->w, b->x, p->max_tokens); // its bias is added by rope_append
    set_norm(&g, &b->norm);
    g.end = GEMM_BF16;
    g.y = g.wide;
    if (mega_qkv(p, g, a, b->layer))
        return;
    bf16 *q = (bf16 *)b->q->data;
    cudaError_t e;
    if (gemv_qkv_takes(s->dev, s->v, g, a)) {
        e = gemv_qkv_run(s->dev, s->v, g, a, q, b->layer, p->stream);
    } else if (skinny_wins(s->dev, g) && skinny_qkv_takes(s->dev, s->v, g, a)) {
        e = skinny_qkv_run(s->dev, s->v, g, a, q, b->layer, p->stream);
    } else {
        e = gemm_run(s->dev, s->v, g, p->stream);
        rope_append_run(s->v, g.wide, a, q, b->layer, p->max_tokens, p->stream);
        e = e == cudaSuccess ? cudaGetLastError() : e;
    }
    block_done(p, e, "qkv");
}

static void run_attend(sv_program *p, program_block *block)
{
    const sv_attend *b = &block->attend;
    const sv_limits *l = &p->session->limits;
    uint64_t cols = (uint64_t)l->heads * l->head_dim;
    if (b->layer >= l->layers || b->q->cols != cols || b->out->cols != cols || b->q->f32 ||
        b->out->f32 || l->heads / l->kv_heads > 16)
        failed(p, -400, "attend", "the shapes of the buffers don't fit the limits");
    if (p->code < 0 || mega_attention(p, b))
        return;
    attend_run(p->session->v, (const bf16 *)b->q->data, (bf16 *)b->out->data, b->layer, b->window,
               b->scale, p->max_tokens, p->stream);
    block_done(p, cudaGetLastError(), "attend");
}

static void run_project(sv_program *p, program_block *block)
{
    const sv_project *b = &block->project;
    if (!b->w->data || b->w->cols != b->x->cols || b->w->rows != b->y->cols || b->x->f32 ||
        !b->y->f32)
        failed(p, -400, "project", "the shapes of weight and buffers don't fit");
    if (p->code < 0)
        return;
    gemm g = gemm_of(p, b->w, b->x, p->max_tokens);
    g.end = GEMM_ADD;
    g.bias = b->w->bias;
    g.y = b->y->data;
    if (mega_projection(p, g, b->x))
        return;
    block_done(p, gemm_run(p->session->dev, p->session->v, g, p->stream), "project");
}

static void run_gate_up(sv_program *p, program_block *block)
{
    const sv_gate_up *b = &block->gate_up;
    sv_session *s = p->session;
    if (!b->w->data || b->w->cols != b->x->cols || b->w->rows != 2 * b->y->cols || !b->x->f32 ||
        b->y->f32 || !session_wide(s, b->x->cols, b->w->rows) || !norm_fits(&b->norm, b->x->cols))
        failed(p, -400, "gate_up", "the shapes of weight and buffers don't fit");
    if (p->code < 0)
        return;
    gemm g = gemm_of(p, b->w, b->x, p->max_tokens);
    set_norm(&g, &b->norm);
    g.end = GEMM_GATE_UP;
    g.activation = b->activation;
    g.bias = b->w->bias;
    g.n = (uint32_t)b->y->cols;
    g.y = b->y->data;
    if (mega_projection(p, g, b->x))
        return;
    block_done(p, gemm_run(s->dev, s->v, g, p->stream), "gate_up");
}

static void run_head(sv_program *p, program_block *block)
{
    const sv_head *b = &block->head;
    sv_session *s = p->session;
    if (!b->w->data || b->w->cols != b->x->cols || b->w->rows != s->limits.vocab || !b->x->f32 ||
        !norm_fits(&b->norm, b->x->cols))
        failed(p, -400, "head", "the shapes of weight and buffers don't fit");
    if (p->code < 0)
        return;
    gemm g = gemm_of(p, b->w, b->x, p->max_rows);
    set_norm(&g, &b->norm);
    g.rows = true;
    g.end = GEMM_F32;
    g.bias = b->w->bias;
    g.y = s->v.logits;
    g.best = s->v.best;
    if (!mega_projection(p, g, b->x))
        check(p, gemm_run(s->dev, s->v, g, p->stream), "head");
    mega_end(p);
    sample_run(s->v, p->max_rows, p->stream);
    block_done(p, cudaGetLastError(), "head");
}

// Records a block, and keeps it to be recorded again.
static int add(sv_program *p, program_block b)
{
    enum { GROWTH = 64 };
    b.run(p, &b);
    if (p->code < 0)
        return p->code;
    if (p->n_blocks % GROWTH == 0) {
        void *more = realloc(p->blocks, (p->n_blocks + GROWTH) * sizeof b);
        if (!more) {
            failed(p, -507, "a program", "no memory");
            return p->code;
        }
        p->blocks = (program_block *)more;
    }
    p->blocks[p->n_blocks++] = b;
    return p->code;
}

int program_embed(sv_program *p, const sv_weight *table, float scale, sv_buf *x)
{
    program_block b = {run_embed};
    b.embed = {table, scale, x};
    return add(p, b);
}

int program_qkv(sv_program *p, const sv_qkv *q)
{
    program_block b = {run_qkv};
    if (q->rope)
        b.rope = *q->rope;
    b.qkv = *q;
    return add(p, b);
}

int program_attend(sv_program *p, const sv_attend *a)
{
    program_block b = {run_attend};
    b.attend = *a;
    return add(p, b);
}

int program_project(sv_program *p, const sv_project *a)
{
    program_block b = {run_project};
    b.project = *a;
    return add(p, b);
}

int program_gate_up(sv_program *p, const sv_gate_up *a)
{
    program_block b = {run_gate_up};
    b.gate_up = *a;
    return add(p, b);
}

int program_head(sv_program *p, const sv_head *a)
{
    program_block b = {run_head};
    b.head = *a;
    return add(p, b);
}

int program_ready(sv_program *p, char *why)
{
    mega_end(p);
    make_part(p, "a step"); // by block: an empty one
    if (p->code < 0)
        return fail(why, p->code, "%s", p->why);
    return 0;
}

int64_t program_launch(sv_program *p, const sv_batch *b)
{
    if (p->code < 0 || p->n_parts == 0 || b->n_tokens > p->max_tokens || b->n_rows > p->max_rows)
        return -400;
    return session_launch(p->session, b, p->parts, p->n_parts);
}

static void free_parts(step_part *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        cudaGraphExecDestroy(parts[i].graph);
    free(parts);
}

// With the algorithms of today. Nothing of it runs; where that fails, it stays as it was.
static void record_again(sv_program *p)
{
    step_part *parts = p->parts;
    uint32_t n = p->n_parts;
    p->parts = NULL;
    p->n_parts = 0;
    if (begin(p, p->why) == 0) {
        for (uint32_t i = 0; i < p->n_blocks; i++)
            p->blocks[i].run(p, &p->blocks[i]);
        mega_end(p);
        make_part(p, "a step");
    }
    const bool made = p->code == 0 && p->n_parts == n;
    free_parts(made ? parts : p->parts, made ? n : p->n_parts);
    if (made)
        return;
    p->parts = parts;
    p->n_parts = n;
    p->code = 0;
}

int program_idle(sv_dev *d)
{
    cudaError_t e = d->sessions ? cudaStreamQuery(d->stream) : cudaSuccess;
    if (e != cudaSuccess) {
        cudaGetLastError(); // remembers what is no error, too
        return e == cudaErrorNotReady ? 1 : -599;
    }
    if (lt_choose_next(d))
        return 1;
    for (sv_session *s = d->sessions; s; s = s->next)
        for (sv_program *p = s->programs; p; p = p->next)
            if (p->code == 0 && p->n_parts > 0 &&
                lt_outdated(d, p->changes, p->max_tokens, p->max_rows)) {
                record_again(p);
                return 1;
            }
    return 0;
}

void programs_free(sv_session *s)
{
    while (s->programs) {
        sv_program *p = s->programs;
        s->programs = p->next;
        free_parts(p->parts, p->n_parts);
        free(p->blocks);
        free(p->mega);
        free(p);
    }
    for (rope_table *t = s->ropes; t; t = t->next)
        cudaFree(t->inv_freq);
}
