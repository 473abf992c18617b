// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * spec - what a decoder model is, as numbers: read from GGUF keys or from config.json.
 *
 * An architecture is a row of arch.c (its names, its switches, its tensors' names), not code. An
 * unknown one is refused with the list of those known.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct gguf;
struct tensor;

enum { SPEC_EOS_MAX = 16, SPEC_LAYERS_MAX = 1024 };

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct spec_rope {
    enum rope_kind kind;
    uint32_t style; // SV_ROPE_HALF, SV_ROPE_PAIRS
    uint32_t dims;
    double base, factor;
    double low_freq_factor, high_freq_factor;      // llama3
    double beta_fast, beta_slow, attention_factor; // yarn; 0: as the paper has it
    double mscale, mscale_all_dim;
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
    uint32_t window, window_first_layer; // sliding window of layers >= that one; 0 = none
    double attention_scale;              // of q . k; 1 / sqrt(head_dim)
    bool tied;                           // the head is the embedding table
    int32_t bos, eos[SPEC_EOS_MAX];      // ids that end a text; bos -1: none
    uint32_t n_eos;
    // generation_config.json; negative: not said
    double temperature, top_p, repetition_penalty, min_p;
    int64_t top_k;
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
    TENSOR_ROLES
};
