// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * weights - what a decoder's tensors are to a backend: a table of weights, each of up to three
 * tensors with their biases, found in the files by name and checked for shape and type.
 *
 * Order   the embedding table, the last norm, the head (unless tied), then layer by layer.
 * Dummy   files NULL: every tensor is there, bf16, with data NULL, which a backend makes up.
 * Owner   data pointers are the files'.
 */
#include "kernels/kernels.h"
#include "llm/arch.h"

struct tensors;

enum weight_slot { // of the whole model, then of a layer
    W_TABLE,
    W_OUT_NORM,
    W_HEAD,
    W_ATTN_NORM,
    W_QKV,
    W_Q_NORM,
    W_K_NORM,
    W_O,
    W_FF_NORM,
    W_GATE_UP,
    W_DOWN,
    WEIGHT_SLOTS
};

struct weight {
    sv_weight_desc desc;
    enum weight_slot slot;
    uint32_t layer;       // 0 for those of the whole model
    uint64_t bytes;       // of its tensors in the files
    char name[ARCH_NAME]; // of the first
    const char *type;     // likewise
};

uint32_t weights_count(const struct spec *s);
int weights_get(const struct spec *s, enum arch_format format, const struct tensors *files,
                uint32_t i, struct weight *ret, struct err *err);
// All of them, and that the files have no tensor that is not among them.
int weights_check(const struct spec *s, enum arch_format format, const struct tensors *files,
                  struct err *err);
