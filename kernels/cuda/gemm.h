// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gemm - a fused projection: [norm +] x w^T [+ bias] [+ residual, or gate and activation].
 *
 * By tokens  1 to 4: gemv.cu, CUDA cores; of a step of one, mega.cu where it can. 5 to 16, and
 *            small weights to 32: skinny.cu, tensor cores on weight rows. Others: lt.cu, cuBLASLt
 *            with the norm before and the activation after it. Up to some hundred tokens reading
 *            the weights, once, is what they cost.
 * Numbers    w and x bf16, sums f32. A residual is normed to bf16; its own rows stay f32.
 * Order      sums of one shape and bucket are taken in one fixed order: bits repeat in a process,
 *            but for one change of cuBLASLt's algorithm for a shape. It comes the first time that
 *            nothing is under way after the shape was met (lt_choose.cu), so never within a
 *            sequence, and after it bits repeat as long as the process lives.
 */
#include "cuda/session.h"

enum gemm_end {
    GEMM_BF16,   // y bf16 = x w^T
    GEMM_F32,    // y f32 = x w^T + bias
    GEMM_ADD,    // y f32 += x w^T + bias
    GEMM_GATE_UP // y bf16 = act(gate) * up, of w's first and second n rows; n % 8 == 0
};

struct gemm {
    uint32_t m, n, k; // y [m, n], x [m, k]; k % 8 == 0
    gemm_end end;
    uint32_t activation;   // SV_SILU or SV_GELU_TANH
    const bf16 *w;         // [n, k]; GEMM_GATE_UP: [2 n, k], gate over up
    const float *bias;     // of each row of w; NULL: none. Not with GEMM_BF16
    const bf16 *x;         // NULL: the residual, normed
    const float *residual; // [.., k]
    const float *norm;     // [k] RMSNorm's weight; NULL: the residual as it is
    float eps, offset;
    bool rows; // the residual's row r is that of token row_token[r] of the batch
    void *y;
    bf16 *normed, *wide; // scratch: [m, k] for a residual, [m, 2 n] for GEMM_GATE_UP
    // With GEMM_F32, of each row a word that gemv and mega raise to its best (entry.h), others
    // leave as it is; NULL: none.
    unsigned long long *best;
};

enum {
    GEMV_TOKENS = 4,
    SKINNY_TOKENS = 32,
    // MiB of weights above which cuBLASLt is faster, up to so many tokens, its norm and activation
    // kernels counted: by what bench/cuda/gemm.cu prints of both.
    SKINNY_MIB_16 = 1 << 16,
    SKINNY_MIB_32 = 12,
    LT_CANDIDATES = 8, // algorithms of cuBLASLt that are kept of one shape
    LT_BEST = -1       // of these, what was found to be the fastest, else the first
};

// All enqueue only, can be captured, and give cudaErrorNotSupported for a shape they don't take.
cudaError_t gemm_run(sv_dev *, const session_view &, const gemm &, cudaStream_t);

// The parts of it. gemv and skinny take a residual or x, lt x.
bool gemv_takes(const sv_dev *, const gemm &);
cudaError_t gemv_run(const sv_dev *, const session_view &, const gemm &, cudaStream_t);
// q, k and v of a residual, with RoPE, into q and the KV blocks.
struct rope_args;
bool gemv_qkv_takes(const sv_dev *, const session_view &, const gemm &, const rope_args &);
cudaError_t gemv_qkv_run(const sv_dev *, const session_view &, const gemm &, const rope_args &,
                         bf16 *q, uint32_t layer, cudaStream_t);
// Whether skinny is faster than cuBLASLt, where it takes g.
bool skinny_wins(const sv_dev *, const gemm &);
bool skinny_takes(const sv_dev *, const gemm &);
cudaError_t skinny_run(const sv_dev *, const session_view &, const gemm &, cudaStream_t);
bool skinny_qkv_takes(const sv_dev *, const session_view &, const gemm &, const rope_args &);
cudaError_t skinny_qkv_run(const sv_dev *, const session_view &, const gemm &, const rope_args &,
                           bf16 *q, uint32_t layer, cudaStream_t);
// By number `which` of cuBLASLt's candidates, best first by its own reckoning, or by LT_BEST.
cudaError_t lt_run(sv_dev *, const gemm &, int which, cudaStream_t);

// Plans that hang on a device.
struct gemm_state;
gemm_state *gemm_open(char *why); // NULL with why
void gemm_close(gemm_state *);
