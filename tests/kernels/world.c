// SPDX-License-Identifier: Apache-2.0
#include "kernels/world.h"

#include "cpu/dequant.h"
#include "cpu/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t random_u32(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 0x2545f4914f6cdd1d) >> 32);
}

float random_normal(uint64_t *state)
{
    int64_t sum = -(6LL << 32);
    for (int i = 0; i < 12; i++) // as integers: floats are dear in an emulator
        sum += random_u32(state);
    return (float)sum * 0x1p-32f;
}

uint32_t random_below(uint64_t *state, uint32_t end)
{
    return (uint32_t)((uint64_t)random_u32(state) * end >> 32);
}

static void need(bool x, const char *what)
{
    if (x)
        return;
    (void)fprintf(stderr, "world: %s\n", what);
    abort();
}

static void *own(struct world *w, size_t bytes)
{
    w->owned = realloc(w->owned, (w->n_owned + 1) * sizeof *w->owned);
    void *p = calloc(1, bytes + 64);
    need(w->owned && p, "memory");
    return w->owned[w->n_owned++] = p;
}

// Random blocks of a type, of about the size that weights of `cols` columns have.
static void *stored(struct world *w, uint32_t dtype, uint64_t n, float size)
{
    uint64_t *state = &w->o.seed;
    sv_dtype_info info = sv_dtype(dtype);
    uint8_t *data = own(w, n / info.elements * info.bytes);
    for (uint64_t b = 0; b < n / info.elements; b++) {
        uint8_t *p = data + b * info.bytes;
        for (uint32_t i = 0; i < info.bytes; i++)
            p[i] = (uint8_t)random_u32(state);
        float f = size * random_normal(state);
        uint16_t bf16 = half_f32_bf16(f), f16 = half_f32_f16(f);
        if (dtype == SV_F32)
            memcpy(p, &f, 4);
        else if (dtype == SV_BF16)
            memcpy(p, &bf16, 2);
        else if (dtype == SV_F16)
            memcpy(p, &f16, 2);
        else {
            uint16_t d = half_f32_f16(size * (dtype == SV_Q8_0 ? 0.012f : 0.15f));
            uint16_t m = half_f32_f16(-8 * half_f16_f32(d));
            if (dtype == SV_Q6_K) {
                d = half_f32_f16(size * 0.0006f);
                memcpy(p + 208, &d, 2);
                continue;
            }
            if (dtype == SV_Q4_K || dtype == SV_Q5_K) {
                d = half_f32_f16(size * 0.004f);
                m = half_f32_f16(size * 0.03f);
            }
            memcpy(p, &d, 2);
            if (dtype == SV_Q4_1 || dtype == SV_Q5_1 || dtype == SV_Q4_K || dtype == SV_Q5_K)
                memcpy(p + 2, &m, 2);
        }
    }
    return data;
}

static sv_part_desc part(struct world *w, uint32_t dtype, uint64_t rows, uint64_t cols, bool bias,
                         float **values, float **bias_values)
{
    sv_part_desc p = {.rows = rows, .dtype = dtype};
    p.data = stored(w, dtype, rows * cols, 1 / sqrtf((float)cols));
    *values = own(w, rows * cols * sizeof **values);
    dequant(dtype, p.data, rows * cols, *values);
    if (bias && bias_values) {
        p.bias_dtype = SV_F16;
        p.bias = stored(w, SV_F16, rows, 0.2f);
        *bias_values = own(w, rows * sizeof **bias_values);
        dequant(SV_F16, p.bias, rows, *bias_values);
    }
    return p;
}

static sv_weight *weight(struct world *w, uint32_t role, uint64_t cols, const sv_part_desc *p,
                         uint32_t n)
{
    sv_weight_desc d = {.size = sizeof d, .role = role, .n_parts = n, .cols = cols};
    memcpy(d.part, p, n * sizeof *p);
    uint64_t bytes = w->k->weight_bytes(&w->dev_options, &d);
    need(bytes > 0, "weight_bytes");
    w->promised += bytes;
    char why[SV_WHY_MAX] = "";
    sv_weight *made = NULL;
    need(w->k->weight(w->dev, &d, &made, why) == 0, why);
    return made;
}

static sv_norm norm(struct world *w, uint64_t cols, float **values)
{
    *values = own(w, cols * sizeof **values);
    for (uint64_t i = 0; i < cols; i++)
        (*values)[i] = 1 - w->o.shape.norm_offset + 0.1f * random_normal(&w->o.seed);
    sv_part_desc p = {.data = *values, .rows = 1, .dtype = SV_F32};
    return (sv_norm){weight(w, SV_VECTOR, cols, &p, 1), w->o.shape.eps, w->o.shape.norm_offset};
}

static void session(struct world *w)
{
    const struct oracle_shape *s = &w->o.shape;
    w->limits = (sv_limits){.size = sizeof w->limits,
                            .max_tokens = w->o.max_tokens,
                            .max_seqs = w->o.max_seqs,
                            .max_rows = w->o.max_tokens,
                            .max_context = w->o.max_context,
                            .n_blocks = w->o.max_seqs * ((w->o.max_context + 15) / 16),
                            .layers = s->layers,
                            .heads = s->heads,
                            .kv_heads = s->kv_heads,
                            .head_dim = s->head_dim,
                            .vocab = s->vocab,
                            .kv_dtype = w->o.kv_dtype,
                            .widths = s->d_model + 2 * (uint64_t)s->heads * s->head_dim + s->d_ff};
    uint64_t bytes = w->k->session_bytes(&w->dev_options, &w->limits);
    need(bytes > 0, "session_bytes");
    w->promised += bytes;
    char why[SV_WHY_MAX] = "";
    need(w->k->session(w->dev, &w->limits, &w->session, why) == 0, why);
}

static sv_buf *buffer(struct world *w, uint64_t cols)
{
    sv_buf *b;
    char why[SV_WHY_MAX] = "";
    need(w->k->buffer(w->session, cols, &b, why) == 0, why);
    return b;
}

struct layout {
    sv_buf *x, *q, *a, *ff;
    sv_rope rope;
};

static void record_attention(struct world *w, uint32_t i, const struct layout *b)
{
    const struct oracle_shape *s = &w->o.shape;
    const struct world_types *t = &w->o.types;
    struct oracle_layer *l = &w->model.layer[i];
    uint64_t q_rows = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    sv_qkv qkv = {.layer = i, .rope = &b->rope, .x = b->x, .q = b->q};
    qkv.norm = norm(w, s->d_model, &l->attn_norm);
    if (s->qk_norm) {
        qkv.q_norm = norm(w, s->head_dim, &l->q_norm);
        qkv.k_norm = norm(w, s->head_dim, &l->k_norm);
    }
    const sv_part_desc parts[] = {part(w, t->q, q_rows, s->d_model, s->bias, &l->q, &l->q_bias),
                                  part(w, t->k, kv, s->d_model, s->bias, &l->k, &l->k_bias),
                                  part(w, t->v, kv, s->d_model, s->bias, &l->v, &l->v_bias)};
    qkv.w = weight(w, SV_QKV, s->d_model, parts, 3);
    need(w->k->qkv(w->program, &qkv) == 0, "qkv");
    const sv_attend attend = {.layer = i,
                              .window = s->window,
                              .scale = (float)(1 / sqrt(s->head_dim)),
                              .q = b->q,
                              .out = b->a};
    need(w->k->attend(w->program, &attend) == 0, "attend");
    const sv_part_desc o = part(w, t->o, s->d_model, q_rows, s->bias, &l->o, &l->o_bias);
    const sv_project project = {weight(w, SV_MATRIX, q_rows, &o, 1), b->a, b->x};
    need(w->k->project(w->program, &project) == 0, "project");
}

static void record_feed_forward(struct world *w, uint32_t i, const struct layout *b)
{
    const struct oracle_shape *s = &w->o.shape;
    const struct world_types *t = &w->o.types;
    struct oracle_layer *l = &w->model.layer[i];
    sv_gate_up gate_up = {.activation = s->activation, .x = b->x, .y = b->ff};
    gate_up.norm = norm(w, s->d_model, &l->ff_norm);
    const sv_part_desc parts[] = {
        part(w, t->gate, s->d_ff, s->d_model, s->bias, &l->gate, &l->gate_bias),
        part(w, t->up, s->d_ff, s->d_model, s->bias, &l->up, &l->up_bias)};
    gate_up.w = weight(w, SV_GATE_UP, s->d_model, parts, 2);
    need(w->k->gate_up(w->program, &gate_up) == 0, "gate_up");
    const sv_part_desc down =
        part(w, t->down, s->d_model, s->d_ff, s->bias, &l->down, &l->down_bias);
    const sv_project project = {weight(w, SV_MATRIX, s->d_ff, &down, 1), b->ff, b->x};
    need(w->k->project(w->program, &project) == 0, "project");
}

static void record(struct world *w)
{
    const struct oracle_shape *s = &w->o.shape;
    char why[SV_WHY_MAX] = "";
    need(w->k->record(w->session, w->o.max_tokens, &w->program, why) == 0, why);
    struct layout b = {buffer(w, s->d_model),
                       buffer(w, (uint64_t)s->heads * s->head_dim),
                       buffer(w, (uint64_t)s->heads * s->head_dim),
                       buffer(w, s->d_ff),
                       {s->rope_style, s->rope_dims, w->model.inv_freq, s->rope_scale}};
    const sv_part_desc table =
        part(w, w->o.types.embed, s->vocab, s->d_model, false, &w->model.embed, NULL);
    w->model.head = w->model.embed;
    sv_head head = {.w = weight(w, SV_TABLE, s->d_model, &table, 1), .x = b.x};
    need(w->k->embed(w->program, head.w, s->embed_scale, b.x) == 0, "embed");
    for (uint32_t i = 0; i < s->layers; i++) {
        record_attention(w, i, &b);
        record_feed_forward(w, i, &b);
    }
    head.norm = norm(w, s->d_model, &w->model.out_norm);
    need(w->k->head(w->program, &head) == 0, "head");
    need(w->k->ready(w->program, why) == 0, why);
}

bool world_tests(enum isa isa)
{
#if defined(__aarch64__)
    return isa == ISA_NEON && isa_here(isa);
#elif defined(__SANITIZE_THREAD__)
    return isa == isa_best();
#else
    return isa_here(isa);
#endif
}

uint32_t world_cases(uint32_t n)
{
#if defined(__aarch64__)
    return n / 8 ? n / 8 : 1;
#else
    return n;
#endif
}

uint32_t world_ways(uint32_t n)
{
#if defined(__aarch64__)
    uint32_t most = 2;
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    uint32_t most = 3;
#else
    uint32_t most = n;
#endif
    return n < most ? n : most;
}

void world_open(struct world *w, const struct world_options *o)
{
    *w = (struct world){.o = *o, .k = &sv_kernels_v1};
    w->o.seed = o->seed ? o->seed : 1;
    w->o.max_tokens = o->max_tokens ? o->max_tokens : 64;
    w->o.max_seqs = o->max_seqs ? o->max_seqs : 4;
    w->o.max_context = o->max_context ? o->max_context : 256;
    need(w->o.max_seqs <= WORLD_SEQS, "max_seqs");
    const struct oracle_shape *s = &w->o.shape;
    w->dev_options = (sv_dev_options){.size = sizeof w->dev_options,
                                      .threads = o->threads ? o->threads : 1,
                                      .activations = o->activations,
                                      .isa = o->isa};
    char why[SV_WHY_MAX] = "";
    need(w->k->open(&w->dev_options, &w->dev, why) == 0, why);
    w->model.shape = *s;
    w->model.layer = own(w, s->layers * sizeof *w->model.layer);
    w->model.inv_freq = own(w, s->rope_dims * sizeof(float));
    for (uint32_t i = 0; i < s->rope_dims / 2; i++)
        w->model.inv_freq[i] = powf(s->rope_base, -2 * (float)i / (float)s->rope_dims);
    session(w);
    record(w);
    for (uint32_t i = 0; i < w->o.max_seqs; i++)
        world_greedy(w, i, NULL, 0);
}

void world_close(struct world *w)
{
    w->k->close(w->dev);
    for (size_t i = 0; i < w->n_owned; i++)
        free(w->owned[i]);
    free(w->owned);
}

void world_greedy(struct world *w, uint32_t slot, const int32_t *history, uint32_t n)
{
    const sv_sampling a = {.size = sizeof a,
                           .top_p = 1,
                           .repetition = 1,
                           .history = history,
                           .n_history = n,
                           .prompt_len = n};
    need(w->k->slot(w->session, slot, &a) == 0, "slot");
    w->mapped[slot] = 0;
}

// Blocks are scattered: neighbours in a sequence are none in memory.
static int32_t block_of(const struct world *w, uint32_t slot, uint32_t index)
{
    uint32_t pages = (w->o.max_context + 15) / 16;
    uint64_t prime = 7919;
    return (int32_t)((slot * pages + index) * prime % w->limits.n_blocks);
}

static void add_rows(sv_batch *b, const struct world_part *p)
{
    for (uint32_t i = p->all_rows ? 0 : p->n - 1; i < p->n; i++) {
        b->row_token[b->n_rows] = (int32_t)(b->n_tokens + i);
        b->row_slot[b->n_rows] = (int32_t)p->slot;
        b->row_want[b->n_rows++] = p->draw ? SV_DRAW : 0;
    }
}

void world_batch(struct world *w, sv_batch *b, const struct world_part *part, uint32_t n)
{
    b->n_tokens = b->n_seqs = b->n_rows = b->n_edits = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct world_part *p = &part[i];
        for (; w->mapped[p->slot] * 16 < p->pos + p->n; w->mapped[p->slot]++) {
            b->edit_slot[b->n_edits] = (int32_t)p->slot;
            b->edit_index[b->n_edits] = (int32_t)w->mapped[p->slot];
            b->edit_block[b->n_edits++] = block_of(w, p->slot, w->mapped[p->slot]);
        }
        add_rows(b, p);
        for (uint32_t j = 0; j < p->n; j++) {
            b->token[b->n_tokens + j] = p->token ? p->token[j] : SV_SAMPLED;
            b->pos[b->n_tokens + j] = (int32_t)(p->pos + j);
        }
        b->seq_slot[b->n_seqs] = (int32_t)p->slot;
        b->seq_tokens[b->n_seqs++] = (int32_t)p->n;
        b->n_tokens += p->n;
    }
}

int64_t world_launch(struct world *w, const struct world_part *part, uint32_t n)
{
    sv_batch *b = w->k->batch(w->session);
    world_batch(w, b, part, n);
    return w->k->launch(w->program, b);
}

const sv_result *world_collect(struct world *w, int64_t ticket)
{
    const sv_result *r = NULL;
    char why[SV_WHY_MAX] = "a launch was refused";
    need(ticket > 0 && w->k->collect(w->session, ticket, &r, why) == 0, why);
    return r;
}

void world_logits(struct world *w, const struct world_part *part, float *logits)
{
    const sv_result *r = world_collect(w, world_launch(w, part, 1));
    need(w->k->logits(w->session, r->n_rows - 1, logits) == 0, "logits");
}

double world_error(const float *have, const double *want, size_t n)
{
    double most = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)have[i] - want[i]);
        most = off > most || off != off ? off : most;
        sum += want[i] * want[i];
    }
    return most / sqrt(sum / (double)n);
}
