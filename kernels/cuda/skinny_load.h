// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * skinny_load - device code of skinny: its shares of the work, a warp's stream of weights, x on its
 * way into shared memory.
 *
 * Shared memory holds the rings; the gate's barrier; sums of a round, [parts][shares of 4 lanes];
 * squares [cluster][tokens]; x [tokens][width]. The 16-byte pieces of a row of a block and of a
 * token's x lie at piece ^ (row & 7): eight rows of one column are in different banks.
 */
#include "cuda/gemm_parts.h"
#include "cuda/skinny.h"

// Where the share of i begins when `all` are shared evenly among n.
static __device__ __forceinline__ uint32_t begin_of(uint32_t all, uint32_t i, uint32_t n)
{
    return all / n * i + min(all % n, i);
}

// Tiles [first, first + n) of a cluster, by so many groups of 1 << shift warps.
struct skinny_round {
    uint32_t first, n, groups, shift;

    // The one that begins at `first` of tiles [.., last). At most a quarter of the groups is idle.
    __device__ __forceinline__ skinny_round(uint32_t first, uint32_t last)
        : first(first), groups(WARPS), shift(0)
    {
        const uint32_t left = last - first;
        while (groups > 1 && left * 4 < groups * 3) {
            groups /= 2;
            shift++;
        }
        n = min(left, groups);
    }
};

// A warp's part of a round: blocks [begin, end) of a tile.
struct skinny_part {
    uint32_t group, begin, end;

    // Of a CTA's blocks [block, block + blocks), shared evenly among the group.
    __device__ __forceinline__ skinny_part(const skinny_round &r, uint32_t block, uint32_t blocks)
    {
        const uint32_t warp = threadIdx.x / 32, i = warp & ((1u << r.shift) - 1);
        const uint32_t each = blocks >> r.shift, more = blocks & ((1u << r.shift) - 1);
        group = warp >> r.shift;
        begin = block + each * i + min(i, more);
        end = group < r.n ? begin + each + (i < more) : begin;
    }
};

static __device__ __forceinline__ uint32_t first_row(const skinny_walk &w, uint32_t tile)
{
    return tile / w.run * w.jump + tile % w.run * 8;
}

// What a CTA has to do: these tiles, these blocks of their rows.
struct skinny_share {
    uint32_t rank, first, last, block, blocks;

    __device__ __forceinline__ skinny_share(const skinny_plan &p)
    {
        const uint32_t cluster = blockIdx.x / p.cluster;
        rank = blockIdx.x % p.cluster;
        first = begin_of(p.tiles, cluster, p.clusters);
        last = begin_of(p.tiles, cluster + 1, p.clusters);
        block = begin_of(p.blocks, rank, p.cluster);
        blocks = begin_of(p.blocks, rank + 1, p.cluster) - block;
    }
};

// One lane's way through the blocks of its warp: a piece of every fourth row of a tile.
struct skinny_stream {
    const bf16 *at;            // in row lane / 8 of the tile
    uint64_t half, four;       // elements from a tile's row 0 to row 8, to row 4
    uint32_t tile, block, end; // to be loaded next, until that block
    uint32_t real;             // which of this lane's four rows there are, a bit each
    uint32_t next, last;       // tile that the next round begins with; behind the last
    uint32_t own_block, own_blocks;

    __device__ __forceinline__ skinny_stream(const gemm &g, const skinny_walk &w,
                                             const skinny_share &c)
        : half((uint64_t)w.half * g.k), four(4ull * w.step * g.k), block(0), end(0), next(c.first),
          last(c.last), own_block(c.block), own_blocks(c.blocks)
    {
    }

    // To the first block of the next round in which this warp has any, if it is at a tile's end.
    __device__ __forceinline__ void seek(const gemm &g, const skinny_walk &w)
    {
        if (block != end)
            return;
        while (block == end && next < last) {
            const skinny_round r(next, last);
            const skinny_part p(r, own_block, own_blocks);
            next += r.n;
            tile = r.first + p.group;
            block = p.begin;
            end = p.end;
        }
        if (block == end)
            return;
        const uint32_t lane = threadIdx.x % 32, row = first_row(w, tile) + lane / 8 * w.step;
        at = g.w + (uint64_t)row * g.k + block * COLUMNS + lane % 8 * 8;
        real = 0xf;
        if (!w.paired)
            for (uint32_t i = 0; i < 4; i++)
                real = row + 4 * i < g.n ? real : real & ~(1u << i);
    }

    // The next block into a slot of the ring; an empty group at the end.
    __device__ __forceinline__ void load(const gemm &g, const skinny_walk &w, uint32_t slot,
                                         uint64_t policy)
    {
        seek(g, w);
        if (block < end) {
            const uint32_t lane = threadIdx.x % 32;
            const uint32_t mine = block * COLUMNS + lane % 8 * 8 < g.k ? real : 0;
            const uint32_t to = slot + lane / 8 * LINE + (lane % 8 ^ lane / 8) * 16;
            const bf16 *upper = at + half;
            copy_weight(to, at, mine & 1, policy);
            copy_weight((to ^ 64) + 4 * LINE, at + four, mine & 2, policy);
            copy_weight(to + 8 * LINE, upper, mine & 4, policy);
            copy_weight((to ^ 64) + 12 * LINE, upper + four, mine & 8, policy);
            at += COLUMNS;
            block++;
        }
        commit_copies();
    }

    // What comes next of this tile, into the L2.
    __device__ __forceinline__ void ask_ahead(const gemm &g, const skinny_walk &w,
                                              uint32_t bytes) const
    {
        const uint32_t i = threadIdx.x % 32;
        if (bytes == 0 || block == end || i >= TILE)
            return;
        const uint32_t row = first_row(w, tile) + i % 8 * w.step + i / 8 * w.half;
        if (row < g.n || w.paired)
            fetch_ahead(g.w + (uint64_t)row * g.k + block * COLUMNS,
                        min((min(end * COLUMNS, g.k) - block * COLUMNS) * 2, bytes));
    }
};

struct skinny_rows {
    const int32_t *row_token; // NULL: row r is token r
    const uint32_t *rows;     // how many of row_token count
};

// x of a CTA's columns, and of the residual's rows the sums of their squares.
struct skinny_x {
    uint32_t column, columns; // of k: the first, how many; a multiple of COLUMNS, zeros beyond k
    char *to;                 // [tokens][width]
    uint32_t width;
    float *squares; // of this CTA, [tokens]
};

// A warp for each token: every 8th, all of these and 8 loads of a lane at a time.
template <int TOKENS>
static __device__ __forceinline__ void stage_x(const gemm &g, const skinny_x &x)
{
    constexpr uint32_t PAIR = TOKENS / 8, DEEP = 8 / PAIR, STEP = 256;
    const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32;
    if (first >= g.m)
        return;
    for (uint32_t at = lane * 8; at < x.columns; at += DEEP * STEP) {
        uint4 f[DEEP][PAIR];
#pragma unroll
        for (uint32_t d = 0; d < DEEP; d++)
#pragma unroll
            for (uint32_t i = 0; i < PAIR; i++) {
                const uint32_t c = at + d * STEP, t = first + i * WARPS;
                f[d][i] = load_words(g.x + (uint64_t)t * g.k + x.column + c,
                                     c < x.columns && x.column + c < g.k && t < g.m);
            }
#pragma unroll
        for (uint32_t d = 0; d < DEEP; d++)
#pragma unroll
            for (uint32_t i = 0; i < PAIR; i++) {
                const uint32_t c = at + d * STEP, t = first + i * WARPS;
                if (c < x.columns && t < g.m)
                    *(uint4 *)(x.to + t * x.width + (c / 8 ^ (t & 7)) * 16) = f[d][i];
            }
    }
}

static __device__ __forceinline__ uint2 four_bf16(const float4 &f, const float4 &w, float offset)
{
    const __nv_bfloat162 two[2] = {
        __floats2bfloat162_rn(f.x * (w.x + offset), f.y * (w.y + offset)),
        __floats2bfloat162_rn(f.z * (w.z + offset), f.w * (w.w + offset))};
    return uint2{*(const uint32_t *)&two[0], *(const uint32_t *)&two[1]};
}

// The same of a residual, multiplied by the norm's weight alone.
template <int TOKENS>
static __device__ __forceinline__ void stage_residual(const gemm &g, const skinny_rows &v,
                                                      const skinny_x &x)
{
    constexpr uint32_t PAIR = TOKENS / 8, DEEP = 8 / PAIR, STEP = 128;
    const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32;
    const float offset = g.norm ? g.offset : 1; // without a weight: times 0 + 1
    if (first >= g.m)
        return;
    const float *row[PAIR];
    float sum[PAIR] = {};
#pragma unroll
    for (uint32_t i = 0; i < PAIR; i++) {
        const uint32_t t = first + i * WARPS;
        const uint32_t from =
            v.row_token && t < g.m ? (t < *v.rows ? (uint32_t)v.row_token[t] : 0) : t;
        row[i] = g.residual + (uint64_t)from * g.k + x.column;
    }
    for (uint32_t at = lane * 4; at < x.columns; at += DEEP * STEP) {
        float4 w[DEEP], f[DEEP][PAIR];
#pragma unroll
        for (uint32_t d = 0; d < DEEP; d++) {
            const uint32_t c = at + d * STEP;
            const bool real = c < x.columns && x.column + c < g.k;
            w[d] = load_floats(g.norm + x.column + c, g.norm && real);
#pragma unroll
            for (uint32_t i = 0; i < PAIR; i++)
                f[d][i] = load_floats(row[i] + c, real && first + i * WARPS < g.m);
        }
#pragma unroll
        for (uint32_t d = 0; d < DEEP; d++)
#pragma unroll
            for (uint32_t i = 0; i < PAIR; i++) {
                const uint32_t c = at + d * STEP, t = first + i * WARPS;
                const float4 &h = f[d][i];
                sum[i] += (h.x * h.x + h.y * h.y) + (h.z * h.z + h.w * h.w);
                if (c < x.columns && t < g.m)
                    *(uint2 *)(x.to + t * x.width + (c / 8 ^ (t & 7)) * 16 + c % 8 * 2) =
                        four_bf16(h, w[d], offset);
            }
    }
#pragma unroll
    for (uint32_t i = 0; i < PAIR; i++) {
        for (int o = 16; o > 0; o >>= 1)
            sum[i] += __shfl_xor_sync(~0u, sum[i], o);
        if (lane == 0 && first + i * WARPS < g.m)
            x.squares[first + i * WARPS] = sum[i];
    }
}
