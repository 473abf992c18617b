// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * options - the `config:` block of a language model. Names are vLLM's where it has them.
 *
 * Owner   text is the cfg's and lives until destroy(); names are ours: options_finish.
 */
#include "abi/plugin.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

enum { OPTIONS_COUNT = 25 };
extern const sv_option options_table[OPTIONS_COUNT];

enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
#define WAITING_AUTO UINT32_MAX

struct options {
    const char *model;
    uint32_t device;  // DEVICE_*
    bool dummy;       // load_format
    double gpu_share; // gpu_memory_utilization
    char **names;     // owned: the id, then aliases
    uint32_t n_names;
    uint32_t threads, activations;      // SV_ACT_*
    uint64_t kv_bytes;                  // 0: auto
    int kv_dtype;                       // SV_F32 ..., or -1: auto
    uint32_t max_model_len, max_tokens; // 0: auto
    uint32_t max_seqs, max_waiting;     // 0, WAITING_AUTO: auto, until plan
    uint32_t max_logprobs;
    bool prefix_cache, chunked_prefill, priority, generation_config, prompt_details, trust_template;
    bool usage_always, tokens_as_ids, by_block;
    const char *chat_template; // NULL: the model's
    const char *isa;           // NULL: the best
};

int options_read(const sv_host *h, const sv_cfg *cfg, struct options *ret, struct err *err);
void options_take_live(struct options *o, const struct options *from); // what is SV_LIVE
void options_finish(struct options *o);
