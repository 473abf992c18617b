// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend_prefill - what the two prefill kernels share: tiles of rows and who has which.
 *
 * Rows     of a sequence: (token, head of the group), so neighbours share their keys.
 * Turns    a CTA starts with the tile of its own number and then takes the next that nobody has;
 *          the last CTA to end sets the counters back.
 */
#include "cuda/attend.h"

/*
 * Weights are relative to a base of each row, a score that was the highest. A higher one becomes
 * the base only where weights would pass 2^SLACK, since then all that was found before has to
 * shrink; what comes of it in the end is the same.
 */
constexpr float SLACK = 8;

// One tile of rows and the keys it sees.
struct prefill_tile {
    uint32_t token, tokens, end; // of the sequence: first new token, new tokens, end of its keys
    uint32_t row, rows;          // of its rows, the tile's first one and how many there are
    uint32_t head, group;
    uint32_t from, to; // keys
    const int32_t *pages;

    __device__ prefill_tile(const session_view &v, uint32_t i, uint32_t tile_rows, uint32_t window)
    {
        int2 t = __ldcg(v.tiles + i / v.kv_heads);
        int4 s = __ldcg(v.seqs + t.x);
        head = i % v.kv_heads;
        group = v.heads / v.kv_heads;
        token = (uint32_t)s.x;
        tokens = (uint32_t)s.y;
        end = (uint32_t)s.w;
        row = (uint32_t)t.y * tile_rows;
        rows = min(tokens * group - row, tile_rows);
        pages = v.page_table + (uint64_t)(uint32_t)s.z * v.max_pages;
        from = first_key(position(0), window);
        to = position(rows - 1) + 1;
    }
    // Of the token of row r of the tile; rows beyond count as the last one.
    __device__ uint32_t position(uint32_t r) const
    {
        return end - tokens + min((row + r) / group, tokens - 1);
    }
    // Where row r of q or of the output begins.
    __device__ uint64_t at(const session_view &v, uint32_t r) const
    {
        uint32_t i = row + r;
        return ((uint64_t)(token + i / group) * v.heads + head * group + i % group) * v.head_dim;
    }
};

// Thread 0's: the next tile.
static __device__ __forceinline__ uint32_t take_tile(const session_view &v)
{
    return gridDim.x + atomicAdd(v.jobs + JOB_NEXT, 1);
}

// Thread 0's, when it will take no more.
static __device__ __forceinline__ void end_tiles(const session_view &v)
{
    if (atomicAdd(v.jobs + JOB_ENDED, 1) == gridDim.x - 1)
        v.jobs[JOB_NEXT] = v.jobs[JOB_ENDED] = 0;
}

// As many CTAs as are at work at a time, or as there can be tiles of m tokens.
static inline dim3 prefill_grid(const session_view &v, uint32_t m, int ctas_each)
{
    uint32_t group = v.heads / v.kv_heads, seqs = m / (ROWS / group + 1);
    seqs = seqs < v.max_seqs ? seqs : v.max_seqs;
    uint64_t tiles = (uint64_t)v.kv_heads * ((uint64_t)m * group / v.tile_rows + seqs);
    uint64_t most = (uint64_t)v.processors * (ctas_each > 0 ? ctas_each : 1);
    return dim3((unsigned)(tiles < most ? tiles : most));
}

// attend_hopper.cu's, which has this work where session_view.hopper says so.
void hopper_run(const session_view &, const attend_args &, uint32_t m, cudaStream_t);
uint32_t hopper_tile_rows(uint32_t head_dim);
