// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * inside - the LLM plugin's model and engine in this process, over a backend named by its path:
 * what a server's rates are compared with.
 */
#include "llm/engine.h"
#include "llm/model.h"

struct inside_options {
    const char *kernels, *model; // kernels_cuda.so, a folder or .gguf file
    bool dummy;                  // the folder has no weights: random ones
    uint32_t max_seqs, max_waiting, max_tokens /* of a step */, max_context;
    uint64_t kv_tokens; // that the cache holds; 0: what ROOM_SHARE of the device's memory leaves
    engine_on_token *on_token;
};

// What a step must at least do, for its floor.
struct inside_bill {
    double weight_bytes; // of all matrices that a step reads: all but an input embedding of its own
    double kv_bytes;     // of a token of context
    double flops;        // of the matrices, for a token
};

struct inside {
    const sv_kernels *k;
    sv_dev *dev;
    struct model *model;
    struct engine *engine;
    struct inside_bill bill;
    uint32_t vocab;
    double load_s;
};

// Ends the program with a word on failure.
void inside_open(struct inside *in, const struct inside_options *o);
void inside_close(struct inside *in);
// Greedy, no stop; logprobs as sv_sampling's. ids are copied.
void inside_add(struct inside *in, const int32_t *ids, uint32_t n, uint32_t max_tokens,
                uint32_t logprobs, void *user);
void inside_step(struct inside *in);
double inside_now(void); // seconds
