// SPDX-License-Identifier: Apache-2.0
/*
 * schedule - the first kernel of a step: the batch from the host, the page table's edits, which
 * slot each token is of, and who attends to which sequence.
 *
 * shape    one CTA; sequences in pieces of its size, each a running sum
 * batch    read from pinned memory, what most batches fill before it is known how much there is:
 *          one trip over the bus
 * best     words of the step's rows begin at zero, whatever head comes (entry.h)
 * split    a sequence whose new rows (tokens times heads of a group) fit one product goes to the
 *          decode kernel, another to the prefill kernel, cut into tiles of rows, the last and most
 *          expensive tile first
 * traffic  a few words a token, sequence and edit
 * order    nothing starts before all of it is written: so every later kernel of the step may read
 *          what it wrote before wait_previous(). Not so behind the kernel for one token
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

enum {
    FIRST = 256,      // entries of each array read unasked,
    FIRST_EDITS = 64, // and of the page table's edits
    ARRAYS = 7,       // token, pos; seq_slot, seq_tokens; row_token, row_slot, row_want
    EDITS = ARRAYS,   // behind them, three more
    POS = 1,
    SEQ_SLOT = 2,
    SEQ_TOKENS = 3,
    COUNTS = 4,
    UNASKED = COUNTS + ARRAYS * FIRST + 3 * FIRST_EDITS
};

// What was read unasked of a batch.
struct beginning {
    uint32_t word[UNASKED];

    __device__ uint32_t &at(uint32_t array, uint32_t i)
    {
        return word[array < EDITS ? COUNTS + array * FIRST + i
                                  : COUNTS + EDITS * FIRST + (array - EDITS) * FIRST_EDITS + i];
    }
};

// Where an array begins in a batch, as on the device, and which count is its length.
static __device__ uint32_t begin_of(const session_view &v, uint32_t array)
{
    if (array < 2)
        return COUNTS + array * v.max_tokens;
    if (array < 4)
        return COUNTS + 2 * v.max_tokens + (array - 2) * v.max_seqs;
    if (array < EDITS)
        return COUNTS + 2 * v.max_tokens + 2 * v.max_seqs + (array - 4) * v.max_rows;
    return v.edits_at + (array - EDITS) * EDITS_STAGED;
}

static __device__ uint32_t count_of(uint32_t array)
{
    return array < 2 ? 0 : array < 4 ? 1 : array < EDITS ? 2 : 3;
}

static __device__ void read_unasked(const session_view &v, const uint32_t *from, beginning *b)
{
    uint32_t limit[] = {v.max_tokens, v.max_seqs, v.max_rows, EDITS_STAGED};
    static_assert(UNASKED <= 2 * THREADS, "two words a thread");
#pragma unroll
    for (uint32_t i = threadIdx.x; i < 2 * THREADS; i += THREADS) {
        uint32_t array = 0, entry = i;
        if (i >= COUNTS + ARRAYS * FIRST) {
            array = EDITS + (i - COUNTS - ARRAYS * FIRST) / FIRST_EDITS;
            entry = (i - COUNTS - ARRAYS * FIRST) % FIRST_EDITS;
        } else if (i >= COUNTS) {
            array = (i - COUNTS) / FIRST;
            entry = (i - COUNTS) % FIRST;
        }
        bool there = i < COUNTS || (i < UNASKED && entry < limit[count_of(array)]);
        if (there)
            b->word[i] = __ldcv(from + (i < COUNTS ? i : begin_of(v, array) + entry));
    }
}

// Its arrays to the device's, and what was not read unasked of them.
static __device__ void keep(const session_view &v, const uint32_t *from, beginning &b)
{
    if (threadIdx.x < COUNTS)
        v.counts[threadIdx.x] = b.word[threadIdx.x];
    for (uint32_t i = threadIdx.x; i < ARRAYS * FIRST; i += THREADS)
        if (i % FIRST < b.word[count_of(i / FIRST)])
            v.counts[begin_of(v, i / FIRST) + i % FIRST] = b.at(i / FIRST, i % FIRST);
#pragma unroll 1
    for (uint32_t array = 0; array < ARRAYS; array++) {
        uint32_t begin = begin_of(v, array), n = b.word[count_of(array)];
#pragma unroll 4
        for (uint32_t i = FIRST + threadIdx.x; i < n; i += THREADS)
            v.counts[begin + i] = __ldcv(from + begin + i);
    }
}

static __device__ void edit_page(const session_view &v, uint32_t slot, uint32_t index,
                                 uint32_t block)
{
    v.page_table[(uint64_t)slot * v.max_pages + index] = (int32_t)block;
}

static __device__ void edit_pages(const session_view &v, const uint32_t *edits, uint32_t from,
                                  uint32_t n)
{
    for (uint32_t i = from + threadIdx.x; i < n; i += THREADS)
        edit_page(v, __ldcv(edits + i), __ldcv(edits + EDITS_STAGED + i),
                  __ldcv(edits + 2 * EDITS_STAGED + i));
}

static __global__ void __launch_bounds__(THREADS)
    edit_kernel(session_view v, const uint32_t *edits, uint32_t n)
{
    edit_pages(v, edits, 0, n);
}

void edit_run(const session_view &v, const uint32_t *edits, uint32_t n, cudaStream_t q)
{
    edit_kernel<<<1, THREADS, 0, q>>>(v, edits, n);
}

// The batch of this turn, on the device and, of each array, its beginning.
static __device__ void take_batch(const session_view &v, uint32_t turn, beginning &b)
{
    const uint32_t *from = v.given[turn];
    read_unasked(v, from, &b);
    __syncthreads();
    uint32_t n = b.word[3], first = min(n, (uint32_t)FIRST_EDITS);
    if (threadIdx.x < first)
        edit_page(v, b.at(EDITS, threadIdx.x), b.at(EDITS + 1, threadIdx.x),
                  b.at(EDITS + 2, threadIdx.x));
    edit_pages(v, from + v.edits_at, first, n);
    keep(v, from, b);
    __syncthreads();
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

static __global__ void __launch_bounds__(THREADS)
    schedule_kernel(const __grid_constant__ session_view v)
{
    __shared__ piece p;
    __shared__ beginning b;
    uint32_t turn = v.jobs[JOB_NEXT_TURN];
    take_batch(v, turn, b);
    for (uint32_t i = threadIdx.x; i < b.word[2]; i += THREADS)
        v.best[i] = 0;
    uint32_t n_seqs = b.word[1], group = v.heads / v.kv_heads;
    auto entry = [&](uint32_t array, uint32_t i) {
        return i < FIRST ? b.at(array, i) : v.counts[begin_of(v, array) + i];
    };
    uint32_t token = 0, decoding = 0, tile = 0;
    for (uint32_t at = 0; at < n_seqs; at += THREADS) {
        uint32_t i = at + threadIdx.x, n = min(n_seqs - at, (uint32_t)THREADS);
        bool mine = i < n_seqs;
        uint32_t tokens = mine ? entry(SEQ_TOKENS, i) : 0;
        int32_t slot = mine ? (int32_t)entry(SEQ_SLOT, i) : 0;
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
            int4 seq = make_int4((int)first, (int)tokens, slot, (int)(entry(POS, first) + tokens));
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
        v.jobs[JOB_NEXT] = v.jobs[JOB_ENDED] = v.jobs[JOB_ARRIVED] = 0;
        v.jobs[JOB_TURN] = turn;
        v.jobs[JOB_NEXT_TURN] = (turn + 1) % BATCHES;
    }
    __threadfence();
    __syncthreads();
    let_next_start();
}

void prepare_run(const session_view &v, cudaStream_t q)
{
    schedule_kernel<<<1, THREADS, 0, q>>>(v);
}

enum { ONE_THREADS = 256, ONE_WORDS = COUNTS + ARRAYS + 3 * FIRST_EDITS };

// The words of a batch of one token: the counts, the first entry of each array, edits.
static __device__ __forceinline__ uint32_t one_word(const session_view &v, uint32_t i)
{
    if (i < COUNTS)
        return i;
    if (i < COUNTS + ARRAYS)
        return begin_of(v, i - COUNTS);
    const uint32_t edit = i - COUNTS - ARRAYS;
    return begin_of(v, EDITS + edit / FIRST_EDITS) + edit % FIRST_EDITS;
}

// One sequence of one token, which the decode kernel takes.
static __device__ __forceinline__ void schedule_one(const session_view &v, bool there, int32_t slot,
                                                    int32_t pos, uint32_t turn)
{
    v.token_slot[0] = slot;
    v.best[0] = 0;
    v.seqs[0] = v.decode[0] = make_int4(0, 1, slot, pos + 1);
    v.jobs[JOB_DECODE] = there;
    v.jobs[JOB_TILES] = v.jobs[JOB_NEXT] = v.jobs[JOB_ENDED] = v.jobs[JOB_ARRIVED] = 0;
    v.jobs[JOB_TURN] = turn;
    v.jobs[JOB_NEXT_TURN] = (turn + 1) % BATCHES;
}

// What schedule_kernel and embed_kernel do, without their running sums: one way to the host.
static __global__ void __launch_bounds__(ONE_THREADS)
    one_kernel(const __grid_constant__ session_view v, const bf16 *table, float scale, float *x,
               uint32_t cols)
{
    __shared__ uint32_t word[ONE_WORDS];
    static_assert(ONE_WORDS <= ONE_THREADS, "a word a thread");
    let_next_start();
    const uint32_t i = threadIdx.x, turn = v.jobs[JOB_NEXT_TURN];
    const uint32_t *from = v.given[turn];
    if (i < ONE_WORDS)
        word[i] = __ldcv(from + one_word(v, i));
    __syncthreads();
    const bool there = word[0] > 0;
    const uint32_t edits = word[3], first = min(edits, (uint32_t)FIRST_EDITS);
    const uint32_t *edit = word + COUNTS + ARRAYS;
    const int32_t *of = (const int32_t *)word + COUNTS, pos = of[POS], slot = of[SEQ_SLOT];
    if (i < first)
        edit_page(v, edit[i], edit[FIRST_EDITS + i], edit[2 * FIRST_EDITS + i]);
    edit_pages(v, from + v.edits_at, first, edits);
    if (i < COUNTS || (i < COUNTS + ARRAYS && word[count_of(i - COUNTS)] > 0))
        v.counts[one_word(v, i)] = word[i];
    if (i == 0)
        schedule_one(v, there, slot, pos, turn);
    if (!there)
        return;
    const int32_t id = of[0] < 0 ? max(v.last[slot], 0) : of[0]; // -1: nothing could be drawn
    if (i == 0)
        v.history[(uint64_t)slot * (v.max_context + 1) + (uint32_t)pos] = id;
    for (uint32_t c = i * 2; c < cols; c += ONE_THREADS * 2) {
        const __nv_bfloat162 two = *(const __nv_bfloat162 *)(table + (uint64_t)id * cols + c);
        *(float2 *)(x + c) = make_float2(__low2float(two) * scale, __high2float(two) * scale);
    }
}

void prepare_one_run(const session_view &v, const sv_weight *table, float scale, float *x,
                     cudaStream_t q)
{
    one_kernel<<<1, ONE_THREADS, 0, q>>>(v, table->data, scale, x, (uint32_t)table->cols);
}
