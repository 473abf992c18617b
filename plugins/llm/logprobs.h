// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * logprobs - what a client reads of them: the four lists of /v1/completions, the objects of
 * /v1/chat/completions, and vLLM's prompt_logprobs of both.
 *
 * Text    what a token is within a text, its space included (vLLM decodes it alone, and
 * SentencePiece then drops the space); or "token_id:17". Numbers -inf is -9999.0, as JSON has no
 * infinity; offsets count characters. Most    completions: the token itself and k alternatives,
 * each text once, the likelier first. Chat: the k most likely. (vLLM's chat puts the token itself
 * first and drops the k-th.)
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct token_info;
struct tokenizer;

struct logprobs_style {
    const struct tokenizer *tokenizer;
    bool chat, as_ids;
    uint32_t k;
};

struct logprobs { // JSON of the entries so far, without the brackets; `= {0}` is empty
    struct buf token, value, top, offset;
    uint32_t n;
    size_t at; // characters before the next token
};

// info NULL: the first token of a prompt, which nothing comes before.
void logprobs_add(struct logprobs *l, const struct logprobs_style *s, int32_t id,
                  const struct token_info *info);
void logprobs_render(const struct logprobs *l, const struct logprobs_style *s, struct buf *out);
void logprobs_clear(struct logprobs *l, size_t at);
void logprobs_finish(struct logprobs *l);

// One element of prompt_logprobs: {"17":{"logprob":-0.5,"rank":1,"decoded_token":"x"},...}
void logprobs_put_prompt(struct buf *out, const struct logprobs_style *s,
                         const struct token_info *info);
