// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * spm - SentencePiece's byte-pair encoding: of all neighbours whose texts together are a piece
 * those with the highest score are joined first, the leftmost of equal ones (google/sentencepiece:
 * src/bpe_model.cc). What ends as no piece is written in bytes, or is the unknown token once a run.
 *
 * Time    n log n look-ups of texts no longer than the longest piece.
 * Thread  immutable once made; spm_work is one thread's.
 */
#include "llm/vocab.h"

struct spm {
    float *score;      // owned; by id
    int32_t byte[256]; // of <0x..>, -1
    int32_t unknown;
};

void spm_finish(struct spm *s);

struct spm_symbol {
    uint32_t begin, n; // bytes; n 0: joined with the one before
    uint32_t prev, next;
};
struct spm_candidate {
    float score;
    uint32_t left, n;
};
struct spm_work {
    struct spm_symbol *symbols; // owned
    struct spm_candidate *heap; // owned
    size_t n, room, heap_n, heap_room;
};
void spm_work_finish(struct spm_work *w);

// Appends the ids of text[0, n), n < 2^31, valid UTF-8 with its spaces escaped.
void spm_encode(const struct spm *s, const struct vocab *v, struct spm_work *w, const char *text,
                size_t n, struct ids *out);
