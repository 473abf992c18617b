// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * program - a recorded list of blocks, captured as one CUDA graph for a bucket of tokens; with
 * sv_dev_options.by_block as one for each block.
 */
#include "cuda/gemm.h"
#include "cuda/session.h"

// A block as it was recorded, to be recorded again. What it points to lives as long as its session.
struct program_block {
    void (*run)(sv_program *, program_block *);
    sv_rope rope; // qkv's; its frequencies are a rope_table's
    union {
        struct {
            const sv_weight *table;
            float scale;
            sv_buf *x;
        } embed;
        sv_qkv qkv;
        sv_attend attend;
        sv_project project;
        sv_gate_up gate_up;
        sv_head head;
    };
};

struct sv_program {
    sv_program *next;
    sv_session *session;
    uint32_t max_tokens, max_rows;
    step_part *parts;      // owned, n_parts of them
    program_block *blocks; // owned
    uint32_t n_parts, n_blocks;
    uint32_t changes;    // gemm_state's when it was recorded
    cudaStream_t stream; // being captured into
    uint32_t layer;      // of the last qkv
    struct mega *mega;   // owned; NULL: blocks have kernels of their own
    int code;            // of the first block that failed
    char why[SV_WHY_MAX];
};

uint32_t program_buckets(const sv_session *, uint32_t tokens[SV_BUCKETS_MAX]);
int program_record(sv_session *, uint32_t max_tokens, sv_program **ret, char *why);
int program_embed(sv_program *, const sv_weight *table, float scale, sv_buf *x);
int program_qkv(sv_program *, const sv_qkv *);
int program_attend(sv_program *, const sv_attend *);
int program_project(sv_program *, const sv_project *);
int program_gate_up(sv_program *, const sv_gate_up *);
int program_head(sv_program *, const sv_head *);
int program_ready(sv_program *, char *why);
int64_t program_launch(sv_program *, const sv_batch *);
// When there is nothing to do: chooses cuBLASLt's algorithms, and records again the programs that
// have others. As sv_kernels.idle.
int program_idle(sv_dev *);
void programs_free(sv_session *s);

// Kernels; each enqueues only.
void prepare_run(const session_view &, cudaStream_t); // the batch from the host, and its schedule
void embed_run(const session_view &, const sv_weight *table, float scale, float *x, uint32_t m,
               cudaStream_t);
// Both, of a batch of one token. What comes next starts at once: until wait_previous() it reads
// nothing of the batch.
void prepare_one_run(const session_view &, const sv_weight *table, float scale, float *x,
                     cudaStream_t);
// n edits of the page table, given as a batch's.
void edit_run(const session_view &, const uint32_t *edits, uint32_t n, cudaStream_t);
void norm_run(const session_view &, const float *x, const float *w, float eps, float offset,
              bf16 *y, uint32_t cols, uint32_t m, bool rows,
              cudaStream_t); // rows: of the batch's rows
struct rope_args {
    const float *inv_freq;
    uint32_t style, dims;
    float scale;
    const float *bias, *q_norm, *k_norm;
    float q_eps, q_offset, k_eps, k_offset;
};
void rope_append_run(const session_view &, const bf16 *qkv, const rope_args &, bf16 *q,
                     uint32_t layer, uint32_t m, cudaStream_t);
void attend_run(const session_view &, const bf16 *q, bf16 *out, uint32_t layer, uint32_t window,
                float scale, uint32_t m, cudaStream_t);
void act_run(const bf16 *gate_up, const float *bias, bf16 *y, uint32_t d_ff, uint32_t activation,
             uint32_t m, cudaStream_t);
void bias_run(float *y, const float *bias, uint32_t cols, uint32_t m, cudaStream_t);
void sample_run(const session_view &, uint32_t rows, cudaStream_t); // results to the host
