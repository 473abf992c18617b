// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample - a row of logits to a token: processors, thresholds, one draw, logprobs.
 *
 * Order   kernels.h's. Where it says nothing, vLLM's (v1/sample): bad words are looked for in the
 *         output alone; penalties divide, then subtract; top_k keeps all equal to the k-th; top_p
 *         keeps the token that crosses it and of equal ones the lowest ids.
 * Draw    Philox4x32-10 (Salmon et al., SC 2011), key = seed, counter = number of the output token:
 *         53 bits against the running sum of weights, ids ascending.
 * Bounds  scratch is sized by the vocabulary.
 */
#include "cpu/lanes.h"
#include "kernels/kernels.h"

// How a slot samples; its lists are in one allocation.
struct sampling {
    sv_sampling a;     // pointers into `lists`; history is the session's
    int32_t *lists;    // owned
    uint64_t *allowed; // a bit for each id, in `lists`; NULL: all
    bool plain;        // nothing changes the logits but min_tokens
};

struct sample_scratch {
    float *w;        // [vocab]
    uint32_t *id;    // [vocab]
    uint32_t *count; // [vocab], all zero
    float *most;     // [vocab / 64 + 1]
    double *sum;     // [vocab / CHUNK_IDS + 1]
};

struct sample_row {
    const struct lanes *lanes;
    const float *logits;
    uint32_t vocab;
    const struct sampling *s;
    const int32_t *history; // [n_history]: all before the token to come
    uint32_t n_history;
};

struct sample_result {
    int32_t token; // -1: the logits are not numbers, or every id is banned
    int32_t rank;
    float logprob;
    uint32_t n_top;
    int32_t *top_id;    // [SV_TOP_MAX]
    float *top_logprob; // [SV_TOP_MAX]
};

// 0, -400: a value that makes no sense; -507. Replaces what was there.
int sampling_set(struct sampling *s, const sv_sampling *a, uint32_t vocab, uint32_t max_context);
void sampling_finish(struct sampling *s);

// want: SV_DRAW or an id.
void sample(const struct sample_row *r, int32_t want, struct sample_scratch *scratch,
            struct sample_result *out);
uint64_t sample_random(uint64_t seed, uint64_t number);
