// SPDX-License-Identifier: Apache-2.0
/*
 * Keys: docs/gguf.md of ggml and gguf-py/gguf/constants.py of llama.cpp; what they mean where the
 * document is silent: src/llama-model.cpp (load_hparams) and ggml's rope_yarn.
 */
#include "llm/spec.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "common/gguf.h"
#include "kernels/kernels.h"
#include "llm/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct reader {
    const struct gguf *g;
    const struct spec *s;
    struct err *err;
    int rc; // of the first failure; what follows does nothing
    char key[128];
};

static const char *key_of(struct reader *r, const char *name)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->s->row->gguf, name);
    return r->key;
}

static void fail(struct reader *r, const char *what)
{
    r->rc = err_set(r->err, SV_E_INVALID, "key '%s' %s", r->key, what);
}

// Negative `fallback`: the key may not be absent.
static uint32_t get_u32(struct reader *r, const char *name, int64_t fallback)
{
    uint64_t v = 0;
    if (r->rc < 0)
        return 0;
    if (!gguf_has(r->g, key_of(r, name))) {
        if (fallback < 0)
            fail(r, "is missing");
        return (uint32_t)fallback;
    }
    if (!gguf_u64(r->g, r->key, &v) || v > UINT32_MAX)
        fail(r, "is no whole number of 32 bits");
    return (uint32_t)v;
}

static double get_f64(struct reader *r, const char *name, double fallback)
{
    double v = 0;
    if (r->rc < 0)
        return 0;
    if (!gguf_has(r->g, key_of(r, name))) {
        if (isnan(fallback))
            fail(r, "is missing");
        return fallback;
    }
    if (!gguf_f64(r->g, r->key, &v))
        fail(r, "is no number");
    return v;
}

static struct bytes get_str(struct reader *r, const char *name, const char *fallback)
{
    struct bytes s = {fallback, strlen(fallback)};
    if (r->rc == 0 && gguf_has(r->g, key_of(r, name)) && !gguf_str(r->g, r->key, &s))
        fail(r, "is no text");
    return s;
}

static bool same(struct bytes a, const char *b)
{
    return a.n == strlen(b) && !memcmp(a.p, b, a.n);
}

static int read_row(const struct gguf *g, struct spec *s, struct err *err)
{
    struct bytes name;
    if (!gguf_str(g, "general.architecture", &name))
        return err_set(err, SV_E_INVALID, "key 'general.architecture' is missing or no text");
    s->row = arch_find(FORMAT_GGUF, name.p, name.n);
    if (!s->row)
        return arch_unknown(FORMAT_GGUF, name.p, name.n, err);
    CHECK(name.n < sizeof s->arch);
    memcpy(s->arch, name.p, name.n);
    return 0;
}

// What would change the sums and is not done here: a number that is not the one named.
static void refuse_others(struct reader *r)
{
    static const struct {
        const char *name;
        double neutral;
    } keys[] = {
        {"expert_count", 0},
        {"attention.clamp_kqv", 0},
        {"attention.max_alibi_bias", 0},
        {"attention.sliding_window_pattern", 0},
        {"attn_logit_softcapping", 0},
        {"final_logit_softcapping", 0},
        {"logit_scale", 0},
        {"residual_scale", 0},
        {"embedding_scale", 0},
        {"rope.dimension_sections", 0},
        {"rope.scaling.yarn_log_multiplier", 0},
        {"rope.scaling.yarn_ext_factor", 1},
        {"rope.scaling.alpha", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(keys) && r->rc == 0; i++) {
        double v;
        if (!gguf_has(r->g, key_of(r, keys[i].name)))
            continue;
        if (!gguf_f64(r->g, r->key, &v) || v != keys[i].neutral)
            r->rc = err_set(r->err, SV_E_UNSUPPORTED, "key '%s' is not supported", r->key);
    }
    bool causal;
    if (r->rc == 0 && gguf_bool(r->g, key_of(r, "attention.causal"), &causal) && !causal)
        r->rc = err_set(r->err, SV_E_UNSUPPORTED, "key '%s': only causal attention is supported",
                        r->key);
}

static void read_sizes(struct reader *r, struct spec *s)
{
    const struct tensor *embed = tensors_find(gguf_tensors(r->g), "token_embd.weight");
    s->layers = get_u32(r, "block_count", -1);
    s->d_model = get_u32(r, "embedding_length", -1);
    s->d_ff = get_u32(r, "feed_forward_length", -1);
    s->heads = get_u32(r, "attention.head_count", -1);
    s->kv_heads = get_u32(r, "attention.head_count_kv", s->heads);
    s->context = get_u32(r, "context_length", -1);
    s->norm_eps = get_f64(r, "attention.layer_norm_rms_epsilon", NAN);
    s->head_dim = get_u32(r, "attention.key_length", s->heads ? s->d_model / s->heads : 0);
    if (get_u32(r, "attention.value_length", s->head_dim) != s->head_dim && r->rc == 0)
        fail(r, "differs from the length of keys, which is not supported");
    s->attention_scale = get_f64(r, "attention.scale", 0);
    if (s->attention_scale == 0)
        s->attention_scale = 1 / sqrt(fmax(s->head_dim, 1));
    s->vocab = embed && embed->dim[0] <= UINT32_MAX ? (uint32_t)embed->dim[0] : 0;
    if (!embed && r->rc == 0)
        r->rc = err_set(r->err, SV_E_INVALID, "tensor 'token_embd.weight' is missing");
    if (get_u32(r, "vocab_size", s->vocab) != s->vocab && r->rc == 0)
        fail(r, "differs from the rows of token_embd.weight");
}

static void read_factors(struct reader *r, struct spec_rope *rope)
{
    const struct tensor *t = tensors_find(gguf_tensors(r->g), "rope_freqs.weight");
    if (!t || r->rc < 0)
        return;
    if (t->dtype != SV_F32 || t->n_dims != 1 || t->dim[0] != rope->dims / 2)
        r->rc = err_set(r->err, SV_E_INVALID,
                        "tensor 'rope_freqs.weight' is not F32 with %u elements", rope->dims / 2);
    else
        rope->factors = t->data;
}

static void read_yarn(struct reader *r, struct spec_rope *rope)
{
    rope->kind = ROPE_YARN;
    rope->beta_fast = get_f64(r, "rope.scaling.yarn_beta_fast", 32);
    rope->beta_slow = get_f64(r, "rope.scaling.yarn_beta_slow", 1);
    double factor =
        get_f64(r, "rope.scaling.attn_factor", 1) * get_f64(r, "rope.scaling.yarn_attn_factor", 1);
    if (factor != 1) // times what yarn itself has: rope_yarn
        rope->attention_factor = factor * (0.1 * log(fmax(rope->factor, 1)) + 1);
}

static void read_rope(struct reader *r, struct spec *s)
{
    struct spec_rope *rope = &s->rope;
    *rope = (struct spec_rope){.style = s->row->gguf_rope,
                               .factor = 1,
                               .low_freq_factor = 1,
                               .high_freq_factor = 1,
                               .beta_fast = 32,
                               .beta_slow = 1,
                               .truncate = true};
    rope->dims = get_u32(r, "rope.dimension_count", s->head_dim);
    rope->base = get_f64(r, "rope.freq_base", 10000);
    rope->original_context = get_u32(r, "rope.scaling.original_context_length", s->context);
    // Before there were types, a bare factor meant linear.
    double bare = get_f64(r, "rope.scale_linear", 0);
    struct bytes type = get_str(r, "rope.scaling.type", bare != 0 ? "linear" : "none");
    if (r->rc < 0 || same(type, "none")) {
        read_factors(r, rope);
        return;
    }
    rope->factor = get_f64(r, "rope.scaling.factor", bare != 0 ? bare : NAN);
    if (same(type, "linear"))
        rope->kind = ROPE_LINEAR;
    else if (same(type, "yarn"))
        read_yarn(r, rope);
    else
        r->rc = err_set(r->err, SV_E_UNSUPPORTED,
                        "key 'rope.scaling.type': '%s' is not supported; known are: none, linear, "
                        "yarn",
                        tensor_label(type.p, type.n).s);
    read_factors(r, rope);
}

// GGUF has no switch for biases: the first layer's tensors tell.
static void read_roles(struct reader *r, struct spec *s)
{
    static const enum tensor_role biases[] = {T_Q_BIAS,    T_K_BIAS,  T_V_BIAS,   T_O_BIAS,
                                              T_GATE_BIAS, T_UP_BIAS, T_DOWN_BIAS};
    const struct tensors *t = gguf_tensors(r->g);
    char name[ARCH_NAME];
    for (size_t i = 0; i < TENSOR_ROLES; i++)
        s->has[i] = true;
    for (size_t i = 0; i < ARRAY_LEN(biases); i++) {
        arch_tensor_name(FORMAT_GGUF, biases[i], 0, name);
        s->has[biases[i]] = tensors_find(t, name) != NULL;
    }
    if (s->row->qkv_bias == BIAS_ALWAYS)
        s->has[T_Q_BIAS] = s->has[T_K_BIAS] = s->has[T_V_BIAS] = true;
    s->has[T_Q_NORM] = s->has[T_K_NORM] = s->row->qk_norm;
    arch_tensor_name(FORMAT_GGUF, T_HEAD, 0, name);
    s->tied = tensors_find(t, name) == NULL;
    s->has[T_HEAD] = !s->tied;
}

static void read_window(struct reader *r, struct spec *s)
{
    s->window = get_u32(r, "attention.sliding_window", 0);
    for (uint32_t i = 0; i < s->layers && r->rc == 0; i++)
        s->windowed[i] = s->window != 0;
}

static void read_generation(const struct gguf *g, struct spec *s)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    uint64_t id;
    s->bos = gguf_u64(g, "tokenizer.ggml.bos_token_id", &id) && id <= INT32_MAX ? (int32_t)id : -1;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (gguf_u64(g, ends[i], &id) && id <= INT32_MAX)
            spec_add_eos(s, (int64_t)id);
    s->temperature = s->top_p = s->min_p = s->repetition_penalty = -1;
    s->top_k = -1;
}

int spec_from_gguf(const struct gguf *g, struct spec *ret, struct err *err)
{
    struct spec s = {0};
    struct reader r = {.g = g, .s = &s, .err = err};
    int rc = read_row(g, &s, err);
    if (rc < 0)
        return rc;
    CHECK(s.row);
    refuse_others(&r);
    read_sizes(&r, &s);
    read_rope(&r, &s);
    if (r.rc < 0 || (r.rc = spec_check(&s, err)) < 0)
        return r.rc;
    read_window(&r, &s);
    read_roles(&r, &s);
    if (r.rc < 0 || (r.rc = spec_check(&s, err)) < 0)
        return r.rc;
    read_generation(g, &s);
    *ret = s;
    return 0;
}
