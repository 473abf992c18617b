// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * unigram - the cut of a word into pieces whose scores' sum is highest (Kudo 2018, arXiv
 * 1804.10959), found by Viterbi over the byte positions. As in huggingface/tokenizers
 * (models/unigram) or, with `single`, in google/sentencepiece (src/unigram_model.cc,
 * EncodeOptimized), which sums in float.
 *
 * Time    for each character as many steps as the longest piece has bytes.
 * Bounds  UNIGRAM_NODES of the trie.
 * Thread  immutable once made; unigram_work is one thread's.
 */
#include "llm/vocab.h"

enum { UNIGRAM_NODES = 1 << 25 };

struct unigram_edge {
    uint32_t node, child; // child 0: free
    uint8_t byte;
};

struct unigram {
    double *score;              // owned; by id
    double lowest;              // of the pieces
    struct unigram_edge *edges; // owned; open addressing by (node, byte)
    uint32_t mask, n_edges;
    int32_t *piece; // owned; by node: the id that ends there, -1
    uint32_t n_nodes, node_room;
    int32_t byte[256]; // of <0x..>, -1
    int32_t unknown;
    bool byte_fallback, single;
};

void unigram_init(struct unigram *u, uint32_t ids); // room for scores, all 0
void unigram_finish(struct unigram *u);
// Lets the text of an id be a piece. SV_E_INVALID over the bound.
int unigram_add(struct unigram *u, const struct vocab *v, int32_t id, struct err *err);

struct unigram_best {
    double score;
    uint32_t begin;
    int32_t id; // -1: no way to here yet
};
struct unigram_work {
    struct unigram_best *best; // owned
    struct span *pieces;       // owned; from the back
    size_t room;
};
void unigram_work_finish(struct unigram_work *w);

void unigram_encode(const struct unigram *u, const struct vocab *v, struct unigram_work *w,
                    const char *word, size_t n, struct ids *out);
