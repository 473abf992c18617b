// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * regex_set - a set of characters of Oniguruma's syntax, written as PCRE2 wants it: [...] where
 * that can say it, else alternatives and look-aheads.
 *
 * Bounds  REGEX_SET_DEPTH nested sets.
 * Owner   regex_set_finish; `= {0}` is the empty set.
 */
#include "llm/unicode.h"

struct err;

enum { REGEX_SET_DEPTH = 8 };

// \s and \w of Oniguruma in UTF-8; its \w takes the six below U+0100 for numbers too.
#define REGEX_SPACE                                                                                \
    "\\t-\\r "                                                                                     \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define REGEX_WORD_CATEGORIES "L M Nd Nl Pc"
#define REGEX_WORD_EXTRA                                                                           \
    "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"                 \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define REGEX_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}" REGEX_WORD_EXTRA

#define REGEX_HAN                                                                                  \
    "\\x{2e80}-\\x{2e99}\\x{2e9b}-\\x{2ef3}\\x{2f00}-\\x{2fd5}\\x{3005}\\x{3007}"                  \
    "\\x{3021}-\\x{3029}\\x{3038}-\\x{303b}\\x{3400}-\\x{4dbf}\\x{4e00}-\\x{9fff}"                 \
    "\\x{f900}-\\x{fa6d}\\x{fa70}-\\x{fad9}\\x{16fe2}-\\x{16fe3}\\x{16ff0}-\\x{16ff1}"             \
    "\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2b739}\\x{2b740}-\\x{2b81d}\\x{2b820}-\\x{2cea1}"         \
    "\\x{2ceb0}-\\x{2ebe0}\\x{2ebf0}-\\x{2ee5d}\\x{2f800}-\\x{2fa1d}\\x{30000}-\\x{3134a}"         \
    "\\x{31350}-\\x{323af}"

struct regex_set {
    struct buf items; // what stands between [ and ]
    struct buf outer; // alternatives that [ ] can't hold: "|[^...]" each
    struct buf both;  // operands of && but the last, as look-aheads
    bool negated;     // [^...], over all of it
};

void regex_set_finish(struct regex_set *s);

// From '[' at p[*at] to behind its ']'.
int regex_set_read(struct regex_set *s, const char *p, size_t n, size_t *at, unsigned depth,
                   struct err *err);
// Adds the one escape at p[*at] == '\\': a character or a class.
int regex_set_escape(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err);
void regex_set_put(const struct regex_set *s, struct buf *out); // as one atom
