// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * wordpiece - BERT's cut of a word: the longest piece that begins it, then the longest that goes on
 * ("##" before its text), and so on; a word that can't be cut so, or has too many characters, is
 * the unknown token (google-research/bert: tokenization.py, WordpieceTokenizer).
 *
 * Time    for each piece as many look-ups as the longest token has characters.
 * Thread  immutable once made.
 */
#include "llm/vocab.h"

struct wordpiece {
    char *prefix;  // owned; of a piece that goes on
    uint32_t most; // characters of a word
    int32_t unknown;
};

void wordpiece_finish(struct wordpiece *p);
void wordpiece_encode(const struct wordpiece *p, const struct vocab *v, struct buf *spare,
                      const char *word, size_t n, struct ids *out);
