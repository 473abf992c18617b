// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega - all layers of a step of one token, and its head, in one kernel that stays on every SM.
 *
 * A projection of one token takes as long as its weights take to come, if nothing makes the bus
 * wait. Between two kernels, and while attention computes, it would. So one warp of each CTA copies
 * all that the others will ever need, weights and keys alike, into a ring, one operation after
 * another, whether or not their inputs are there yet. Products alone wait, at a barrier of the
 * whole grid between two operations.
 *
 * A program of one token collects its blocks here instead of launching kernels; what mega does not
 * take ends it, and the rest of the program goes on with kernels of its own.
 */
#include "cuda/box.h"
#include "cuda/program.h"

enum {
    MEGA_OPS = 384, // of a kernel: its arguments hold them, in less than 32 KB
    MEGA_WARPS = 16,
    MEGA_UNIT = 8,         // rows of weights that a product has at once
    MEGA_HEADS = 512,      // at most: session_view.parts has room for their ranges
    MEGA_GROUP = 8,        // query heads of a kv head, at most
    MEGA_NORM_MOST = 8192, // columns of a residual: they are in the workers' registers
    MEGA_DIRECT = 8, // ranges of keys that the projection after attention puts together itself
    MEGA_RANGES = 32 // of keys, at most
};

// What a CTA tells of an operation: comes to it, all others have come, has x, has multiplied.
enum { MEGA_COMES, MEGA_WAITED, MEGA_STAGED, MEGA_DONE, MEGA_STAMPS };

enum mega_kind : uint8_t { MEGA_PROJECT, MEGA_ATTEND };
enum mega_input : uint8_t {
    MEGA_RESIDUAL, // f32, normed
    MEGA_BF16,
    MEGA_PARTS // what attention left of each range of keys
};

// y = x w^T and its end, as struct gemm says.
struct mega_project {
    const void *x;
    void *y;
    const float *norm, *bias;
    float eps, offset;
    uint32_t units, k;       // of MEGA_UNIT rows of w; columns
    uint32_t blocks;         // of BOX_COLUMNS in k
    uint8_t end, activation; // gemm_end
    bool best;               // raises session_view.best of row 0
};

// Norm and RoPE of q and the new k, the new k and v into the KV blocks, attention.
struct mega_attend {
    const float *qkv; // of the token: q over k over v
    const float *q_norm, *k_norm;
    float q_eps, q_offset, k_eps, k_offset;
    float scale; // of q . k, times log2(e)
    uint32_t layer, window;
};

struct mega_op {
    mega_kind kind;
    mega_input input;
    uint16_t start; // the CTA with the first share: shares that are larger go around
    union {
        mega_project project;
        mega_attend attend;
    };
};

struct mega_args {
    session_view v;
    const float *inv_freq; // of RoPE, [head_dim / 2]
    float rope_scale;
    uint32_t rope_style, n_ops, x_bytes; // of shared memory
    const CUtensorMap *maps; // the copy engine's, of K, of V and of each operation's weights
    uint64_t *trace;         // [n_ops, MEGA_STAMPS, CTAs] nanoseconds; NULL: not wanted
    mega_op op[MEGA_OPS];
};
static_assert(sizeof(mega_args) < 32000, "a kernel's arguments");

uint32_t mega_shared_bytes(uint32_t head_dim, uint32_t x_bytes); // of a CTA
cudaError_t mega_launch(const mega_args &, cudaStream_t);        // enqueues only

// Blocks being collected.
struct mega {
    mega_args args;
    mega_attend attend;     // what the last qkv says of its attention
    const sv_buf *out;      // the last attention's
    uint32_t start, larger; // of the last operation: where it starts, how many shares are larger
    CUtensorMap maps[2 + MEGA_OPS];
};

uint64_t mega_maps_bytes(); // of a session

// NULL: this session's steps of one token have kernels of their own.
mega *mega_begin(sv_session *, uint32_t max_tokens);
/*
 * Each adds a block to p->mega. false: it doesn't take it, or there is none; what was collected is
 * launched then, before the caller's own kernels.
 */
bool mega_qkv(sv_program *, const gemm &, const rope_args &, uint32_t layer);
bool mega_attention(sv_program *, const sv_attend *);
bool mega_projection(sv_program *, const gemm &, const sv_buf *x);
// Launches what was collected; p->mega is NULL then.
void mega_end(sv_program *);
