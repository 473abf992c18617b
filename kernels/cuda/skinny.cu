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
#include "cuda/skinny_load.h"

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

template <class S>
static __global__ void __launch_bounds__(THREADS, S::CTAS_A_SM)
    skinny_kernel(gemm g, skinny_shares shares, gemm_split split, uint32_t ahead)
{
    extern __shared__ uint4 shared[];
    let_next_start();
    const uint32_t w_ring = shared_address(shared), x_ring = w_ring + S::W_STAGES * S::W_STAGE;
    float *sums = (float *)((char *)shared + S::W_STAGES * S::W_STAGE + S::X_STAGES * S::X_STAGE);
    const uint32_t warp = threadIdx.x / 32, wr = warp % S::WR, ks = warp / S::WR;
    const uint32_t chunks = shares.chunks, begin = shares.begin(blockIdx.x),
                   n = shares.begin(blockIdx.x + 1) - begin;
    const uint64_t policy = read_once();
    using loader = skinny_loader<S>;
    const bool of_w = loader::of_w();
    loader l(g, chunks, begin, n, of_w ? w_ring : x_ring);
    auto load = [&]() {
        l.load(g, chunks, policy);
        l.slot = of_w ? next_stage<S::W_STAGES, S::W_STAGE>(w_ring, l.slot)
                      : next_stage<S::X_STAGES, S::X_STAGE>(x_ring, l.slot);
    };
    if (of_w) {
#pragma unroll 1
        for (int i = 0; i < S::W_STAGES - 1; i++)
            load();
        l.ask_ahead(g, ahead);
    }
    wait_previous();
    if (!of_w) {
#pragma unroll 1
        for (int i = 0; i < S::X_STAGES - 1; i++)
            load();
    }
    float sum[S::SUMS] = {};
    uint32_t w = w_ring, x = x_ring, tile = begin / chunks, chunk = begin % chunks;
#pragma unroll 1
    for (uint32_t i = 0; i < n; i++) {
        if (of_w)
            wait_copies<S::W_STAGES - 2>();
        else
            wait_copies<S::X_STAGES - 2>();
        __syncthreads(); // chunk i is there, and all have done with chunk i - 1
        load();
        add_chunk<S>(sum, w, x, wr, ks);
        w = next_stage<S::W_STAGES, S::W_STAGE>(w_ring, w);
        x = next_stage<S::X_STAGES, S::X_STAGE>(x_ring, x);
        if (++chunk < chunks && i + 1 < n)
            continue;
        join_warps<S>(sum, sums, wr, ks);
        const skinny_tile t = {sums,
                               S::PITCH,
                               tile,
                               shares.owner(tile * chunks),
                               shares.owner((tile + 1) * chunks - 1),
                               split};
        if (join_shares<S>(t))
            end_tile(g, t);
#pragma unroll
        for (int j = 0; j < S::SUMS; j++)
            sum[j] = 0;
        chunk = 0;
        tile++;
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
