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

enum { OPTIONS_COUNT = 22 };
extern const sv_option options_table[OPTIONS_COUNT];

struct options {
    const char *model;
    char **names; // owned: the id, then aliases
    uint32_t n_names;
    uint32_t threads, activations; // SV_ACT_*
    uint64_t kv_bytes;
    int kv_dtype;                       // SV_F32 ..., or -1: auto
    uint32_t max_model_len, max_tokens; // 0: auto
    uint32_t max_seqs, max_waiting, max_logprobs;
    bool prefix_cache, chunked_prefill, priority, generation_config, prompt_details, trust_template;
    bool usage_always, tokens_as_ids;
    const char *chat_template; // NULL: the model's
    const char *isa;           // NULL: the best
};

int options_read(const sv_host *h, const sv_cfg *cfg, struct options *ret, struct err *err);
void options_finish(struct options *o);
