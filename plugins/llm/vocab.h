// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * vocab - the texts of token ids, and the id of a text.
 *
 * Order   ids are set once each, in any order; two ids never share a text.
 * Bounds  TOKENIZER_VOCAB ids, TOKENIZER_PIECE bytes of a text, VOCAB_BYTES in all.
 * Owner   vocab_finish; texts are copied.
 * Thread  immutable once filled.
 */
#include "llm/tokenizer.h"

enum { VOCAB_BYTES = 1 << 30 };

enum { // flags of an id
    VOCAB_SET = 1,
    VOCAB_SPECIAL = 2, // skipped by skip_special
    VOCAB_BYTE = 4,    // <0x41>: stands for one byte, vocab.byte
    VOCAB_ADDED = 8,
    VOCAB_MODEL = 16, // the model may give it; added tokens need not be of the model
};

struct vocab_slot {
    uint32_t hash, id;
};
struct vocab_text {
    uint32_t begin, length; // in texts
};

struct vocab {
    struct buf texts;         // all, one after the other
    struct vocab_text *at;    // owned; by id
    uint8_t *flags;           // owned; VOCAB_*
    uint8_t *byte;            // owned
    uint32_t n, room;         // ids; one more than the highest that was set, and room for them
    uint32_t longest;         // bytes
    struct vocab_slot *slots; // owned; open addressing, id UINT32_MAX is free
    uint32_t mask, used;
    uint64_t seed; // of the hash, random: nobody chooses texts that collide
};

void vocab_init(struct vocab *v, uint32_t ids, size_t bytes); // a first guess at both
void vocab_finish(struct vocab *v);

// SV_E_INVALID: the id or the text is taken, or over a bound.
int vocab_set(struct vocab *v, int64_t id, const char *text, size_t n, struct err *err);

uint32_t vocab_hash(const struct vocab *v, const char *text, size_t n);
int32_t vocab_find_hashed(const struct vocab *v, uint32_t hash, const char *text, size_t n);
int32_t vocab_find(const struct vocab *v, const char *text, size_t n); // -1: none
static inline struct bytes vocab_text(const struct vocab *v, int32_t id)
{
    if (id < 0 || (uint32_t)id >= v->n || !(v->flags[id] & VOCAB_SET))
        return (struct bytes){"", 0};
    return (struct bytes){v->texts.data + v->at[id].begin, v->at[id].length};
}
static inline bool vocab_has(const struct vocab *v, int32_t id, uint8_t flag)
{
    return id >= 0 && (uint32_t)id < v->n && v->flags[id] & flag;
}

// The same for what the model may find in a text: of the model, and not special.
static inline int32_t vocab_find_piece(const struct vocab *v, const char *text, size_t n)
{
    int32_t id = vocab_find(v, text, n);
    return id >= 0 && (v->flags[id] & (VOCAB_MODEL | VOCAB_SPECIAL)) == VOCAB_MODEL ? id : -1;
}

// For many look-ups at a time: brings what the next step of vocab_find_hashed reads into the cache.
static inline void vocab_prefetch_slot(const struct vocab *v, uint32_t hash)
{
    __builtin_prefetch(&v->slots[hash & v->mask]);
}
static inline void vocab_prefetch_text(const struct vocab *v, uint32_t hash)
{
    uint32_t id = v->slots[hash & v->mask].id;
    if (id < v->n)
        __builtin_prefetch(&v->at[id]);
}
