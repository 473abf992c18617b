// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend_deal - which CTA and warp of the decode kernel has which keys.
 *
 * Tiles    the blocks of keys that the step's sequences see, numbered through in their order.
 * Ranges   a group of kv_heads CTAs, one a head, has the next `each` tiles; a warp of it the next
 *          `each_warp` of these. So a warp's range can begin and end within a sequence.
 *          Neighbouring groups' CTAs of one head are a cluster, where the device has them.
 * Order    depends on the batch alone.
 */
#include "cuda/attend.h"

enum {
    NOBODY = -1,
    SHARERS_MOST = 33 // groups that a sequence is dealt to: two rounds of merging, and one for
                      // where it begins within a range
};

template <int D> struct decode_shape {
    enum {
        WARPS = D == 256 ? 2 : 4,
        STAGES = D == 64 ? 4 : 3,
        TILE_BYTES = SV_BLOCK * 2 * D, // of K; as many of V follow
        STAGE_BYTES = 2 * TILE_BYTES,
        RING_BYTES = STAGES * STAGE_BYTES, // of a warp
        SHARED_BYTES = WARPS * RING_BYTES,
        TILES_LEAST = WARPS, // of a CTA: below, merging costs more than reading
        // Nor is a sequence dealt to more than a cluster if that gives no CTA more than these.
        TILES_NEAR = 3 * WARPS,
        PARTS = WARPS + 1 // that a CTA can leave: its warps' first ones and its last one
    };
};

// Which tiles of keys a sequence of the step has in a layer with this window.
struct span {
    uint32_t token, tokens, slot, begin, end; // of keys
    __device__ span(const int4 *at, uint32_t window)
    {
        int4 s = __ldcg(at);
        token = (uint32_t)s.x;
        tokens = (uint32_t)s.y;
        slot = (uint32_t)s.z;
        end = (uint32_t)s.w;
        begin = first_key(end - tokens, window);
    }
    __device__ uint32_t first_tile() const
    {
        return begin / SV_BLOCK;
    }
    __device__ uint32_t tiles() const
    {
        return (end + SV_BLOCK - 1) / SV_BLOCK - first_tile();
    }
};

// Ranges of tiles, numbered through all sequences of the step.
template <int WARPS> struct deal {
    uint32_t each, each_warp; // tiles of a CTA, of a warp
    int32_t seq[WARPS];       // where each warp starts: NOBODY, or the sequence,
    uint32_t offset[WARPS];   // which of its tiles,
    uint32_t tiles[WARPS];    // how many tiles of its range are there,
    uint32_t number[WARPS];   // and the number of the sequence's first tile
    uint32_t sums[WARPS], most[WARPS];
};

struct post {
    uint32_t head, group;
    __device__ post(const session_view &v)
    {
        uint32_t cluster = blockIdx.x / v.together;
        head = cluster % v.kv_heads;
        group = cluster / v.kv_heads * v.together + blockIdx.x % v.together;
    }
};

static __device__ uint32_t cta_of(const session_view &v, uint32_t group, uint32_t head)
{
    return (group / v.together * v.kv_heads + head) * v.together + group % v.together;
}

// How many tiles a group gets of `all`, `most` of them of one sequence.
template <int D>
static __device__ uint32_t tiles_each(const session_view &v, uint32_t all, uint32_t most)
{
    uint32_t groups = gridDim.x / v.kv_heads, near = (most + v.together - 1) / v.together;
    uint32_t each = max((all + groups - 1) / groups, (uint32_t)decode_shape<D>::TILES_LEAST);
    if (v.together > 1 && near <= decode_shape<D>::TILES_NEAR)
        each = max(each, near);
    return max(each, (most + SHARERS_MOST - 2) / (SHARERS_MOST - 1));
}

template <int D>
static __device__ void deal_out(const session_view &v, uint32_t group, uint32_t n_seqs,
                                uint32_t window, deal<decode_shape<D>::WARPS> *d)
{
    constexpr uint32_t WARPS = decode_shape<D>::WARPS, THREADS = WARPS * WARP;
    uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t strip = (n_seqs + THREADS - 1) / THREADS;
    uint32_t from = min(threadIdx.x * strip, n_seqs), to = min(from + strip, n_seqs);
    uint32_t mine = 0, most = 0;
#pragma unroll 1
    for (uint32_t i = from; i < to; i++) {
        uint32_t tiles = span(v.decode + i, window).tiles();
        mine += tiles;
        most = max(most, tiles);
    }
    uint32_t sum = mine;
    for (uint32_t o = 1; o < WARP; o <<= 1) {
        uint32_t add = __shfl_up_sync(~0u, sum, o);
        sum += lane >= o ? add : 0;
        most = max(most, __shfl_xor_sync(~0u, most, o));
    }
    if (lane == WARP - 1) {
        d->sums[warp] = sum;
        d->most[warp] = most;
    }
    if (threadIdx.x < WARPS)
        d->seq[threadIdx.x] = NOBODY;
    __syncthreads();
    uint32_t all = 0, before = sum - mine;
    for (uint32_t w = 0; w < WARPS; w++) {
        before += w < warp ? d->sums[w] : 0;
        all += d->sums[w];
        most = max(most, d->most[w]);
    }
    uint32_t each = tiles_each<D>(v, all, most);
    uint32_t each_warp = (each + WARPS - 1) / WARPS;
    uint32_t first = group * each, last = min(first + each, all);
    if (threadIdx.x == 0) {
        d->each = each;
        d->each_warp = each_warp;
    }
#pragma unroll 1
    for (uint32_t w = 0; w < WARPS; w++) {
        uint32_t x = first + w * each_warp;
        if (x >= last || x < before || x >= before + mine)
            continue;
        uint32_t number = before;
        for (uint32_t i = from; i < to; i++) {
            uint32_t tiles = span(v.decode + i, window).tiles();
            if (x < number + tiles) {
                d->seq[w] = (int32_t)i;
                d->offset[w] = x - number;
                d->tiles[w] = min(each_warp, last - x);
                d->number[w] = number;
                break;
            }
            number += tiles;
        }
    }
    __syncthreads();
}
