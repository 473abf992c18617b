// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gemm_state - scratch that one projection leaves to itself, of a device: partial sums and tickets.
 */
#include "cuda/gemm.h"

enum {
    SKINNY_ROWS = 64,                                 // of weights in a tile
    SKINNY_PARTIAL = SKINNY_ROWS * SKINNY_TOKENS * 4, // bytes of a tile's sums
    GEMM_AHEAD = 64 << 10                             // gemm_state.ahead: three kernels' fit the L2
};

struct gemm_split {
    uint32_t ctas;     // of the grid, at most
    uint32_t *tickets; // [ctas], zero between kernels: how many shares of the tile it begins came
    char *partials;    // [ctas, 2, SKINNY_PARTIAL]

    __device__ __forceinline__ float4 *partial(uint32_t cta, bool second) const
    {
        return (float4 *)(partials + (uint64_t)(2 * cta + second) * SKINNY_PARTIAL);
    }
};

gemm_split gemm_split_of(const sv_dev *);

/*
 * cuBLASLt's descriptors and algorithms for one shape. Kept since asking costs some 50 us and a
 * program asks for each layer again.
 */
struct lt_plan {
    uint32_t m, n, k;
    bool y_f32, add;
    cublasLtMatmulDescOpaque_t op;
    cublasLtMatrixLayoutOpaque_t w, x, y;
    int found;
    cublasLtMatmulAlgo_t algo[LT_CANDIDATES];
};

enum { LT_PLANS = 512 }; // then the oldest goes: five shapes in SV_BUCKETS_MAX sizes fit

struct gemm_state {
    gemm_split split;
    uint32_t ahead; // bytes that a CTA asks into the L2 beyond its ring; a multiple of 4096
    uint32_t n_plans, oldest;
    lt_plan *plans[LT_PLANS]; // owned
};
