// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * skinny_load - how the tiles of skinny.cu lie in shared memory, and how they get there.
 */
#include "cuda/gemm_parts.h"
#include "cuda/gemm_state.h"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    LOADERS = THREADS / 2, // of w: the first half; of x: the second
    ROWS = SKINNY_ROWS     // of w in a tile
};

/*
 * TOKENS in the tile; CHUNK columns a stage; stages of w and of x; MW blocks of 16 rows a warp. The
 * warps are WR by rows times KS by columns of a chunk.
 */
template <int TOKENS_, int CHUNK_, int W_STAGES_, int X_STAGES_, int MW_> struct skinny_shape {
    static constexpr int TOKENS = TOKENS_, CHUNK = CHUNK_, W_STAGES = W_STAGES_,
                         X_STAGES = X_STAGES_, MW = MW_;
    static constexpr int WR = ROWS / (16 * MW), KS = WARPS / WR;
    static constexpr int STEPS = CHUNK / 16 / KS; // of 16 columns, of a warp in a chunk
    static constexpr int BLOCKS = TOKENS / 8;     // of 8 tokens
    static constexpr int LINE = CHUNK / 8;        // 16-byte pieces of a row in a chunk
    static constexpr int W_STAGE = ROWS * CHUNK * 2, X_STAGE = TOKENS * CHUNK * 2; // bytes
    static constexpr int CTAS_A_SM = TOKENS < 64 ? 3 : 2; // that the registers leave room for
    static constexpr int SUMS = MW * BLOCKS * 4;          // of a thread
    static constexpr int PITCH = ROWS + 4, SUM_BYTES = TOKENS * PITCH * 4; // of a tile
    static constexpr uint32_t SHARED = W_STAGES * W_STAGE + X_STAGES * X_STAGE + SUM_BYTES;
    static_assert(STEPS >= 1 && LINE >= 8 && TOKENS % (LOADERS / LINE) == 0, "");
};

// Where 16-byte piece c of row r lies in a stage: rows of 8 in succession use all banks.
template <class S> static __device__ __forceinline__ uint32_t place(uint32_t r, uint32_t c)
{
    return (r * S::LINE + (c ^ (r & 7))) * 16;
}

/*
 * One thread's copies into its ring: of the same 16-byte column of every TURN-th row of a tile of
 * w, or of x. Rows of y and of w differ for gate and up, where 8 of each lie in turn.
 */
template <class S> struct skinny_loader {
    static constexpr uint32_t TURN = LOADERS / S::LINE; // rows that a ring's loaders copy at once
    static_assert(TURN == 8 || TURN == 16, "");
    const bf16 *at;       // the next chunk, in this thread's first row
    uint32_t tile, chunk; // of it
    uint32_t rows;        // of y from that row to the end of w; x: to the last token
    uint32_t left;        // chunks to come
    uint32_t to, slot;    // place of that row in a stage; where the next stage goes

    static __device__ __forceinline__ bool of_w()
    {
        return threadIdx.x < LOADERS;
    }

    // Chunks [begin, begin + n) into the ring at this address.
    __device__ __forceinline__ skinny_loader(const gemm &g, uint32_t chunks, uint32_t begin,
                                             uint32_t n, uint32_t ring)
        : tile(begin / chunks), chunk(begin % chunks), left(n), slot(ring)
    {
        const uint32_t r = threadIdx.x % LOADERS / S::LINE, c = threadIdx.x % S::LINE;
        to = place<S>(r, c);
        if (of_w()) {
            enter_tile(g);
        } else {
            rows = g.m > r ? g.m - r : 0;
            at = g.x + (uint64_t)r * g.k + chunk * S::CHUNK + c * 8;
        }
    }

    __device__ __forceinline__ void enter_tile(const gemm &g)
    {
        const uint32_t r = threadIdx.x / S::LINE, c = threadIdx.x % S::LINE;
        const bool gate_up = g.end == GEMM_GATE_UP;
        const uint32_t row = gate_up ? tile * (ROWS / 2) + r % 8 : tile * ROWS + r;
        rows = g.n > row ? g.n - row : 0;
        at = g.w + (uint64_t)(gate_up && r & 8 ? g.n + row : row) * g.k + chunk * S::CHUNK + c * 8;
    }

    __device__ __forceinline__ void load_w(const gemm &g, uint64_t policy) const
    {
        const bool gate_up = g.end == GEMM_GATE_UP,
                   real = chunk * S::CHUNK + threadIdx.x % S::LINE * 8 < g.k;
        // Odd turns of 8 rows: the up rows.
        const bf16 *odd = TURN == 8 && gate_up ? at + (uint64_t)g.n * g.k : at;
#pragma unroll
        for (uint32_t i = 0; i < ROWS / TURN; i++) {
            const uint32_t row = gate_up ? i * TURN / 16 * 8 : i * TURN;
            copy_weight(slot + to + i * TURN * S::LINE * 16,
                        (i % 2 ? odd : at) + (uint64_t)row * g.k, real && row < rows, policy);
        }
    }

    __device__ __forceinline__ void load_x(const gemm &g) const
    {
        const bool real = chunk * S::CHUNK + threadIdx.x % S::LINE * 8 < g.k;
#pragma unroll
        for (uint32_t i = 0; i < S::TOKENS / TURN; i++)
            copy_x(slot + to + i * TURN * S::LINE * 16, at + (uint64_t)(i * TURN) * g.k,
                   real && i * TURN < rows);
    }

    // The next chunk; an empty group at the end.
    __device__ __forceinline__ void load(const gemm &g, uint32_t chunks, uint64_t policy)
    {
        if (left > 0) {
            if (of_w())
                load_w(g, policy);
            else
                load_x(g);
            left--;
            at += S::CHUNK;
            if (++chunk == chunks) {
                chunk = 0;
                tile++;
                if (of_w())
                    enter_tile(g);
                else
                    at -= chunks * S::CHUNK;
            }
        }
        commit_copies();
    }

    // Of each row of the tile that comes next, what comes next, into the L2.
    __device__ __forceinline__ void ask_ahead(const gemm &g, uint32_t columns) const
    {
        const uint32_t r = threadIdx.x, column = chunk * S::CHUNK;
        const bool gate_up = g.end == GEMM_GATE_UP;
        const uint32_t row = gate_up ? tile * (ROWS / 2) + r / 16 * 8 + r % 8 : tile * ROWS + r;
        if (r >= ROWS || row >= g.n || left == 0 || columns == 0)
            return;
        fetch_ahead(g.w + (uint64_t)(gate_up && r & 8 ? g.n + row : row) * g.k + column,
                    2 * min(min(g.k - column, left * S::CHUNK), columns));
    }
};

// A stage of a ring after this one.
template <int STAGES, int BYTES>
static __device__ __forceinline__ uint32_t next_stage(uint32_t ring, uint32_t stage)
{
    return stage == ring + (STAGES - 1) * BYTES ? ring : stage + BYTES;
}
