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

// Outside of a set Oniguruma's \w takes the six below U+0100 for numbers too, and so does \b.
#define REGEX_WORD_EXTRA "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

struct regex_class {
    const char *name; // in small letters, without ' ', '-' and '_'
    const char *of;   // general categories: "L Nd" is all that begin with L, and Nd
    const char *more; // items of a PCRE2 set
};
const struct regex_class *regex_class_find(const char *name); // NULL: not known

struct regex_set {
    struct buf items; // what stands between [ and ]
    struct buf outer; // alternatives that [ ] can't hold: "|[^...]" each
    struct buf both;  // operands of && but the last, as look-aheads
    bool negated;     // [^...], over all of it
    bool nested;      // outer holds more than "|[^...]" once
};

void regex_set_finish(struct regex_set *s);

// From '[' at p[*at] to behind its ']'.
int regex_set_read(struct regex_set *s, const char *p, size_t n, size_t *at, unsigned depth,
                   struct err *err);
// Adds the one escape at p[*at] == '\\': a character or a class.
int regex_set_escape(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err);
// Likewise outside of a set, where \w is a little more.
int regex_set_escape_alone(struct regex_set *s, const char *p, size_t n, size_t *at,
                           struct err *err);
void regex_set_put(const struct regex_set *s, struct buf *out); // as one atom
void regex_set_put_word(struct buf *out);                       // what \b calls a word's
