// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gemm_state - what projections keep, of a device.
 */
#include "cuda/gemm.h"

enum {
    GEMM_AHEAD = 64 << 10,  // gemm_state.ahead: two kernels' fit the L2
    SKINNY_NONE = ~0u >> 1, // gemm_state.skinny_cluster: cuBLASLt takes all that gemv doesn't
    LT_PLANS = 512          // then the oldest goes: five shapes in SV_BUCKETS_MAX sizes fit
};

/*
 * cuBLASLt's descriptors and algorithms for one shape. Kept since asking costs some 50 us and a
 * program asks for each layer again.
 */
struct lt_plan {
    uint32_t m, n, k;
    bool y_f32, add;
    cublasLtMatmulDescOpaque_t op;
    cublasLtMatrixLayoutOpaque_t w, x, y;
    int found, best;
    bool chosen;      // best is by time
    uint32_t changed; // gemm_state.changes when best became another; 0: it is the first
    const bf16 *first_w, *first_x; // of the first product, which a choice is made with
    void *first_y;
    cublasLtMatmulAlgo_t algo[LT_CANDIDATES];
};

struct gemm_state {
    uint32_t ahead;       // bytes that a CTA asks into the L2 beyond its ring; a multiple of 4096
    uint32_t clusters[4]; // 1 + how many of 1 << i CTAs the device has at once, one a SM; 0: not
                          // asked yet
    // skinny_choose()'s; not 0: skinny takes what it can, for tests and benchmarks.
    uint32_t skinny_cluster, skinny_normed;
    uint32_t n_plans, oldest;
    uint32_t changes;         // of plans' algorithms
    lt_plan *plans[LT_PLANS]; // owned
};

// One product of a plan's shape.
bool lt_product(const sv_dev *, lt_plan *, int which, const bf16 *w, const bf16 *x, void *y,
                cudaStream_t);
// Nothing runs. Chooses by time for one more shape that products have had; false: there is none.
bool lt_choose_next(sv_dev *);
// Whether a program of so many tokens and rows, recorded at `changes`, has algorithms that are no
// longer the best.
bool lt_outdated(const sv_dev *, uint32_t changes, uint32_t tokens, uint32_t rows);
