// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_project - projections of one token within mega: x to shared memory, products, ends.
 *
 * Products  mma.sync m16n8k16: a unit of 8 rows of weights is the 8 columns; all 16 rows of the
 *           other side are the token. Columns of k are in the order that one 32-byte load of x
 *           gives a lane what four products need
 * Sums      each of 16 warps has some blocks of columns of each unit; a warp then adds what they
 *           left in shared memory, by a fixed order
 */
#include "cuda/entry.h"
#include "cuda/mega_attend.h"
#include "cuda/mega_unit.h"

enum {
    MEGA_BATCH = 8, // units whose sums are in shared memory at once, twice
    MEGA_NORM_QUADS = MEGA_NORM_MOST / (4 * MEGA_WORKERS) // of a thread
};

// Sums of the warps, [2][MEGA_BATCH][MEGA_WARPS][MEGA_UNIT]; squares of a residual.
struct mega_sums {
    float of[2][MEGA_BATCH][MEGA_WARPS][MEGA_UNIT];
    float squares[MEGA_WARPS];
    uint32_t seen[MEGA_WORKERS]; // settle()'s, of each thread
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Two columns' place, in words: of each 64, a lane (of four) has eight words in succession.
static __device__ __forceinline__ uint32_t mega_word(uint32_t column)
{
    return column / 64 * 32 + column / 2 % 4 * 8 + column / 8 % 8;
}

static __device__ __forceinline__ void mega_put(uint32_t *x, uint32_t column, float4 f)
{
    const uint32_t at = mega_word(column);
    x[at] = pack<bf16>(f.x, f.y);
    x[at + 8] = pack<bf16>(f.z, f.w);
}

static __device__ __forceinline__ float4 mega_load(const float *p, bool real)
{
    return real ? __ldcg((const float4 *)p) : make_float4(0, 0, 0, 0);
}

// What the norm multiplies a residual with, loaded before the residual is there.
struct mega_norm {
    float4 by[MEGA_NORM_QUADS];

    __device__ __forceinline__ mega_norm(const mega_project &p)
    {
#pragma unroll
        for (uint32_t j = 0; j < MEGA_NORM_QUADS; j++) {
            const uint32_t column = 4 * (threadIdx.x + j * MEGA_WORKERS);
            by[j] = make_float4(1, 1, 1, 1);
            if (!p.norm || column >= p.k)
                continue;
            const float4 w = *(const float4 *)(p.norm + column);
            by[j] = make_float4(w.x + p.offset, w.y + p.offset, w.z + p.offset, w.w + p.offset);
        }
    }
};

// The residual times the norm's weight; the warps' sums of squares.
static __device__ __forceinline__ void
mega_take_residual(const mega_project &p, const mega_norm &norm, uint32_t *x, mega_sums *sums)
{
    const uint32_t end = p.blocks * BOX_COLUMNS;
    float4 f[MEGA_NORM_QUADS];
    float sum = 0;
#pragma unroll
    for (uint32_t j = 0; j < MEGA_NORM_QUADS; j++) {
        const uint32_t column = 4 * (threadIdx.x + j * MEGA_WORKERS);
        f[j] = mega_load((const float *)p.x + column, column < p.k);
    }
#pragma unroll
    for (uint32_t j = 0; j < MEGA_NORM_QUADS; j++) {
        const uint32_t column = 4 * (threadIdx.x + j * MEGA_WORKERS);
        const float4 v = f[j], by = norm.by[j];
        sum = fmaf(v.x, v.x, fmaf(v.y, v.y, sum));
        sum = fmaf(v.z, v.z, fmaf(v.w, v.w, sum));
        if (column < end)
            mega_put(x, column, make_float4(v.x * by.x, v.y * by.y, v.z * by.z, v.w * by.w));
    }
    for (int o = WARP / 2; o > 0; o >>= 1)
        sum += __shfl_xor_sync(~0u, sum, o);
    if (threadIdx.x % WARP == 0)
        sums->squares[threadIdx.x / WARP] = sum;
}

static __device__ __forceinline__ void mega_take_bf16(const mega_project &p, uint32_t *x)
{
    constexpr uint32_t AT_ONCE = 4;
    const uint32_t end = p.blocks * BOX_COLUMNS;
    for (uint32_t at = 8 * threadIdx.x; at < end; at += AT_ONCE * 8 * MEGA_WORKERS) {
        uint4 f[AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            const uint32_t column = at + i * 8 * MEGA_WORKERS;
            f[i] = column < p.k ? __ldcg((const uint4 *)((const bf16 *)p.x + column))
                                : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            const uint32_t column = at + i * 8 * MEGA_WORKERS;
            if (column >= end)
                break;
            uint32_t *to = x + mega_word(column);
            to[0] = f[i].x, to[8] = f[i].y, to[16] = f[i].z, to[24] = f[i].w;
        }
    }
}

// What attention found: of few ranges of keys put together here, of many there is the whole.
template <int D>
static __device__ __forceinline__ void mega_take_parts(const session_view &v, const mega_project &p,
                                                       uint32_t ranges, uint32_t *x)
{
    for (uint32_t column = 4 * threadIdx.x; column < p.blocks * BOX_COLUMNS;
         column += 4 * MEGA_WORKERS) {
        float4 f = make_float4(0, 0, 0, 0);
        if (column < p.k && ranges <= MEGA_DIRECT)
            f = mega_merge_ranges<D>(v, column / D, column % D, ranges);
        else if (column < p.k)
            f = __ldcg((const float4 *)(mega_whole<D>(v) + column));
        mega_put(x, column, f);
    }
}

// 1 / the root mean square of the residual.
static __device__ __forceinline__ float mega_scale(const mega_project &p, const mega_sums &sums)
{
    float sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < MEGA_WARPS; i++)
        sum += sums.squares[i];
    return rsqrtf(__fdividef(sum, (float)p.k) + p.eps);
}

// The end of a unit: by one warp, a row a lane of each eight.
struct mega_ending {
    uint32_t row, bias_row; // of y; of the weights
    float old, bias;

    // Loads what the sums will be joined with, if this warp ends the unit. unit: of all.
    __device__ __forceinline__ mega_ending(const mega_project &p, uint32_t unit, bool ends)
    {
        const uint32_t r = threadIdx.x % MEGA_UNIT;
        const bool pairs = p.end == GEMM_GATE_UP;
        constexpr uint32_t HALF = MEGA_UNIT / 2;
        row = pairs ? HALF * unit + r % HALF : MEGA_UNIT * unit + r;
        bias_row = pairs && r >= HALF ? HALF * p.units + row : row;
        old = ends && p.end == GEMM_ADD ? __ldcg((const float *)p.y + row) : 0;
        bias = ends && p.bias ? p.bias[bias_row] : 0;
    }

    // *best: all lanes', of what they have stored.
    __device__ __forceinline__ void finish(const mega_project &p,
                                           const float (&sums)[MEGA_WARPS][MEGA_UNIT], float scale,
                                           volatile uint32_t *seen, uint64_t *best) const
    {
        const uint32_t lane = threadIdx.x % WARP;
        float sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < MEGA_WARPS; i += WARP / MEGA_UNIT)
            sum += sums[i + lane / MEGA_UNIT][lane % MEGA_UNIT];
        sum += __shfl_xor_sync(~0u, sum, 8);
        sum += __shfl_xor_sync(~0u, sum, 16);
        const float f = fmaf(sum, scale, bias), up = __shfl_xor_sync(~0u, f, MEGA_UNIT / 2);
        if (p.end == GEMM_GATE_UP) {
            const float y = activated(f, p.activation) * up, next = __shfl_xor_sync(~0u, y, 1);
            if (lane < MEGA_UNIT / 2 && lane % 2 == 0)
                settle((bf16 *)p.y + row, pack<bf16>(y, next), seen);
        } else if (lane < MEGA_UNIT) {
            settle((float *)p.y + row, __float_as_uint(old + f), seen);
        }
        if (p.best)
            *best = max(*best, entry_of_logit(f, row));
    }
};

// The best entry of this CTA's rows to the step's word.
static __device__ __forceinline__ void mega_raise(unsigned long long *word, uint64_t best,
                                                  mega_sums *sums)
{
    const uint32_t lane = threadIdx.x % WARP;
    uint64_t *left = (uint64_t *)sums->of;
    best = warp_most(best);
    sync_workers(); // the sums have been read
    if (lane == 0)
        left[threadIdx.x / WARP] = best;
    sync_workers();
    if (threadIdx.x >= WARP)
        return;
    best = warp_most(lane < MEGA_WARPS ? left[lane] : 0);
    if (lane == 0)
        raise_word(word, best);
}

// All of this CTA's units; x and the squares are in shared memory, visible to all.
static __device__ __forceinline__ void mega_multiply(const mega_project &p, const mega_units &units,
                                                     const uint32_t *x, mega_sums *sums,
                                                     mega_ring *ring, unsigned long long *word)
{
    const uint32_t warp = threadIdx.x / WARP;
    uint64_t best = 0;
    const uint4 *mine = (const uint4 *)(x + warp * (BOX_COLUMNS / 2) + threadIdx.x % 4 * 8);
    const float scale = p.norm ? mega_scale(p, *sums) : 1;
    const bool two = p.blocks == MEGA_WARPS && units.count <= MEGA_SLOTS;
#pragma unroll 1
    for (uint32_t first = 0, turn = 0; first < units.count; first += MEGA_BATCH, turn ^= 1) {
        const uint32_t end = min(first + MEGA_BATCH, units.count), own = first + warp % MEGA_BATCH;
        const bool ends = warp / MEGA_BATCH == turn && own < end;
        const mega_ending ending(p, units.from + own, ends);
        mega_add_units(p, ring, mine, first, end, two, sums->of[turn]);
        sync_workers();
        if (ends)
            ending.finish(p, sums->of[turn][own - first], scale, &sums->seen[threadIdx.x], &best);
    }
    if (p.best)
        mega_raise(word, best, sums);
}

#endif
