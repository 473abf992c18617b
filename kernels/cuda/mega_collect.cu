// SPDX-License-Identifier: Apache-2.0
/*
 * mega_collect - a program's blocks, as operations of mega.
 */
#include "cuda/mega.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>

// Bytes of x, or of what a CTA's warps found of a group.
static uint32_t room_of(const session_view &v, uint64_t k)
{
    const uint64_t x = 2 * round_up(k, BOX_COLUMNS);
    const uint64_t parts = 4ull * (MEGA_WARPS / 2) * (v.heads / v.kv_heads) * (v.head_dim + 4);
    return (uint32_t)std::max(x, parts);
}

static bool fits(const sv_dev *d, const session_view &v, uint64_t k)
{
    return k % 8 == 0 && k < 1 << 20 &&
           mega_shared_bytes(v.head_dim, room_of(v, k)) <= d->prop.sharedMemPerBlockOptin;
}

// Of K or V: a box is a panel of a tile of a head.
static bool map_keys(mega *m, CUtensorMap *map, const void *keys, uint32_t layers)
{
    const session_view &v = m->args.v;
    const uint64_t rows = (uint64_t)layers * v.n_blocks * SV_BLOCK, head = 2ull * v.head_dim;
    return box_describe(
        {keys, {v.head_dim, v.kv_heads, rows}, {head, head * v.kv_heads}, {1, SV_BLOCK}}, map);
}

// Of a projection: a box is a granule. Gate and up lie behind one another.
static bool map_weights(mega *m, const gemm &g)
{
    const bool pairs = g.end == GEMM_GATE_UP;
    const uint32_t halves = pairs ? 2 : 1;
    const uint64_t row = 2ull * g.k;
    return box_describe({g.w, {g.k, g.n, halves}, {row, row * g.n}, {MEGA_UNIT / halves, halves}},
                        &m->maps[2 + m->args.n_ops]);
}

uint64_t mega_maps_bytes()
{
    return round_up(sizeof(mega::maps), 512);
}

mega *mega_begin(sv_session *s, uint32_t max_tokens)
{
    const session_view &v = s->v;
    if (max_tokens != 1 || s->limits.max_tokens < 2 || s->dev->by_block || s->dev->no_mega ||
        s->dev->prop.major != 9 || (v.head_dim != 64 && v.head_dim != 128) ||
        v.kv_dtype != SV_BF16 || v.heads > MEGA_HEADS || v.heads / v.kv_heads > MEGA_GROUP ||
        v.processors < v.kv_heads || !fits(s->dev, v, 8))
        return NULL;
    mega *m = NULL; // without it the kernels of its own run
    if (posix_memalign((void **)&m, alignof(mega), sizeof *m) != 0)
        return NULL;
    memset((void *)m, 0, sizeof *m);
    m->args.v = v;
    m->args.trace = s->dev->mega_trace;
    m->args.maps = s->mega_maps;
    if (map_keys(m, &m->maps[0], v.k, s->limits.layers) &&
        map_keys(m, &m->maps[1], v.v, s->limits.layers))
        return m;
    free(m);
    return NULL;
}

// What comes next begins when all before it has ended, whatever of it wait_previous() is late for:
// other kernels count on the batch being there when they start.
static __global__ void pause_kernel()
{
}

// The kernels of its own take over.
static bool refuse(sv_program *p)
{
    mega_end(p);
    pause_kernel<<<1, 1, 0, p->stream>>>();
    return false;
}

// Done when it returns: p->stream, which is being captured, does not wait for it. Nor may anything
// on that stream write there, as zeroing would (session.cu).
static cudaError_t upload_maps(const sv_session *s, const mega *m)
{
    cudaError_t e = cudaMemcpy(s->mega_maps, m->maps, sizeof m->maps, cudaMemcpyHostToDevice);
    return e == cudaSuccess ? cudaStreamSynchronize(cudaStreamLegacy) : e;
}

void mega_end(sv_program *p)
{
    mega *m = p->mega;
    if (!m)
        return;
    p->mega = NULL;
    cudaError_t e = cudaSuccess;
    if (m->args.n_ops > 0)
        e = upload_maps(p->session, m);
    if (m->args.n_ops > 0 && e == cudaSuccess)
        e = mega_launch(m->args, p->stream);
    free(m);
    if (e != cudaSuccess && p->code == 0) {
        p->code = -599;
        fail(p->why, p->code, "a step of one token: %s", cudaGetErrorString(e));
    }
}

// `larger` of the last operation's shares are larger than the others.
static mega_op *add_op(mega *m, uint32_t larger)
{
    mega_args *a = &m->args;
    mega_op *op = &a->op[a->n_ops++];
    m->start = (m->start + larger) % a->v.processors;
    op->start = (uint16_t)m->start;
    return op;
}

static bool room_for(const sv_program *p, uint64_t k, uint64_t n)
{
    return n % MEGA_UNIT == 0 && n < UINT32_MAX && p->mega->args.n_ops + 2 < MEGA_OPS &&
           fits(p->session->dev, p->session->v, k);
}

static bool add_project(mega *m, const gemm &g, mega_input input, const void *x)
{
    if (!map_weights(m, g))
        return false;
    mega_op *op = add_op(m, m->larger);
    op->kind = MEGA_PROJECT;
    op->input = input;
    mega_project *o = &op->project;
    *o = {x, g.y, g.norm, g.bias, g.eps, g.offset};
    o->units = g.n / (g.end == GEMM_GATE_UP ? MEGA_UNIT / 2 : MEGA_UNIT);
    o->k = g.k;
    o->blocks = (g.k + BOX_COLUMNS - 1) / BOX_COLUMNS;
    o->end = (uint8_t)g.end;
    o->activation = (uint8_t)g.activation;
    o->best = g.best != NULL;
    m->larger = o->units % m->args.v.processors;
    m->args.x_bytes = std::max(m->args.x_bytes, room_of(m->args.v, g.k));
    return true;
}

// A residual's columns are in registers of the workers.
static bool normed_fits(const gemm &g)
{
    return !g.residual || g.k <= MEGA_NORM_MOST;
}

// One table of turns serves all layers.
static bool same_turns(const mega_args &a, const rope_args &r, uint32_t head_dim)
{
    if (r.style != SV_ROPE_NONE && r.dims != head_dim)
        return false;
    return a.n_ops == 0 ||
           (a.inv_freq == r.inv_freq && a.rope_style == r.style && a.rope_scale == r.scale);
}

bool mega_qkv(sv_program *p, const gemm &g, const rope_args &r, uint32_t layer)
{
    mega *m = p->mega;
    if (!m)
        return false;
    gemm raw = g;
    raw.end = GEMM_F32;
    raw.bias = r.bias;
    if (!room_for(p, g.k, g.n) || !normed_fits(g) || !same_turns(m->args, r, m->args.v.head_dim) ||
        !add_project(m, raw, MEGA_RESIDUAL, g.residual))
        return refuse(p);
    m->args.inv_freq = r.inv_freq;
    m->args.rope_style = r.style;
    m->args.rope_scale = r.scale;
    m->attend = {(const float *)g.y, r.q_norm, r.k_norm, r.q_eps, r.q_offset, r.k_eps,
                 r.k_offset,         0,        layer,    0};
    return true;
}

bool mega_attention(sv_program *p, const sv_attend *b)
{
    mega *m = p->mega;
    if (!m)
        return false;
    const float log2_e = 1.44269504f;
    mega_op *op = add_op(m, m->larger);
    op->kind = MEGA_ATTEND;
    op->attend = m->attend;
    op->attend.scale = b->scale * log2_e;
    op->attend.window = b->window;
    m->out = b->out;
    m->larger = std::min(m->args.v.processors, m->args.v.kv_heads * MEGA_DIRECT);
    return true;
}

bool mega_projection(sv_program *p, const gemm &g, const sv_buf *x)
{
    mega *m = p->mega;
    if (!m)
        return false;
    const mega_input input = g.residual ? MEGA_RESIDUAL : x == m->out ? MEGA_PARTS : MEGA_BF16;
    if (!room_for(p, g.k, g.end == GEMM_GATE_UP ? 2ull * g.n : g.n) || !normed_fits(g) ||
        !add_project(m, g, input, g.residual ? (const void *)g.residual : g.x))
        return refuse(p);
    return true;
}
