// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * skinny - how skinny.cu cuts a product of few tokens among CTAs, and what it reckons that costs.
 *
 * Tile     16 rows of w: of gate and up 8 and 8, so that one lane ends with both; likewise of the
 *          elements that RoPE turns together. Clusters of CTAs share the tiles evenly.
 * Block    64 columns of a tile, 2 KB, what a warp copies and multiplies at once. The CTAs of a
 *          cluster share the blocks of a row evenly: each has x for its own columns alone.
 * Round    up to 8 tiles of a cluster at once: in each CTA 8, 4, 2 or 1 groups of warps, a tile
 *          each, whose 1, 2, 4 or 8 warps share its blocks evenly, each a run of them.
 */
#include "cuda/gemm.h"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    TILE = 16,
    COLUMNS = 64,
    LINE = COLUMNS * 2,  // bytes of a row in a block
    BLOCK = TILE * LINE, // bytes
    CLUSTER_MOST = 8,    // CTAs; the most that every device with clusters has
    SUMS_EIGHT = 4096,   // bytes of a round's partial sums in a CTA, for each 8 tokens
    GATE_BYTES = 128
};

// Blocks of a warp's ring, by the kernel's tokens: 64 KB a CTA; 48 where two CTAs would not fit a
// SM else.
static inline __host__ __device__ constexpr uint32_t stages_of(uint32_t tokens)
{
    return tokens == 32 ? 3 : 4;
}

static inline __host__ __device__ constexpr uint32_t ring_of(uint32_t tokens)
{
    return WARPS * stages_of(tokens) * BLOCK;
}

// Which rows of w are a tile's: 8 and their partners. In rows.
struct skinny_walk {
    uint32_t run, jump;  // tiles of 8 rows in succession; from such a run to the next
    uint32_t step, half; // from one of the 8 to the next; to its partner
    bool paired;         // all tiles are whole, and of two partners come one output or two turned
};

struct skinny_plan {
    skinny_walk walk;
    uint32_t tokens;            // that the kernel is made for: 8, 16 or 32
    uint32_t cluster, clusters; // CTAs of one; how many
    uint32_t tiles, blocks;     // of all rows; of a row
    uint32_t width;             // bytes of a token's x in a CTA: of the widest share of columns
    uint32_t bytes;             // of shared memory
    uint32_t ahead;             // bytes of a row that a warp asks into the L2 beyond its ring
    bool normed;                // a residual is normed by a kernel before
};

// What the choice depends on, of a device.
struct skinny_machine {
    uint32_t sms, bytes, half; // shared memory of a CTA: at most, and so that two fit a SM
    uint32_t clusters[4];      // of 1, 2, 4 and 8 CTAs, one a SM; 0: none
};

/*
 * The cheapest plan. cluster 0: of any size; normed: 0 as is cheapest, 1 in the kernel, 2 before.
 * False: none fits.
 */
bool skinny_choose(const skinny_machine &, const gemm &, uint32_t cluster, uint32_t normed,
                   skinny_plan *);
