// SPDX-License-Identifier: Apache-2.0
/*
 * attend_decode - attention of sequences with few new tokens: at the speed of memory.
 *
 * shape    rows (new tokens times heads of a group) up to 16, one product high; head_dim up to 256
 *          in eights, padded with zeros to 64, 128 or 256; KV bf16 or f16
 * grid     fixed: groups of kv_heads CTAs. The blocks of keys of all sequences, behind one another,
 *          are dealt out to the groups in equal ranges and in a group to its warps, so every CTA
 *          has the same work whatever the lengths, and the CTAs of a group read the same KV
 *          blocks at about the same time, each its head. No barrier while they read: each warp
 *          has its own ring of tiles.
 * merge    what warps and CTAs share is put together in the order of the keys (attend_merge.h)
 * traffic  K and V once; 2 ranges a CTA leave up to 16 x head_dim sums each
 * order    of the keys within a warp's range; the ranges depend on the batch, not on timing
 * oracle   tests/cuda/attend.cu
 */
#include "cuda/attend_deal.h"
#include "cuda/attend_merge.h"

#include <algorithm>

enum { CLUSTER = 8 }; // CTAs

// Copies the tiles of a warp's range into its ring, one after the other, through all sequences.
template <class T, int D> struct reader {
    using shape = decode_shape<D>;
    const session_view &v;
    const T *k, *values; // of the layer and head
    uint32_t window, lane, ring, stage;
    uint32_t seq, tokens, begin, end, tile, last_tile, left;
    const int32_t *pages;
    int32_t ahead; // lane i: the block of tile ahead_of + i
    uint32_t ahead_of;

    __device__ reader(const session_view &v, const attend_args &a, uint32_t head, uint32_t ring)
        : v(v), window(a.window), lane(threadIdx.x % WARP), ring(ring), stage(0), left(0)
    {
        uint64_t at = (uint64_t)a.layer * v.n_blocks * SV_BLOCK * v.kv_heads * v.head_dim +
                      (uint64_t)head * v.head_dim;
        k = (const T *)v.k + at;
        values = (const T *)v.v + at;
    }

    __device__ void start(uint32_t first_seq, uint32_t offset, uint32_t tiles)
    {
        left = tiles;
        seq = first_seq;
        enter(offset);
    }

    __device__ void enter(uint32_t offset)
    {
        span s(v.decode + seq, window);
        pages = v.page_table + (uint64_t)s.slot * v.max_pages;
        tokens = s.tokens;
        begin = s.begin;
        end = s.end;
        tile = s.first_tile() + offset;
        last_tile = s.first_tile() + s.tiles() - 1;
        look_ahead();
    }

    __device__ void look_ahead()
    {
        ahead_of = tile;
        ahead = tile + lane <= last_tile ? __ldcg(pages + tile + lane) : 0;
    }

    // Whether the next tile is there and holds nothing of this step.
    __device__ bool is_old() const
    {
        return left > 0 && (tile + 1) * SV_BLOCK <= end - tokens;
    }

    __device__ uint64_t row_at(int32_t page, uint32_t row) const
    {
        return ((uint64_t)(uint32_t)page * SV_BLOCK + row) * v.kv_heads * v.head_dim;
    }

    // A group of copies; an empty one when nothing is left.
    __device__ void copy()
    {
        if (left > 0) {
            constexpr uint32_t PIECES = D / 8;
            uint32_t piece = lane % PIECES, row = lane / PIECES, first = tile * SV_BLOCK;
            uint32_t to = ring + stage * shape::STAGE_BYTES;
            uint64_t step = (uint64_t)(WARP / PIECES) * v.kv_heads * v.head_dim;
            uint64_t at = row_at(__shfl_sync(~0u, ahead, tile - ahead_of), row) + 8 * piece;
#pragma unroll
            for (uint32_t i = 0; i < SV_BLOCK * PIECES / WARP; i++) {
                // Keys that nobody sees may hold anything, and zero times NaN is NaN.
                uint32_t r = row + i * (WARP / PIECES);
                bool there = first + r >= begin && first + r < end && 8 * piece < v.head_dim;
                copy_wide(to + place<D>(r, piece), k + at, there);
                copy_wide(to + shape::TILE_BYTES + place<D>(r, piece), values + at, there);
                at += step;
            }
            stage = stage + 1 == shape::STAGES ? 0 : stage + 1;
            next();
        }
        copies_commit();
    }

    __device__ void next()
    {
        if (--left == 0)
            return;
        if (tile == last_tile) {
            seq++;
            enter(0);
        } else if (++tile - ahead_of == WARP) {
            look_ahead();
        }
    }
};

// What a warp has found of a sequence: 16 rows, two of them (lane / 4 and that + 8) in a lane.
template <class T, int D> struct finding {
    uint32_t q[D / 16][4];
    float sum[D / 8][4], most[2], weight[2];
    uint32_t seen[2]; // keys below it, of each row

    // Rows beyond the sequence's are zero; they count as its last token's.
    __device__ void start(const session_view &v, const attend_args &a, const span &s, uint32_t head,
                          uint32_t lane)
    {
        uint32_t group = v.heads / v.kv_heads, rows = s.tokens * group;
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t row = lane / 4 + 8 * h, token = min(row / group, s.tokens - 1);
            const bf16 *at =
                a.q +
                ((uint64_t)(s.token + token) * v.heads + head * group + row % group) * v.head_dim;
            for (uint32_t i = 0; i < D / 16; i++)
                for (uint32_t j = 0; j < 2; j++) {
                    uint32_t column = 16 * i + 8 * j + 2 * (lane % 4);
                    bool there = row < rows && column < v.head_dim;
                    q[i][2 * j + h] = there ? from_bf16<T>(*(const uint32_t *)(at + column)) : 0;
                }
            seen[h] = s.end - s.tokens + token + 1;
            most[h] = -INFINITY;
            weight[h] = 0;
        }
        for (uint32_t i = 0; i < D / 8; i++)
            for (uint32_t j = 0; j < 4; j++)
                sum[i][j] = 0;
    }

    __device__ void add(uint32_t tile, uint32_t first, uint32_t window, bool masked, float scale,
                        uint32_t lane)
    {
        float s[2][4] = {}, t[2][4] = {};
        uint32_t row = lane % 8 + (lane & 16) / 2, half = lane / 8 % 2;
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            uint32_t b[4];
            load_matrices(b, tile + place<D>(row, 2 * i + half));
            multiply<T>(i % 2 ? t[0] : s[0], q[i], b[0], b[1]);
            multiply<T>(i % 2 ? t[1] : s[1], q[i], b[2], b[3]);
        }
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                s[i][j] = (s[i][j] + t[i][j]) * scale;
                uint32_t key = first + 8 * i + 2 * (lane % 4) + j % 2, end = seen[j / 2];
                if (masked && (key >= end || (window && key + window < end)))
                    s[i][j] = -INFINITY;
            }
        weigh(s);
        uint32_t p[4] = {pack<T>(s[0][0], s[0][1]), pack<T>(s[0][2], s[0][3]),
                         pack<T>(s[1][0], s[1][1]), pack<T>(s[1][2], s[1][3])};
        row = lane % 16;
        half = lane / 16;
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            uint32_t b[4];
            load_matrices_transposed(b, tile + decode_shape<D>::TILE_BYTES +
                                            place<D>(row, 2 * i + half));
            multiply<T>(sum[2 * i], p, b[0], b[1]);
            multiply<T>(sum[2 * i + 1], p, b[2], b[3]);
        }
    }

    // Scores into weights relative to the highest so far; what was found before shrinks with it.
    __device__ void weigh(float (&s)[2][4])
    {
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t x = 2 * h, y = x + 1;
            float now = fmaxf(most[h],
                              most_of_row(fmaxf(fmaxf(s[0][x], s[0][y]), fmaxf(s[1][x], s[1][y]))));
            float base = now == -INFINITY ? 0 : now, shrink = power_of_two(most[h] - base);
            most[h] = now;
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                s[i][x] = power_of_two(s[i][x] - base);
                s[i][y] = power_of_two(s[i][y] - base);
            }
            weight[h] = weight[h] * shrink + ((s[0][x] + s[0][y]) + (s[1][x] + s[1][y]));
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++) {
                sum[i][x] *= shrink;
                sum[i][y] *= shrink;
            }
        }
    }

    __device__ void write(const session_view &v, const attend_args &a, const span &s, uint32_t head,
                          uint32_t lane) const
    {
        uint32_t group = v.heads / v.kv_heads;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t row = lane / 4 + 8 * h;
            float share = one_over(sum_of_row(weight[h]));
            if (row >= s.tokens * group)
                continue;
            bf16 *to =
                a.out + ((uint64_t)(s.token + row / group) * v.heads + head * group + row % group) *
                            v.head_dim;
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++) {
                uint32_t column = 8 * i + 2 * (lane % 4);
                if (column < v.head_dim)
                    *(uint32_t *)(to + column) =
                        pack<bf16>(sum[i][2 * h] * share, sum[i][2 * h + 1] * share);
            }
        }
    }

    __device__ void leave(float *part, uint32_t rows, uint32_t lane) const
    {
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t row = lane / 4 + 8 * h;
            float all = sum_of_row(weight[h]);
            if (row >= rows)
                continue;
            if (lane % 4 == 0)
                part_head(part)[row] = make_float2(most[h], all);
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++)
                *(float2 *)(part_row<D>(part, row) + 8 * i + 2 * (lane % 4)) =
                    make_float2(sum[i][2 * h], sum[i][2 * h + 1]);
        }
    }
};

template <class T, int D>
static __device__ void attend_range(const session_view &v, const attend_args &a, uint32_t head,
                                    const deal<decode_shape<D>::WARPS> &d, reader<T, D> &in,
                                    char *ring, leftover (&left)[2 * decode_shape<D>::WARPS])
{
    using shape = decode_shape<D>;
    uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t seq = (uint32_t)d.seq[warp], offset = d.offset[warp], number = d.number[warp];
    uint32_t total = d.seq[warp] == NOBODY ? 0 : d.tiles[warp], stage = 0;
    for (uint32_t done = 0; done < total;) {
        finding<T, D> f;
        span s(v.decode + seq, a.window);
        uint32_t tiles = s.tiles(), count = min(tiles - offset, total - done);
        f.start(v, a, s, head, lane);
        uint32_t key = (s.first_tile() + offset) * SV_BLOCK;
        uint32_t sure = s.end - s.tokens + 1;           // every token sees the keys below this one
        uint32_t from = first_key(s.end - 1, a.window); // and, from this one on, the last token
        for (uint32_t i = 0; i < count; i++, key += SV_BLOCK) {
            copies_wait<shape::STAGES - 2>();
            __syncwarp();
            in.copy(); // into the stage that was read in the round before
            f.add(shared_address(ring) + stage * shape::STAGE_BYTES, key, a.window,
                  key + SV_BLOCK > sure || key < from, a.scale, lane);
            stage = stage + 1 == shape::STAGES ? 0 : stage + 1;
        }
        done += count;
        if (count == tiles) {
            f.write(v, a, s, head, lane);
        } else {
            bool is_last = done == total; // then the ring is free
            uint32_t rows = s.tokens * (v.heads / v.kv_heads);
            float *to = is_last ? (float *)ring : part_of<D>(v, blockIdx.x, warp);
            __syncwarp();
            f.leave(to, rows, lane);
            if (lane == 0)
                left[2 * warp + is_last] = {to,
                                            (int32_t)seq,
                                            number / d.each,
                                            (number + tiles - 1) / d.each,
                                            number % d.each > 0,
                                            s.token,
                                            rows};
        }
        number += tiles;
        offset = 0;
        seq++;
    }
}

template <class T, int D>
static __global__ void __launch_bounds__(decode_shape<D>::WARPS *WARP)
    decode_kernel(const __grid_constant__ session_view v, const __grid_constant__ attend_args a)
{
    using shape = decode_shape<D>;
    static_assert(shape::RING_BYTES >= 4 * part_floats(D), "a part fits a ring");
    extern __shared__ __align__(128) char rings[];
    __shared__ deal<shape::WARPS> d;
    __shared__ leftover left[2 * shape::WARPS], near[2]; // each first and last: a warp's, the CTA's
    __shared__ float *at[SHARERS_MOST];
    post p(v);
    uint32_t warp = threadIdx.x / WARP;
    if (threadIdx.x < 2 * shape::WARPS)
        left[threadIdx.x].seq = NOBODY;
    if (threadIdx.x < 2)
        near[threadIdx.x].seq = NOBODY;
    deal_out<D>(v, p.group, __ldcg(v.jobs + JOB_DECODE), a.window, &d);
    char *ring = rings + warp * shape::RING_BYTES;
    reader<T, D> in(v, a, p.head, shared_address(ring));
    if (d.seq[warp] != NOBODY)
        in.start((uint32_t)d.seq[warp], d.offset[warp], d.tiles[warp]);
    uint32_t ahead = 1;
#pragma unroll 1
    for (; ahead < shape::STAGES && in.is_old(); ahead++)
        in.copy();
    wait_previous();
#pragma unroll 1
    for (; ahead < shape::STAGES; ahead++)
        in.copy();
    let_next_start();
    attend_range<T, D>(v, a, p.head, d, in, ring, left);
    __syncthreads();
    conclude<D>(v, a.out, p, rings, left, near, at);
    if (v.together > 1)
        conclude_near<D>(v, a.out, p, rings, near, at);
}

// A launch of n CTAs in clusters, and its attributes.
template <int D> struct launch {
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute[2] = {};

    launch(uint32_t ctas, uint32_t together, cudaStream_t q)
    {
        attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute[0].val.programmaticStreamSerializationAllowed = 1;
        attribute[1].id = cudaLaunchAttributeClusterDimension;
        attribute[1].val.clusterDim = {together, 1, 1};
        config.gridDim = dim3(ctas);
        config.blockDim = dim3(decode_shape<D>::WARPS * WARP);
        config.dynamicSmemBytes = decode_shape<D>::SHARED_BYTES;
        config.stream = q;
        config.attrs = attribute;
        config.numAttrs = together > 1 ? 2 : 1;
    }
};

template <class T, int D> static auto prepared()
{
    auto kernel = decode_kernel<T, D>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         decode_shape<D>::SHARED_BYTES);
    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                         cudaSharedmemCarveoutMaxShared);
    return kernel;
}

template <class T, int D>
static void run(const session_view &v, const attend_args &a, cudaStream_t q)
{
    launch<D> l(v.decode_ctas, v.together, q);
    cudaLaunchKernelEx(&l.config, prepared<T, D>(), v, a);
}

template <class T> static void run_for(const session_view &v, const attend_args &a, cudaStream_t q)
{
    if (v.head_dim <= 64)
        run<T, 64>(v, a, q);
    else if (v.head_dim <= 128)
        run<T, 128>(v, a, q);
    else
        run<T, 256>(v, a, q);
}

void decode_run(const session_view &v, const attend_args &a, cudaStream_t q)
{
    if (v.kv_dtype == SV_F16)
        run_for<__half>(v, a, q);
    else
        run_for<bf16>(v, a, q);
}

// How many CTAs in clusters of `together` are at work at a time.
template <int D> static uint32_t ctas(uint32_t together, int processors)
{
    int n = 0;
    auto kernel = prepared<bf16, D>();
    if (together > 1) {
        launch<D> l(together, together, NULL);
        l.config.attrs = &l.attribute[1]; // the cluster's size alone
        l.config.numAttrs = 1;
        if (cudaOccupancyMaxActiveClusters(&n, kernel, &l.config) != cudaSuccess)
            return cudaGetLastError(), 0; // forgotten: there are no clusters then
        return (uint32_t)n * together;
    }
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel, decode_shape<D>::WARPS * WARP,
                                                  decode_shape<D>::SHARED_BYTES);
    return (uint32_t)(processors * n);
}

static uint32_t ctas_for(const session_view &v, uint32_t together)
{
    int processors = (int)v.processors;
    uint32_t n = v.head_dim <= 64    ? ctas<64>(together, processors)
                 : v.head_dim <= 128 ? ctas<128>(together, processors)
                                     : ctas<256>(together, processors);
    uint32_t set = v.kv_heads * together; // a head needs as many clusters as another
    return std::min(n, (uint32_t)DECODE_CTAS_MOST) / set * set;
}

// Clusters, unless too few of them are at work at a time.
void decode_size(session_view *v, bool has_clusters)
{
    uint32_t apart = ctas_for(*v, 1), near = has_clusters ? ctas_for(*v, CLUSTER) : 0;
    bool clusters = near > 0 && 4 * near >= 3 * apart;
    v->together = clusters ? CLUSTER : 1;
    v->decode_ctas = clusters ? near : std::max(apart, v->kv_heads);
}

uint64_t decode_parts_bytes(const sv_limits *l)
{
    uint64_t n = std::max(l->kv_heads, (uint32_t)DECODE_CTAS_MOST);
    if (l->head_dim <= 64)
        return 4 * n * decode_shape<64>::PARTS * part_floats(64);
    if (l->head_dim <= 128)
        return 4 * n * decode_shape<128>::PARTS * part_floats(128);
    return 4 * n * decode_shape<256>::PARTS * part_floats(256);
}
