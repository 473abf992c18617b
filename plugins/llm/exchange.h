// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * exchange - one request for text, from its body to its last byte: the sequences it takes in the
 * engine, and what becomes of their tokens.
 *
 *   exchange_submit --> open: its choices run --last choice ends--> answered, gone
 *                         |  ^
 *                  send() |  | writable()         exchange_cancel: its sequences end at once
 *                         v  |
 *                        paused: so are its sequences
 *
 * Stream  opened by the first output of the engine, so that a client's time to the first token is
 *         true; one event for each token of a choice, with what a stop string leaves of the text.
 * Reply   otherwise: one JSON object when the last choice has ended.
 * Bounds  what runs and waits is bounded by the engine; a reply in one piece is kept until it is
 *         whole: max_model_len tokens of each choice, at 20 logprobs some 2.5 KB a token.
 * Owner   the instance's list, until it is answered; sv_req.user points to it.
 * Thread  the instance's.
 */
#include "base/list.h"
#include "llm/choice.h"
#include "llm/params.h"
#include "llm/prompts.h"

#include "abi/plugin.h"

struct instance;
struct refusal;

enum { EXCHANGE_ID = 160 };

struct exchange {
    struct list node; // of instance->exchanges
    struct instance *in;
    sv_req *req;
    struct params p;
    struct prompts prompts;
    struct choice *choices; // owned, n of them
    uint32_t n, running;    // running: not ended yet
    char id[EXCHANGE_ID];   // JSON, without quotes
    int64_t created;        // seconds since 1970
    uint64_t arrived_ns;
    uint64_t salt[2]; // of the prefix cache
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    struct buf start; // of a chunk: up to the list of choices
    bool opened;      // the head of the stream was sent
    bool paused;
    bool gone; // nobody listens
};

// 0: taken, and perhaps answered already. SV_E_OVERLOADED: not taken, try again. Other codes: *why.
int exchange_submit(struct instance *in, sv_req *r, enum endpoint endpoint, struct refusal *why);
void exchange_cancel(struct exchange *x, int code, const char *text); // it is gone afterwards
void exchange_writable(struct exchange *x);

// Of choice.c: one token more was rendered, a choice has ended, the engine failed. They may end x.
void exchange_sent(struct exchange *x, int rc); // rc: what send() gave
void exchange_settle(struct exchange *x);       // after a callback of the engine
void exchange_fail(struct exchange *x, const char *text);
