// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * session - all that steps write: activations, KV blocks, page table, slots, results, scratch.
 *
 * Memory  one mapping of exactly session_bytes. Beside it only the lists that slot() was given,
 *         which are as long as the caller makes them, and the recorded programs.
 * KV      [block][layer][kv head] of K transposed [head_dim][16] and V [16][head_dim]: a short
 *         text's blocks are one run of memory, and no page is cleared that nobody writes to.
 * Thread  the caller; during a step threads share it as step.c says.
 */
#include "cpu/device.h"
#include "cpu/sample.h"
#include "cpu/weight.h"

#include <stdatomic.h>

enum {
    SESSION_ROPES = 4,     // different ones
    SESSION_RESULTS = 2,   // launch(n + 1) may come before collect(n)
    LAZY_TOKENS = 4,       // up to so many each thread makes operands of its own, without a barrier
    TILE_FLOATS = 1 << 14, // what a product of an item may have
    SEGMENTS_MAX = 64,     // of a sequence's keys, each attended apart and then folded
    SEGMENT_MIN = 256      // keys
};

struct sv_buf {
    uint64_t cols;
    float *data; // [max_tokens][cols]
    sv_session *session;
};

enum { SESSION_BUFFERS = 64 };

struct rope {
    uint32_t style, dims;
    float scale;
    float *own_inv_freq; // [dims / 2]
    float *cos, *sin;    // [max_tokens][dims / 2] of this step's tokens
};

// Some tokens of a sequence against some segments of its keys.
struct attend_work {
    uint32_t token, n, slot;
    int32_t pos; // of the first
    uint32_t segment, end;
    uint32_t pair, ways; // ways > 1: partial results of pair + kv head go to `partial`
};

struct scratch {           // of a thread
    float *tile[2];        // [TILE_FLOATS]
    float *row;            // [widths]
    char *operands;        // [LAZY_TOKENS]
    uint64_t made;         // number of the phase they are of
    float *q, *out, *part; // [attend_rows][head_dim]
    float *p;              // [attend_rows][UNIT_KEYS]
    float *most, *sum;     // [2][attend_rows]
    uint8_t *lo, *hi;      // [attend_rows]
    float *k, *v;          // [UNIT_BLOCKS][head_dim * 16]
    uint16_t *half;        // [head_dim]
    struct sample_scratch sample;
};

struct result {
    int64_t ticket;
    struct sv_result r;
    int32_t *token, *rank, *top_id;
    float *logprob, *top_logprob;
};

struct sv_session {
    sv_dev *dev;
    sv_session *next;
    sv_limits l;
    void *memory;
    uint64_t bytes;
    uint32_t pages;       // of a sequence
    uint32_t group;       // heads of a kv head
    uint32_t attend_rows; // at most; a multiple of group
    uint32_t segment_keys;
    uint64_t operand_bytes; // of a token, at most
    uint64_t operand_rows;  // tokens or rows

    sv_batch batch;
    int32_t *token_slot, *token_block; // [max_tokens] of this step
    int32_t *page_table;               // [max_seqs][pages]; -1: never set
    uint32_t *mapped;                  // [max_seqs] pages from the first on that are set
    int32_t *history;                  // [max_seqs][max_context + 1]
    int32_t *last;                     // [max_seqs] sampled last; SLOT_NEVER
    int64_t *seen;                     // [max_seqs] launch in which the slot was last
    struct sampling *slot;             // [max_seqs]
    struct result result[SESSION_RESULTS];
    float *logits;  // [max_rows][vocab]
    float *floats;  // of the buffers
    char *operands; // [max(max_tokens, max_rows)]
    char *kv;
    struct attend_work *work;
    uint32_t n_work, work_max;
    float *partial; // [pairs][SEGMENTS_MAX][group][head_dim + 2]
    _Atomic uint32_t *pair_left;
    uint32_t pairs_max;
    struct scratch *scratch; // [threads]

    struct sv_buf buffer[SESSION_BUFFERS];
    uint32_t n_buffers;
    uint64_t widths_left;
    struct rope rope[SESSION_ROPES];
    uint32_t n_ropes;
    sv_program *programs;
    int64_t launches, collected;
};

enum { SLOT_NEVER = -2 };

// 0: `why` tells which limit this backend does not take.
uint64_t session_bytes(const struct device_config *c, const sv_limits *l, char *why);
uint64_t session_block_bytes(const sv_limits *l);
int session_make(sv_dev *d, const sv_limits *l, sv_session **ret, char *why);
void session_free(sv_session *s);
int session_buffer(sv_session *s, uint64_t cols, sv_buf **ret, char *why);
int session_slot(sv_session *s, uint32_t slot, const sv_sampling *a);
int session_rope(sv_session *s, const sv_rope *r, struct rope **ret, char *why);
int session_collect(sv_session *s, int64_t ticket, const sv_result **ret, char *why);
int session_logits(sv_session *s, uint32_t row, float *out);

static inline uint32_t kv_bytes(uint32_t dtype)
{
    return dtype == SV_F32 ? 4 : 2;
}
// K of a block; V lies 16 * head_dim elements behind it.
static inline char *session_kv(const sv_session *s, uint32_t layer, int32_t block, uint32_t head)
{
    const sv_limits *l = &s->l;
    uint64_t at = ((uint64_t)(uint32_t)block * l->layers + layer) * l->kv_heads + head;
    return s->kv + at * 2 * SV_BLOCK * l->head_dim * kv_bytes(l->kv_dtype);
}
