// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * added - tokens that are recognised in the text itself, before the model sees it: special ones
 * (only where the text is trusted) and others (everywhere). Leftmost, and of those the longest.
 * Flags and their order of effect: huggingface/tokenizers, tokenizer/added_vocabulary.rs.
 *
 * Time    for each place where one may begin, its length times log of how many there are.
 * Bounds  TOKENIZER_VOCAB tokens.
 * Owner   added_finish; texts are copied.
 * Thread  immutable after added_sort.
 */
#include "llm/tokenizer.h"

struct added_token {
    char *text; // owned
    uint32_t n;
    int32_t id;
    bool special, single_word, lstrip, rstrip;
};

struct added {
    struct added_token *tokens; // owned; sorted by text
    uint32_t n, room;
    bool first[256]; // bytes that one begins with
};

void added_finish(struct added *a);
void added_put(struct added *a, const struct added_token *like, const char *text, size_t n);
void added_sort(struct added *a); // of equal texts the one put first stays

struct fragment {
    size_t begin, end;
    int32_t id; // -1: text
};
struct fragments {
    struct fragment *v; // owned
    size_t n, room;
};
void fragments_finish(struct fragments *f);

// Fills f with what text[0, n) is made of, in order. Special tokens are found inside spans only
// (NULL with n_spans 1: everywhere); no token reaches over the border of a span.
void added_split(const struct added *a, const char *text, size_t n, const struct span *spans,
                 size_t n_spans, struct fragments *f);
