// SPDX-License-Identifier: Apache-2.0
#include "llm/instance.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "llm/choice.h"
#include "llm/exchange.h"
#include "llm/model_parts.h"
#include "llm/template.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

// A processor is saturated by a hundred tokens: more makes steps longer, not faster.
enum { CPU_BUDGET = 128 };

/* ---- create: files and options ---- */

// Since the process was started, to the kernel's tick of 10 ms.
static double since_exec(void)
{
    char text[1024] = "";
    unsigned long long ticks = 0;
    FILE *f = fopen("/proc/self/stat", "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    const char *at = strrchr(text, ')'); // the name before it may hold anything
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at)
        ticks = strtoull(at + 1, NULL, 10);
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    double age = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 -
                 (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return ticks && age > 0 ? age : 0;
}

static int load_kernels(struct instance *in, struct err *err)
{
    char *path = xasprintf("%s/kernels_cpu.so", in->host->plugin_dir);
    in->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *why = in->library ? NULL : dlerror();
    int rc = 0;
    if (why)
        rc = err_set(err, SV_E_UNAVAILABLE, "loading the kernels '%s': %s", path, why);
    if (rc == 0)
        in->k = dlsym(in->library, "sv_kernels_v1");
    if (rc == 0 && (!in->k || in->k->version != SV_KERNELS_VERSION || in->k->size < sizeof *in->k))
        rc = err_set(err, SV_E_UNSUPPORTED,
                     "the kernels '%s' are of version %u and size %u; this plugin needs version %d "
                     "and size %zu: install both from one build",
                     path, in->k ? in->k->version : 0, in->k ? in->k->size : 0, SV_KERNELS_VERSION,
                     sizeof *in->k);
    xfree(path);
    return rc;
}

static void tick(void *arg)
{
    struct instance *in = arg;
    in->host->pressure(in->host, 1); // a sign of life; a step this long is a full one
}

static double or_default(bool use, double x, double otherwise)
{
    return use && x >= 0 ? x : otherwise;
}

static void set_params_limits(struct instance *in)
{
    const struct spec *s = model_spec(in->model);
    bool use = in->o.generation_config;
    in->params_limits = (struct params_limits){
        .vocab = s->vocab,
        .max_logprobs = in->o.max_logprobs,
        .priority = in->o.priority,
        .trust_template = in->o.trust_template,
        .tokens_as_ids = in->o.tokens_as_ids,
        .temperature = or_default(use, s->temperature, 1),
        .top_p = or_default(use && s->top_p > 0, s->top_p, 1),
        .min_p = or_default(use, s->min_p, 0),
        .repetition_penalty =
            or_default(use && s->repetition_penalty > 0, s->repetition_penalty, 1),
        .top_k = use && s->top_k > 0 ? s->top_k : 0,
    };
}

static int open_files(struct instance *in, struct err *err)
{
    int rc = model_open(in->o.model, &in->model, err);
    if (rc == 0)
        rc = model_check(in->model, err);
    if (rc < 0)
        return rc;
    set_params_limits(in);
    return load_kernels(in, err);
}

static int template_source(struct instance *in, struct buf *ret, struct err *err)
{
    const char *o = in->o.chat_template;
    if (!o) {
        struct bytes b = model_template(in->model);
        buf_put(ret, b.p, b.n);
        return 0;
    }
    if (strpbrk(o, "{\n")) {
        buf_puts(ret, o);
        return 0;
    }
    int rc = file_read(o, TEMPLATE_SOURCE_MAX, ret, err);
    return rc;
}

static int load_template(struct instance *in, struct err *err)
{
    struct buf source = {0};
    int rc = template_source(in, &source, err);
    if (rc == 0 && buf_len(&source))
        rc = template_compile(buf_head(&source), buf_len(&source), &in->template, err);
    buf_finish(&source);
    return rc < 0 ? err_ctx(err, "the chat template") : 0;
}

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

static uint32_t rows_of(const struct options *o)
{
    enum { PROMPT_ROWS = 16 }; // prompt_logprobs: so many prompt tokens a step at least
    return o->max_seqs > PROMPT_ROWS ? o->max_seqs : PROMPT_ROWS;
}

static int plan_context(struct instance *in, uint32_t context, struct err *err)
{
    const struct options *o = &in->o;
    uint32_t least = o->max_seqs > CPU_BUDGET ? o->max_seqs : CPU_BUDGET;
    in->limits.max_context = context;
    in->limits.max_tokens = o->max_tokens ? o->max_tokens : o->chunked_prefill ? least : context;
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

// How much it takes, and what of its context fits the KV cache.
static int plan_memory(struct instance *in, struct err *err)
{
    const struct spec *s = model_spec(in->model);
    uint32_t wanted = in->o.max_model_len ? in->o.max_model_len : s->context;
    uint32_t kv_dtype = in->o.kv_dtype >= 0 ? (uint32_t)in->o.kv_dtype
                        : is_f32(in->model) ? SV_F32
                                            : SV_F16;
    if (wanted > s->context)
        return err_set(err, SV_E_INVALID,
                       "max_model_len is %u, but the model was made for %u tokens", wanted,
                       s->context);
    in->limits = (struct model_limits){.max_seqs = in->o.max_seqs,
                                       .max_rows = rows_of(&in->o),
                                       .kv_dtype = kv_dtype,
                                       .kv_bytes = in->o.kv_bytes};
    int rc = plan_context(in, wanted, err);
    uint64_t held = (uint64_t)in->memory.n_blocks * SV_BLOCK;
    if (rc == 0 && held < wanted && in->o.max_model_len) {
        uint64_t needed = in->memory.block * ((wanted + SV_BLOCK - 1) / SV_BLOCK);
        return err_set(err, SV_E_INVALID,
                       "max_model_len is %u, but a KV cache of %" PRIu64 " bytes holds %" PRIu64
                       " tokens: raise kv_cache_bytes to %" PRIu64 " or lower max_model_len",
                       wanted, in->o.kv_bytes, held, needed);
    }
    if (rc == 0 && held < wanted)
        rc = plan_context(in, (uint32_t)held, err);
    return rc < 0 ? rc : check_budget(in, err);
}

static void set_fingerprint(struct instance *in)
{
    const char *path = model_path(in->model), *base = strrchr(path, '/');
    uint64_t h = 0;
    uint32_t kind[] = {in->limits.kv_dtype, in->o.activations, in->max_model_len};
    base = base ? base + 1 : path;
    for (const char *c = base; *c; c++)
        h = h * 1099511628211u + (unsigned char)*c;
    for (size_t i = 0; i < ARRAY_LEN(kind); i++)
        h = h * 1099511628211u + kind[i];
    snprintf(in->fingerprint, sizeof in->fingerprint, "salver-%.16s-%08x", in->host->core_version,
             (uint32_t)(h ^ h >> 32));
}

int instance_create(const sv_host *h, const sv_cfg *cfg, struct instance **ret, struct err *err)
{
    struct instance *in = xcalloc(1, sizeof *in);
    in->host = h;
    list_init(&in->exchanges);
    int rc = options_read(h, cfg, &in->o, err);
    if (rc == 0) {
        in->dev_options = (sv_dev_options){.size = sizeof in->dev_options,
                                           .threads = in->o.threads,
                                           .activations = in->o.activations,
                                           .isa = in->o.isa,
                                           .tick = tick,
                                           .tick_arg = in};
        rc = open_files(in, err);
    }
    if (rc == 0)
        rc = load_template(in, err);
    if (rc == 0)
        rc = plan_memory(in, err);
    if (rc < 0) {
        instance_destroy(in);
        return rc;
    }
    in->max_model_len = in->limits.max_context;
    set_fingerprint(in);
    in->create_s = since_exec();
    *ret = in;
    return 0;
}

int instance_plan(struct instance *in, sv_plan *plan, struct err *err)
{
    (void)err;
    plan->max_inflight = in->o.max_seqs + in->o.max_waiting;
    plan->devices = 0;
    plan->device_bytes = 0;
    plan->host_bytes = in->memory.weights + in->memory.kv + in->memory.state;
    return 0;
}

/* ---- load ---- */

static void told(void *arg, double done, const char *what)
{
    struct instance *in = arg;
    in->host->progress(in->host, done * 0.95, what);
}

static char *token_text(const struct tokenizer *t, int32_t id)
{
    struct bytes b = id >= 0 ? tokenizer_token(t, id) : (struct bytes){"", 0};
    return xstrndup(b.p, b.n);
}

static int load_text(struct instance *in, struct err *err)
{
    const struct spec *s = model_spec(in->model);
    int rc = model_tokenizer(in->model, &in->tokenizer, err);
    if (rc < 0)
        return rc;
    int32_t bos = tokenizer_bos(in->tokenizer), eos = tokenizer_eos(in->tokenizer);
    in->bos = token_text(in->tokenizer, bos >= 0 ? bos : s->bos);
    in->eos = token_text(in->tokenizer, eos >= 0 ? eos : s->n_eos ? s->eos[0] : -1);
    in->lexicon = (struct lexicon){.tokenizer = in->tokenizer,
                                   .template = in->template,
                                   .bos = in->bos,
                                   .eos = in->eos,
                                   .max_model_len = in->max_model_len};
    return 0;
}

static int load_device(struct instance *in, struct err *err)
{
    char why[SV_WHY_MAX] = "";
    int rc = in->k->open(&in->dev_options, &in->dev, why);
    if (rc < 0)
        return err_set(err, rc, "opening the backend %s: %s", in->k->name, why);
    return model_load(in->model, in->k, in->dev, &in->dev_options, &in->limits, told, in, err);
}

static sv_program *program(void *arg, uint32_t n_tokens, uint32_t n_rows)
{
    return model_program(arg, n_tokens, n_rows);
}

static int load_engine(struct instance *in, struct err *err)
{
    struct engine_config c = {.max_seqs = in->limits.max_seqs,
                              .max_waiting = in->o.max_waiting,
                              .max_tokens = in->limits.max_tokens,
                              .max_rows = in->limits.max_rows,
                              .max_context = in->max_model_len,
                              .n_blocks = in->memory.n_blocks,
                              .vocab = model_spec(in->model)->vocab,
                              .prefix_cache = in->o.prefix_cache,
                              .chunked_prefill = in->o.chunked_prefill,
                              .priority = in->o.priority,
                              .on_token = choice_on_token,
                              .on_prompt = choice_on_prompt};
    return engine_create(&c, in->k, model_session(in->model), program, in->model, &in->engine, err);
}

static void make_metrics(struct instance *in)
{
    const struct model_memory *m = &in->memory;
    metrics_init(&in->metrics, in->host,
                 &(struct metrics_conf){.model = in->o.names[0],
                                        .max_model_len = in->max_model_len,
                                        .n_blocks = m->n_blocks,
                                        .prefix_cache = in->o.prefix_cache});
    metrics_memory(&in->metrics, "weights", m->weights);
    metrics_memory(&in->metrics, "kv", m->kv);
    metrics_memory(&in->metrics, "state", m->state);
}

static double ms(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-6;
}

static void log_load(struct instance *in, const uint64_t at[4])
{
    const struct model_memory *m = &in->memory;
    const struct spec *s = model_spec(in->model);
    const double mib = 1 << 20;
    sv_log(in->host, SV_INFO,
           "%s: %s, %u layers, %s; weights %.1f MiB, KV %.1f MiB (%s, %u blocks of %llu bytes, "
           "%u tokens a sequence), state %.1f MiB; until create %.0f ms, text %.1f ms, weights "
           "%.1f ms, engine %.1f ms",
           in->o.names[0], s->arch, s->layers, in->k->about(in->dev), (double)m->weights / mib,
           (double)m->kv / mib, sv_dtype(in->limits.kv_dtype).name, m->n_blocks,
           (unsigned long long)m->block, in->max_model_len, (double)m->state / mib,
           in->create_s * 1e3, ms(at[0], at[1]), ms(at[1], at[2]), ms(at[2], at[3]));
    metrics_load(&in->metrics, "create", in->create_s);
    metrics_load(&in->metrics, "text", ms(at[0], at[1]) * 1e-3);
    metrics_load(&in->metrics, "weights", ms(at[1], at[2]) * 1e-3);
    metrics_load(&in->metrics, "engine", ms(at[2], at[3]) * 1e-3);
}

int instance_load(struct instance *in, const sv_place *place, struct err *err)
{
    (void)place; // the processor alone
    uint64_t at[4] = {clock_now_ns()};
    if (getrandom(&in->next_seed, sizeof in->next_seed, 0) != sizeof in->next_seed)
        in->next_seed = clock_now_ns();
    int rc = load_text(in, err);
    at[1] = clock_now_ns();
    if (rc == 0)
        rc = load_device(in, err);
    at[2] = clock_now_ns();
    if (rc == 0)
        rc = load_engine(in, err);
    at[3] = clock_now_ns();
    if (rc < 0) {
        instance_unload(in);
        return rc;
    }
    make_metrics(in);
    log_load(in, at);
    return 0;
}

int instance_warm(struct instance *in, struct err *err)
{
    const struct spec *s = model_spec(in->model);
    int32_t prompt[2] = {s->bos >= 0 ? s->bos : 0, s->bos >= 0 ? s->bos : 0};
    uint64_t from = clock_now_ns();
    struct seq *seq;
    struct seq_params p = {.prompt = prompt,
                           .n_prompt = in->max_model_len > 2 ? 2 : 1,
                           .max_tokens = 1,
                           .sampling = {.size = sizeof p.sampling, .top_p = 1, .repetition = 1}};
    int rc = engine_add(in->engine, &p, &seq, err);
    while (rc == 0 && (rc = engine_step(in->engine, err)) > 0)
        rc = 0;
    in->metrics.seen = *engine_stats(in->engine);
    metrics_load(&in->metrics, "warm", ms(from, clock_now_ns()) * 1e-3);
    return rc;
}

/* ---- serving ---- */

int64_t instance_step(struct instance *in, struct err *err)
{
    in->now_ns = 0;
    int rc = engine_step(in->engine, err);
    const struct engine_stats *s = engine_stats(in->engine);
    metrics_step(&in->metrics, s);
    if (rc < 0)
        return SV_E_FATAL;
    double most = in->o.max_seqs, busy = (s->running + s->waiting) / most;
    in->host->pressure(in->host, busy > 1 ? 1 : busy);
    return rc > 0 ? 0 : SV_IDLE;
}

uint64_t instance_now(struct instance *in)
{
    if (!in->now_ns)
        in->now_ns = clock_now_ns();
    return in->now_ns;
}

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t instance_seed(struct instance *in)
{
    uint64_t z = in->next_seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool instance_serves(const struct instance *in, struct bytes name)
{
    if (!name.p)
        return true;
    for (uint32_t i = 0; i < in->o.n_names; i++)
        if (strlen(in->o.names[i]) == name.n && memcmp(in->o.names[i], name.p, name.n) == 0)
            return true;
    return false;
}

/* ---- its end ---- */

void instance_unload(struct instance *in)
{
    for (struct list *n; (n = list_first(&in->exchanges));)
        exchange_cancel(CONTAINER_OF(n, struct exchange, node), SV_E_UNAVAILABLE,
                        "The model was unloaded.");
    engine_destroy(in->engine);
    if (in->dev)
        in->k->close(in->dev);
    tokenizer_destroy(in->tokenizer);
    xfree(in->bos);
    xfree(in->eos);
    buf_finish(&in->scratch);
    buf_finish(&in->text);
    in->engine = NULL;
    in->dev = NULL;
    in->tokenizer = NULL;
    in->bos = in->eos = NULL;
}

void instance_destroy(struct instance *in)
{
    model_close(in->model);
    template_destroy(in->template);
    options_finish(&in->o);
    xfree(in); // the library stays: a process is one plugin, and is never used again
}
