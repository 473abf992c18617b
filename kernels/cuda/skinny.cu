// SPDX-License-Identifier: Apache-2.0
/*
 * skinny - a projection of up to 64 tokens on the tensor cores, at the speed of memory.
 *
 * shape    mma m16n8k16 with 16 rows of weights as A and 8 tokens as B. A tile is 64 rows of w (of
 *          gate and up: 8 and 8 in turn, so that one thread ends with both); its columns come in
 *          chunks. All chunks of all tiles in one line are cut into even shares, one for each SM
 * traffic  2 * n * k bytes, each once; x from the L2 once a tile, m / 64 of that; partial sums of
 *          cut tiles, at most two a CTA, 256 * TOKENS bytes each, through the L2
 * depth    two rings in shared memory by cp.async, one for w, filled before wait_previous() by half
 *          of the warps, and one for x by the other half: each waits for its own only. Room is left
 *          for a second CTA a SM, so the kernel that comes next fills its ring meanwhile
 * order    of a sum: chunks upwards in each of KS warps, these downwards, then the shares upwards.
 *          The share that arrives last adds them up, whichever it is: no bit depends on it
 * oracle   tests/cuda/gemm.cu, in double
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

// The row of w that row r of a tile is.
static __device__ __forceinline__ uint32_t weight_row(const gemm &g, uint32_t tile, uint32_t r)
{
    if (g.end != GEMM_GATE_UP)
        return min(tile * ROWS + r, g.n - 1);
    uint32_t row = min(tile * (ROWS / 2) + r / 16 * 8 + r % 8, g.n - 1);
    return r & 8 ? g.n + row : row;
}

// A place in the line of all chunks.
struct skinny_at {
    uint32_t tile, chunk;

    __device__ __forceinline__ void step(uint32_t chunks)
    {
        if (++chunk == chunks) {
            chunk = 0;
            tile++;
        }
    }
};

template <class S>
static __device__ __forceinline__ void load_w(const gemm &g, skinny_at at, uint32_t stage,
                                              uint64_t policy)
{
    constexpr uint32_t ROWS_A_TURN = LOADERS / S::LINE;
    const uint32_t c = threadIdx.x % S::LINE, column = at.chunk * S::CHUNK + c * 8;
#pragma unroll
    for (uint32_t i = 0; i < ROWS / ROWS_A_TURN; i++) {
        const uint32_t r = threadIdx.x / S::LINE + i * ROWS_A_TURN;
        copy_weight(stage + place<S>(r, c),
                    g.w + (uint64_t)weight_row(g, at.tile, r) * g.k + column, column < g.k, policy);
    }
}

template <class S>
static __device__ __forceinline__ void load_x(const gemm &g, skinny_at at, uint32_t stage)
{
    constexpr uint32_t ROWS_A_TURN = LOADERS / S::LINE;
    const uint32_t j = threadIdx.x - LOADERS, c = j % S::LINE, column = at.chunk * S::CHUNK + c * 8;
#pragma unroll
    for (uint32_t i = 0; i < S::TOKENS / ROWS_A_TURN; i++) {
        const uint32_t r = j / S::LINE + i * ROWS_A_TURN;
        copy_x(stage + place<S>(r, c), g.x + (uint64_t)r * g.k + column, column < g.k && r < g.m);
    }
}

static __device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(from)
                 : "memory");
}

static __device__ __forceinline__ void load_matrices(uint32_t (&m)[2], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1])
                 : "r"(from)
                 : "memory");
}

static __device__ __forceinline__ void multiply(float *c, const uint32_t (&a)[4], const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The chunk in these stages into the sums of this warp.
template <class S>
static __device__ __forceinline__ void add_chunk(float (&sum)[S::SUMS], uint32_t w, uint32_t x,
                                                 uint32_t wr, uint32_t ks)
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < S::STEPS; step++) {
        const uint32_t piece = (ks * S::STEPS + step) * 2;
        uint32_t a[S::MW][4];
#pragma unroll
        for (int i = 0; i < S::MW; i++)
            load_matrices(a[i], w + place<S>((wr * S::MW + i) * 16 + lane % 16, piece + lane / 16));
        if constexpr (S::BLOCKS == 1) {
            uint32_t b[2];
            load_matrices(b, x + place<S>(lane % 8, piece + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < S::MW; i++)
                multiply(sum + i * 4, a[i], b);
        } else {
#pragma unroll
            for (int j = 0; j < S::BLOCKS; j += 2) {
                uint32_t b[4];
                load_matrices(b,
                              x + place<S>(j * 8 + lane % 8 + lane / 16 * 8, piece + lane / 8 % 2));
#pragma unroll
                for (int i = 0; i < S::MW; i++) {
                    multiply(sum + (i * S::BLOCKS + j) * 4, a[i], b);
                    multiply(sum + (i * S::BLOCKS + j + 1) * 4, a[i], b + 2);
                }
            }
        }
    }
}

/*
 * The sums of all warps, [TOKENS][PITCH] by row of the tile. The pitch lets the 8 rows and 4 pairs
 * of tokens of a warp's store use all banks.
 */
template <class S>
static __device__ __forceinline__ void join_warps(const float (&sum)[S::SUMS], float *tile,
                                                  uint32_t wr, uint32_t ks)
{
    const uint32_t lane = threadIdx.x % 32;
    float *mine = tile + lane % 4 * 2 * S::PITCH + wr * S::MW * 16 + lane / 4;
#pragma unroll 1
    for (int turn = S::KS - 1; turn >= 0; turn--) {
        if ((int)ks == turn) {
#pragma unroll
            for (int i = 0; i < S::SUMS; i++) {
                float *at = mine + (i / 4 % S::BLOCKS * 8 + i % 2) * S::PITCH +
                            i / 4 / S::BLOCKS * 16 + i % 4 / 2 * 8;
                *at = turn == S::KS - 1 ? sum[i] : *at + sum[i];
            }
        }
        __syncthreads();
    }
}

// The even shares of the line: CTA i has chunks [begin(i), begin(i + 1)); the first `rest` one
// more.
struct skinny_shares {
    uint32_t chunks, size, rest; // chunks of a tile

    __device__ __forceinline__ uint32_t begin(uint32_t cta) const
    {
        return cta * size + min(cta, rest);
    }

    __device__ __forceinline__ uint32_t owner(uint32_t chunk) const
    {
        const uint32_t longer = rest * (size + 1);
        return chunk < longer ? chunk / (size + 1) : rest + (chunk - longer) / size;
    }
};

// A tile's sums: of this CTA alone, or of all that have shares of it, in their order.
struct skinny_tile {
    const float *sums; // shared memory
    uint32_t pitch, index, first, last;
    gemm_split split;

    // Rows [row, row + 4) of the tile for token t.
    __device__ __forceinline__ float4 four(uint32_t t, uint32_t row) const
    {
        if (first == last)
            return *(const float4 *)(sums + t * pitch + row);
        float4 f = {0, 0, 0, 0};
#pragma unroll 4
        for (uint32_t cta = first; cta <= last; cta++) {
            const float4 p = __ldcg(split.partial(cta, cta == first) + (t * ROWS + row) / 4);
            f = {f.x + p.x, f.y + p.y, f.z + p.z, f.w + p.w};
        }
        return f;
    }
};

/*
 * Shows the others of a cut tile this CTA's sums. Whether all have: then it is this one's to end.
 * A CTA begins at most one cut tile, the last of its share, in slot 1; others' come first, in slot
 * 0.
 */
template <class S> static __device__ __forceinline__ bool join_shares(const skinny_tile &t)
{
    __shared__ bool is_last;
    if (t.first == t.last)
        return true;
    float4 *mine = t.split.partial(blockIdx.x, blockIdx.x == t.first);
    for (uint32_t i = threadIdx.x; i < S::TOKENS * ROWS / 4; i += THREADS)
        __stcg(mine + i,
               *(const float4 *)(t.sums + i / (ROWS / 4) * S::PITCH + i % (ROWS / 4) * 4));
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(t.split.tickets + t.first, 1) == t.last - t.first;
        if (is_last)
            t.split.tickets[t.first] = 0; // for the next kernel
    }
    __syncthreads();
    __threadfence();
    return is_last;
}

static __device__ __forceinline__ void end_rows(const gemm &g, const skinny_tile &tile, uint32_t t,
                                                uint32_t r)
{
    const uint32_t row = tile.index * ROWS + r;
    if (row >= g.n)
        return;
    const uint32_t n = min(g.n - row, 4);
    float with[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        with[i] = i < n ? joined(g, row + i, t) : 0;
    const float4 f = tile.four(t, r);
    const float sum[4] = {f.x + with[0], f.y + with[1], f.z + with[2], f.w + with[3]};
    store_four(g, row, n, t, sum);
}

static __device__ __forceinline__ void end_gate_up(const gemm &g, const skinny_tile &tile,
                                                   uint32_t t, uint32_t r)
{
    const uint32_t row = tile.index * (ROWS / 2) + r;
    if (row >= g.n)
        return;
    const uint32_t n = min(g.n - row, 4), in_tile = r / 8 * 16 + r % 8;
    const float4 gate4 = tile.four(t, in_tile), up4 = tile.four(t, in_tile + 8);
    float gate[4] = {gate4.x, gate4.y, gate4.z, gate4.w}, up[4] = {up4.x, up4.y, up4.z, up4.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (g.bias && i < n) {
            gate[i] += g.bias[row + i];
            up[i] += g.bias[g.n + row + i];
        }
        gate[i] = activated(gate[i], g.activation) * up[i];
    }
    store_four(g, row, n, t, gate);
}

static __device__ __forceinline__ void end_tile(const gemm &g, const skinny_tile &tile)
{
    const uint32_t fours = g.end == GEMM_GATE_UP ? ROWS / 8 : ROWS / 4; // of a token
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < g.m * fours; i += THREADS) {
        if (g.end == GEMM_GATE_UP)
            end_gate_up(g, tile, i / fours, i % fours * 4);
        else
            end_rows(g, tile, i / fours, i % fours * 4);
    }
}

// Of each row of the tile where the ring ends, what comes next, into the L2.
template <class S>
static __device__ __forceinline__ void ask_ahead(const gemm &g, skinny_at at, uint32_t left,
                                                 uint32_t most)
{
    if (threadIdx.x >= ROWS || left == 0 || most == 0)
        return;
    const uint32_t column = at.chunk * S::CHUNK;
    const uint32_t some = min(min(g.k - column, left * S::CHUNK), most);
    fetch_ahead(g.w + (uint64_t)weight_row(g, at.tile, threadIdx.x) * g.k + column, 2 * some);
}

template <class S>
static __global__ void __launch_bounds__(THREADS, S::CTAS_A_SM)
    skinny_kernel(gemm g, skinny_shares shares, gemm_split split, uint32_t ahead)
{
    extern __shared__ uint4 shared[];
    let_next_start();
    const uint32_t w_ring = shared_address(shared), x_ring = w_ring + S::W_STAGES * S::W_STAGE;
    float *sums = (float *)((char *)shared + S::W_STAGES * S::W_STAGE + S::X_STAGES * S::X_STAGE);
    const bool loads_w = threadIdx.x < LOADERS;
    const uint32_t warp = threadIdx.x / 32, wr = warp % S::WR, ks = warp / S::WR;
    const uint64_t policy = read_once();
    const uint32_t chunks = shares.chunks, begin = shares.begin(blockIdx.x),
                   n = shares.begin(blockIdx.x + 1) - begin;
    skinny_at at = {begin / chunks, begin % chunks}, load = at;
    uint32_t loaded = 0;
    auto load_stage = [&]() { // of this thread's ring; an empty group at the end
        if (loaded < n) {
            if (loads_w)
                load_w<S>(g, load, w_ring + loaded % S::W_STAGES * S::W_STAGE, policy);
            else
                load_x<S>(g, load, x_ring + loaded % S::X_STAGES * S::X_STAGE);
            load.step(chunks);
        }
        loaded++;
        commit_copies();
    };
    if (loads_w) {
#pragma unroll 1
        for (int i = 0; i < S::W_STAGES - 1; i++)
            load_stage();
        ask_ahead<S>(g, load, n > loaded ? n - loaded : 0, ahead);
    }
    wait_previous();
    if (!loads_w) {
#pragma unroll 1
        for (int i = 0; i < S::X_STAGES - 1; i++)
            load_stage();
    }
    float sum[S::SUMS] = {};
#pragma unroll 1
    for (uint32_t i = 0; i < n; i++) {
        if (loads_w)
            wait_copies<S::W_STAGES - 2>();
        else
            wait_copies<S::X_STAGES - 2>();
        __syncthreads(); // chunk i is there, and all have done with chunk i - 1
        load_stage();
        add_chunk<S>(sum, w_ring + i % S::W_STAGES * S::W_STAGE,
                     x_ring + i % S::X_STAGES * S::X_STAGE, wr, ks);
        const uint32_t index = at.tile;
        at.step(chunks);
        if (at.tile == index && i + 1 < n)
            continue;
        join_warps<S>(sum, sums, wr, ks);
        const skinny_tile tile = {sums,
                                  S::PITCH,
                                  index,
                                  shares.owner(index * chunks),
                                  shares.owner((index + 1) * chunks - 1),
                                  split};
        if (join_shares<S>(tile))
            end_tile(g, tile);
#pragma unroll
        for (int j = 0; j < S::SUMS; j++)
            sum[j] = 0;
    }
}

template <class S> static cudaError_t launch(const sv_dev *d, const gemm &g, cudaStream_t q)
{
    const gemm_split split = gemm_split_of(d);
    const uint32_t rows = g.end == GEMM_GATE_UP ? ROWS / 2 : ROWS;
    const uint32_t chunks = (g.k + S::CHUNK - 1) / S::CHUNK, all = (g.n + rows - 1) / rows * chunks;
    const uint32_t ctas = all < split.ctas ? all : split.ctas;
    const skinny_shares s = {chunks, all / ctas, all % ctas};
    const uint32_t ahead = d->gemm->ahead / ROWS / 2; // columns of each row
    cudaError_t e = allow_shared(skinny_kernel<S>, S::SHARED);
    return e == cudaSuccess
               ? enqueue(skinny_kernel<S>, ctas, THREADS, S::SHARED, q, g, s, split, ahead)
               : e;
}

using skinny_8 = skinny_shape<8, 128, 5, 3, 1>;
using skinny_16 = skinny_shape<16, 128, 5, 3, 1>;
using skinny_32 = skinny_shape<32, 128, 4, 3, 1>;
using skinny_64 = skinny_shape<64, 64, 7, 3, 2>;

bool skinny_takes(const sv_dev *d, const gemm &g)
{
    const uint32_t fixed = 1024; // what kernels have beside, at most
    return g.m <= SKINNY_TOKENS && skinny_64::SHARED + fixed <= d->prop.sharedMemPerBlockOptin;
}

cudaError_t skinny_run(const sv_dev *d, const gemm &g, cudaStream_t q)
{
    if (g.m <= 8)
        return launch<skinny_8>(d, g, q);
    if (g.m <= 16)
        return launch<skinny_16>(d, g, q);
    if (g.m <= 32)
        return launch<skinny_32>(d, g, q);
    return launch<skinny_64>(d, g, q);
}
