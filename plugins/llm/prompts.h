// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * prompts - the token ids of a request: text through the tokenizer, messages through the chat
 * template first.
 *
 * Trust   special tokens count in what the template itself wrote and in the text of /v1/completions
 *         and /tokenize, whose prompt is the client's alone; in a message they are text.
 * Parts   a content that is a list of text parts is joined with line feeds; other kinds are
 * refused. Bounds  a prompt and what it asks for fit max_model_len, else SV_E_INVALID with both
 * numbers. Owner   prompts_finish.
 */
#include "llm/params.h"
#include "llm/tokenizer.h"

struct refusal;
struct template;

struct lexicon { // of the model; borrowed
    const struct tokenizer *tokenizer;
    const struct template *template; // NULL: the model has none
    const char *bos, *eos;           // texts of those tokens, for the template
    uint32_t max_model_len;
};

struct prompt {
    struct ids ids;
    uint32_t n_tokens; // also when ids have gone
    struct buf echo;   // what `echo` repeats, if it is wanted
};

struct prompts {
    struct prompt *v; // owned
    uint32_t n;
    char role[32]; // chat: of the answer
};

int prompts_make(const struct lexicon *l, const struct params *p, struct prompts *ret,
                 struct refusal *why);
void prompts_finish(struct prompts *p);
