// SPDX-License-Identifier: Apache-2.0
#include "llm/options.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 64, NAME_BYTES = 1024, NAMES_TEXT = 128 << 10 };

const sv_option options_table[OPTIONS_COUNT] = {
    {SV_PATH, SV_REQUIRED, "model", NULL, 0, 0,
     "A .gguf file, or a folder in Hugging Face's layout."},
    {SV_STR, 0, "load_format", "auto", 0, 0,
     "auto: weights come from the model's files. dummy: they are made up, for measuring without "
     "files."},
    {SV_JSON, 0, "served_model_name", NULL, 0, 0,
     "The model's name in the API, or a list: the name, then aliases. By default the "
     "deployment's."},
    {SV_STR, 0, "device", "auto", 0, 0,
     "auto, cpu or cuda. auto: a GPU where there is one for this replica."},
    {SV_NUM, 0, "gpu_memory_utilization", "0.9", 0.01, 1,
     "The part of a GPU's memory that weights, KV cache, state and CUDA context may take "
     "together."},
    {SV_INT, 0, "threads", NULL, 1, 1024,
     "Threads that compute, the caller's included. By default as many as the process may run on."},
    {SV_STR, 0, "activations", "auto", 0, 0,
     "With quantised weights: auto keeps the answers of f32; f32 is the reference; int8 is faster "
     "and coarser."},
    {SV_BYTES, 0, "kv_cache_bytes", NULL, 1, 1e15,
     "Memory for keys and values, rounded down to whole blocks of 16 tokens. By default 1 GiB, on "
     "a "
     "GPU all that is left of it."},
    {SV_STR, 0, "kv_cache_dtype", "auto", 0, 0,
     "auto, f32, f16 or bf16. auto: on a GPU bf16, else f32 for a model stored in f32, else f16."},
    {SV_INT, 0, "max_model_len", NULL, 1, 1e8,
     "Tokens of a prompt with its answer. By default the model's context, or what the KV cache "
     "holds."},
    {SV_INT, 0, "max_num_seqs", NULL, 1, 4096,
     "Sequences that run at the same time. By default 64; on a GPU 256, from 70 GiB on 1024."},
    {SV_INT, 0, "max_waiting_seqs", NULL, 0, 65536,
     "Sequences that wait in the plugin beside them. By default as many as max_num_seqs."},
    {SV_INT, 0, "max_num_batched_tokens", NULL, 1, 1e6,
     "Tokens of a step, which bounds how long others wait for a long prompt. By default 128 on a "
     "processor, where more gains little, on a GPU 2048, from 70 GiB on 8192, but no less than "
     "max_num_seqs; a whole prompt without enable_chunked_prefill."},
    {SV_BOOL, 0, "enable_prefix_caching", "true", 0, 0,
     "Prompts that begin alike share their keys and values."},
    {SV_BOOL, 0, "enable_chunked_prefill", "true", 0, 0,
     "Long prompts are read in pieces beside the sequences that run."},
    {SV_STR, 0, "scheduling_policy", "fcfs", 0, 0,
     "fcfs, or priority: the request's `priority`, lower first."},
    {SV_INT, SV_LIVE, "max_logprobs", "20", 0, SV_TOP_MAX,
     "The most alternatives a request may ask for."},
    {SV_STR, 0, "chat_template", NULL, 0, 0,
     "A file with a Jinja template, or the template itself. By default the model's."},
    {SV_STR, 0, "generation_config", "auto", 0, 0,
     "auto: sampling defaults come from the model's generation_config.json; vllm: they are "
     "OpenAI's."},
    {SV_BOOL, SV_LIVE, "enable_prompt_tokens_details", "false", 0, 0,
     "usage tells how many tokens came out of the prefix cache."},
    {SV_BOOL, SV_LIVE, "trust_request_chat_template", "false", 0, 0,
     "A request may bring its own chat_template."},
    {SV_BOOL, SV_LIVE, "enable_force_include_usage", "false", 0, 0,
     "Every stream ends with its usage, as if the request had asked for it."},
    {SV_BOOL, SV_LIVE, "return_tokens_as_token_ids", "false", 0, 0,
     "Logprobs name tokens as token_id:17, unless the request says otherwise."},
    {SV_BOOL, 0, "enforce_eager", "false", 0, 0,
     "On a GPU, blocks run one by one and each is waited for: slow, but an error names its block."},
    {SV_STR, 0, "isa", NULL, 0, 0,
     "The processor's instructions to use: scalar, avx2, avx512, neon. By default the best."},
};

static int choose(const sv_host *h, const sv_cfg *cfg, const char *key, const char *const *names,
                  int *ret, struct err *err)
{
    char known[128] = "";
    const char *text = h->cfg_str(cfg, key, names[0]);
    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return 0;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", names[i]);
    }
    return err_set(err, SV_E_INVALID, "%s: '%s' is not one of %s", key, text, known);
}

static int add_name(struct options *o, const char *name, size_t n, struct err *err)
{
    if (n == 0 || n > NAME_BYTES || memchr(name, '\0', n))
        return err_set(
            err, SV_E_INVALID,
            "served_model_name: a name has %zu bytes; it must have 1 to %d, none of them "
            "NUL",
            n, NAME_BYTES);
    o->names[o->n_names++] = xstrndup(name, n);
    return 0;
}

static int add_names(struct options *o, yyjson_val *v, struct err *err)
{
    size_t i, n = yyjson_is_arr(v) ? yyjson_arr_size(v) : 1, max;
    yyjson_val *name;
    if (n == 0 || n > NAMES_MAX)
        return err_set(err, SV_E_INVALID, "served_model_name: %zu names; give 1 to %d", n,
                       NAMES_MAX);
    o->names = xcalloc(n, sizeof *o->names);
    if (yyjson_is_str(v))
        return add_name(o, yyjson_get_str(v), yyjson_get_len(v), err);
    int rc = yyjson_is_arr(v) ? 0 : SV_E_INVALID;
    yyjson_arr_foreach(v, i, max, name)
    {
        if (rc == 0)
            rc = yyjson_is_str(name) ? add_name(o, yyjson_get_str(name), yyjson_get_len(name), err)
                                     : SV_E_INVALID;
        if (rc < 0)
            break;
    }
    if (rc < 0 && !err->code)
        return err_set(err, SV_E_INVALID, "served_model_name: give a string or a list of strings");
    return rc;
}

static int read_names(const sv_host *h, const sv_cfg *cfg, struct options *o, struct err *err)
{
    const char *json = h->cfg_json(cfg, "served_model_name");
    if (!json) {
        o->names = xcalloc(1, sizeof *o->names);
        return add_name(o, h->deployment, strlen(h->deployment), err);
    }
    yyjson_doc *doc;
    int rc = json_parse(json, strlen(json), NAMES_TEXT, &doc, err);
    if (rc < 0)
        return err_ctx(err, "served_model_name");
    rc = add_names(o, yyjson_doc_get_root(doc), err);
    yyjson_doc_free(doc);
    return rc;
}

static int read_choices(const sv_host *h, const sv_cfg *cfg, struct options *o, struct err *err)
{
    static const char *const activations[] = {"auto", "f32", "int8", NULL};
    static const char *const dtypes[] = {"auto", "f32", "f16", "bf16", NULL};
    static const char *const policies[] = {"fcfs", "priority", NULL};
    static const char *const sources[] = {"auto", "vllm", NULL};
    static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
    static const char *const formats[] = {"auto", "dummy", NULL};
    int v = 0, f = 0, a = 0, d = 0, p = 0, s = 0;
    int rc = choose(h, cfg, "device", devices, &v, err);
    if (rc == 0)
        rc = choose(h, cfg, "load_format", formats, &f, err);
    if (rc == 0)
        rc = choose(h, cfg, "activations", activations, &a, err);
    if (rc == 0)
        rc = choose(h, cfg, "kv_cache_dtype", dtypes, &d, err);
    if (rc == 0)
        rc = choose(h, cfg, "scheduling_policy", policies, &p, err);
    if (rc == 0)
        rc = choose(h, cfg, "generation_config", sources, &s, err);
    o->device = (uint32_t)v; // DEVICE_* in this order
    o->dummy = f == 1;
    o->activations = (uint32_t)a; // SV_ACT_* in this order
    o->kv_dtype = d - 1;          // SV_F32, SV_F16, SV_BF16 in this order
    o->priority = p == 1;
    o->generation_config = s == 0;
    return rc;
}

static void read_numbers(const sv_host *h, const sv_cfg *cfg, struct options *o)
{
    int64_t waiting = h->cfg_int(cfg, "max_waiting_seqs", -1);
    o->threads = (uint32_t)h->cfg_int(cfg, "threads", 0);
    o->kv_bytes = (uint64_t)h->cfg_int(cfg, "kv_cache_bytes", 0);
    o->gpu_share = h->cfg_num(cfg, "gpu_memory_utilization", 0.9);
    o->max_model_len = (uint32_t)h->cfg_int(cfg, "max_model_len", 0);
    o->max_seqs = (uint32_t)h->cfg_int(cfg, "max_num_seqs", 0);
    o->max_waiting = waiting < 0 ? WAITING_AUTO : (uint32_t)waiting;
    o->max_tokens = (uint32_t)h->cfg_int(cfg, "max_num_batched_tokens", 0);
    o->max_logprobs = (uint32_t)h->cfg_int(cfg, "max_logprobs", 20);
    o->prefix_cache = h->cfg_int(cfg, "enable_prefix_caching", 1);
    o->chunked_prefill = h->cfg_int(cfg, "enable_chunked_prefill", 1);
    o->prompt_details = h->cfg_int(cfg, "enable_prompt_tokens_details", 0);
    o->trust_template = h->cfg_int(cfg, "trust_request_chat_template", 0);
    o->usage_always = h->cfg_int(cfg, "enable_force_include_usage", 0);
    o->by_block = h->cfg_int(cfg, "enforce_eager", 0);
    o->tokens_as_ids = h->cfg_int(cfg, "return_tokens_as_token_ids", 0);
}

int options_read(const sv_host *h, const sv_cfg *cfg, struct options *ret, struct err *err)
{
    struct options o = {.model = h->cfg_str(cfg, "model", ""),
                        .chat_template = h->cfg_str(cfg, "chat_template", NULL),
                        .isa = h->cfg_str(cfg, "isa", NULL)};
    read_numbers(h, cfg, &o);
    int rc = read_choices(h, cfg, &o, err);
    if (rc == 0)
        rc = read_names(h, cfg, &o, err);
    if (rc < 0) {
        options_finish(&o);
        return rc;
    }
    *ret = o;
    return 0;
}

void options_take_live(struct options *o, const struct options *from)
{
    o->max_logprobs = from->max_logprobs;
    o->prompt_details = from->prompt_details;
    o->trust_template = from->trust_template;
    o->usage_always = from->usage_always;
    o->tokens_as_ids = from->tokens_as_ids;
}

void options_finish(struct options *o)
{
    for (uint32_t i = 0; i < o->n_names; i++)
        xfree(o->names[i]);
    xfree(o->names);
    *o = (struct options){0};
}
