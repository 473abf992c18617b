// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * normalize - rewrites a text before it is cut into words. The steps are those of
 * huggingface/tokenizers (normalizers/), and what SentencePiece does with spaces.
 *
 * Bounds  NORMALIZE_STEPS; the text may become NORMALIZE_GROWTH times as long, and a constant more.
 * Owner   normalizer_finish; `= {0}` has no steps.
 * Thread  immutable once made; normalize_work is one thread's.
 */
#include "llm/charsmap.h"
#include "llm/regex.h"

enum {
    NORMALIZE_STEPS = 32,
    NORMALIZE_GROWTH = 64,
    NORMALIZE_SLACK = 64 << 10, // bytes
    NORMALIZE_LITERAL = 4096
};

enum normalize_kind {
    NORMALIZE_FORM,    // NFC ...
    NORMALIZE_LOWER,   // each character by itself
    NORMALIZE_STRIP,   // white space at the ends
    NORMALIZE_ACCENTS, // marks go
    NORMALIZE_REPLACE, // a pattern
    NORMALIZE_PREPEND, // unless the text is empty
    NORMALIZE_APPEND,  // likewise
    NORMALIZE_NMT,     // SentencePiece's nmt: controls go, odd spaces become spaces
    NORMALIZE_CHARSMAP,
    NORMALIZE_CLEAN,      // BERT's: controls go, white space becomes spaces
    NORMALIZE_HAN,        // BERT's: spaces around CJK ideographs
    NORMALIZE_NONSPACING, // BERT's: NFD, then nonspacing marks go
    NORMALIZE_BYTES,      // as in bytelevel.h
    NORMALIZE_SPACES,     // SentencePiece's: runs of spaces become one, those at the ends none
};

struct normalize_step {
    enum normalize_kind kind;
    bool compose, compatible; // FORM
    bool left, right;         // STRIP
    bool longest;             // CHARSMAP
    struct regex *regex;      // owned; REPLACE, or `from`
    char *from, *to;          // owned; REPLACE, PREPEND and APPEND (to)
    size_t from_n, to_n;
    struct charsmap map;
};

struct normalizer {
    struct normalize_step *steps; // owned
    uint32_t n;
};

void normalizer_finish(struct normalizer *z);
// A zeroed step of this kind at the end. SV_E_INVALID over NORMALIZE_STEPS.
int normalizer_add(struct normalizer *z, enum normalize_kind kind, struct normalize_step **ret,
                   struct err *err);

struct normalize_work {
    struct buf text, spare;
    size_t lead; // so many characters, the first ones, come from the first of what was normalized
    struct regex_state regex;
};
void normalize_work_finish(struct normalize_work *w);

// text[0, n), valid UTF-8, into w->text. SV_E_TOO_LARGE when it grows over its bound.
int normalizer_run(const struct normalizer *z, const char *text, size_t n, struct normalize_work *w,
                   struct err *err);
