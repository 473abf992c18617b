// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * oracle - what the blocks of kernels.h compute, in double, written as plainly as it can be.
 *
 * Weights are f32 here, whatever they are stored as. A sequence is computed whole, without a cache.
 */
#include "kernels/kernels.h"

#include <stdbool.h>

struct oracle_shape {
    uint32_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab;
    uint32_t window;
    uint32_t rope_style, rope_dims;
    float rope_base, rope_scale;
    float eps, norm_offset, embed_scale;
    bool qk_norm, bias;
    uint32_t activation;
};

struct oracle_layer { // matrices [rows][cols]; a bias may be NULL
    float *attn_norm, *q, *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *o, *o_bias;
    float *ff_norm, *gate, *up, *gate_bias, *up_bias, *down, *down_bias;
};

struct oracle_model {
    struct oracle_shape shape;
    float *inv_freq; // [rope_dims / 2]
    float *embed, *out_norm, *head;
    struct oracle_layer *layer;
};

// logits [n][vocab], one row for each token.
void oracle_logits(const struct oracle_model *m, const int32_t *token, uint32_t n, double *logits);

struct oracle_choice {
    int32_t id;
    double p; // with which it is drawn; 0: it cannot be
};

/*
 * The distribution that a row is drawn from: all ids by falling p, equal ones by rising id. Greedy:
 * one id has 1. All 0: every id is banned. Sorts the vocabulary, as vLLM's native sampler does.
 */
void oracle_sample(const float *logits, uint32_t vocab, const sv_sampling *a,
                   const int32_t *history, uint32_t n_history, struct oracle_choice *out);
double oracle_logprob(const float *logits, uint32_t vocab, int32_t id);
