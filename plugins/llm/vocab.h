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
};

struct vocab_slot {
    uint32_t hash, id;
};

struct vocab {
    struct buf texts;         // all, one after the other
    uint32_t *begin;          // owned; of id, in texts
    uint32_t *length;         // owned
    uint8_t *flags;           // owned; VOCAB_*
    uint8_t *byte;            // owned
    uint32_t n, room;         // ids; one more than the highest that was set, and room for them
    uint32_t longest;         // bytes
    struct vocab_slot *slots; // owned; open addressing, id UINT32_MAX is free
    uint32_t mask, used;
};

void vocab_init(struct vocab *v, uint32_t ids, size_t bytes); // a first guess at both
void vocab_finish(struct vocab *v);

// SV_E_INVALID: the id or the text is taken, or over a bound.
int vocab_set(struct vocab *v, int64_t id, const char *text, size_t n, struct err *err);

int32_t vocab_find(const struct vocab *v, const char *text, size_t n); // -1: none
static inline struct bytes vocab_text(const struct vocab *v, int32_t id)
{
    if (id < 0 || (uint32_t)id >= v->n || !(v->flags[id] & VOCAB_SET))
        return (struct bytes){"", 0};
    return (struct bytes){v->texts.data + v->begin[id], v->length[id]};
}
static inline bool vocab_has(const struct vocab *v, int32_t id, uint8_t flag)
{
    return id >= 0 && (uint32_t)id < v->n && v->flags[id] & flag;
}
