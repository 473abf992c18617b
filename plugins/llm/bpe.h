// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * bpe - byte-pair encoding of one word: the pair of lowest rank is merged first, the leftmost of
 * equal ones (Sennrich et al. 2016, arXiv 1508.07909; huggingface/tokenizers: models/bpe).
 *
 * Pieces  a word begins as its characters, or as its bytes (`bytes`: a byte-level vocabulary whose
 *         words were left as they are instead of being rewritten as printable characters).
 * Time    n^2 / 2 up to BPE_SHORT pieces, which is faster there; n log n beyond.
 * Bounds  BPE_MERGES; ids below TOKENIZER_VOCAB.
 * Thread  immutable once made; bpe_work is one thread's.
 */
#include "llm/vocab.h"

enum { BPE_MERGES = (1 << 24) - 2, BPE_SHORT = 40, BPE_BATCH = 16 };

struct bpe_merge {
    struct bytes left, right; // borrowed until the batch is added
    uint32_t left_hash, right_hash;
    int32_t left_id, right_id;
};

struct bpe {
    uint64_t *pairs; // owned; left << 44 | right << 24 | rank, open addressing, ~0 is free
    uint32_t shift;  // of the hash
    uint64_t factor; // of the hash; odd, random
    struct bpe_merge batch[BPE_BATCH];
    uint32_t n_batch;
    bool keep_first;   // of two merges of one pair the first counts, else the last
    int32_t *made;     // owned; made[rank] is what the pair becomes
    uint32_t n, room;  // merges
    int32_t byte[256]; // ids of the one-byte words (`bytes`), or of <0x..> (byte_fallback); -1
    bool bytes, byte_fallback, fuse_unknown, ignore_merges;
    int32_t unknown;       // -1: what has no id is dropped
    char *prefix, *suffix; // owned, NULL: none; continuing_subword_prefix, end_of_word_suffix
};

void bpe_init(struct bpe *b, uint32_t merges); // room for so many
void bpe_finish(struct bpe *b);

// The next merge; its texts stay until bpe_end_merges. SV_E_INVALID, there or here: a text is not
// in the vocabulary. They are added a batch at a time, since each waits for memory.
int bpe_add_merge(struct bpe *b, const struct vocab *v, struct bytes left, struct bytes right,
                  struct err *err);
int bpe_end_merges(struct bpe *b, const struct vocab *v, struct err *err);
// Takes out the merges that make special tokens: a text never becomes one. After the flags are set.
void bpe_forget_special(struct bpe *b, const struct vocab *v);
void bpe_find_bytes(struct bpe *b, const struct vocab *v); // fills `byte`, after the flags are set

struct bpe_symbol {
    int32_t id;
    uint32_t prev, next; // UINT32_MAX: none
};
struct bpe_candidate {
    uint32_t rank, at;
    int32_t left, right;
};
struct bpe_work {
    struct bpe_symbol *symbols; // owned
    struct bpe_candidate *heap; // owned
    size_t room, n, heap_room, heap_n;
    struct buf text; // a word as the vocabulary writes it
};
void bpe_work_finish(struct bpe_work *w);

// Appends the ids of word[0, n), n < 2^31, valid UTF-8.
void bpe_encode(const struct bpe *b, const struct vocab *v, struct bpe_work *w, const char *word,
                size_t n, struct ids *out);
