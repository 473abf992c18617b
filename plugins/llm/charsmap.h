// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * charsmap - SentencePiece's compiled normalization: a double-array trie (Yata et al., darts-clone)
 * from texts to texts that replace them. google/sentencepiece: src/normalizer.cc; as `tokenizers`
 * runs it: normalizers/precompiled.rs and the crate spm_precompiled.
 *
 * Bounds  CHARSMAP_MAX bytes; every index into it is checked.
 * Owner   charsmap_finish; the bytes are copied.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

enum { CHARSMAP_MAX = 16 << 20 };

struct charsmap {
    uint32_t *units; // owned
    uint32_t n_units;
    char *texts; // owned; each ends in NUL, as does the last byte
    uint32_t n_texts;
};

int charsmap_init(struct charsmap *m, const void *data, size_t n, struct err *err);
int charsmap_init_base64(struct charsmap *m, const char *text, size_t n, struct err *err);
void charsmap_finish(struct charsmap *m);

// What a start of text[0, n) is replaced with, and its bytes; the longest start, or the shortest.
// NULL: none.
const char *charsmap_find(const struct charsmap *m, const char *text, size_t n, bool longest,
                          size_t *used);
void charsmap_put(const struct charsmap *m, struct buf *out, const char *text, size_t n,
                  bool longest); // longest: SentencePiece's way, else `tokenizers`'
