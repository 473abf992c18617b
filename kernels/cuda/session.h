// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * session - all that steps write, on the device: KV blocks, page table, slots, batch, results.
 */
#include "cuda/device.h"

enum {
    BATCHES = 3,         // pinned batches and results in turn: depth + 1
    EDITS_STAGED = 16384 // of the page table, in a pinned batch
};

// session_view.jobs: how many sequences the decode kernel has and how many tiles the prefill
// kernel; which tile is next and how many CTAs have ended, both zero between kernels; which of
// given and taken is this step's, and which the next one's; how often a CTA of mega has come to its
// barrier, zero at a step's begin.
enum { JOB_DECODE, JOB_TILES, JOB_NEXT, JOB_ENDED, JOB_TURN, JOB_NEXT_TURN, JOB_ARRIVED, JOBS };

// How a slot samples; lists lie behind one another in session_view.lists.
struct slot_state {
    float temperature, top_p, min_p, repetition, frequency, presence;
    uint32_t top_k, logprobs, min_tokens, prompt_len;
    uint32_t n_stop, n_bias, n_bad, limited; // limited: session_view.allowed says which ids
    uint64_t seed;
};

// What kernels see of a session; passed by value. Counts are of the step, read on the device.
struct session_view {
    // Pinned, in turn: counts ... row_want and, edits_at words on, the page table's edits, three
    // arrays of EDITS_STAGED; the results.
    uint32_t *given[BATCHES], edits_at;
    int32_t *taken[BATCHES];
    // Of this step, copied by its first kernel.
    uint32_t *counts; // n_tokens, n_seqs, n_rows, n_edits
    int32_t *token, *pos, *seq_slot, *seq_tokens, *row_token, *row_slot, *row_want;
    // Derived by the first kernel of a step (schedule.cu).
    int32_t *token_slot; // [max_tokens]
    uint32_t *jobs;      // [JOBS]
    int4 *seqs, *decode; // [max_seqs] first token, tokens, slot, end of the keys: of all sequences;
                         // of those that the decode kernel takes
    int2 *tiles;         // of the prefill kernel: which of seqs, which of its tiles of rows
    float *parts;        // what CTAs of the decode kernel found of a sequence that several share
    uint32_t *tickets;   // [max_seqs, kv_heads] how many of them have; zero between kernels
    // Kept from step to step.
    int32_t *page_table; // [max_seqs, max_pages]
    int32_t *history;    // [max_seqs, max_context + 1]
    int32_t *last;       // [max_seqs] sampled last
    slot_state *slots;   // [max_seqs]
    int32_t *lists; // [max_seqs, 4, CUDA_LISTS_MAX]: stop ids, bias ids, biases (f32), bad words,
                    // each as its length, negative, and its ids
    uint32_t *allowed;        // [max_seqs, vocab / 32]
    void *k, *v;              // [layers][n_blocks][SV_BLOCK][kv_heads][head_dim] of kv_dtype
    float *logits;            // [max_rows, vocab]
    unsigned long long *best; // [max_rows] the best logit's entry, or zero: entry.h
    float *work;              // the sampler's scratch: sample.h
    uint32_t max_tokens, max_seqs, max_rows, max_context, max_pages, n_blocks;
    uint32_t heads, kv_heads, head_dim, vocab, allowed_words, kv_dtype;
    // Of the attention kernels: the device's; the decode kernel's CTAs, and how many a cluster;
    // rows of a prefill tile.
    uint32_t processors, decode_ctas, together, tile_rows;
    bool hopper; // attend_hopper.cu has the prefill
};

struct sv_buf {
    sv_buf *next;
    uint64_t cols;
    void *data; // [max_tokens, cols]; room for f32
    bool f32;   // the residual stream; others are bf16
};

struct rope_table {
    rope_table *next;
    float *inv_freq; // on the device
    uint32_t style, dims;
    float scale;
    float host[128]; // the same, to know it again: [dims / 2] of at most 256
};

struct sv_session {
    sv_session *next;
    sv_dev *dev;
    sv_limits limits;
    session_view v;
    sv_buf *buffers;
    sv_program *programs;
    rope_table *ropes;
    uint64_t widths_left;
    bf16 *normed; // scratch of a step, [max_tokens, scratch_cols]: normed rows; see session_wide()
    uint64_t scratch_cols;
    struct CUtensorMap_st *mega_maps; // mega_maps_bytes(); of the program of one token
    void *batch_device;               // counts ... row_want
    int32_t *edits;                   // owned, of every batch
    sv_batch batch[BATCHES];
    cudaEvent_t done[BATCHES]; // of the step that used batch and result of this turn
    char *slot_host[BATCHES];  // pinned staging of slot(), slot_used bytes of this turn's taken
    uint64_t slot_used;
    int64_t slot_turn; // the `launched` that slot_used is of
    sv_result result;
    int64_t launched, collected;
    uint32_t result_rows[BATCHES];
    char why[SV_WHY_MAX]; // by block: which one failed
};

// Where the results of max_rows rows lie, from session_view.taken of a turn on.
struct step_results {
    int32_t *token, *rank;
    float *logprob;
    int32_t *top_id;
    float *top_logprob;
};

static inline __host__ __device__ step_results results_at(int32_t *p, uint32_t max_rows)
{
    uint64_t n = max_rows;
    return {p, p + n, (float *)(p + 2 * n), p + 3 * n, (float *)(p + (3 + SV_TOP_MAX) * n)};
}

uint64_t edits_of(const sv_limits *); // that a batch can have
uint64_t session_bytes(const sv_dev_options *, const sv_limits *);
uint64_t block_bytes(const sv_dev_options *, const sv_limits *);
int session_make(sv_dev *, const sv_limits *, sv_session **ret, char *why);
int session_buffer(sv_session *, uint64_t cols, sv_buf **ret, char *why);
// Scratch behind normed rows of x_cols columns: [max_tokens, cols] of what a projection gives
// before its epilogue. NULL: no such pair is among the limits' widths.
bf16 *session_wide(const sv_session *, uint64_t x_cols, uint64_t cols);
void sessions_free(sv_dev *d);
int session_slot(sv_session *, uint32_t slot, const sv_sampling *);
uint64_t slot_staging_bytes(const sv_limits *);
sv_batch *session_batch(sv_session *);
// The batch to where the device reads it; then the parts.
struct step_part {
    cudaGraphExec_t graph;
    char block[32]; // what it is
};
int64_t session_launch(sv_session *, const sv_batch *, const step_part *parts, uint32_t n_parts);
int session_collect(sv_session *, int64_t ticket, const sv_result **ret, char *why);
int session_logits(sv_session *, uint32_t row, float *out);
