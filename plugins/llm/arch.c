// SPDX-License-Identifier: Apache-2.0
/*
 * Switches: configuration_*.py and modeling_*.py of transformers; names in GGUF files:
 * gguf-py/gguf/constants.py and tensor_mapping.py of llama.cpp. A GGUF of the llama family has the
 * rows of q and k permuted, so that RoPE turns neighbours (convert_hf_to_gguf.py, permute).
 */
#include "llm/arch.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "common/tensors.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

static const struct arch rows[] = {
    {.gguf = "llama",
     .hf = "LlamaForCausalLM",
     .gguf_rope = SV_ROPE_PAIRS,
     .qkv_bias = BIAS_KEY,
     .o_bias = BIAS_KEY,
     .mlp_bias = BIAS_KEY},
    {.gguf = "llama",
     .hf = "MistralForCausalLM",
     .gguf_rope = SV_ROPE_PAIRS,
     .default_kv_heads = 8,
     .default_window = 4096,
     .window = WINDOW_ALL},
    {.gguf = "qwen2",
     .hf = "Qwen2ForCausalLM",
     .gguf_rope = SV_ROPE_HALF,
     .default_kv_heads = 32,
     .default_window = 4096,
     .qkv_bias = BIAS_ALWAYS,
     .window = WINDOW_LAYERS},
    {.gguf = "qwen3",
     .hf = "Qwen3ForCausalLM",
     .gguf_rope = SV_ROPE_HALF,
     .default_kv_heads = 32,
     .default_head_dim = 128,
     .default_window = 4096,
     .qkv_bias = BIAS_KEY,
     .o_bias = BIAS_KEY,
     .window = WINDOW_LAYERS,
     .qk_norm = true},
};

// '#' is the layer.
static const char *const names[TENSOR_ROLES][2] = {
    [T_EMBED] = {"token_embd.weight", "model.embed_tokens.weight"},
    [T_OUT_NORM] = {"output_norm.weight", "model.norm.weight"},
    [T_HEAD] = {"output.weight", "lm_head.weight"},
    [T_ATTN_NORM] = {"blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight"},
    [T_Q] = {"blk.#.attn_q.weight", "model.layers.#.self_attn.q_proj.weight"},
    [T_K] = {"blk.#.attn_k.weight", "model.layers.#.self_attn.k_proj.weight"},
    [T_V] = {"blk.#.attn_v.weight", "model.layers.#.self_attn.v_proj.weight"},
    [T_O] = {"blk.#.attn_output.weight", "model.layers.#.self_attn.o_proj.weight"},
    [T_Q_BIAS] = {"blk.#.attn_q.bias", "model.layers.#.self_attn.q_proj.bias"},
    [T_K_BIAS] = {"blk.#.attn_k.bias", "model.layers.#.self_attn.k_proj.bias"},
    [T_V_BIAS] = {"blk.#.attn_v.bias", "model.layers.#.self_attn.v_proj.bias"},
    [T_O_BIAS] = {"blk.#.attn_output.bias", "model.layers.#.self_attn.o_proj.bias"},
    [T_Q_NORM] = {"blk.#.attn_q_norm.weight", "model.layers.#.self_attn.q_norm.weight"},
    [T_K_NORM] = {"blk.#.attn_k_norm.weight", "model.layers.#.self_attn.k_norm.weight"},
    [T_FF_NORM] = {"blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight"},
    [T_GATE] = {"blk.#.ffn_gate.weight", "model.layers.#.mlp.gate_proj.weight"},
    [T_UP] = {"blk.#.ffn_up.weight", "model.layers.#.mlp.up_proj.weight"},
    [T_DOWN] = {"blk.#.ffn_down.weight", "model.layers.#.mlp.down_proj.weight"},
    [T_GATE_BIAS] = {"blk.#.ffn_gate.bias", "model.layers.#.mlp.gate_proj.bias"},
    [T_UP_BIAS] = {"blk.#.ffn_up.bias", "model.layers.#.mlp.up_proj.bias"},
    [T_DOWN_BIAS] = {"blk.#.ffn_down.bias", "model.layers.#.mlp.down_proj.bias"},
};

static const char *name_of(const struct arch *a, enum arch_format format)
{
    return format == FORMAT_GGUF ? a->gguf : a->hf;
}

const struct arch *arch_find(enum arch_format format, const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *known = name_of(&rows[i], format);
        if (strlen(known) == n && !memcmp(known, name, n))
            return &rows[i];
    }
    return NULL;
}

int arch_unknown(enum arch_format format, const char *name, size_t n, struct err *err)
{
    struct buf list = {0};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *known = name_of(&rows[i], format);
        if (i == 0 || strcmp(known, name_of(&rows[i - 1], format)) != 0)
            buf_printf(&list, "%s%s", i ? ", " : "", known);
    }
    int rc = err_set(err, SV_E_UNSUPPORTED, "architecture '%s' is not supported; known are: %s",
                     tensor_label(name, n).s, buf_cstr(&list));
    buf_finish(&list);
    return rc;
}

bool arch_per_layer(enum tensor_role role)
{
    return strchr(names[role][0], '#') != NULL;
}

void arch_tensor_name(enum arch_format format, enum tensor_role role, uint32_t layer,
                      char out[ARCH_NAME])
{
    const char *pattern = names[role][format];
    const char *hash = strchr(pattern, '#');
    if (hash)
        snprintf(out, ARCH_NAME, "%.*s%u%s", (int)(hash - pattern), pattern, (unsigned)layer,
                 hash + 1);
    else
        snprintf(out, ARCH_NAME, "%s", pattern);
}

bool arch_ignores(const struct spec *s, enum arch_format format, const char *name)
{
    static const char inv_freq[] = ".rotary_emb.inv_freq"; // saved by transformers before 4.32
    size_t n = strlen(name), end = sizeof inv_freq - 1;
    if (format == FORMAT_GGUF)
        return !strcmp(name, "rope_freqs.weight"); // read by spec_from_gguf
    return (n > end && !strcmp(name + n - end, inv_freq)) ||
           (s->tied && !strcmp(name, names[T_HEAD][FORMAT_HF]));
}
