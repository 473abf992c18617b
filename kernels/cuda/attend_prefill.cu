// SPDX-License-Identifier: Apache-2.0
/*
 * attend_prefill - causal attention of sequences with many new tokens, over what is cached too.
 *
 * shape    a tile of rows (token, head of the group: neighbours share their keys) a CTA, 4 warps;
 *          head_dim up to 256 in eights, padded with zeros to 64, 128 or 256; KV bf16 or f16
 * grid     fixed; CTAs take tiles in turn, the most expensive of a sequence first
 * keys     in tiles of 64 or 32 through two stages of shared memory: the next one is copied while
 *          one is multiplied; tiles that no row sees are skipped, masks only where they matter
 * work     4 head_dim FLOP a row and key it sees; K and V come from the L2 cache, once a tile of
 *          rows
 * order    of the keys: a row's sum depends on nothing else
 * oracle   tests/cuda/attend.cu
 */
#include "cuda/attend_prefill.h"

#include <type_traits>

template <int D> struct prefill_shape {
    enum {
        WARPS = 4,
        THREADS = WARPS * WARP,
        HEIGHT = D == 256 ? 1 : 2, // products of 16 rows, of a warp
        WARP_ROWS = HEIGHT * ROWS,
        TILE_ROWS = WARPS * WARP_ROWS,
        KEYS = D == 256 ? 32 : 64,
        STAGES = 2,
        PIECES = D / 8,          // of 16 bytes, in a row
        STEP = THREADS / PIECES, // rows that all threads copy at once
        Q_BYTES = TILE_ROWS * 2 * D,
        K_BYTES = KEYS * 2 * D,
        SHARED_BYTES = Q_BYTES + STAGES * 2 * K_BYTES,
        CTAS = 2 // of a processor; bounds the registers
    };
};

// Copies tiles of keys, numbered from key 0 on, into the stages in turn.
template <class T, int D> struct prefill_reader {
    using shape = prefill_shape<D>;
    enum { PAGES = shape::KEYS / SV_BLOCK };
    const T *k, *values;  // of the layer, head and this thread's column
    uint64_t block, step; // elements of a KV block; of STEP keys
    const prefill_tile &t;
    int32_t page[PAGES]; // of the tile that is copied next
    uint32_t piece, row;
    bool column;

    __device__ prefill_reader(const session_view &v, const attend_args &a, const prefill_tile &t)
        : t(t)
    {
        piece = threadIdx.x % shape::PIECES;
        row = threadIdx.x / shape::PIECES;
        column = 8 * piece < v.head_dim;
        step = (uint64_t)v.kv_heads * v.head_dim;
        block = SV_BLOCK * step;
        uint64_t first = (uint64_t)a.layer * v.n_blocks * block + t.head * v.head_dim + 8 * piece;
        k = (const T *)v.k + first;
        values = (const T *)v.v + first;
    }

    __device__ void look_up(uint32_t tile)
    {
        uint32_t last = (t.to - 1) / SV_BLOCK;
#pragma unroll
        for (uint32_t i = 0; i < PAGES; i++)
            page[i] = __ldcg(t.pages + min(tile * PAGES + i, last));
    }

    // Keys that nobody sees may hold anything, and zero times NaN is NaN.
    __device__ void copy(uint32_t tile, uint32_t to) const
    {
#pragma unroll
        for (uint32_t i = 0; i < shape::KEYS / shape::STEP; i++) {
            static_assert(SV_BLOCK % shape::STEP == 0, "a round stays in one block");
            uint32_t r = row + i * shape::STEP, key = tile * shape::KEYS + r;
            uint64_t at = (uint32_t)page[i * shape::STEP / SV_BLOCK] * block +
                          (row + i * shape::STEP % SV_BLOCK) * step;
            bool there = key >= t.from && key < t.to && column;
            copy_wide(to + place<D>(r, piece), k + at, there);
            copy_wide(to + shape::K_BYTES + place<D>(r, piece), values + at, there);
        }
    }
};

template <class T, int D>
static __device__ void copy_q(const session_view &v, const attend_args &a, const prefill_tile &t,
                              char *q)
{
    using shape = prefill_shape<D>;
    uint32_t piece = threadIdx.x % shape::PIECES, row = threadIdx.x / shape::PIECES;
#pragma unroll 4
    for (uint32_t r = row; r < shape::TILE_ROWS; r += shape::STEP) {
        bool there = r < t.rows && 8 * piece < v.head_dim;
        const bf16 *from = a.q + (there ? t.at(v, r) + 8 * piece : 0);
        if constexpr (std::is_same<T, bf16>::value) {
            copy_wide(shared_address(q) + place<D>(r, piece), from, there);
        } else {
            uint4 x = there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
            *(uint4 *)(q + place<D>(r, piece)) = make_uint4(from_bf16<T>(x.x), from_bf16<T>(x.y),
                                                            from_bf16<T>(x.z), from_bf16<T>(x.w));
        }
    }
}

// A warp's rows: what it has found so far.
template <class T, int D> struct prefill_rows {
    using shape = prefill_shape<D>;
    enum { HEIGHT = shape::HEIGHT, KEYS = shape::KEYS };
    float sum[HEIGHT][D / 8][4], most[HEIGHT][2], weight[HEIGHT][2];

    __device__ void start()
    {
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++) {
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                most[m][h] = -INFINITY;
                weight[m][h] = 0;
            }
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++)
#pragma unroll
                for (uint32_t j = 0; j < 4; j++)
                    sum[m][i][j] = 0;
        }
    }

    // Keys [key, key + KEYS); `masked`: some rows don't see them all.
    __device__ void add(const prefill_tile &t, uint32_t first_row, uint32_t q, uint32_t tile,
                        uint32_t key, uint32_t window, bool masked, float scale, uint32_t lane)
    {
        float s[HEIGHT][KEYS / 8][4] = {};
        uint32_t row = lane % 8 + (lane & 16) / 2, half = lane / 8 % 2;
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            uint32_t a[HEIGHT][4];
#pragma unroll
            for (uint32_t m = 0; m < HEIGHT; m++)
                load_matrices(a[m], q + place<D>(m * ROWS + lane % 16, 2 * i + lane / 16));
#pragma unroll
            for (uint32_t n = 0; n < KEYS / 16; n++) {
                uint32_t b[4];
                load_matrices(b, tile + place<D>(n * 16 + row, 2 * i + half));
#pragma unroll
                for (uint32_t m = 0; m < HEIGHT; m++) {
                    multiply<T>(s[m][2 * n], a[m], b[0], b[1]);
                    multiply<T>(s[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
        if (masked)
            mask(t, first_row, s, key, window, lane);
        weigh(s, scale);
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 16; n++) {
            uint32_t p[HEIGHT][4];
#pragma unroll
            for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
                for (uint32_t j = 0; j < 4; j++)
                    p[m][j] =
                        pack<T>(s[m][2 * n + j / 2][j % 2 * 2], s[m][2 * n + j / 2][j % 2 * 2 + 1]);
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++) {
                uint32_t b[4];
                load_matrices_transposed(b, tile + shape::K_BYTES +
                                                place<D>(n * 16 + lane % 16, 2 * i + lane / 16));
#pragma unroll
                for (uint32_t m = 0; m < HEIGHT; m++) {
                    multiply<T>(sum[m][2 * i], p[m], b[0], b[1]);
                    multiply<T>(sum[m][2 * i + 1], p[m], b[2], b[3]);
                }
            }
        }
    }

    __device__ void mask(const prefill_tile &t, uint32_t first_row, float (&s)[HEIGHT][KEYS / 8][4],
                         uint32_t key, uint32_t window, uint32_t lane) const
    {
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                uint32_t end = t.position(first_row + m * ROWS + h * 8 + lane / 4) + 1;
#pragma unroll
                for (uint32_t n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (uint32_t j = 0; j < 2; j++) {
                        uint32_t x = key + 8 * n + 2 * (lane % 4) + j;
                        if (x >= end || (window && x + window < end))
                            s[m][n][2 * h + j] = -INFINITY;
                    }
            }
    }

    // Scores into weights.
    __device__ void weigh(float (&s)[HEIGHT][KEYS / 8][4], float scale)
    {
        float now[HEIGHT][2];
        bool higher = false;
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                now[m][h] = s[m][0][2 * h];
#pragma unroll
                for (uint32_t n = 0; n < KEYS / 8; n++)
                    now[m][h] = fmaxf(now[m][h], fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                now[m][h] = most_of_row(now[m][h]) * scale;
                higher = higher || now[m][h] > most[m][h] + SLACK;
            }
        if (__any_sync(~0u, higher))
            shrink(now);
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                float base = most[m][h] == -INFINITY ? 0 : most[m][h], all = 0;
#pragma unroll
                for (uint32_t n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (uint32_t j = 2 * h; j < 2 * h + 2; j++) {
                        s[m][n][j] = power_of_two(fmaf(s[m][n][j], scale, -base));
                        all += s[m][n][j];
                    }
                weight[m][h] += all;
            }
    }

    __device__ void shrink(const float (&now)[HEIGHT][2])
    {
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                float base = fmaxf(most[m][h], now[m][h]);
                float f = power_of_two(most[m][h] - (base == -INFINITY ? 0 : base));
                most[m][h] = base;
                weight[m][h] *= f;
#pragma unroll
                for (uint32_t i = 0; i < D / 8; i++) {
                    sum[m][i][2 * h] *= f;
                    sum[m][i][2 * h + 1] *= f;
                }
            }
    }

    // Through this warp's rows of q's shared memory, which nobody else reads.
    __device__ void write(const session_view &v, const attend_args &a, const prefill_tile &t,
                          uint32_t first_row, char *q, uint32_t lane)
    {
        __syncwarp();
#pragma unroll
        for (uint32_t m = 0; m < HEIGHT; m++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                float share = one_over(sum_of_row(weight[m][h]));
                uint32_t row = m * ROWS + h * 8 + lane / 4;
#pragma unroll
                for (uint32_t i = 0; i < D / 8; i++)
                    *(uint32_t *)(q + place<D>(row, i) + 4 * (lane % 4)) =
                        pack<bf16>(sum[m][i][2 * h] * share, sum[m][i][2 * h + 1] * share);
            }
        __syncwarp();
        for (uint32_t i = lane; i < shape::WARP_ROWS * shape::PIECES; i += WARP) {
            uint32_t row = i / shape::PIECES, piece = i % shape::PIECES;
            if (first_row + row < t.rows && 8 * piece < v.head_dim)
                *(uint4 *)(a.out + t.at(v, first_row + row) + 8 * piece) =
                    *(const uint4 *)(q + place<D>(row, piece));
        }
    }
};

template <class T, int D>
static __device__ void attend_tile(const session_view &v, const attend_args &a,
                                   const prefill_tile &t, char *shared)
{
    using shape = prefill_shape<D>;
    uint32_t lane = threadIdx.x % WARP, first_row = threadIdx.x / WARP * shape::WARP_ROWS;
    uint32_t stages = shared_address(shared) + shape::Q_BYTES;
    uint32_t tile = t.from / shape::KEYS, last = (t.to - 1) / shape::KEYS;
    char *q = shared + first_row * 2 * D;
    prefill_reader<T, D> in(v, a, t);
    in.look_up(tile);
    copy_q<T, D>(v, a, t, shared);
    in.copy(tile, stages);
    copies_commit();
    in.look_up(tile + 1);
    prefill_rows<T, D> r;
    r.start();
    bool busy = first_row < t.rows;
    uint32_t last_row = min(first_row + shape::WARP_ROWS, t.rows) - 1;
    // Of this warp's rows: the keys that all see are [from, sure), those that one sees [first,
    // end).
    uint32_t sure = t.position(first_row) + 1, end = t.position(last_row) + 1;
    uint32_t first = first_key(sure - 1, a.window), from = first_key(end - 1, a.window);
    for (uint32_t stage = 0; tile <= last; tile++, stage ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (tile < last) {
            in.copy(tile + 1, stages + (stage ^ 1) * 2 * shape::K_BYTES);
            in.look_up(tile + 2);
        }
        copies_commit();
        uint32_t key = tile * shape::KEYS;
        if (busy && key < end && key + shape::KEYS > first)
            r.add(t, first_row, shared_address(q), stages + stage * 2 * shape::K_BYTES, key,
                  a.window, key + shape::KEYS > sure || key < from, a.scale, lane);
    }
    if (busy)
        r.write(v, a, t, first_row, q, lane);
}

template <class T, int D>
static __global__ void __launch_bounds__(prefill_shape<D>::THREADS, prefill_shape<D>::CTAS)
    prefill_kernel(const __grid_constant__ session_view v, const __grid_constant__ attend_args a)
{
    extern __shared__ __align__(128) char shared[];
    __shared__ uint32_t next;
    uint32_t n = __ldcg(v.jobs + JOB_TILES) * v.kv_heads;
    let_next_start();
    wait_previous();
    for (uint32_t i = blockIdx.x; i < n;) {
        __syncthreads(); // the last tile's shared memory and `next` have been read
        if (threadIdx.x == 0)
            next = take_tile(v, gridDim.x);
        attend_tile<T, D>(v, a, prefill_tile(v, i, prefill_shape<D>::TILE_ROWS, a.window), shared);
        i = next;
    }
    if (n > 0 && threadIdx.x == 0)
        end_tiles(v, gridDim.x);
}

template <class T, int D>
static void run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    using shape = prefill_shape<D>;
    auto kernel = prefill_kernel<T, D>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES);
    int each = 1;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, shape::THREADS,
                                                  shape::SHARED_BYTES);
    const uint32_t grid = prefill_grid(v, m, v.processors * (uint32_t)(each > 0 ? each : 1));
    enqueue(kernel, dim3(grid), dim3(shape::THREADS), shape::SHARED_BYTES, q, v, a);
}

template <class T>
static void run_for(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    if (v.head_dim <= 64)
        run<T, 64>(v, a, m, q);
    else if (v.head_dim <= 128)
        run<T, 128>(v, a, m, q);
    else
        run<T, 256>(v, a, m, q);
}

void prefill_run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    if (m * (v.heads / v.kv_heads) <= ROWS)
        return; // no sequence can be this long
    if (v.hopper)
        hopper_run(v, a, m, q);
    else if (v.kv_dtype == SV_F16)
        run_for<__half>(v, a, m, q);
    else
        run_for<bf16>(v, a, m, q);
}

uint32_t prefill_tile_rows(uint32_t head_dim)
{
    return head_dim <= 128 ? (uint32_t)prefill_shape<128>::TILE_ROWS
                           : (uint32_t)prefill_shape<256>::TILE_ROWS;
}

void prefill_size(session_view *v)
{
    v->tile_rows = v->hopper ? hopper_tile_rows(v->head_dim) : prefill_tile_rows(v->head_dim);
}
