// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * regex - the patterns of pre-tokenizers: Oniguruma's Ruby syntax, as `tokenizers` reads it,
 * matched by PCRE2.
 *
 * Translated  classes (\p{..} \w \s \d \h, POSIX names, nested sets, &&) become explicit sets,
 *             the same with every version of PCRE2; {n,m}+ repeats instead of being possessive;
 *             ^ and $ are of lines; groups do not capture.
 * Refused     what would mean something else: back-references, named groups, \K \G \X, conditions.
 * Bounds      REGEX_MAX bytes of pattern; REGEX_STEPS of a match: a search that gives up counts as
 *             no match, so text after it stays in one piece.
 * Thread      a regex is immutable; regex_state is one thread's.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct err;
struct regex;

enum { REGEX_MAX = 1 << 16, REGEX_DEPTH = 64, REGEX_STEPS = 10 * 1000 * 1000 };

int regex_create(const char *pattern, size_t n, struct regex **ret, struct err *err);
void regex_destroy(struct regex *r);

struct regex_state {
    void *data, *context, *stack; // owned; PCRE2's; made at the first search
};
void regex_state_finish(struct regex_state *s); // `= {0}` is a valid state

// First match in text[from, n), valid UTF-8. What is before `from` is seen by look-behind.
bool regex_find(const struct regex *r, struct regex_state *s, const char *text, size_t n,
                size_t from, size_t *begin, size_t *end);

// For regex.c: the pattern in PCRE2's syntax. SV_E_INVALID with what is wrong and where.
int regex_translate(const char *pattern, size_t n, struct buf *out, struct err *err);
