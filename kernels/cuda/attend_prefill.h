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
    // What the CTA of this rank has of it: as many rows of its own, and the same keys.
    __device__ prefill_tile of(uint32_t rank, uint32_t own_rows) const
    {
        prefill_tile t = *this;
        const uint32_t before = min(rank * own_rows, rows);
        t.row = row + rank * own_rows;
        t.rows = min(rows - before, own_rows);
        return t;
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

// Every so many rows of a tile's q or output, from one of them on: where they begin.
struct row_walk {
    uint32_t token, nth;                  // of the group's heads
    uint32_t tokens, heads, group, first; // of a step; the group's first head

    __device__ row_walk(const prefill_tile &t, uint32_t r, uint32_t step)
    {
        const uint32_t i = t.row + r;
        group = t.group;
        token = t.token + i / group;
        nth = i % group;
        tokens = step / group;
        heads = step % group;
        first = t.head * group;
    }
    __device__ uint64_t at(const session_view &v) const
    {
        return ((uint64_t)token * v.heads + first + nth) * v.head_dim;
    }
    __device__ void advance()
    {
        token += tokens;
        nth += heads;
        if (nth >= group) {
            nth -= group;
            token++;
        }
    }
};

// One thread's of each of n CTAs or clusters: the next tile.
static __device__ __forceinline__ uint32_t take_tile(const session_view &v, uint32_t n)
{
    return n + atomicAdd(v.jobs + JOB_NEXT, 1);
}

// When it will take no more.
static __device__ __forceinline__ void end_tiles(const session_view &v, uint32_t n)
{
    if (atomicAdd(v.jobs + JOB_ENDED, 1) == n - 1)
        v.jobs[JOB_NEXT] = v.jobs[JOB_ENDED] = 0;
}

// CTAs or clusters: as many as there can be tiles of m tokens, at most `most`.
static inline uint32_t prefill_grid(const session_view &v, uint32_t m, uint32_t most)
{
    uint32_t group = v.heads / v.kv_heads, seqs = m / (ROWS / group + 1);
    seqs = seqs < v.max_seqs ? seqs : v.max_seqs;
    uint64_t tiles = (uint64_t)v.kv_heads * ((uint64_t)m * group / v.tile_rows + seqs);
    return (uint32_t)(tiles < most ? tiles : most);
}

// attend_hopper.cu's, which has this work where session_view.hopper says so.
void hopper_run(const session_view &, const attend_args &, uint32_t m, cudaStream_t);
uint32_t hopper_tile_rows(uint32_t head_dim);
