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
#include <pthread.h>
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

// Bytes on the device and in the files.
static int plan_weights(const struct model *m, const sv_kernels *k, const sv_dev_options *o,
                        uint64_t *bytes, uint64_t *stored, struct err *err)
{
    struct weight w;
    *bytes = *stored = 0;
    for (uint32_t i = 0; i < weights_count(&m->spec); i++) {
        int rc = weights_get(&m->spec, m->format, m->files, i, &w, err);
        if (rc < 0)
            return rc;
        uint64_t n = k->weight_bytes(o, &w.desc);
        if (n == 0)
            return err_set(err, SV_E_UNSUPPORTED,
                           "tensor '%s': the backend %s does not have %s with %" PRIu64 " columns",
                           w.name, k->name, w.type, w.desc.cols);
        *bytes += n;
        *stored += w.bytes;
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
    int rc = plan_weights(m, k, o, &memory.weights, &memory.stored, err);
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
    uint64_t bytes_done, bytes_all; // of weights
};

static void tell(const struct loading *l, double done, const char *what)
{
    if (l->progress)
        l->progress(l->arg, done, what);
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
    if ((uintptr_t)*data % ALIGN == 0) // NULL as well
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
    desc.keep = 1; // the files stay open
    for (uint32_t i = 0; i < desc.n_parts && rc == 0; i++) {
        sv_part_desc *p = &desc.part[i];
        bool made_up = !p->data;
        rc = align(&p->data, p->dtype, p->rows * desc.cols, &data[i]);
        if (rc == 0 && !made_up)
            rc = align(&p->bias, p->bias_dtype, p->rows, &bias[i]);
        if (data[i] || bias[i])
            desc.keep = 0;
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
    struct model *m = l->m;
    struct weight w;
    for (uint32_t i = 0; i < weights_count(&m->spec); i++) {
        char why[SV_WHY_MAX] = "no memory";
        int rc = weights_get(&m->spec, m->format, m->files, i, &w, err);
        if (rc < 0)
            return rc;
        rc = hand_over(l, &w, &m->weight[w.layer * WEIGHT_SLOTS + w.slot], why);
        if (rc < 0)
            return err_set(err, rc, "tensor '%s': %s", w.name, why);
        l->bytes_done += w.bytes;
        tell(l, (double)l->bytes_done / (double)l->bytes_all, w.name);
    }
    return 0;
}

static void *prefetch(void *files)
{
    tensors_prefetch(files);
    return NULL;
}

// Asking for the pages of 16 GB takes the system a while, even when it has them all.
static int load_beside_prefetch(struct loading *l, struct err *err)
{
    pthread_t thread;
    void *files = (void *)(uintptr_t)l->m->files;
    bool started = files && pthread_create(&thread, NULL, prefetch, files) == 0;
    int rc = load_weights(l, err);
    if (started)
        pthread_join(thread, NULL);
    return rc;
}

/* programs */

static int make_buffers(struct model *m, char *why)
{
    const sv_kernels *k = m->k;
    struct buffers *b = &m->buffers;
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

static sv_weight *weight_at(const struct model *m, uint32_t layer, enum weight_slot slot)
{
    return m->weight[layer * WEIGHT_SLOTS + slot];
}

static sv_norm norm_of(const struct model *m, uint32_t layer, enum weight_slot slot)
{
    return (sv_norm){.w = weight_at(m, layer, slot), .eps = (float)m->spec.norm_eps};
}

// Failures are told by ready().
static void record_layer(const struct model *m, sv_program *p, uint32_t layer)
{
    const struct spec *s = &m->spec;
    const sv_kernels *k = m->k;
    const struct buffers *b = &m->buffers;
    k->qkv(p, &(sv_qkv){.layer = layer,
                        .norm = norm_of(m, layer, W_ATTN_NORM),
                        .w = weight_at(m, layer, W_QKV),
                        .q_norm = norm_of(m, layer, W_Q_NORM),
                        .k_norm = norm_of(m, layer, W_K_NORM),
                        .rope = &m->rope,
                        .x = b->x,
                        .q = b->q});
    k->attend(p, &(sv_attend){.layer = layer,
                              .window = s->windowed[layer] ? s->window : 0,
                              .scale = (float)s->attention_scale,
                              .q = b->q,
                              .out = b->out});
    k->project(p, &(sv_project){.w = weight_at(m, layer, W_O), .x = b->out, .y = b->x});
    k->gate_up(p, &(sv_gate_up){.norm = norm_of(m, layer, W_FF_NORM),
                                .w = weight_at(m, layer, W_GATE_UP),
                                .activation = SV_SILU,
                                .x = b->x,
                                .y = b->ff});
    k->project(p, &(sv_project){.w = weight_at(m, layer, W_DOWN), .x = b->ff, .y = b->x});
}

static int record(struct model *m, uint32_t i)
{
    const struct spec *s = &m->spec;
    const sv_kernels *k = m->k;
    sv_program *p;
    int rc = k->record(m->session, m->size[i], &p, m->why);
    if (rc < 0)
        return rc;
    k->embed(p, weight_at(m, 0, W_TABLE), 1, m->buffers.x);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        record_layer(m, p, layer);
    k->head(p, &(sv_head){.norm = norm_of(m, 0, W_OUT_NORM),
                          .w = weight_at(m, 0, s->tied ? W_TABLE : W_HEAD),
                          .x = m->buffers.x});
    rc = k->ready(p, m->why);
    if (rc == 0)
        m->program[i] = p;
    return rc;
}

static void make_rope(struct model *m)
{
    const struct spec_rope *r = &m->spec.rope;
    float *inv_freq = xcalloc(r->dims / 2, sizeof *inv_freq);
    rope_frequencies(r, inv_freq);
    m->rope = (sv_rope){r->style, r->dims, inv_freq, rope_scale(r)};
}

// The session first: a GPU clears its memory while the weights are on their way.
static int load(struct loading *l, const struct model_limits *limits, struct err *err)
{
    struct model *m = l->m;
    char why[SV_WHY_MAX] = "";
    sv_limits sizes = limits_of(&m->spec, limits, m->n_blocks);
    int rc = m->k->session(l->dev, &sizes, &m->session, why);
    if (rc == 0)
        rc = make_buffers(m, why);
    if (rc < 0)
        return err_set(err, rc, "%s", why);
    make_rope(m);
    m->weight = xcalloc((size_t)m->spec.layers * WEIGHT_SLOTS, sizeof(sv_weight *));
    m->n_programs = m->k->buckets(m->session, m->size);
    CHECK(m->n_programs >= 1 && m->n_programs <= SV_BUCKETS_MAX);
    return load_beside_prefetch(l, err);
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
    l.bytes_all = memory.stored + 1;
    rc = load(&l, limits, err);
    if (rc < 0) {
        m->session = NULL;
        return err_ctx(err, "loading '%s' on %s", m->path, k->name);
    }
    if (m->files)
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

sv_program *model_program(struct model *m, uint32_t n_tokens, uint32_t n_rows)
{
    for (uint32_t i = 0; i < m->n_programs; i++)
        if (m->size[i] >= n_tokens && m->size[i] >= n_rows) {
            if (!m->program[i])
                record(m, i);
            return m->program[i];
        }
    BUG("no program for %u tokens and %u rows", (unsigned)n_tokens, (unsigned)n_rows);
}

int model_record_next(struct model *m)
{
    for (uint32_t i = 0; i < m->n_programs; i++)
        if (!m->program[i]) {
            int rc = record(m, i);
            return rc < 0 ? rc : 1;
        }
    return 0;
}

const char *model_why(const struct model *m)
{
    return m->why;
}
