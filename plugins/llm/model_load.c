// SPDX-License-Identifier: Apache-2.0
/*
 * A model on a device: how much memory it takes, its weights, its session and its programs.
 */
#include "llm/model.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/tensors.h"
#include "llm/model_parts.h"
#include "llm/rope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static sv_limits limits_of(const struct spec *s, const struct model_limits *l, uint32_t n_blocks)
{
    return (sv_limits){
        .size = sizeof(sv_limits),
        .max_tokens = l->max_tokens,
        .max_seqs = l->max_seqs,
        .max_rows = l->max_rows,
        .max_context = l->max_context,
        .n_blocks = n_blocks,
        .layers = s->layers,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_dim = s->head_dim,
        .vocab = s->vocab,
        .kv_dtype = l->kv_dtype,
        .widths = s->d_model + 2 * (uint64_t)s->heads * s->head_dim + s->d_ff, // x, q, out; ff
    };
}

static int plan_weights(const struct model *m, const sv_kernels *k, const sv_dev_options *o,
                        uint64_t *bytes, struct err *err)
{
    struct weight w;
    *bytes = 0;
    for (uint32_t i = 0; i < weights_count(&m->spec); i++) {
        int rc = weights_get(&m->spec, m->format, m->files, i, &w, err);
        if (rc < 0)
            return rc;
        uint64_t n = k->weight_bytes(o, &w.desc);
        if (n == 0)
            return err_set(err, SV_E_UNSUPPORTED,
                           "tensor '%s': the backend %s does not have %s with %" PRIu64 " columns",
                           w.first->name, k->name, w.first->type, w.desc.cols);
        *bytes += n;
    }
    return 0;
}

static int plan_session(const struct model *m, const sv_kernels *k, const sv_dev_options *o,
                        const struct model_limits *l, struct model_memory *ret, struct err *err)
{
    sv_limits limits = limits_of(&m->spec, l, 1);
    uint64_t block = k->block_bytes(o, &limits);
    if (block == 0 || k->session_bytes(o, &limits) == 0)
        return err_set(err, SV_E_UNSUPPORTED,
                       "the backend %s can't run %" PRIu32 " heads of %" PRIu32 " columns with %s "
                       "in its KV cache",
                       k->name, limits.heads, limits.head_dim, sv_dtype(l->kv_dtype).name);
    uint64_t n = l->kv_bytes ? l->kv_bytes / block : 1;
    if (n < 1 || n > INT32_MAX)
        return err_set(err, SV_E_INVALID,
                       "a KV cache of %" PRIu64 " bytes has %" PRIu64 " blocks of %" PRIu64
                       " bytes; allowed are 1 to %d",
                       l->kv_bytes, n, block, INT32_MAX);
    limits = limits_of(&m->spec, l, (uint32_t)n);
    ret->n_blocks = (uint32_t)n;
    ret->block = block;
    ret->kv = n * block;
    ret->state = k->session_bytes(o, &limits) - ret->kv;
    return 0;
}

int model_plan(const struct model *m, const sv_kernels *k, const sv_dev_options *o,
               const struct model_limits *l, struct model_memory *ret, struct err *err)
{
    struct model_memory memory = {0};
    int rc = plan_weights(m, k, o, &memory.weights, err);
    if (rc == 0)
        rc = plan_session(m, k, o, l, &memory, err);
    if (rc < 0)
        return err_ctx(err, "'%s'", m->path);
    *ret = memory;
    return 0;
}

/* weights */

struct loading {
    struct model *m;
    sv_dev *dev;
    model_progress *progress;
    void *arg;
    sv_weight **weight; // [layers * WEIGHT_SLOTS]; those of the whole model lie in layer 0
    uint64_t bytes_done, bytes_all;
};

static void tell(const struct loading *l, double done, const char *what)
{
    if (l->progress)
        l->progress(l->arg, done, what);
}

static sv_weight *weight_at(const struct loading *l, uint32_t layer, enum weight_slot slot)
{
    return l->weight[layer * WEIGHT_SLOTS + slot];
}

/*
 * Old safetensors files may begin their data at any byte; a backend reads whole elements. *copy is
 * the caller's to free.
 */
static int align(const void **data, uint32_t dtype, uint64_t elements, void **copy)
{
    enum { ALIGN = 4 };
    sv_dtype_info type = sv_dtype(dtype);
    *copy = NULL;
    if ((uintptr_t)*data % ALIGN == 0)
        return 0;
    CHECK(type.elements > 0);
    uint64_t n = elements / type.elements * type.bytes;
    *copy = malloc((size_t)n);
    if (!*copy)
        return SV_E_NOMEM;
    *data = memcpy(*copy, *data, (size_t)n);
    return 0;
}

static int hand_over(const struct loading *l, const struct weight *w, sv_weight **ret, char *why)
{
    sv_weight_desc desc = w->desc;
    void *data[SV_PARTS_MAX] = {0}, *bias[SV_PARTS_MAX] = {0};
    int rc = 0;
    for (uint32_t i = 0; i < desc.n_parts && rc == 0; i++) {
        sv_part_desc *p = &desc.part[i];
        rc = align(&p->data, p->dtype, p->rows * desc.cols, &data[i]);
        if (rc == 0)
            rc = align(&p->bias, p->bias_dtype, p->rows, &bias[i]);
    }
    if (rc == 0)
        rc = l->m->k->weight(l->dev, &desc, ret, why);
    for (uint32_t i = 0; i < SV_PARTS_MAX; i++) {
        free(data[i]);
        free(bias[i]);
    }
    return rc;
}

static int load_weights(struct loading *l, struct err *err)
{
    const struct model *m = l->m;
    struct weight w;
    l->bytes_all = tensors_bytes(m->files) + 1;
    tensors_prefetch(m->files);
    for (uint32_t i = 0; i < weights_count(&m->spec); i++) {
        char why[SV_WHY_MAX] = "no memory";
        int rc = weights_get(&m->spec, m->format, m->files, i, &w, err);
        if (rc < 0)
            return rc;
        rc = hand_over(l, &w, &l->weight[w.layer * WEIGHT_SLOTS + w.slot], why);
        if (rc < 0)
            return err_set(err, rc, "tensor '%s': %s", w.first->name, why);
        l->bytes_done += w.bytes;
        tell(l, 0.98 * (double)l->bytes_done / (double)l->bytes_all, w.first->name);
    }
    return 0;
}

/* programs */

struct buffers {
    sv_buf *x, *q, *out, *ff;
};

static int make_buffers(const struct model *m, struct buffers *b, char *why)
{
    const sv_kernels *k = m->k;
    uint64_t q = (uint64_t)m->spec.heads * m->spec.head_dim;
    int rc = k->buffer(m->session, m->spec.d_model, &b->x, why);
    if (rc == 0)
        rc = k->buffer(m->session, q, &b->q, why);
    if (rc == 0)
        rc = k->buffer(m->session, q, &b->out, why);
    if (rc == 0)
        rc = k->buffer(m->session, m->spec.d_ff, &b->ff, why);
    return rc;
}

static sv_norm norm_of(const struct loading *l, uint32_t layer, enum weight_slot slot)
{
    return (sv_norm){.w = weight_at(l, layer, slot), .eps = (float)l->m->spec.norm_eps};
}

// Failures are told by ready().
static void record_layer(const struct loading *l, sv_program *p, const struct buffers *b,
                         const sv_rope *rope, uint32_t layer)
{
    const struct spec *s = &l->m->spec;
    const sv_kernels *k = l->m->k;
    k->qkv(p, &(sv_qkv){.layer = layer,
                        .norm = norm_of(l, layer, W_ATTN_NORM),
                        .w = weight_at(l, layer, W_QKV),
                        .q_norm = norm_of(l, layer, W_Q_NORM),
                        .k_norm = norm_of(l, layer, W_K_NORM),
                        .rope = rope,
                        .x = b->x,
                        .q = b->q});
    k->attend(p, &(sv_attend){.layer = layer,
                              .window = s->windowed[layer] ? s->window : 0,
                              .scale = (float)s->attention_scale,
                              .q = b->q,
                              .out = b->out});
    k->project(p, &(sv_project){.w = weight_at(l, layer, W_O), .x = b->out, .y = b->x});
    k->gate_up(p, &(sv_gate_up){.norm = norm_of(l, layer, W_FF_NORM),
                                .w = weight_at(l, layer, W_GATE_UP),
                                .activation = SV_SILU,
                                .x = b->x,
                                .y = b->ff});
    k->project(p, &(sv_project){.w = weight_at(l, layer, W_DOWN), .x = b->ff, .y = b->x});
}

static int record(const struct loading *l, const struct buffers *b, const sv_rope *rope,
                  uint32_t size, sv_program **ret, char *why)
{
    const struct spec *s = &l->m->spec;
    const sv_kernels *k = l->m->k;
    int rc = k->record(l->m->session, size, ret, why);
    if (rc < 0)
        return rc;
    k->embed(*ret, weight_at(l, 0, W_TABLE), 1, b->x);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        record_layer(l, *ret, b, rope, layer);
    k->head(*ret, &(sv_head){.norm = norm_of(l, 0, W_OUT_NORM),
                             .w = weight_at(l, 0, s->tied ? W_TABLE : W_HEAD),
                             .x = b->x});
    return k->ready(*ret, why);
}

static int make_programs(const struct loading *l, char *why)
{
    struct model *m = l->m;
    struct buffers b;
    const struct spec_rope *r = &m->spec.rope;
    int rc = make_buffers(m, &b, why);
    if (rc < 0)
        return rc;
    float *inv_freq = xcalloc(r->dims / 2, sizeof *inv_freq);
    rope_frequencies(r, inv_freq);
    sv_rope rope = {r->style, r->dims, inv_freq, rope_scale(r)};
    m->n_programs = m->k->buckets(m->session, m->size);
    CHECK(m->n_programs >= 1 && m->n_programs <= SV_BUCKETS_MAX);
    for (uint32_t i = 0; i < m->n_programs && rc == 0; i++) {
        tell(l, 0.98 + 0.02 * i / m->n_programs, "programs");
        rc = record(l, &b, &rope, m->size[i], &m->program[i], why);
    }
    xfree(inv_freq);
    return rc;
}

static int load(struct loading *l, const struct model_limits *limits, struct err *err)
{
    struct model *m = l->m;
    char why[SV_WHY_MAX] = "";
    int rc = load_weights(l, err);
    if (rc < 0)
        return rc;
    sv_limits sizes = limits_of(&m->spec, limits, m->n_blocks);
    rc = m->k->session(l->dev, &sizes, &m->session, why);
    if (rc == 0)
        rc = make_programs(l, why);
    return rc < 0 ? err_set(err, rc, "%s", why) : 0;
}

int model_load(struct model *m, const sv_kernels *k, sv_dev *dev, const sv_dev_options *o,
               const struct model_limits *limits, model_progress *progress, void *arg,
               struct err *err)
{
    struct loading l = {.m = m, .dev = dev, .progress = progress, .arg = arg};
    struct model_memory memory = {0};
    CHECK(!m->session);
    int rc = model_check(m, err);
    if (rc == 0)
        rc = model_plan(m, k, o, limits, &memory, err);
    if (rc < 0)
        return rc;
    m->k = k;
    m->n_blocks = memory.n_blocks;
    l.weight = xcalloc((size_t)m->spec.layers * WEIGHT_SLOTS, sizeof(sv_weight *));
    rc = load(&l, limits, err);
    xfree(l.weight);
    if (rc < 0) {
        m->session = NULL;
        return err_ctx(err, "loading '%s' on %s", m->path, k->name);
    }
    tensors_forget(m->files);
    tell(&l, 1, "loaded");
    return 0;
}

sv_session *model_session(const struct model *m)
{
    return m->session;
}

uint32_t model_blocks(const struct model *m)
{
    return m->n_blocks;
}

sv_program *model_program(const struct model *m, uint32_t n_tokens, uint32_t n_rows)
{
    for (uint32_t i = 0; i < m->n_programs; i++)
        if (m->size[i] >= n_tokens && m->size[i] >= n_rows)
            return m->program[i];
    BUG("no program for %u tokens and %u rows", (unsigned)n_tokens, (unsigned)n_rows);
}
