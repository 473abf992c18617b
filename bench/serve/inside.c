// SPDX-License-Identifier: Apache-2.0
#include "serve/inside.h"

#include "base/err.h"
#include "llm/model_parts.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KV_ELEMENT = 2 }; // bytes: bf16
#define ROOM_SHARE 0.9   // as the plugin's gpu_memory_utilization

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

double inside_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct inside_bill bill_of(const struct model *m)
{
    const struct spec *s = &m->spec;
    struct inside_bill b = {.kv_bytes = 2.0 * s->layers * s->kv_heads * s->head_dim * KV_ELEMENT};
    struct weight w;
    for (uint32_t i = 0; i < weights_count(s); i++) {
        if (weights_get(s, m->format, m->files, i, &w, NULL) < 0)
            die(m->path, "a weight is not there");
        if (w.desc.role == SV_VECTOR || (w.slot == W_TABLE && !s->tied))
            continue;
        for (uint32_t p = 0; p < w.desc.n_parts; p++)
            b.flops += 2.0 * (double)(w.desc.part[p].rows * w.desc.cols);
    }
    b.weight_bytes = b.flops; // two bytes and two operations for each
    return b;
}

static sv_program *program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    return model_program(arg, n_tokens, n_rows);
}

static const sv_kernels *load_kernels(const char *path)
{
    void *so = dlopen(path, RTLD_NOW);
    const sv_kernels *k = so ? dlsym(so, "sv_kernels_v1") : NULL;
    if (!k)
        die(path, dlerror());
    return k;
}

// Bytes of KV cache beside weights and state.
static uint64_t kv_bytes(const struct inside *in, const struct inside_options *o,
                         const struct model_memory *memory)
{
    uint64_t most = (uint64_t)o->max_seqs * (o->max_context + SV_BLOCK),
             room = in->k->room(in->dev);
    uint64_t wanted =
        memory->block * (((o->kv_tokens ? o->kv_tokens : most) + SV_BLOCK - 1) / SV_BLOCK);
    if (o->kv_tokens || room == UINT64_MAX)
        return wanted;
    uint64_t taken = memory->weights + memory->state, ours = (uint64_t)(ROOM_SHARE * (double)room);
    if (ours < taken + memory->block)
        die(o->model, "the device has no room for it");
    return ours - taken < wanted ? ours - taken : wanted;
}

static void load(struct inside *in, const struct inside_options *o, struct model_memory *memory)
{
    struct err err;
    char why[SV_WHY_MAX] = "";
    const sv_dev_options dev = {.size = sizeof dev};
    struct model_limits l = {.max_tokens = o->max_tokens,
                             .max_seqs = o->max_seqs,
                             .max_rows = o->max_seqs,
                             .max_context = o->max_context,
                             .kv_dtype = SV_BF16};
    int opened = o->dummy ? model_open_dummy(o->model, &in->model, &err)
                          : model_open(o->model, &in->model, &err);
    if (opened < 0 || model_check(in->model, &err) < 0 ||
        model_plan(in->model, in->k, &dev, &l, memory, &err) < 0)
        die(o->model, err.msg);
    if (in->k->open(&dev, &in->dev, why) < 0)
        die(o->kernels, why);
    l.kv_bytes = kv_bytes(in, o, memory);
    if (model_plan(in->model, in->k, &dev, &l, memory, &err) < 0)
        die(o->model, err.msg);
    double from = inside_now();
    if (model_load(in->model, in->k, in->dev, &dev, &l, NULL, NULL, &err) < 0)
        die(o->model, err.msg);
    in->load_s = inside_now() - from;
}

// All programs now, and nothing that loading left for later: neither is to be measured.
static void settle(struct inside *in)
{
    int rc;
    while ((rc = model_record_next(in->model)) > 0 || (rc == 0 && (rc = in->k->idle(in->dev)) > 0))
        ;
    if (rc < 0)
        die("recording a program", model_why(in->model));
}

void inside_open(struct inside *in, const struct inside_options *o)
{
    struct err err;
    struct model_memory memory;
    in->k = load_kernels(o->kernels);
    load(in, o, &memory);
    in->bill = bill_of(in->model);
    in->vocab = model_spec(in->model)->vocab;
    const struct engine_config c = {.max_seqs = o->max_seqs,
                                    .max_waiting = o->max_waiting,
                                    .max_tokens = o->max_tokens,
                                    .max_rows = o->max_seqs,
                                    .max_context = o->max_context,
                                    .n_blocks = memory.n_blocks,
                                    .vocab = in->vocab,
                                    .chunked_prefill = true,
                                    .on_token = o->on_token};
    settle(in);
    if (engine_create(&c, in->k, model_session(in->model), program, in->model, &in->engine, &err) <
        0)
        die("engine", err.msg);
}

void inside_close(struct inside *in)
{
    engine_destroy(in->engine);
    model_close(in->model);
    in->k->close(in->dev);
}

void inside_add(struct inside *in, const int32_t *ids, uint32_t n, uint32_t max_tokens,
                uint32_t logprobs, void *user)
{
    struct err err;
    struct seq *seq;
    const struct seq_params p = {
        .prompt = ids,
        .n_prompt = n,
        .max_tokens = max_tokens,
        .sampling = {.size = sizeof p.sampling, .top_p = 1, .repetition = 1, .logprobs = logprobs},
        .user = user};
    if (engine_add(in->engine, &p, &seq, &err) < 0)
        die("engine", err.msg);
}

void inside_step(struct inside *in)
{
    struct err err;
    if (engine_step(in->engine, &err) < 0)
        die("engine", err.msg);
}
