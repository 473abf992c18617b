// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * spec - what a decoder model is, as numbers: read from GGUF keys or from config.json.
 *
 * An architecture is a row of arch.c (its names, its switches, its tensors' names), not code. An
 * unknown one is refused with the list of those known; so is what a file asks for and we don't do
 * (quantization_config, other kinds of RoPE, experts), naming its key.
 * Checked  every number against its bound below before it is used; errors name the key.
 * Owner    rope.factors points into the GGUF file, row is static.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct gguf;

enum {
    SPEC_EOS_MAX = 16,
    SPEC_LAYERS_MAX = 1024,
    SPEC_WIDTH_MAX = 1 << 20, // d_model, d_ff, heads * head_dim
    SPEC_HEADS_MAX = 1024,
    SPEC_HEAD_DIM_MAX = 1024, // even
    SPEC_VOCAB_MAX = 1 << 22,
    SPEC_CONTEXT_MAX = 1 << 28
};

// The tensors a layer or the whole model may have; each has a name in either format.
enum tensor_role {
    T_EMBED,
    T_OUT_NORM,
    T_HEAD,
    T_ATTN_NORM,
    T_Q,
    T_K,
    T_V,
    T_O,
    T_Q_BIAS,
    T_K_BIAS,
    T_V_BIAS,
    T_O_BIAS,
    T_Q_NORM,
    T_K_NORM,
    T_FF_NORM,
    T_GATE,
    T_UP,
    T_DOWN,
    T_GATE_BIAS,
    T_UP_BIAS,
    T_DOWN_BIAS,
    TENSOR_ROLES
};

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct spec_rope {
    enum rope_kind kind;
    uint32_t style; // SV_ROPE_HALF, SV_ROPE_PAIRS
    uint32_t dims;
    double base, factor;
    double low_freq_factor, high_freq_factor;      // llama3
    double beta_fast, beta_slow, attention_factor; // yarn; 0: as the paper has it
    double mscale, mscale_all_dim;                 // yarn; 0: not said
    bool truncate;                                 // yarn: the ramp's ends to whole dimensions
    uint32_t original_context;
    const float
        *factors; // [dims / 2] divisors of the frequencies from the file (rope_freqs), or NULL
};

struct spec {
    char arch[64]; // as the file calls it: "llama", "Qwen3ForCausalLM"
    const struct arch *row;
    uint32_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab;
    uint32_t context; // tokens it was trained for
    double norm_eps;
    struct spec_rope rope;
    uint32_t window;                // keys a query sees, itself included, where
    bool windowed[SPEC_LAYERS_MAX]; // is set
    double attention_scale;         // of q . k; 1 / sqrt(head_dim)
    bool tied;                      // the head is the embedding table
    bool has[TENSOR_ROLES];         // the roles that this model's tensors have
    int32_t bos, eos[SPEC_EOS_MAX]; // ids that end a text; bos -1: none. As said by
    uint32_t n_eos; // generation_config.json, else config.json; or GGUF's eos, eot, eom
    // Defaults of sampling, of generation_config.json; negative: not said
    double temperature, top_p, repetition_penalty, min_p;
    int64_t top_k;
};

typedef struct yyjson_val yyjson_val;

int spec_from_gguf(const struct gguf *g, struct spec *ret, struct err *err);
// config.json, and generation_config.json or NULL.
int spec_from_config(yyjson_val *config, yyjson_val *generation, struct spec *ret, struct err *err);

// Made of the bounds above, and that the numbers fit each other. Both of the above end with it.
int spec_check(const struct spec *s, struct err *err);
void spec_add_eos(struct spec *s, int64_t id); // once; what is no id or too many is left out
