// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * arch - the architectures that are known: each a row of names and switches.
 *
 * To add one: a row here, roles and names if it has tensors of its own, and a checkpoint in
 * tests/data/llm/make_tiny.py.
 */
#include "llm/spec.h"

#include <stddef.h>

enum arch_bias {
    BIAS_NONE,
    BIAS_ALWAYS,
    BIAS_KEY // config.json: as attention_bias or mlp_bias says; GGUF: where the file has the tensor
};
enum arch_window {
    WINDOW_NONE,
    WINDOW_ALL,   // sliding_window, where it is not null, holds for every layer
    WINDOW_LAYERS // use_sliding_window, then layer_types or max_window_layers
};

struct arch {
    const char *gguf, *hf; // general.architecture; class in `architectures` of config.json
    uint32_t gguf_rope;    // SV_ROPE_*; in Hugging Face's format it is always SV_ROPE_HALF
    uint32_t default_kv_heads, default_head_dim, default_window; // where config.json has no such
                                                                 // key; 0: heads, d_model / heads,
                                                                 // none
    enum arch_bias qkv_bias, o_bias, mlp_bias;
    enum arch_window window;
    bool qk_norm;
};

enum arch_format { FORMAT_GGUF, FORMAT_HF };

// NULL: unknown. For GGUF the first row of that name.
const struct arch *arch_find(enum arch_format format, const char *name, size_t n);
int arch_unknown(enum arch_format format, const char *name, size_t n, struct err *err);

// The name of a role's tensor into out; layer is ignored for those of the whole model.
enum { ARCH_NAME = 96 };
void arch_tensor_name(enum arch_format format, enum tensor_role role, uint32_t layer,
                      char out[ARCH_NAME]);
bool arch_per_layer(enum tensor_role role);
// A tensor that files carry and nobody reads.
bool arch_ignores(const struct spec *s, enum arch_format format, const char *name);
