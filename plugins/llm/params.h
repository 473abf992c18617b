// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * params - what a request asks for: its JSON body against one table of fields.
 *
 * Fields  those of vLLM's protocol.py, with its types, ranges and defaults. null is the same as
 *         absent; unknown ones are ignored; known ones that are not served are refused.
 * Numbers a whole number may be written as 16.0; nothing else is converted.
 * Bounds  PARAMS_BODY_MAX bytes of body (the core's own limit comes first), PARAMS_* below.
 * Owner   params_finish, also after a refusal. What is marked "of doc" goes with params_drop_doc;
 *         everything else lies on the arena.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "llm/stops.h"

#include <yyjson.h>

#include <stdbool.h>
#include <stdint.h>

struct refusal;

enum endpoint { AT_COMPLETIONS = 1, AT_CHAT = 2, AT_TOKENIZE = 4, AT_DETOKENIZE = 8 };
enum {
    PARAMS_BODY_MAX = 256 << 20,
    PARAMS_N_MAX = 16384,    // VLLM_MAX_N_SEQUENCES
    PARAMS_PROMPTS = 1024,   // VLLM_MAX_COMPLETION_PROMPTS
    PARAMS_SALT_MAX = 1024,  // bytes
    PARAMS_STOP_MAX = 65536, // bytes of a stop string
    PARAMS_BAD_WORDS = 128   // VLLM_MAX_NUM_BAD_WORDS
};

struct params_limits { // of the deployment
    uint32_t vocab, max_logprobs;
    bool priority;       // scheduling_policy
    bool trust_template; // of the request
    bool tokens_as_ids;
    // Defaults: of generation_config.json, or OpenAI's.
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k;
};

struct id_list {
    int32_t *v; // NULL: not given
    uint32_t n;
};

struct params {
    enum endpoint endpoint;
    struct arena arena;
    yyjson_doc *doc; // owned

    struct bytes model; // p NULL: not given; of doc
    // Prompts; of doc.
    yyjson_val *prompt;   // completions: a string, [string], [int] or [[int]], not empty
    yyjson_val *messages; // chat
    yyjson_val *tools, *documents, *template_kwargs;
    struct bytes chat_template; // p NULL: not given
    struct bytes reasoning_effort;
    yyjson_val *bad_words; // strings
    bool add_generation_prompt, continue_final_message, add_special_tokens;
    int64_t truncate; // keep so many tokens; -1: as many as fit, INT64_MAX: all
    bool truncate_right;
    struct id_list tokens; // detokenize

    int64_t max_tokens; // -1: what is left of the context
    int64_t min_tokens, n, seed /* -1: none */, priority;
    double temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    int64_t top_k; // 0: off
    struct id_list stop_ids, allowed, bias_ids;
    float *bias; // [bias_ids.n]
    bool ignore_eos;
    struct stops stops;
    struct bytes cache_salt, request_id; // p NULL: not given; on the arena

    bool stream, include_usage, continuous_usage, echo, include_stop, skip_special;
    bool return_token_ids, tokens_as_ids, return_token_strs;
    int64_t logprobs;        // alternatives of each output token; -1: none wanted
    int64_t prompt_logprobs; // likewise of each prompt token
};

// < 0: refused; *ret is to be finished all the same.
int params_parse(struct params *ret, enum endpoint endpoint, const struct params_limits *limits,
                 const char *body, size_t n, struct refusal *why);
void params_drop_doc(struct params *p);
void params_finish(struct params *p);
