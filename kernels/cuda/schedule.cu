// SPDX-License-Identifier: Apache-2.0
/*
 * schedule - the first kernel of a step: the page table's edits, which slot each token is of, and
 * who attends to which sequence.
 *
 * shape    one CTA; sequences in pieces of its size, each a running sum
 * split    a sequence whose new rows (tokens times heads of a group) fit one product goes to the
 *          decode kernel, another to the prefill kernel, cut into tiles of rows, the last and most
 *          expensive tile first
 * traffic  a few words a token, sequence and edit
 * order    nothing starts before all of it is written: so every later kernel of the step may read
 *          what it wrote before wait_previous()
 * oracle   tests/cuda/attend.cu, through the attention
 */
#include "cuda/attend.h"

enum { THREADS = 1024, WARPS = THREADS / WARP };

// Sums over the threads before this one and over all.
static __device__ uint32_t running_sum(uint32_t mine, uint32_t *all)
{
    __shared__ uint32_t part[WARPS];
    uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, sum = mine;
    for (uint32_t o = 1; o < WARP; o <<= 1) {
        uint32_t add = __shfl_up_sync(~0u, sum, o);
        sum += lane >= o ? add : 0;
    }
    __syncthreads(); // the last call's readers are done
    if (lane == WARP - 1)
        part[warp] = sum;
    __syncthreads();
    uint32_t of_warps = part[lane];
    for (uint32_t o = 1; o < WARPS; o <<= 1) {
        uint32_t add = __shfl_up_sync(~0u, of_warps, o);
        of_warps += lane >= o ? add : 0;
    }
    *all = __shfl_sync(~0u, of_warps, WARPS - 1);
    uint32_t before = __shfl_sync(~0u, of_warps, warp > 0 ? warp - 1 : 0);
    return sum - mine + (warp > 0 ? before : 0);
}

// The last of the n ascending starts that is not above x.
static __device__ uint32_t holder(const uint32_t *start, uint32_t n, uint32_t x)
{
    uint32_t lo = 0;
    while (n > 1) {
        uint32_t half = n / 2;
        if (start[lo + half] <= x) {
            lo += half;
            n -= half;
        } else {
            n = half;
        }
    }
    return lo;
}

static __device__ void edit_pages(const session_view &v)
{
    uint32_t n = v.counts[3];
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        v.page_table[(uint64_t)v.edit_slot[i] * v.max_pages + v.edit_index[i]] = v.edit_block[i];
}

struct piece {
    uint32_t token[THREADS], tile[THREADS]; // the first of each sequence
    int32_t slot[THREADS];
};

// Sequences [at, at + n), whose first token and tile are numbered `token` and `tile`.
static __device__ void fill(const session_view &v, const piece &p, uint32_t at, uint32_t n,
                            uint32_t token, uint32_t tokens, uint32_t tile, uint32_t tiles)
{
    for (uint32_t i = token + threadIdx.x; i < token + tokens; i += THREADS)
        v.token_slot[i] = p.slot[holder(p.token, n, i)];
    for (uint32_t i = tile + threadIdx.x; i < tile + tiles; i += THREADS) {
        uint32_t s = holder(p.tile, n, i);
        uint32_t end = s + 1 < n ? p.tile[s + 1] : tile + tiles;
        v.tiles[i] = make_int2((int)(at + s), (int)(end - 1 - i));
    }
}

static __global__ void __launch_bounds__(THREADS) schedule_kernel(session_view v)
{
    __shared__ piece p;
    wait_previous();
    edit_pages(v);
    uint32_t n_seqs = v.counts[1], group = v.heads / v.kv_heads;
    uint32_t token = 0, decoding = 0, tile = 0;
    for (uint32_t at = 0; at < n_seqs; at += THREADS) {
        uint32_t i = at + threadIdx.x, n = min(n_seqs - at, (uint32_t)THREADS);
        bool mine = i < n_seqs;
        uint32_t tokens = mine ? (uint32_t)v.seq_tokens[i] : 0;
        int32_t slot = mine ? v.seq_slot[i] : 0;
        bool decode = mine && tokens * group <= ROWS;
        uint32_t tiles = decode ? 0 : (tokens * group + v.tile_rows - 1) / v.tile_rows;
        uint32_t all_tokens, all_tiles, all_decoding;
        uint32_t first = token + running_sum(tokens, &all_tokens);
        uint32_t first_tile = tile + running_sum(tiles, &all_tiles);
        uint32_t nth = decoding + running_sum(decode, &all_decoding);
        p.token[threadIdx.x] = first;
        p.tile[threadIdx.x] = first_tile;
        p.slot[threadIdx.x] = slot;
        if (mine) {
            int4 seq = make_int4((int)first, (int)tokens, slot, v.pos[first] + (int)tokens);
            v.seqs[i] = seq;
            if (decode)
                v.decode[nth] = seq;
        }
        __syncthreads();
        fill(v, p, at, n, token, all_tokens, tile, all_tiles);
        token += all_tokens;
        tile += all_tiles;
        decoding += all_decoding;
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        v.jobs[JOB_DECODE] = decoding;
        v.jobs[JOB_TILES] = tile;
        v.jobs[JOB_NEXT] = v.jobs[JOB_ENDED] = 0;
    }
    __threadfence();
    __syncthreads();
    let_next_start();
}

void prepare_run(const session_view &v, cudaStream_t q)
{
    schedule_kernel<<<1, THREADS, 0, q>>>(v);
}
