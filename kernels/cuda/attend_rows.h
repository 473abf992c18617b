// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend_rows - attend_hopper.cu's shapes, and what a warpgroup makes of its 64 rows: scores of a
 * tile of keys, weights, sums.
 */
#include "cuda/attend_prefill.h"
#include "cuda/wgmma.h"

/*
 * To be chosen by measuring: CTAS; of D = 64, GROUPS (2 or 3; two may have 224 registers, with 56
 * for the copies) and STAGES (2 or 4).
 */
template <int D> struct hopper_shape {
    enum {
        GROUPS = D == 64 ? 3 : 2, // warpgroups that multiply
        THREADS = 128 * (1 + GROUPS),
        GROUP_ROWS = 64,
        TILE_ROWS = GROUPS * GROUP_ROWS,
        CTAS = D == 64 ? 1 : 2, // of a cluster, each with a tile of rows: they share the keys
        KEYS = 128,             // of a tile
        PAGES = KEYS / SV_BLOCK,
        STAGES = D == 64 ? 4 : 2, // tiles of K in shared memory, and of V
        HOLDS_Q = D == 128,       // in registers: then products read less of shared memory
        HALVES = 2,               // tiles of q: one is multiplied, one is copied
        PANELS = D / 64,
        PIECES = D / 8,            // of 16 bytes, in a row
        Q_PANEL = TILE_ROWS * 128, // bytes
        K_PANEL = KEYS * 128,      // of V too
        PAGE_PANEL = SV_BLOCK * 128,
        Q_BYTES = PANELS * Q_PANEL,
        K_BYTES = PANELS * K_PANEL,
        SHARED_BYTES = HALVES * Q_BYTES + 2 * STAGES * K_BYTES + 1024, // 1024 to align them
        COPY_REGISTERS = D == 64 ? 32 : 40,
        MULTIPLY_REGISTERS = D == 64 ? 160 : 232
    };
    static_assert((STAGES & (STAGES - 1)) == 0, "a stage is a count's low bits");
    static_assert(128 * (COPY_REGISTERS + GROUPS * MULTIPLY_REGISTERS) <=
                      65536 / THREADS / 8 * 8 * THREADS,
                  "what the kernel starts with");
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Where 16-byte piece `piece` of row `row` lies in a tile of such panels.
template <int PANEL>
static __device__ __forceinline__ uint32_t panel_place(uint32_t row, uint32_t piece)
{
    return piece / 8 * PANEL + row * 128 + (((piece ^ row) & 7) << 4);
}

// This lane's two rows (lane / 4 and that + 8 of its warp's 16): scores of a tile, weights, sums.
template <class T, int D> struct hopper_rows {
    using shape = hopper_shape<D>;
    enum { N = shape::KEYS / 8, DEEP = shape::KEYS / 16 };
    float score[N][4], sum[D / 8][4], most[2], weight[2], shrink[2];
    uint32_t p[DEEP][4], q[shape::HOLDS_Q ? D / 16 : 1][4];
    bool shrinks;

    // Of this warpgroup's rows of a tile of q.
    __device__ void take_q(uint32_t at)
    {
        const uint32_t lane = threadIdx.x % WARP, row = threadIdx.x / WARP % 4 * ROWS + lane % ROWS;
        if constexpr (shape::HOLDS_Q)
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++)
                load_matrices(q[i], at + panel_place<shape::Q_PANEL>(row, 2 * i + lane / ROWS));
    }

    __device__ void start()
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most[h] = -INFINITY;
            weight[h] = 0;
        }
    }

    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < D / 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[i][j] = 0;
    }

    __device__ void multiply_k(uint32_t my_q, uint32_t k)
    {
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            const uint32_t at = i % 4 * 32;
            const uint64_t keys = wgmma_operand(k + i / 4 * shape::K_PANEL + at, 16);
            if constexpr (shape::HOLDS_Q)
                wgmma_rows<T>(score, q[i], keys, i > 0);
            else
                wgmma_rows<T>(score, wgmma_operand(my_q + i / 4 * shape::Q_PANEL + at, 16), keys,
                              i > 0);
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
        float all[2] = {0, 0};
#pragma unroll
        for (int h = 0; h < 2; h++) {
            now[h] = shrinks ? fmaxf(most[h], now[h]) : most[h];
            float base = now[h] == -INFINITY ? 0 : now[h], more = 0;
#pragma unroll
            for (int n = 0; n < N; n++) {
                score[n][2 * h] = power_of_two(fmaf(score[n][2 * h], scale, -base));
                score[n][2 * h + 1] = power_of_two(fmaf(score[n][2 * h + 1], scale, -base));
                all[h] += score[n][2 * h];
                more += score[n][2 * h + 1];
            }
            all[h] += more;
        }
        // All of that, and a branch, before a wait for the product under way: ptxas would wait
        // first.
        wgmma_own(score);
        asm volatile("" : "+f"(all[0]), "+f"(all[1])::"memory");
        if (shrinks) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                shrink[h] = power_of_two(most[h] - (now[h] == -INFINITY ? 0 : now[h]));
                most[h] = now[h];
                weight[h] *= shrink[h];
            }
        }
        weight[0] += all[0];
        weight[1] += all[1];
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

    // Through as many rows of a tile of q, at `at`, that nobody else uses any more.
    __device__ void write(const session_view &v, bf16 *out, const prefill_tile &t,
                          const float (&weight)[2], uint32_t first_row, char *at) const
    {
        uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            float share = one_over(sum_of_row(weight[h]));
            uint32_t row = lane / 4 + 8 * h;
#pragma unroll
            for (uint32_t i = 0; i < D / 8; i++)
                *(uint32_t *)(at + panel_place<shape::Q_PANEL>(row, i) + 4 * (lane % 4)) =
                    pack<bf16>(sum[i][2 * h] * share, sum[i][2 * h + 1] * share);
        }
        __syncwarp();
        constexpr uint32_t STEP = WARP / shape::PIECES; // rows at once
        const uint32_t piece = lane % shape::PIECES, first = lane / shape::PIECES;
        row_walk rows(t, first_row + first, STEP);
#pragma unroll
        for (uint32_t row = first; row < ROWS; row += STEP, rows.advance())
            if (first_row + row < t.rows && 8 * piece < v.head_dim)
                *(uint4 *)(out + rows.at(v) + 8 * piece) =
                    *(const uint4 *)(at + panel_place<shape::Q_PANEL>(row, piece));
    }
};

#endif
