// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_attend - attention of one token within mega: a range of keys a CTA, tiles of 16 a warp.
 *
 * Products  transposed, so that the up to 8 heads of a group are columns: scores [16 keys, 8] =
 *           K q^T, sums [D, 8] = V^T weights. A lane has heads 2 (lane % 4) and the next.
 * Own key   the token's own K and V are not yet in the block that was copied ahead: the warp of the
 *           last tile puts them there
 * Parts     (mega_merge.h) of a CTA's range to session_view.parts
 */
#include "cuda/mega_merge.h"
#include "cuda/wgmma.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ void put(uint32_t to, uint4 x)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
                 "r"(x.w)
                 : "memory");
}

static __device__ __forceinline__ uint32_t turned(uint32_t matrix)
{
    uint32_t t;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(matrix));
    return t;
}

// What a warp found in its tiles.
template <int D> struct mega_finding {
    using shape = mega_tile<D>;

    float sum[D / 16][4];     // elements lane / 4 and that + 8 of each 16, of the lane's two heads
    float most[2], weight[2]; // of those heads; weight: of this lane's keys alone
    uint32_t q[D / 16][2];

    __device__ __forceinline__ void start(const mega_heads<D> &h)
    {
        const uint32_t lane = threadIdx.x % WARP;
        const uint32_t at =
            shared_address(h.q) + lane % 8 * mega_attend_shape<D>::Q_PITCH + lane / 8 * 16;
#pragma unroll
        for (uint32_t i = 0; i < D / 32; i++) {
            uint32_t r[4];
            load_matrices(r, at + i * 64);
            q[2 * i][0] = r[0], q[2 * i][1] = r[1];
            q[2 * i + 1][0] = r[2], q[2 * i + 1][1] = r[3];
        }
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
                sum[i][j] = 0;
        most[0] = most[1] = -INFINITY;
        weight[0] = weight[1] = 0;
    }

    // A tile whose first key is `first`; keys in [begin, end) count.
    __device__ __forceinline__ void add(uint32_t tile, uint32_t first, uint32_t begin, uint32_t end,
                                        float scale)
    {
        const uint32_t lane = threadIdx.x % WARP, row = lane % 8;
        const uint32_t low = lane / 8 % 2, high = lane / 16; // which of four matrices
        float s[4] = {}, t[4] = {};
#pragma unroll
        for (uint32_t c = 0; c < shape::PANELS; c++) {
            const uint32_t at = tile + c * shape::PANEL + low * MEGA_GRANULE + row * 128;
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                uint32_t k[4];
                load_matrices(k, at + (((2 * j + high) ^ row) << 4));
                multiply<bf16>(j % 2 ? t : s, k, q[4 * c + j][0], q[4 * c + j][1]);
            }
        }
        const uint32_t key = first + lane / 4;
        const bool seen = key >= begin && key < end, next = key + 8 >= begin && key + 8 < end;
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            s[j] = (j < 2 ? seen : next) ? (s[j] + t[j]) * scale : -INFINITY;
        weigh(s);
        const uint32_t p0 = turned(pack<bf16>(s[0], s[1])), p1 = turned(pack<bf16>(s[2], s[3]));
#pragma unroll
        for (uint32_t c = 0; c < shape::PANELS; c++) {
            const uint32_t at =
                tile + (shape::PANELS + c) * shape::PANEL + high * MEGA_GRANULE + row * 128;
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                uint32_t x[4];
                load_matrices_transposed(x, at + (((2 * j + low) ^ row) << 4));
                multiply<bf16>(sum[4 * c + j], x, p0, p1);
            }
        }
    }

    // Scores into weights relative to the highest so far.
    __device__ __forceinline__ void weigh(float (&s)[4])
    {
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            float now = fmaxf(s[h], s[h + 2]);
#pragma unroll
            for (int o = 4; o < WARP; o *= 2)
                now = fmaxf(now, __shfl_xor_sync(~0u, now, o));
            now = fmaxf(now, most[h]);
            const float base = now == -INFINITY ? 0 : now, shrink = power_of_two(most[h] - base);
            most[h] = now;
            s[h] = power_of_two(s[h] - base);
            s[h + 2] = power_of_two(s[h + 2] - base);
            weight[h] = weight[h] * shrink + (s[h] + s[h + 2]);
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++) {
                sum[i][h] *= shrink;
                sum[i][h + 2] *= shrink;
            }
        }
    }

    __device__ __forceinline__ void sum_weights()
    {
#pragma unroll
        for (uint32_t h = 0; h < 2; h++)
#pragma unroll
            for (int o = 4; o < WARP; o *= 2)
                weight[h] += __shfl_xor_sync(~0u, weight[h], o);
    }

    // To [group] parts in shared memory.
    __device__ __forceinline__ void leave(float *part, uint32_t group) const
    {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            const uint32_t head = 2 * (lane % 4) + h;
            if (head >= group)
                continue;
            float *to = part + head * mega_attend_shape<D>::PART;
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++) {
                to[16 * i + lane / 4] = sum[i][h];
                to[16 * i + lane / 4 + 8] = sum[i][h + 2];
            }
            if (lane < 4)
                *(float2 *)(to + D) = make_float2(most[h], weight[h]);
        }
    }

    // From such parts, of keys that another warp had.
    __device__ __forceinline__ void join(const float *part, uint32_t group)
    {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            const uint32_t head = 2 * (lane % 4) + h;
            if (head >= group)
                continue;
            const float *from = part + head * mega_attend_shape<D>::PART;
            const float2 other = *(const float2 *)(from + D);
            const float now = fmaxf(most[h], other.x), mine = power_of_two(most[h] - now),
                        its = power_of_two(other.x - now);
            most[h] = now;
            weight[h] = weight[h] * mine + other.y * its;
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++) {
                sum[i][h] = sum[i][h] * mine + from[16 * i + lane / 4] * its;
                sum[i][h + 2] = sum[i][h + 2] * mine + from[16 * i + lane / 4 + 8] * its;
            }
        }
    }
};

// The token's own K and V to its row of a tile, and zeros to V's rows that nobody sees: they may
// hold anything, and zero times NaN is NaN.
template <int D>
static __device__ __forceinline__ void mega_mend(const mega_heads<D> &h, uint32_t tile,
                                                 uint32_t first, uint32_t begin, uint32_t pos)
{
    using shape = mega_tile<D>;
    constexpr uint32_t PIECES = D / 8;
    const uint32_t piece = threadIdx.x % PIECES, low = threadIdx.x % WARP / PIECES;
    const uint32_t panel = tile + piece / 8 * shape::PANEL;
#pragma unroll
    for (uint32_t i = 0; i < SV_BLOCK; i += WARP / PIECES) {
        const uint32_t row = i + low, key = first + row;
        const uint32_t k = panel + row * 128 + (((piece ^ row) & 7) << 4),
                       values = k + shape::PANELS * shape::PANEL;
        if (key == pos) {
            put(k, *(const uint4 *)&h.own[0][8 * piece]);
            put(values, *(const uint4 *)&h.own[1][8 * piece]);
        } else if (key < begin || key > pos) {
            put(values, make_uint4(0, 0, 0, 0));
        }
    }
    wgmma_publish(); // before the copy engine writes here again
    __syncwarp();
}

// The sums of a CTA's warps, in `room`, to its range's part.
template <int D>
static __device__ __forceinline__ void mega_conclude(const session_view &v, const mega_range &r,
                                                     mega_finding<D> &f, float *room,
                                                     volatile uint32_t *seen)
{
    using shape = mega_attend_shape<D>;
    const uint32_t warp = threadIdx.x / WARP, group = v.heads / v.kv_heads;
    const uint32_t warps = min(r.count, (uint32_t)MEGA_WARPS), half = shape::HALF;
    float *mine = room + warp % half * (group * shape::PART);
    f.sum_weights();
    if (warps > half) {
        if (warp >= half && warp < warps)
            f.leave(mine, group);
        sync_workers();
        if (warp < half && warp + half < warps)
            f.join(mine, group);
        __syncwarp();
    }
    if (warp < min(warps, half))
        f.leave(mine, group);
    sync_workers();
    for (uint32_t i = threadIdx.x; i < group * (D / 4); i += MEGA_WORKERS) {
        const uint32_t head = i / (D / 4), column = i % (D / 4) * 4;
        merged m;
        mega_add_parts<D, false>(&m, room + head * shape::PART, group * shape::PART, column,
                                 min(warps, half));
        float *to = mega_part<D>(v, r.head * group + head, r.number);
        settle(to + column, m.sum, seen);
        if (column == 0)
            settle(to + D, make_float2(m.most, m.weight), seen);
    }
}

#endif
