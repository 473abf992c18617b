// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * answer - reads a streamed completion as it comes: HTTP/1.1, server-sent events, OpenAI's JSON.
 *
 * Good    status 200, events with choices, the usage, `[DONE]`, the end of the message: in that
 * order. Bad     anything else, with a word in `error`; more bytes are ignored then. Bounds  a line
 * of ANSWER_LINE_MAX bytes.
 */
#include <llhttp.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ANSWER_LINE_MAX = 64 << 10, ANSWER_ERROR_MAX = 256 };

struct answer {
    llhttp_t parser;
    char *line; // owned, [ANSWER_LINE_MAX]
    size_t line_len;
    uint64_t now_ns; // of the bytes that are being read
    void (*on_choices)(void *user, uint64_t now_ns);
    void *user;
    uint32_t events, usage; // usage: completion tokens
    bool done, whole;       // `[DONE]`; the message has ended
    bool keep_alive;        // once it has
    char error[ANSWER_ERROR_MAX];
};

// For the next answer of a connection too; keeps the line's memory.
void answer_init(struct answer *a, void (*on_choices)(void *user, uint64_t now_ns), void *user);
void answer_finish(struct answer *a);
void answer_feed(struct answer *a, const char *p, size_t n, uint64_t now_ns);
// The connection may carry another request.
bool answer_reusable(const struct answer *a);
