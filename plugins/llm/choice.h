// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * choice - one sequence of an exchange: from token ids to text, stop strings, logprobs and the
 * reason why it ended.
 *
 * Text    a token that ended it is not in the text, unless include_stop_str_in_output; it counts in
 *         usage and has its logprob all the same (vLLM's v1/engine/detokenizer.py).
 * Thread  the instance's, within engine_step.
 */
#include "base/buf.h"
#include "llm/engine.h"
#include "llm/logprobs.h"
#include "llm/stops.h"
#include "llm/tokenizer.h"

struct exchange;

struct choice {
    struct exchange *x;
    struct seq *seq; // NULL: ended, or not begun
    uint32_t index, prompt;
    struct detok detok;
    struct stops_state stops;
    struct buf text;  // streaming: what is held back; else all of it
    struct buf start; // streaming: of a chunk, up to the text
    struct logprobs logprobs;
    struct buf prompt_logprobs; // JSON, without the brackets
    struct ids ids;             // return_token_ids: not sent yet
    size_t characters;          // streaming with logprobs: of the text sent
    uint32_t n_tokens;
    uint64_t admitted_ns, first_ns, last_ns; // 0: not yet
    const char *finish;                      // "stop", "length"; NULL: running
    int stop_string;                         // index into params.stops, or -1
    int32_t stop_id;                         // a stop_token_id that ended it, or -1
};

// Of an exchange whose params and prompts are made.
void choice_init(struct choice *c, struct exchange *x, uint32_t index);
int choice_start(struct choice *c, struct err *err); // into the engine
void choice_finish(struct choice *c);                // its sequence has ended

// For the engine; user is a choice, or NULL for a warm-up.
void choice_on_token(void *user, const struct token_info *t, enum finish why, const char *text);
void choice_on_prompt(void *user, uint32_t i, const struct token_info *t);

struct logprobs_style choice_style(const struct choice *c);
