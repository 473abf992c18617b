// SPDX-License-Identifier: Apache-2.0
#include "llm/instance.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "llm/choice.h"
#include "llm/exchange.h"
#include "llm/place.h"
#include "llm/template.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* ---- create: files and options ---- */

// Seconds since a process was started, to the kernel's tick of 10 ms; 0: not known.
static double since_start(pid_t pid)
{
    char text[1024] = "", path[64];
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
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

int instance_reconfigure(struct instance *in, const sv_cfg *cfg, struct err *err)
{
    struct options o;
    int rc = options_read(in->host, cfg, &o, err);
    if (rc < 0)
        return rc;
    options_take_live(&in->o, &o);
    options_finish(&o);
    set_params_limits(in);
    return 0;
}

static int open_files(struct instance *in, struct err *err)
{
    int rc = in->o.dummy ? model_open_dummy(in->o.model, &in->model, err)
                         : model_open(in->o.model, &in->model, err);
    if (rc == 0)
        rc = model_check(in->model, err);
    if (rc < 0)
        return rc;
    set_params_limits(in);
    return 0;
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
                                           .by_block = in->o.by_block,
                                           .tick = tick,
                                           .tick_arg = in};
        rc = open_files(in, err);
    }
    if (rc == 0)
        rc = load_template(in, err);
    if (rc < 0) {
        instance_destroy(in);
        return rc;
    }
    in->create_s = since_start(getpid());
    in->before_s = since_start(getppid()) - in->create_s;
    in->created_ns = clock_now_ns();
    *ret = in;
    return 0;
}

int instance_plan(struct instance *in, sv_plan *plan, struct err *err)
{
    int rc = place_plan(in, plan, err);
    if (rc == 0)
        set_fingerprint(in);
    return rc;
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

static int load_device(struct instance *in, const sv_place *place, struct err *err)
{
    char why[SV_WHY_MAX] = "";
    in->times.device = clock_now_ns();
    int rc = in->k->open(&in->dev_options, &in->dev, why);
    if (rc < 0)
        return err_set(err, rc, "opening the backend %s: %s", in->k->name, why);
    in->times.opened = clock_now_ns();
    rc = place_fit(in, place, err);
    if (rc == 0)
        rc = model_load(in->model, in->k, in->dev, &in->dev_options, &in->limits, told, in, err);
    in->times.weights = clock_now_ns();
    return rc;
}

struct device_load {
    struct instance *in;
    const sv_place *place;
    struct err err;
    int rc;
};

static void *load_apart(void *arg)
{
    struct device_load *l = arg;
    l->rc = load_device(l->in, l->place, &l->err);
    return NULL;
}

// A GPU's context and its copies want little of a processor: the tokenizer is read meanwhile.
static int load_both(struct instance *in, const sv_place *place, struct err *err)
{
    struct device_load apart = {.in = in, .place = place};
    pthread_t thread;
    bool started = in->on_gpu && pthread_create(&thread, NULL, load_apart, &apart) == 0;
    in->times.begin = clock_now_ns();
    int rc = load_text(in, err);
    in->times.text = clock_now_ns();
    if (!started)
        return rc < 0 ? rc : load_device(in, place, err);
    pthread_join(thread, NULL);
    if (rc == 0 && apart.rc < 0)
        rc = err_set(err, apart.rc, "%s", apart.err.msg);
    return rc;
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

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-9;
}

static void log_load(struct instance *in)
{
    const struct model_memory *m = &in->memory;
    const struct spec *s = model_spec(in->model);
    const struct load_times *t = &in->times;
    const double mib = 1 << 20;
    double text = seconds(t->begin, t->text), device = seconds(t->device, t->opened);
    double weights = seconds(t->opened, t->weights), engine = seconds(t->ready, t->engine);
    sv_log(in->host, SV_INFO,
           "%s: %s, %u layers, %s; weights %.1f MiB, KV %.1f MiB (%s, %u blocks of %llu bytes, "
           "%u tokens a sequence), state %.1f MiB; until create %.0f ms, text %.1f ms%s, device "
           "%.1f ms, weights %.1f ms, engine %.1f ms",
           in->o.names[0], s->arch, s->layers, in->k->about(in->dev), (double)m->weights / mib,
           (double)m->kv / mib, sv_dtype(in->limits.kv_dtype).name, m->n_blocks,
           (unsigned long long)m->block, in->max_model_len, (double)m->state / mib,
           in->create_s * 1e3, text * 1e3, in->on_gpu ? " beside the rest" : "", device * 1e3,
           weights * 1e3, engine * 1e3);
    metrics_load(&in->metrics, "create", in->create_s);
    metrics_load(&in->metrics, "text", text);
    metrics_load(&in->metrics, "device", device);
    metrics_load(&in->metrics, "weights", weights);
    metrics_load(&in->metrics, "engine", engine);
}

int instance_load(struct instance *in, const sv_place *place, struct err *err)
{
    if (getrandom(&in->next_seed, sizeof in->next_seed, 0) != sizeof in->next_seed)
        in->next_seed = clock_now_ns();
    int rc = load_both(in, place, err);
    in->times.ready = clock_now_ns();
    if (rc == 0)
        rc = load_engine(in, err);
    in->times.engine = clock_now_ns();
    if (rc < 0) {
        instance_unload(in);
        return rc;
    }
    make_metrics(in);
    log_load(in);
    return 0;
}

int instance_warm(struct instance *in, struct err *err)
{
    const struct spec *s = model_spec(in->model);
    int32_t prompt = s->bos >= 0 ? s->bos : 0;
    uint64_t from = clock_now_ns();
    struct seq *seq;
    struct seq_params p = {.prompt = &prompt,
                           .n_prompt = 1, // so that the program is the one that most steps need
                           .max_tokens = 1,
                           .sampling = {.size = sizeof p.sampling, .top_p = 1, .repetition = 1}};
    int rc = engine_add(in->engine, &p, &seq, err);
    while (rc == 0 && (rc = engine_step(in->engine, err)) > 0)
        rc = 0;
    in->metrics.seen = *engine_stats(in->engine);
    in->warm_tokens = in->metrics.seen.generated_tokens;
    in->times.warm = clock_now_ns();
    metrics_load(&in->metrics, "warm", seconds(from, in->times.warm));
    if (rc < 0 && *model_why(in->model))
        err_ctx(err, "recording a program: %s", model_why(in->model));
    return rc;
}

/* ---- serving ---- */

// The way from exec to the first answer, once for all.
static void note_first_token(struct instance *in, const struct engine_stats *s)
{
    const struct load_times *t = &in->times;
    if (in->answered || s->generated_tokens == in->warm_tokens)
        return;
    in->answered = true;
    sv_log(
        in->host, SV_INFO,
        "first token %.0f ms after the server was started: %.0f until this process, %.0f until "
        "create, %.0f until load, %.0f device, weights and text, %.1f engine, %.1f warm-up, %.0f "
        "ready and then asked",
        since_start(getppid()) * 1e3, in->before_s * 1e3, in->create_s * 1e3,
        seconds(in->created_ns, t->begin) * 1e3, seconds(t->begin, t->ready) * 1e3,
        seconds(t->ready, t->engine) * 1e3, seconds(t->engine, t->warm) * 1e3,
        seconds(t->warm, clock_now_ns()) * 1e3);
}

// Nothing to do: what loading left for later. 1: there is more.
static int idle(struct instance *in)
{
    int rc = model_record_next(in->model);
    return rc ? rc : in->k->idle(in->dev);
}

int64_t instance_step(struct instance *in, struct err *err)
{
    in->now_ns = 0;
    int rc = engine_step(in->engine, err);
    const struct engine_stats *s = engine_stats(in->engine);
    metrics_step(&in->metrics, s);
    note_first_token(in, s);
    if (rc == 0 && in->answered && (rc = idle(in)) < 0)
        err_set(err, SV_E_FATAL, "the device failed while nothing was asked of it");
    if (rc < 0 && *model_why(in->model))
        err_ctx(err, "recording a program: %s", model_why(in->model));
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
