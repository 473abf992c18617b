// SPDX-License-Identifier: Apache-2.0
/*
 * config.json and generation_config.json, as transformers 4 and 5 write and read them
 * (configuration_*.py of each class; modeling_rope_utils.py: rope_scaling with rope_theta became
 * rope_parameters).
 */
#include "llm/spec.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "common/json.h"
#include "common/tensors.h"
#include "kernels/kernels.h"
#include "llm/arch.h"

#include <math.h>
#include <string.h>

// null counts as absent, as most of transformers' defaults do.
static yyjson_val *get(yyjson_val *object, const char *key)
{
    yyjson_val *v = json_get(object, key);
    return yyjson_is_null(v) ? NULL : v;
}

// Into *ret, which keeps its value where the key is absent; negative `fallback`: it may not be.
static int get_u32(yyjson_val *o, const char *key, int64_t fallback, uint32_t *ret, struct err *err)
{
    yyjson_val *v = get(o, key);
    if (!v && fallback < 0)
        return err_set(err, SV_E_INVALID, "'%s' is missing", key);
    if (v && (!yyjson_is_uint(v) || yyjson_get_uint(v) > UINT32_MAX))
        return err_set(err, SV_E_INVALID, "'%s' is no whole number from 0 to %u", key, UINT32_MAX);
    *ret = (uint32_t)(v ? yyjson_get_uint(v) : (uint64_t)fallback);
    return 0;
}

static int get_number(yyjson_val *o, const char *key, double fallback, double *ret, struct err *err)
{
    yyjson_val *v = get(o, key);
    if (!v && isnan(fallback))
        return err_set(err, SV_E_INVALID, "'%s' is missing", key);
    if (v && !yyjson_is_num(v))
        return err_set(err, SV_E_INVALID, "'%s' is no number", key);
    *ret = v ? yyjson_get_num(v) : fallback;
    return 0;
}

static int get_bool(yyjson_val *o, const char *key, bool fallback, bool *ret, struct err *err)
{
    yyjson_val *v = get(o, key);
    if (v && !yyjson_is_bool(v))
        return err_set(err, SV_E_INVALID, "'%s' is neither true nor false", key);
    *ret = v ? yyjson_get_bool(v) : fallback;
    return 0;
}

static int read_row(yyjson_val *config, struct spec *s, struct err *err)
{
    yyjson_val *names = get(config, "architectures");
    yyjson_val *name = yyjson_is_arr(names) ? yyjson_arr_get_first(names) : NULL;
    if (!yyjson_is_str(name))
        return err_set(err, SV_E_INVALID, "'architectures' is missing or names no class");
    const char *text = yyjson_get_str(name);
    size_t n = yyjson_get_len(name);
    s->row = arch_find(FORMAT_HF, text, n);
    if (!s->row)
        return arch_unknown(FORMAT_HF, text, n, err);
    CHECK(n < sizeof s->arch);
    memcpy(s->arch, text, n);
    return 0;
}

// What would change the sums and is not done here.
static int refuse_others(yyjson_val *config, struct err *err)
{
    static const char *const keys[] = {"quantization_config", "compression_config", "num_experts",
                                       "num_local_experts"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        yyjson_val *v = get(config, keys[i]);
        if (v && !(yyjson_is_uint(v) && yyjson_get_uint(v) == 0))
            return err_set(err, SV_E_UNSUPPORTED, "'%s' is not supported; use a model without it",
                           keys[i]);
    }
    const char *act = json_str(config, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return err_set(err, SV_E_UNSUPPORTED, "'hidden_act' is '%s'; only silu is supported",
                       tensor_label(act, strlen(act)).s);
    return 0;
}

static int read_sizes(yyjson_val *c, struct spec *s, struct err *err)
{
    const struct arch *a = s->row;
    int rc;
    if ((rc = get_u32(c, "num_hidden_layers", -1, &s->layers, err)) < 0 ||
        (rc = get_u32(c, "hidden_size", -1, &s->d_model, err)) < 0 ||
        (rc = get_u32(c, "intermediate_size", -1, &s->d_ff, err)) < 0 ||
        (rc = get_u32(c, "num_attention_heads", -1, &s->heads, err)) < 0 ||
        (rc = get_u32(c, "vocab_size", -1, &s->vocab, err)) < 0 ||
        (rc = get_u32(c, "max_position_embeddings", -1, &s->context, err)) < 0)
        return rc;
    // null says "as many as heads", no key the default of the class.
    bool said = json_get(c, "num_key_value_heads") != NULL;
    int64_t kv_heads = said || !a->default_kv_heads ? s->heads : a->default_kv_heads;
    if ((rc = get_u32(c, "num_key_value_heads", kv_heads, &s->kv_heads, err)) < 0 ||
        (rc = get_u32(c, "head_dim", 0, &s->head_dim, err)) < 0 ||
        (rc = get_number(c, "rms_norm_eps", 1e-6, &s->norm_eps, err)) < 0 ||
        (rc = get_bool(c, "tie_word_embeddings", false, &s->tied, err)) < 0)
        return rc;
    if (!get(c, "head_dim")) {
        s->head_dim = a->default_head_dim;
        if (!s->head_dim && s->heads)
            s->head_dim = s->d_model / s->heads;
    }
    return 0;
}

/* RoPE */

static int read_llama3(yyjson_val *o, struct spec_rope *r, struct err *err)
{
    int rc = get_number(o, "factor", NAN, &r->factor, err);
    if (rc == 0)
        rc = get_number(o, "low_freq_factor", NAN, &r->low_freq_factor, err);
    if (rc == 0)
        rc = get_number(o, "high_freq_factor", NAN, &r->high_freq_factor, err);
    return rc;
}

static int read_yarn(yyjson_val *o, uint32_t context, struct spec_rope *r, struct err *err)
{
    double ratio = (double)context / fmax(r->original_context, 1);
    int rc;
    if ((rc = get_number(o, "factor", ratio, &r->factor, err)) < 0 ||
        (rc = get_number(o, "attention_factor", 0, &r->attention_factor, err)) < 0 ||
        (rc = get_number(o, "mscale", 0, &r->mscale, err)) < 0 ||
        (rc = get_number(o, "mscale_all_dim", 0, &r->mscale_all_dim, err)) < 0 ||
        (rc = get_number(o, "beta_fast", 32, &r->beta_fast, err)) < 0 ||
        (rc = get_number(o, "beta_slow", 1, &r->beta_slow, err)) < 0)
        return rc;
    return get_bool(o, "truncate", true, &r->truncate, err);
}

static int read_kind(yyjson_val *o, const char *type, uint32_t context, struct spec_rope *r,
                     struct err *err)
{
    if (!strcmp(type, "default"))
        return 0;
    if (!strcmp(type, "linear")) {
        r->kind = ROPE_LINEAR;
        return get_number(o, "factor", NAN, &r->factor, err);
    }
    if (!strcmp(type, "llama3")) {
        r->kind = ROPE_LLAMA3;
        return read_llama3(o, r, err);
    }
    if (!strcmp(type, "yarn")) {
        r->kind = ROPE_YARN;
        return read_yarn(o, context, r, err);
    }
    return err_set(err, SV_E_UNSUPPORTED,
                   "'rope_type' '%s' is not supported; known are: default, linear, llama3, yarn",
                   tensor_label(type, strlen(type)).s);
}

// `o` is rope_scaling or rope_parameters; NULL: neither.
static int read_rope(yyjson_val *c, yyjson_val *o, struct spec *s, struct err *err)
{
    struct spec_rope *r = &s->rope;
    double partial;
    int rc;
    *r = (struct spec_rope){.style = SV_ROPE_HALF,
                            .dims = s->head_dim,
                            .factor = 1,
                            .low_freq_factor = 1,
                            .high_freq_factor = 1,
                            .beta_fast = 32,
                            .beta_slow = 1,
                            .truncate = true};
    if (get(o, "full_attention") || get(o, "sliding_attention"))
        return err_set(err, SV_E_UNSUPPORTED, "one RoPE for each kind of layer is not supported");
    if ((rc = get_number(c, "rope_theta", 10000, &r->base, err)) < 0 ||
        (rc = get_number(o, "rope_theta", r->base, &r->base, err)) < 0 ||
        (rc = get_number(c, "partial_rotary_factor", 1, &partial, err)) < 0 ||
        (rc = get_number(o, "partial_rotary_factor", partial, &partial, err)) < 0)
        return rc;
    if (partial != 1)
        return err_set(err, SV_E_UNSUPPORTED, "'partial_rotary_factor' is %g; only 1 is supported",
                       partial);
    static const char original[] = "original_max_position_embeddings";
    if ((rc = get_u32(o, original, s->context, &r->original_context, err)) < 0 ||
        (rc = get_u32(c, original, r->original_context, &r->original_context, err)) < 0)
        return rc;
    const char *type = json_str(o, "rope_type", json_str(o, "type", "default"));
    return read_kind(o, type, s->context, r, err);
}

static int find_rope(yyjson_val *c, struct spec *s, struct err *err)
{
    const char *key = "rope_scaling"; // the first that says something, as in transformers 5
    yyjson_val *o = get(c, key);
    if (!o || (yyjson_is_obj(o) && yyjson_obj_size(o) == 0)) {
        key = "rope_parameters";
        o = get(c, key);
    }
    if (o && !yyjson_is_obj(o))
        return err_set(err, SV_E_INVALID, "'%s' is no object", key);
    int rc = read_rope(c, o, s, err);
    return rc < 0 && o ? err_ctx(err, "'%s'", key) : rc;
}

/* windows, biases */

static int read_layer_types(yyjson_val *types, struct spec *s, struct err *err)
{
    if (!yyjson_is_arr(types) || yyjson_arr_size(types) != s->layers)
        return err_set(err, SV_E_INVALID, "'layer_types' is no array with one text for each layer");
    yyjson_arr_iter it;
    yyjson_val *v;
    yyjson_arr_iter_init(types, &it);
    for (uint32_t i = 0; (v = yyjson_arr_iter_next(&it)); i++) {
        s->windowed[i] = s->window && yyjson_equals_str(v, "sliding_attention");
        if (!yyjson_equals_str(v, "sliding_attention") && !yyjson_equals_str(v, "full_attention"))
            return err_set(err, SV_E_UNSUPPORTED,
                           "'layer_types' has a kind other than full_attention and "
                           "sliding_attention");
    }
    return 0;
}

static int read_window(yyjson_val *c, struct spec *s, struct err *err)
{
    bool use = true;
    uint32_t first = 0;
    int rc = 0;
    if (s->row->window == WINDOW_NONE)
        return 0;
    uint32_t fallback = json_get(c, "sliding_window") ? 0 : s->row->default_window; // null: none
    if ((rc = get_u32(c, "sliding_window", fallback, &s->window, err)) < 0)
        return rc;
    if (s->row->window == WINDOW_LAYERS) {
        if ((rc = get_bool(c, "use_sliding_window", false, &use, err)) < 0 ||
            (rc = get_u32(c, "max_window_layers", 28, &first, err)) < 0)
            return rc;
        s->window = use ? s->window : 0;
        if (get(c, "layer_types"))
            return read_layer_types(get(c, "layer_types"), s, err);
    }
    for (uint32_t i = first; i < s->layers; i++)
        s->windowed[i] = s->window != 0;
    return 0;
}

static int read_roles(yyjson_val *c, struct spec *s, struct err *err)
{
    bool attention, mlp;
    int rc;
    if ((rc = get_bool(c, "attention_bias", false, &attention, err)) < 0 ||
        (rc = get_bool(c, "mlp_bias", false, &mlp, err)) < 0)
        return rc;
    const struct arch *a = s->row;
    const struct {
        enum tensor_role role;
        enum arch_bias rule;
        bool key;
    } biases[] = {
        {T_Q_BIAS, a->qkv_bias, attention}, {T_K_BIAS, a->qkv_bias, attention},
        {T_V_BIAS, a->qkv_bias, attention}, {T_O_BIAS, a->o_bias, attention},
        {T_GATE_BIAS, a->mlp_bias, mlp},    {T_UP_BIAS, a->mlp_bias, mlp},
        {T_DOWN_BIAS, a->mlp_bias, mlp},
    };
    for (size_t i = 0; i < TENSOR_ROLES; i++)
        s->has[i] = true;
    for (size_t i = 0; i < ARRAY_LEN(biases); i++)
        s->has[biases[i].role] =
            biases[i].rule == BIAS_ALWAYS || (biases[i].rule == BIAS_KEY && biases[i].key);
    s->has[T_Q_NORM] = s->has[T_K_NORM] = a->qk_norm;
    s->has[T_HEAD] = !s->tied;
    return 0;
}

/* what ends a text, how to sample */

static void add_ids(yyjson_val *v, struct spec *s)
{
    if (yyjson_is_int(v))
        spec_add_eos(s, yyjson_get_sint(v));
    yyjson_arr_iter it;
    yyjson_val *id;
    if (!yyjson_is_arr(v))
        return;
    yyjson_arr_iter_init(v, &it);
    while ((id = yyjson_arr_iter_next(&it)))
        if (yyjson_is_int(id))
            spec_add_eos(s, yyjson_get_sint(id));
}

static void read_generation(yyjson_val *config, yyjson_val *generation, struct spec *s)
{
    int64_t bos = json_int(generation, "bos_token_id", json_int(config, "bos_token_id", -1));
    s->bos = bos >= 0 && bos <= INT32_MAX ? (int32_t)bos : -1;
    add_ids(json_get(generation, "eos_token_id"), s);
    if (s->n_eos == 0)
        add_ids(json_get(config, "eos_token_id"), s);
    s->temperature = json_num(generation, "temperature", -1);
    s->top_p = json_num(generation, "top_p", -1);
    s->top_k = json_int(generation, "top_k", -1);
    s->min_p = json_num(generation, "min_p", -1);
    s->repetition_penalty = json_num(generation, "repetition_penalty", -1);
}

int spec_from_config(yyjson_val *config, yyjson_val *generation, struct spec *ret, struct err *err)
{
    struct spec s = {0};
    int rc;
    if (!yyjson_is_obj(config))
        return err_set(err, SV_E_INVALID, "no JSON object");
    if ((rc = read_row(config, &s, err)) < 0 || (rc = refuse_others(config, err)) < 0 ||
        (rc = read_sizes(config, &s, err)) < 0 || (rc = find_rope(config, &s, err)) < 0)
        return rc;
    s.attention_scale = 1 / sqrt(fmax(s.head_dim, 1));
    if ((rc = spec_check(&s, err)) < 0 || (rc = read_window(config, &s, err)) < 0 ||
        (rc = read_roles(config, &s, err)) < 0 || (rc = spec_check(&s, err)) < 0)
        return rc;
    read_generation(config, generation, &s);
    *ret = s;
    return 0;
}
