// SPDX-License-Identifier: Apache-2.0
/*
 * attend_hopper - attend_prefill's work by sm_90a's products of warpgroups.
 *
 * shape    a tile of 128 rows a CTA, 64 a warpgroup; head_dim up to 128, padded with zeros to 64 or
 *          128; keys in tiles of as many. With 64, weighing takes as long as the products, and of
 *          two CTAs a processor one does this while the other does that
 * overlap  while a tile's V is multiplied, the scores of the next are weighed; its scores' product
 *          is started just before. K is copied two tiles ahead, V one; the next tile of rows
 *          begins to be copied while the last V of this one is multiplied
 * order    of the keys: a row's sum depends on nothing else
 * oracle   tests/cuda/attend.cu
 */
#include "cuda/attend_prefill.h"
#include "cuda/wgmma.h"

#include <type_traits>

template <int D> struct hopper_shape {
    enum {
        THREADS = 256,
        TILE_ROWS = 128,
        GROUP_ROWS = 64,        // of a warpgroup
        CTAS = D == 64 ? 2 : 1, // of a processor
        KEYS = D == 64 ? 64 : 128,
        PANELS = D / 64,
        Q_PANEL = TILE_ROWS * 128, // bytes
        K_PANEL = KEYS * 128,      // of V too
        Q_BYTES = PANELS * Q_PANEL,
        K_BYTES = PANELS * K_PANEL,
        SHARED_BYTES = Q_BYTES + 4 * K_BYTES + 1024, // two of K, two of V; 1024 to align them
        PIECES = D / 8,                              // of 16 bytes, in a row
        STEP = THREADS / PIECES,                     // rows that all threads copy at once
        ROUNDS = KEYS / STEP,
        Q_ROUNDS = TILE_ROWS / STEP
    };
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where 16-byte piece `piece` of row `row` lies in a tile of such panels.
template <int PANEL>
static __device__ __forceinline__ uint32_t panel_place(uint32_t row, uint32_t piece)
{
    return piece / 8 * PANEL + row * 128 + (((piece ^ row) & 7) << 4);
}

// Copies this thread's share of a tile of keys: one piece of each of its rows.
template <class T, int D> struct hopper_reader {
    using shape = hopper_shape<D>;
    uint32_t row, to, q_to; // the first row; where it lies in a tile of K, of Q
    uint64_t first;         // element of a KV block
    bool column;

    __device__ hopper_reader(const session_view &v)
    {
        uint32_t piece = threadIdx.x % shape::PIECES;
        row = threadIdx.x / shape::PIECES;
        // STEP is a multiple of 8: the piece lies alike in every round.
        to = panel_place<shape::K_PANEL>(row, piece);
        q_to = panel_place<shape::Q_PANEL>(row, piece);
        column = 8 * piece < v.head_dim;
        first = (uint64_t)(row % SV_BLOCK) * v.kv_heads * v.head_dim + 8 * piece;
    }

    __device__ void look_up(const prefill_tile &t, uint32_t tile, int32_t (&page)[shape::ROUNDS])
    {
        uint32_t last = (t.to - 1) / SV_BLOCK;
#pragma unroll
        for (uint32_t i = 0; i < shape::ROUNDS; i++) {
            uint32_t key = tile * shape::KEYS + i * shape::STEP + row;
            page[i] = __ldcg(t.pages + min(key / SV_BLOCK, last));
        }
    }

    // Keys that nobody sees may hold anything, and zero times NaN is NaN.
    __device__ void copy(const session_view &v, const void *kv, uint32_t layer,
                         const prefill_tile &t, uint32_t tile, const int32_t (&page)[shape::ROUNDS],
                         uint32_t at) const
    {
        uint32_t block = SV_BLOCK * v.kv_heads * v.head_dim;
        const T *from =
            (const T *)kv + (uint64_t)layer * v.n_blocks * block + t.head * v.head_dim + first;
#pragma unroll
        for (uint32_t i = 0; i < shape::ROUNDS; i++) {
            uint32_t key = tile * shape::KEYS + i * shape::STEP + row;
            bool there = key - t.from < t.to - t.from && column;
            copy_wide(at + to + i * shape::STEP * 128, from + (uint64_t)(uint32_t)page[i] * block,
                      there);
        }
    }

    __device__ void copy_q(const session_view &v, const bf16 *q, const prefill_tile &t,
                           char *at) const
    {
        uint32_t piece = threadIdx.x % shape::PIECES;
#pragma unroll 2
        for (uint32_t i = 0; i < shape::Q_ROUNDS; i++) {
            uint32_t r = i * shape::STEP + row;
            bool there = r < t.rows && column;
            const bf16 *from = q + (there ? t.at(v, r) + 8 * piece : 0);
            char *here = at + q_to + i * shape::STEP * 128;
            if constexpr (std::is_same<T, bf16>::value) {
                copy_wide(shared_address(here), from, there);
            } else {
                uint4 x = there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
                *(uint4 *)here = make_uint4(from_bf16<T>(x.x), from_bf16<T>(x.y), from_bf16<T>(x.z),
                                            from_bf16<T>(x.w));
            }
        }
    }
};

// This lane's two rows (lane / 4 and that + 8 of its warp's 16): scores of a tile, weights, sums.
template <class T, int D> struct hopper_rows {
    using shape = hopper_shape<D>;
    enum { N = shape::KEYS / 8, DEEP = shape::KEYS / 16 };
    float score[N][4], sum[D / 8][4], most[2], weight[2], shrink[2];
    uint32_t p[DEEP][4];
    bool shrinks;

    __device__ void start()
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most[h] = -INFINITY;
            weight[h] = 0;
        }
#pragma unroll
        for (int i = 0; i < D / 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[i][j] = 0;
    }

    __device__ void multiply_k(uint32_t q, uint32_t k)
    {
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            uint32_t at = i % 4 * 32;
            wgmma_rows<T>(score, wgmma_operand(q + i / 4 * shape::Q_PANEL + at, 16),
                          wgmma_operand(k + i / 4 * shape::K_PANEL + at, 16), i > 0);
        }
        wgmma_commit();
    }

    __device__ void multiply_v(uint32_t v)
    {
#pragma unroll
        for (uint32_t i = 0; i < DEEP; i++)
            wgmma_columns<T>(sum, p[i], wgmma_operand(v + i * 16 * 128, (uint32_t)shape::K_PANEL));
        wgmma_commit();
    }

    __device__ void mask(const prefill_tile &t, uint32_t row, uint32_t key, uint32_t window)
    {
        uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t end = t.position(row + 8 * h) + 1;
#pragma unroll
            for (uint32_t n = 0; n < N; n++)
#pragma unroll
                for (uint32_t j = 0; j < 2; j++) {
                    uint32_t x = key + 8 * n + 2 * (lane % 4) + j;
                    if (x >= end || (window && x + window < end))
                        score[n][2 * h + j] = -INFINITY;
                }
        }
    }

    // Scores into weights; `shrink` is what the sums then need, where `shrinks`.
    __device__ void weigh(float scale)
    {
        float now[2];
        bool higher = false;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            now[h] = score[0][2 * h];
#pragma unroll
            for (int n = 0; n < N; n++)
                now[h] = fmaxf(now[h], fmaxf(score[n][2 * h], score[n][2 * h + 1]));
            now[h] = most_of_row(now[h]) * scale;
            higher = higher || now[h] > most[h] + SLACK;
        }
        shrinks = __any_sync(~0u, higher);
        if (shrinks) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float base = fmaxf(most[h], now[h]);
                shrink[h] = power_of_two(most[h] - (base == -INFINITY ? 0 : base));
                most[h] = base;
                weight[h] *= shrink[h];
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float base = most[h] == -INFINITY ? 0 : most[h], all[2] = {0, 0};
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float x = power_of_two(fmaf(score[n][2 * h + j], scale, -base));
                    score[n][2 * h + j] = x;
                    all[j] += x;
                }
            weight[h] += all[0] + all[1];
        }
    }

    // Weights into an operand; the sums must not be in a product any more.
    __device__ void settle()
    {
        if (shrinks) {
#pragma unroll
            for (int i = 0; i < D / 8; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] *= shrink[j / 2];
        }
#pragma unroll
        for (int i = 0; i < DEEP; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                p[i][j] =
                    pack<T>(score[2 * i + j / 2][j % 2 * 2], score[2 * i + j / 2][j % 2 * 2 + 1]);
    }

    // Through as many rows, at `at`, of a tile of keys in shared memory that nobody else uses.
    __device__ void write(const session_view &v, bf16 *out, const prefill_tile &t,
                          uint32_t first_row, char *at) const
    {
        uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            float share = one_over(sum_of_row(weight[h]));
            uint32_t row = lane / 4 + 8 * h;
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++)
                *(uint32_t *)(at + panel_place<shape::K_PANEL>(row, i) + 4 * (lane % 4)) =
                    pack<bf16>(sum[i][2 * h] * share, sum[i][2 * h + 1] * share);
        }
        __syncwarp();
        for (uint32_t i = lane; i < ROWS * shape::PIECES; i += WARP) {
            uint32_t row = i / shape::PIECES, piece = i % shape::PIECES;
            if (first_row + row < t.rows && 8 * piece < v.head_dim)
                *(uint4 *)(out + t.at(v, first_row + row) + 8 * piece) =
                    *(const uint4 *)(at + panel_place<shape::K_PANEL>(row, piece));
        }
    }
};

// What all threads copied can be multiplied; what all multiplied before can be overwritten.
static __device__ __forceinline__ void tiles_are_here()
{
    copies_commit();
    copies_wait<0>();
    wgmma_publish();
    __syncthreads();
}

template <class T, int D>
static __device__ void attend_all(const session_view &v, const attend_args &a, char *shared,
                                  uint32_t n_tiles, uint32_t *next)
{
    using shape = hopper_shape<D>;
    constexpr uint32_t SIZE = shape::K_BYTES;
    uint32_t q = shared_address(shared), k = q + shape::Q_BYTES, values = k + 2 * SIZE;
    uint32_t group = threadIdx.x / 128, warp_row = threadIdx.x / WARP * ROWS;
    uint32_t row = warp_row + threadIdx.x % WARP / 4;
    uint32_t i = blockIdx.x;
    if (i >= n_tiles)
        return;
    hopper_reader<T, D> in(v);
    int32_t page[shape::ROUNDS], page_after[shape::ROUNDS]; // of the tiles of V, K copied next
    prefill_tile t(v, i, shape::TILE_ROWS, a.window);
    in.look_up(t, t.from / shape::KEYS, page);
    in.copy_q(v, a.q, t, shared);
    in.copy(v, v.k, a.layer, t, t.from / shape::KEYS, page, k);
    for (;;) {
        uint32_t tile = t.from / shape::KEYS, last = (t.to - 1) / shape::KEYS, odd = 0;
        // Of this warp's rows: the keys that all see are [from, sure).
        uint32_t sure = t.position(warp_row) + 1;
        uint32_t from = first_key(t.position(warp_row + ROWS - 1), a.window);
        auto masked = [&](uint32_t key) { return key + shape::KEYS > sure || key < from; };
        in.look_up(t, tile + 1, page_after);
        hopper_rows<T, D> r;
        tiles_are_here();
        if (threadIdx.x == 0)
            *next = take_tile(v);
        uint32_t my_q = q + group * shape::GROUP_ROWS * 128;
        wgmma_begin();
        r.multiply_k(my_q, k);
        r.start();
        // From here on V is copied one tile ahead of its product, K two.
        auto copy_ahead = [&](uint32_t of_v) {
            in.copy(v, v.v, a.layer, t, of_v, page, values + (odd ? SIZE : 0));
            if (of_v < last)
                in.copy(v, v.k, a.layer, t, of_v + 1, page_after, k + (odd ? 0 : SIZE));
#pragma unroll
            for (int j = 0; j < shape::ROUNDS; j++)
                page[j] = page_after[j];
            in.look_up(t, of_v + 2, page_after);
        };
        copy_ahead(tile);
        wgmma_wait<0>();
        wgmma_own(r.score);
        if (masked(tile * shape::KEYS))
            r.mask(t, row, tile * shape::KEYS, a.window);
        r.weigh(a.scale);
        r.settle();
        for (; tile < last; tile++) {
            odd ^= 1;
            tiles_are_here();
            wgmma_begin();
            r.multiply_k(my_q, k + (odd ? SIZE : 0));
            r.multiply_v(values + (odd ? 0 : SIZE));
            copy_ahead(tile + 1);
            wgmma_wait<1>();
            wgmma_own(r.score);
            uint32_t key = (tile + 1) * shape::KEYS;
            if (masked(key))
                r.mask(t, row, key, a.window);
            r.weigh(a.scale);
            wgmma_wait<0>();
            wgmma_own(r.sum);
            wgmma_own(r.p);
            r.settle();
        }
        tiles_are_here();
        wgmma_begin();
        r.multiply_v(values + (odd ? SIZE : 0));
        prefill_tile done = t;
        i = *next;
        if (i < n_tiles) {
            t = prefill_tile(v, i, shape::TILE_ROWS, a.window);
            in.look_up(t, t.from / shape::KEYS, page);
            in.copy_q(v, a.q, t, shared);
            in.copy(v, v.k, a.layer, t, t.from / shape::KEYS, page, k);
        }
        wgmma_wait<0>();
        wgmma_own(r.sum);
        // The other tile of K is free, and that of V.
        char *spare =
            shared + shape::Q_BYTES + (warp_row < shape::KEYS ? SIZE : (odd ? 2 : 3) * SIZE);
        r.write(v, a.out, done, warp_row, spare + warp_row % shape::KEYS * 128);
        if (i >= n_tiles)
            break;
    }
}
#endif

template <class T, int D>
static __global__ void __launch_bounds__(hopper_shape<D>::THREADS, hopper_shape<D>::CTAS)
    hopper_kernel(const __grid_constant__ session_view v, const __grid_constant__ attend_args a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ char unaligned[];
    __shared__ uint32_t next;
    char *shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
    uint32_t n = __ldcg(v.jobs + JOB_TILES) * v.kv_heads;
    let_next_start();
    wait_previous();
    attend_all<T, D>(v, a, shared, n, &next);
    if (n > 0 && threadIdx.x == 0)
        end_tiles(v);
#else
    (void)v;
    (void)a;
    __trap(); // hopper_run() does not start it
#endif
}

template <class T, int D>
static void run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    using shape = hopper_shape<D>;
    auto kernel = hopper_kernel<T, D>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES);
    enqueue(kernel, prefill_grid(v, m, shape::CTAS), dim3(shape::THREADS), shape::SHARED_BYTES, q,
            v, a);
}

bool hopper_run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    if (!v.hopper || v.head_dim > 128)
        return false;
    bool wide = v.head_dim > 64;
    if (v.kv_dtype == SV_F16)
        wide ? run<__half, 128>(v, a, m, q) : run<__half, 64>(v, a, m, q);
    else
        wide ? run<bf16, 128>(v, a, m, q) : run<bf16, 64>(v, a, m, q);
    return true;
}
