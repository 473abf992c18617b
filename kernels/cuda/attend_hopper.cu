// SPDX-License-Identifier: Apache-2.0
/*
 * attend_hopper - attend_prefill's work by sm_90a's products of warpgroups.
 *
 * shape    64 rows a warpgroup: a tile is 192 rows of a CTA where head_dim is at most 64, else 256
 *          of a cluster of two, 128 each; head_dim padded with zeros to 64 or 128; keys in tiles
 *          of 128
 * roles    the first warpgroup copies: a warp K, a warp V (a box of the tensor for each block and
 *          64 columns), two the next tile of q. The others multiply
 * overlap  while a tile's V is multiplied, the scores of the next are weighed (after
 *          FlashAttention-3, arXiv 2407.08608, section 3.2)
 * tiles    a cluster takes its next one NEAR tiles of keys before the last of this one, so that its
 *          q is there in time; late enough that who is done first takes what is longest
 * traffic  K and V from the L2 once a tile of rows, each half of a tile of keys to both CTAs: at
 *          600 TFLOP/s and head_dim 128 2.4 TB/s. Of shared memory, at the tensor cores' rate, 94
 *          bytes a cycle of its 128; 110 if q were not in registers
 * work     4 head_dim FLOP a row and key, and an exponential: of a tile of 64 x 128 scores, 1024
 *          cycles of the tensor core at head_dim 128, 512 at 64, and 512 of the exponential's unit
 * order    of the keys: a row's sum depends on nothing else
 * oracle   tests/cuda/attend.cu
 */
#include "cuda/attend_rows.h"
#include "cuda/box.h"
#include "cuda/roles.h"

#include <type_traits>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Barriers by number; 0 is all threads'. Behind OWN, one a warpgroup that multiplies.
enum { Q_COPIERS = 1, OWN = 2, Q_WARPS = 2, GROUP_THREADS = 128 };

/*
 * full: what was copied is there; empty: nobody reads it any more. A half of q comes after which
 * tile of rows it is; beyond the last one: the end. Of the keys, each CTA of a cluster copies its
 * part of a tile to all of them, so all must have read what was there.
 */
template <int D> struct hopper_shared {
    using shape = hopper_shape<D>;
    enum {
        HALVES = shape::HALVES,
        STAGES = shape::STAGES,
        GIVEN = 8 // turns; CTAs of a cluster are apart by STAGES tiles of keys and a turn at most
    };
    uint64_t q_known[HALVES], q_full[HALVES], q_empty[HALVES], k_full[STAGES], k_empty[STAGES],
        v_full[STAGES], v_empty[STAGES];
    uint64_t near_end, given_full[GIVEN]; // the first CTA says which tile is next when it is time
    uint32_t given[GIVEN];
    alignas(prefill_tile) char tile[HALVES][sizeof(prefill_tile)];
    uint32_t number[HALVES];

    __device__ const prefill_tile &of(uint32_t half) const
    {
        return *(const prefill_tile *)tile[half];
    }

    __device__ void init()
    {
        constexpr uint32_t WARPS = GROUP_THREADS / WARP, READERS = WARPS * shape::GROUPS;
        for (uint32_t i = 0; i < HALVES; i++) {
            phase_init(&q_known[i], 1);
            phase_init(&q_full[i], Q_WARPS * WARP);
            phase_init(&q_empty[i], READERS + 2); // who copies K, who copies V
        }
        for (uint32_t i = 0; i < STAGES; i++) {
            phase_init(&k_full[i], 1);
            phase_init(&k_empty[i], READERS * shape::CTAS);
            phase_init(&v_full[i], 1);
            phase_init(&v_empty[i], READERS * shape::CTAS);
        }
        phase_init(&near_end, 1);
        for (uint32_t i = 0; i < GIVEN; i++)
            phase_init(&given_full[i], 1);
        phases_publish();
    }

    // One thread's of each CTA: which tile of rows a turn has.
    __device__ uint32_t next(const session_view &v, uint32_t turn)
    {
        const uint32_t clusters = gridDim.x / shape::CTAS, at = turn % GIVEN;
        if (cluster_rank() == 0) {
            uint32_t n = blockIdx.x / shape::CTAS;
            if (turn > 0) {
                phase_wait(&near_end, turn - 1);
                n = take_tile(v, clusters);
            }
            for (uint32_t i = 0; i < shape::CTAS; i++)
                phase_arrive_number(&given_full[at], &given[at], n, i);
        }
        return phase_wait_number(&given_full[at], turn / GIVEN, &given[at]);
    }

    // The same: makes it known here.
    __device__ void prepare(const session_view &v, uint32_t turn, uint32_t n_tiles, uint32_t window)
    {
        const uint32_t half = turn % HALVES, n = next(v, turn);
        const uint32_t rows = shape::CTAS * shape::TILE_ROWS;
        const prefill_tile t(v, n < n_tiles ? n : 0, rows, window);
        phase_wait(&q_empty[half], turn / HALVES + 1);
        number[half] = n;
        *(prefill_tile *)tile[half] = t.of(cluster_rank(), shape::TILE_ROWS);
        phase_arrive(&q_known[half]);
    }
};

// Two warps': rows of q, as the KV's type.
template <class T, int D>
static __device__ void copy_q(const session_view &v, const bf16 *q, const prefill_tile &t, char *to)
{
    using shape = hopper_shape<D>;
    constexpr uint32_t STEP = Q_WARPS * WARP / shape::PIECES; // rows at once
    uint32_t thread = threadIdx.x % (Q_WARPS * WARP), piece = thread % shape::PIECES;
    bool column = 8 * piece < v.head_dim;
    row_walk rows(t, thread / shape::PIECES, STEP);
#pragma unroll 4
    for (uint32_t r = thread / shape::PIECES; r < shape::TILE_ROWS; r += STEP, rows.advance()) {
        bool there = r < t.rows && column;
        const bf16 *from = q + (there ? rows.at(v) + 8 * piece : 0);
        char *here = to + panel_place<shape::Q_PANEL>(r, piece);
        if constexpr (std::is_same<T, bf16>::value) {
            copy_wide(shared_address(here), from, there);
        } else {
            uint4 x = there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
            *(uint4 *)here = make_uint4(from_bf16<T>(x.x), from_bf16<T>(x.y), from_bf16<T>(x.z),
                                        from_bf16<T>(x.w));
        }
    }
    copies_commit();
    copies_wait<0>();
    wgmma_publish();
}

/*
 * One warp's: the tiles of K or of V that a tile of rows sees. Keys that nobody sees may hold
 * anything. Scores of such are masked, but a weight of zero times NaN is NaN: so of V the block
 * that is not whole is copied key by key, with zeros behind. Blocks beyond are outside of the
 * tensor, whose box comes as zeros.
 */
template <class T, int D, bool IS_V> struct hopper_copier {
    using shape = hopper_shape<D>;
    enum {
        OUTSIDE = -SV_BLOCK,
        AHEAD = WARP / shape::PAGES,       // tiles whose blocks are looked up, a lane a block
        MINE = shape::PAGES / shape::CTAS, // blocks of a tile that this CTA copies, to all
        TOGETHER = 4,                      // blocks; bounds the registers
        NEAR = 4 // tiles before the last one, when it is time to look for more: 7 us
    };
    const CUtensorMap *map;
    uint64_t *full, *empty;
    uint32_t to;     // stages
    uint32_t at = 0; // tiles of keys so far

    // Where the block of number `page` begins, counted in keys of the layer.
    static __device__ int32_t look_up(const prefill_tile &t, uint32_t page)
    {
        uint32_t end = IS_V ? t.to / SV_BLOCK : (t.to - 1) / SV_BLOCK + 1;
        bool there = page >= t.from / SV_BLOCK && page < end;
        return there ? __ldcg(t.pages + page) * SV_BLOCK : (int32_t)OUTSIDE;
    }

    // Of V, the keys of the last block.
    __device__ void copy_rest(const session_view &v, uint32_t layer, const prefill_tile &t,
                              uint32_t stage) const
    {
        uint32_t page = t.to / SV_BLOCK, lane = threadIdx.x % WARP, row = v.kv_heads * v.head_dim;
        uint64_t block = (uint64_t)layer * v.n_blocks + (uint32_t)__ldcg(t.pages + page);
        const T *from = (const T *)v.v + block * SV_BLOCK * row + t.head * v.head_dim;
#pragma unroll 2
        for (uint32_t i = lane; i < SV_BLOCK * shape::PIECES; i += WARP) {
            uint32_t key = i / shape::PIECES, piece = i % shape::PIECES;
            bool there = key < t.to % SV_BLOCK && 8 * piece < v.head_dim;
            uint32_t place =
                panel_place<shape::K_PANEL>(page % shape::PAGES * SV_BLOCK + key, piece);
            copy_wide(to + stage * shape::K_BYTES + place,
                      from + (there ? key * row + 8 * piece : 0), there);
        }
        copies_commit();
        copies_wait<0>();
        wgmma_publish();
        __syncwarp();
    }

    // One thread's.
    __device__ __forceinline__ void copy_box(uint32_t here, uint32_t panel, int32_t head,
                                             int32_t key, uint64_t *barrier) const
    {
        if (shape::CTAS > 1)
            box_copy_to(here, map, (int32_t)(64 * panel), head, key, barrier,
                        (1 << shape::CTAS) - 1);
        else
            box_copy(here, map, (int32_t)(64 * panel), head, key, barrier);
    }

    // near_end() is called once, NEAR tiles of keys before the last one or at the first.
    template <class F>
    __device__ void copy(const session_view &v, uint32_t layer, const prefill_tile &t, F near_end)
    {
        uint32_t lane = threadIdx.x % WARP, tile = t.from / shape::KEYS;
        const uint32_t last = (t.to - 1) / shape::KEYS, to_rest = IS_V ? t.to % SV_BLOCK : 0;
        const uint32_t near = last > tile + NEAR ? last - NEAR : tile;
        const uint32_t mine = shape::CTAS > 1 ? cluster_rank() * MINE : 0;
        const int32_t head = (int32_t)t.head;
        int32_t block = OUTSIDE, block_after = look_up(t, tile * shape::PAGES + lane);
        for (uint32_t n = 0; tile <= last; tile++, n++, at++) {
            if (n % AHEAD == 0) {
                block = block_after;
                block_after = look_up(t, (tile + AHEAD) * shape::PAGES + lane);
            }
            if (tile == near)
                near_end();
            uint32_t stage = at % shape::STAGES, here = to + stage * shape::K_BYTES;
            bool rest = tile == last && to_rest > 0;
            uint32_t left_out = rest ? t.to / SV_BLOCK % shape::PAGES : (uint32_t)shape::PAGES;
            phase_wait(empty + stage, at / shape::STAGES + 1);
            if (lane == 0)
                phase_expect(full + stage,
                             shape::K_BYTES - (rest ? shape::PANELS * shape::PAGE_PANEL : 0));
#pragma unroll
            for (uint32_t j = mine; j < mine + MINE; j += TOGETHER) {
                int32_t key[TOGETHER];
#pragma unroll
                for (uint32_t i = 0; i < TOGETHER; i++)
                    key[i] = __shfl_sync(~0u, block, n % AHEAD * shape::PAGES + j + i);
                if (is_elected())
#pragma unroll
                    for (uint32_t i = 0; i < TOGETHER; i++)
#pragma unroll
                        for (uint32_t p = 0; p < shape::PANELS && j + i != left_out; p++)
                            copy_box(here + p * shape::K_PANEL + (j + i) * shape::PAGE_PANEL, p,
                                     head, key[i], full + stage);
            }
            if (rest)
                copy_rest(v, layer, t, stage);
            if (lane == 0)
                phase_arrive(full + stage);
        }
    }
};

// One warp's, tile of rows after tile of rows.
template <class T, int D, bool IS_V>
static __device__ void copy_keys(const session_view &v, uint32_t layer,
                                 hopper_copier<T, D, IS_V> copier, hopper_shared<D> &s,
                                 uint32_t n_tiles)
{
    using shape = hopper_shape<D>;
    const uint32_t lane = threadIdx.x % WARP;
    for (uint32_t turn = 0;; turn++) {
        const uint32_t half = turn % shape::HALVES;
        phase_wait(&s.q_known[half], turn / shape::HALVES);
        if (s.number[half] >= n_tiles)
            return;
        copier.copy(v, layer, s.of(half), [&] {
            if (!IS_V && lane == 0 && cluster_rank() == 0)
                phase_arrive(&s.near_end);
        });
        __syncwarp();
        if (lane == 0)
            phase_arrive(&s.q_empty[half]);
    }
}

template <class T, int D>
static __device__ void copy_rows(const session_view &v, const attend_args &a, char *shared,
                                 hopper_shared<D> &s, uint32_t n_tiles)
{
    using shape = hopper_shape<D>;
    const bool leads = threadIdx.x % (Q_WARPS * WARP) == 0;
    bool end = false;
    for (uint32_t turn = 0; !end; turn++) {
        const uint32_t half = turn % shape::HALVES;
        if (leads)
            s.prepare(v, turn, n_tiles, a.window);
        meet(Q_COPIERS, Q_WARPS * WARP);
        end = s.number[half] >= n_tiles;
        if (!end)
            copy_q<T, D>(v, a.q, s.of(half), shared + half * shape::Q_BYTES);
        phase_arrive(&s.q_full[half]);
    }
    if (leads && cluster_rank() == 0)
        end_tiles(v, gridDim.x / shape::CTAS);
}

template <class T, int D>
static __device__ void copy_all(const session_view &v, const attend_args &a, const CUtensorMap *k,
                                const CUtensorMap *values, char *shared, hopper_shared<D> &s,
                                uint32_t n_tiles)
{
    using shape = hopper_shape<D>;
    const uint32_t warp = threadIdx.x / WARP;
    const uint32_t stages = shared_address(shared) + shape::HALVES * shape::Q_BYTES;
    if (warp == 0)
        copy_keys<T, D, false>(v, a.layer, {k, s.k_full, s.k_empty, stages}, s, n_tiles);
    else if (warp == 1)
        copy_keys<T, D, true>(
            v, a.layer, {values, s.v_full, s.v_empty, stages + shape::STAGES * shape::K_BYTES}, s,
            n_tiles);
    else
        copy_rows<T, D>(v, a, shared, s, n_tiles);
}

// Of a warp whose products have read it: to all of that many CTAs that copy there.
template <uint32_t CTAS = 1> static __device__ __forceinline__ void give_back(uint64_t *empty)
{
    const uint32_t lane = threadIdx.x % WARP;
    if (CTAS > 1 && lane < CTAS)
        phase_arrive_at(empty, lane);
    else if (CTAS == 1 && lane == 0)
        phase_arrive(empty);
}

/*
 * Each turn multiplies the next K and the V before it. When that V was the last of its rows, the
 * next K is the first that the next tile of rows sees: so only a CTA's first and last products are
 * without company.
 */
template <class T, int D>
static __device__ void multiply_all(const session_view &v, const attend_args &a, char *shared,
                                    hopper_shared<D> &s, uint32_t n_tiles)
{
    using shape = hopper_shape<D>;
    constexpr uint32_t STAGES = shape::STAGES, HALVES = shape::HALVES;
    uint32_t q = shared_address(shared), k = q + HALVES * shape::Q_BYTES;
    uint32_t values = k + STAGES * shape::K_BYTES;
    uint32_t group = threadIdx.x / GROUP_THREADS - 1;
    uint32_t warp_row = threadIdx.x / WARP * ROWS - GROUP_THREADS / WARP * ROWS;
    uint32_t row = warp_row + threadIdx.x % WARP / 4;
    uint32_t at = 0, turn = 0; // tiles of V multiplied so far; of rows
    // Of this tile of rows: the tile of keys whose scores are next, the last one; of this warp's
    // rows: the keys that all see are [from, sure); where q lies.
    uint32_t tile, last, from, sure, my_q;
    auto stage_of = [](uint32_t n) { return n % STAGES; };
    auto round_of = [](uint32_t n) { return n / STAGES; };
    hopper_rows<T, D> r;
    auto take_rows = [&] { // false: that was all
        uint32_t half = turn % HALVES;
        phase_wait(&s.q_full[half], turn / HALVES);
        if (s.number[half] >= n_tiles)
            return false;
        const prefill_tile &t = s.of(half);
        tile = t.from / shape::KEYS;
        last = (t.to - 1) / shape::KEYS;
        sure = t.position(warp_row) + 1;
        from = first_key(t.position(warp_row + ROWS - 1), a.window);
        my_q = q + half * shape::Q_BYTES + group * shape::GROUP_ROWS * 128;
        r.take_q(my_q);
        return true;
    };
    auto weigh = [&](uint32_t nth) {
        uint32_t key = tile * shape::KEYS;
        wgmma_own(r.score);
        give_back<shape::CTAS>(&s.k_empty[stage_of(nth)]);
        if (key + shape::KEYS > sure || key < from)
            r.mask(s.of(turn % HALVES), row, key, a.window);
        r.weigh(a.scale);
    };
    auto write = [&](uint32_t half, const float(&weight)[2]) {
        meet(OWN + group, GROUP_THREADS); // its products read this q no more
        r.write(v, a.out, s.of(half), weight, warp_row,
                shared + half * shape::Q_BYTES + warp_row * 128);
        __syncwarp();
        give_back(&s.q_empty[half]);
    };
    if (!take_rows())
        return;
    phase_wait(&s.k_full[0], 0);
    wgmma_begin();
    r.multiply_k(my_q, k);
    r.start();
    r.clear();
    wgmma_wait<0>();
    weigh(0);
    r.settle();
    for (;; at++) {
        bool ends = tile == last;
        tile++;
        turn += ends;
        if (ends && !take_rows())
            break;
        phase_wait(&s.k_full[stage_of(at + 1)], round_of(at + 1));
        phase_wait(&s.v_full[stage_of(at)], round_of(at));
        wgmma_begin();
        r.multiply_k(my_q, k + stage_of(at + 1) * shape::K_BYTES);
        r.multiply_v(values + stage_of(at) * shape::K_BYTES);
        const float weight[2] = {r.weight[0], r.weight[1]};
        if (ends)
            r.start();
        wgmma_wait<1>();
        weigh(at + 1);
        wgmma_wait<0>();
        wgmma_own(r.sum);
        wgmma_own(r.p);
        give_back<shape::CTAS>(&s.v_empty[stage_of(at)]);
        if (ends) {
            write((turn - 1) % HALVES, weight);
            r.clear();
        }
        r.settle();
    }
    phase_wait(&s.v_full[stage_of(at)], round_of(at));
    wgmma_begin();
    r.multiply_v(values + stage_of(at) * shape::K_BYTES);
    wgmma_wait<0>();
    wgmma_own(r.sum);
    write((turn - 1) % HALVES, r.weight);
}
#endif

template <class T, int D>
static __global__ void __launch_bounds__(hopper_shape<D>::THREADS, 1)
    hopper_kernel(const __grid_constant__ session_view v, const __grid_constant__ attend_args a,
                  const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap values)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ char unaligned[];
    __shared__ hopper_shared<D> s;
    char *shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
    uint32_t n = __ldcg(v.jobs + JOB_TILES) * v.kv_heads;
    let_next_start();
    if (n > 0 && threadIdx.x == 0) {
        box_ahead(&k);
        box_ahead(&values);
        s.init();
    }
    if (n > 0)
        cluster_meet();
    wait_previous();
    if (n == 0)
        return; // a step of single tokens
    if (threadIdx.x < GROUP_THREADS) {
        registers_give<hopper_shape<D>::COPY_REGISTERS>();
        copy_all<T, D>(v, a, &k, &values, shared, s, n);
    } else {
        registers_take<hopper_shape<D>::MULTIPLY_REGISTERS>();
        multiply_all<T, D>(v, a, shared, s, n);
    }
    cluster_meet(); // nobody arrives here any more
#else
    (void)v;
    (void)a;
    (void)k;
    (void)values;
    __trap(); // hopper_run() does not start it
#endif
}

// K or V of a layer, [keys][kv_heads][head_dim]; a box is a block's 16 keys and 64 columns of a
// head.
static bool describe(const session_view &v, const void *kv, CUtensorMap *ret)
{
    const uint64_t row = 2ull * v.head_dim, keys = (uint64_t)v.n_blocks * SV_BLOCK;
    return box_describe(
        {kv, {v.head_dim, v.kv_heads, keys}, {row, row * v.kv_heads}, {1, SV_BLOCK}}, ret);
}

template <class T, int D>
static void run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    using shape = hopper_shape<D>;
    uint64_t before = 2ull * a.layer * v.n_blocks * SV_BLOCK * v.kv_heads * v.head_dim;
    CUtensorMap k, values;
    if (!describe(v, (const char *)v.k + before, &k) ||
        !describe(v, (const char *)v.v + before, &values))
        abort(); // hopper_takes() has seen it work
    auto kernel = hopper_kernel<T, D>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES);
    const uint32_t clusters = prefill_grid(v, m, v.processors / shape::CTAS);
    enqueue_clusters(kernel, shape::CTAS, dim3(clusters * shape::CTAS), dim3(shape::THREADS),
                     shape::SHARED_BYTES, q, v, a, k, values);
}

bool hopper_takes(const session_view &v)
{
    CUtensorMap map;
    return v.head_dim <= 128 && v.kv_dtype != SV_F32 && describe(v, v.k, &map) &&
           describe(v, v.v, &map);
}

uint32_t hopper_tile_rows(uint32_t head_dim)
{
    return head_dim > 64 ? (uint32_t)hopper_shape<128>::TILE_ROWS * hopper_shape<128>::CTAS
                         : (uint32_t)hopper_shape<64>::TILE_ROWS * hopper_shape<64>::CTAS;
}

void hopper_run(const session_view &v, const attend_args &a, uint32_t m, cudaStream_t q)
{
    bool wide = v.head_dim > 64;
    if (v.kv_dtype == SV_F16)
        wide ? run<__half, 128>(v, a, m, q) : run<__half, 64>(v, a, m, q);
    else
        wide ? run<bf16, 128>(v, a, m, q) : run<bf16, 64>(v, a, m, q);
}
