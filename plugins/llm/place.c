// SPDX-License-Identifier: Apache-2.0
#include "llm/place.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/instance.h"
#include "llm/model_parts.h"

#include <dlfcn.h>
#include <inttypes.h>

// Defaults of a step. A processor is saturated by a hundred tokens: more makes steps longer, not
// faster. Those of GPUs are vLLM's.
static const struct defaults {
    uint64_t least_bytes; // of the GPU
    uint32_t tokens, seqs;
} on_cpu = {0, 128, 64}, on_gpu[] = {{(uint64_t)70 << 30, 8192, 1024}, {0, 2048, 256}};

enum {
    PROMPT_ROWS = 16,        // prompt_logprobs: so many prompt tokens a step at least
    KV_BLOCKS_MAX = 1 << 20, // of a GPU: the host keeps a record of each
};
#define MIB               ((uint64_t)1 << 20)
#define CPU_KV_BYTES      (1024 * MIB)
#define GPU_CONTEXT_BYTES (512 * MIB) // a CUDA context, until it can be measured
#define GPU_RESERVE_BYTES (256 * MIB) // programs and modules that are loaded later

/* ---- the backend ---- */

static int load_kernels(struct instance *in, const char *name, struct err *err)
{
    char *path = xasprintf("%s/kernels_%s.so", in->host->plugin_dir, name);
    const sv_kernels *k = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); // stays: a process is one plugin
    const char *why = library ? NULL : dlerror();
    int rc = 0;
    if (why)
        rc = err_set(err, SV_E_UNAVAILABLE, "loading the kernels '%s': %s", path, why);
    if (rc == 0)
        k = dlsym(library, "sv_kernels_v1");
    if (rc == 0 && (!k || k->version != SV_KERNELS_VERSION || k->size < sizeof *k))
        rc = err_set(err, SV_E_UNSUPPORTED,
                     "the kernels '%s' are of version %u and size %u; this plugin needs version %d "
                     "and size %zu: install both from one build",
                     path, k ? k->version : 0, k ? k->size : 0, SV_KERNELS_VERSION, sizeof *k);
    xfree(path);
    if (rc == 0)
        in->k = k;
    return rc;
}

static int choose(struct instance *in, bool offered, struct err *err)
{
    struct err cuda = {0};
    in->on_gpu = false;
    if (in->o.device == DEVICE_CUDA && !offered)
        return err_set(err, SV_E_UNAVAILABLE,
                       "device is cuda, but there is no GPU for it: this machine has none, or "
                       "num_gpus is 0; use auto or cpu");
    if (in->o.device == DEVICE_CPU || !offered)
        return load_kernels(in, "cpu", err);
    in->on_gpu = load_kernels(in, "cuda", &cuda) == 0;
    if (in->on_gpu)
        return 0;
    if (in->o.device == DEVICE_CUDA)
        return err_set(err, cuda.code, "%s", cuda.msg);
    sv_log(in->host, SV_WARN, "device auto takes the processor: %s", cuda.msg);
    return load_kernels(in, "cpu", err);
}

/* ---- limits ---- */

// f32 where every matrix is.
static bool is_f32(const struct model *m)
{
    struct weight w;
    for (uint32_t i = 0; i < weights_count(&m->spec); i++) {
        if (weights_get(&m->spec, m->format, m->files, i, &w, NULL) < 0)
            return false;
        for (uint32_t p = 0; p < w.desc.n_parts; p++)
            if (w.desc.role != SV_VECTOR && w.desc.part[p].dtype != SV_F32)
                return false;
    }
    return true;
}

static uint32_t kv_dtype(const struct instance *in)
{
    if (in->o.kv_dtype >= 0)
        return (uint32_t)in->o.kv_dtype;
    return in->on_gpu ? SV_BF16 : is_f32(in->model) ? SV_F32 : SV_F16;
}

static const struct defaults *defaults_of(const struct instance *in, uint64_t bytes)
{
    return !in->on_gpu ? &on_cpu : bytes >= on_gpu[0].least_bytes ? &on_gpu[0] : &on_gpu[1];
}

static void set_limits(struct instance *in, const struct defaults *d)
{
    struct options *o = &in->o;
    if (o->max_seqs == 0)
        o->max_seqs = d->seqs;
    if (o->max_waiting == WAITING_AUTO)
        o->max_waiting = o->max_seqs;
    in->default_tokens = o->max_seqs > d->tokens ? o->max_seqs : d->tokens;
    in->limits =
        (struct model_limits){.max_seqs = o->max_seqs,
                              .max_rows = o->max_seqs > PROMPT_ROWS ? o->max_seqs : PROMPT_ROWS,
                              .kv_dtype = kv_dtype(in)};
}

static int plan_context(struct instance *in, uint32_t context, struct err *err)
{
    const struct options *o = &in->o;
    in->limits.max_context = context;
    in->limits.max_tokens = o->max_tokens        ? o->max_tokens
                            : o->chunked_prefill ? in->default_tokens
                                                 : context;
    return model_plan(in->model, in->k, &in->dev_options, &in->limits, &in->memory, err);
}

static int check_budget(const struct instance *in, struct err *err)
{
    const struct model_limits *l = &in->limits;
    if (in->o.chunked_prefill || l->max_tokens >= l->max_context)
        return 0;
    return err_set(
        err, SV_E_INVALID,
        "max_num_batched_tokens is %u, but without enable_chunked_prefill a prompt of %u "
        "tokens is read in one step: raise it or lower max_model_len",
        l->max_tokens, l->max_context);
}

/* ---- memory ---- */

static uint64_t bytes_for(const struct instance *in, uint32_t tokens)
{
    return in->memory.block * ((tokens + SV_BLOCK - 1) / SV_BLOCK);
}

// `room` bytes are for weights, state and KV cache; the first two are planned.
static int fit_kv(struct instance *in, uint64_t room, struct err *err)
{
    const struct model_memory *m = &in->memory;
    uint64_t fixed = m->weights + m->state, left = room > fixed ? room - fixed : 0;
    uint64_t kv = in->o.kv_bytes ? in->o.kv_bytes : left;
    CHECK(m->block > 0); // model_plan refuses it
    if (left < m->block || kv > left)
        return err_set(err, SV_E_NOMEM,
                       "weights take %" PRIu64 " MiB, the state of steps %" PRIu64
                       " MiB and the KV cache %" PRIu64 " MiB, together more than the %" PRIu64
                       " MiB that gpu_memory_utilization %g leaves of the GPU: raise it, or lower "
                       "max_num_seqs, max_num_batched_tokens or kv_cache_bytes",
                       m->weights / MIB, m->state / MIB, (kv > m->block ? kv : m->block) / MIB + 1,
                       room / MIB, in->o.gpu_share);
    if (kv / m->block > KV_BLOCKS_MAX)
        kv = m->block * KV_BLOCKS_MAX;
    in->limits.kv_bytes = kv;
    return 0;
}

// What a process may use of a GPU of so many bytes, of which it or others have `taken`.
static uint64_t room_of(const struct instance *in, uint64_t bytes, uint64_t limit, uint64_t taken)
{
    uint64_t most = (uint64_t)(in->o.gpu_share * (double)bytes);
    if (limit && limit < most)
        most = limit;
    taken += GPU_RESERVE_BYTES;
    return most > taken ? most - taken : 0;
}

static int plan_gpu(struct instance *in, uint32_t wanted, uint64_t bytes, struct err *err)
{
    in->limits.kv_bytes = 0; // to learn what the rest takes
    int rc = plan_context(in, wanted, err);
    if (rc < 0)
        return rc;
    if (bytes)
        return fit_kv(in, room_of(in, bytes, 0, GPU_CONTEXT_BYTES), err);
    in->limits.kv_bytes = in->o.kv_bytes ? in->o.kv_bytes : bytes_for(in, wanted);
    return 0;
}

// How much it takes, and what of its context fits the KV cache. bytes: of the GPU, 0: not known.
static int plan_memory(struct instance *in, uint64_t bytes, struct err *err)
{
    const struct spec *s = model_spec(in->model);
    uint32_t wanted = in->o.max_model_len ? in->o.max_model_len : s->context;
    if (wanted > s->context)
        return err_set(err, SV_E_INVALID,
                       "max_model_len is %u, but the model was made for %u tokens", wanted,
                       s->context);
    int rc = 0;
    if (in->on_gpu)
        rc = plan_gpu(in, wanted, bytes, err);
    else
        in->limits.kv_bytes = in->o.kv_bytes ? in->o.kv_bytes : CPU_KV_BYTES;
    if (rc == 0)
        rc = plan_context(in, wanted, err);
    uint64_t held = (uint64_t)in->memory.n_blocks * SV_BLOCK;
    if (rc == 0 && held < wanted && in->o.max_model_len)
        return err_set(err, SV_E_INVALID,
                       "max_model_len is %u, but a KV cache of %" PRIu64 " bytes holds %" PRIu64
                       " tokens: raise %s to %" PRIu64 " or lower max_model_len",
                       wanted, in->limits.kv_bytes, held,
                       in->on_gpu && !in->o.kv_bytes ? "what it may use of the GPU"
                                                     : "kv_cache_bytes",
                       bytes_for(in, wanted));
    if (rc == 0 && held < wanted)
        rc = plan_context(in, (uint32_t)held, err);
    return rc < 0 ? rc : check_budget(in, err);
}

int place_plan(struct instance *in, sv_plan *plan, struct err *err)
{
    uint64_t bytes = plan->device_bytes_max;
    int rc = choose(in, plan->devices > 0, err);
    if (rc < 0)
        return rc;
    set_limits(in, defaults_of(in, bytes));
    rc = plan_memory(in, bytes, err);
    if (rc < 0)
        return rc;
    const struct model_memory *m = &in->memory;
    in->max_model_len = in->limits.max_context;
    plan->max_inflight = in->o.max_seqs + in->o.max_waiting;
    plan->devices = in->on_gpu;
    plan->device_bytes = plan->device_bytes_max = plan->host_bytes = 0;
    if (in->on_gpu) {
        plan->device_bytes = m->weights + m->state + bytes_for(in, in->max_model_len);
        plan->device_bytes_max = m->weights + m->state + m->kv;
    } else {
        plan->host_bytes = m->weights + m->kv + m->state;
    }
    return 0;
}

int place_fit(struct instance *in, const sv_place *place, struct err *err)
{
    if (!in->on_gpu)
        return 0;
    if (place->n_devices == 0)
        return err_set(err, SV_E_UNAVAILABLE, "the plan asks for a GPU, but none was given");
    const sv_device *d = place->devices[0];
    uint64_t left = in->k->room(in->dev), taken = left < d->bytes ? d->bytes - left : 0;
    if (left == UINT64_MAX)
        taken = GPU_CONTEXT_BYTES;
    int rc = fit_kv(in, room_of(in, d->bytes, d->bytes_limit, taken), err);
    if (rc == 0)
        rc = plan_context(in, in->max_model_len, err);
    if (rc == 0 && in->memory.kv < bytes_for(in, in->max_model_len))
        rc =
            err_set(err, SV_E_NOMEM,
                    "the KV cache gets %" PRIu64 " MiB, but %u tokens take %" PRIu64 " MiB",
                    in->memory.kv / MIB, in->max_model_len, bytes_for(in, in->max_model_len) / MIB);
    return rc < 0 ? err_ctx(err,
                            "%" PRIu64 " of the GPU's %" PRIu64
                            " MiB are taken, by its context or by other processes",
                            taken / MIB, d->bytes / MIB)
                  : 0;
}
