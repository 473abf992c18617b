// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * pretok - cuts a text into words, which the model then encodes one by one; some steps also rewrite
 * the text (ByteLevel, Metaspace). The steps are those of huggingface/tokenizers (pre_tokenizers/).
 *
 * Owner   pretok_finish; `= {0}` has no steps: one word.
 * Thread  immutable once made; pretok_work is one thread's.
 */
#include "llm/regex.h"
#include "llm/tokenizer.h"

enum { PRETOK_STEPS = 32, PRETOK_LITERAL = 4096 };

enum pretok_kind { PRETOK_SPLIT, PRETOK_METASPACE, PRETOK_BYTELEVEL, PRETOK_FIXED };
enum pretok_match { MATCH_REGEX, MATCH_LITERAL, MATCH_SPACE, MATCH_PUNCTUATION, MATCH_DIGIT };
// What becomes of a match: a word, nothing, one word with those beside it, a part of the word
// before it, or of the one behind.
enum pretok_keep { KEEP_ISOLATED, KEEP_NOT, KEEP_CONTIGUOUS, KEEP_PREVIOUS, KEEP_NEXT };
enum pretok_prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct pretok_step {
    enum pretok_kind kind;
    enum pretok_match match;
    enum pretok_keep keep;
    bool invert;
    struct regex *regex; // owned
    char *literal;       // owned; to match, or Metaspace's replacement
    size_t literal_n;
    enum pretok_prepend prepend; // Metaspace, and ByteLevel's add_prefix_space
    bool split;      // Metaspace, ByteLevel: cut too (its use_regex; `regex` is GPT-2's)
    bool keep_bytes; // ByteLevel, last: the model reads bytes, nothing is rewritten
    uint32_t length; // FIXED: characters
};

struct pretok {
    struct pretok_step *steps; // owned
    uint32_t n;
};

void pretok_finish(struct pretok *p);
// A zeroed step at the end. SV_E_INVALID over PRETOK_STEPS.
int pretok_add(struct pretok *p, struct pretok_step **ret, struct err *err);
int pretok_add_regex(struct pretok *p, const char *pattern, size_t n, enum pretok_keep keep,
                     bool invert, struct err *err);
int pretok_add_bytelevel(struct pretok *p, bool prefix_space, bool split, struct err *err);

struct pretok_mark {
    size_t begin, end;
    bool hit;
};
struct pretok_work {
    struct buf text, spare;
    struct span *words; // owned; over text
    size_t n, room;
    struct span *made; // owned
    size_t made_n, made_room;
    struct pretok_mark *marks; // owned
    size_t marks_n, marks_room;
    struct regex_state regex;
};
void pretok_work_finish(struct pretok_work *w);

// Cuts w->text, valid UTF-8, into w->words, none of them empty. `first`: the text begins where what
// the user wrote begins.
void pretok_run(const struct pretok *p, struct pretok_work *w, bool first);
