// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_unit - what a warp adds up of a unit of rows, from slot after slot of the ring.
 *
 * A slot is waited for, read, multiplied and given back: some 250 cycles, of which a warp is busy
 * for 40. So where units have one slot each, two are taken at a time, one's latencies behind the
 * other's: if the ring holds all that the CTA has of the operation, which has come then. Where the
 * bus sets the pace, to wait for two is slower than one after the other; two slots of one unit
 * were slower too (1B 0.95 ms a step instead of 0.89).
 */
#include "cuda/mega_ring.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The 64 columns of a granule, and as many of x, from this lane's words on.
struct mega_columns {
    uint32_t w[2][4];
    uint4 x[2];

    __device__ __forceinline__ mega_columns(uint32_t granule, const uint4 *from)
        : x{from[0], from[1]}
    {
        const uint32_t lane = threadIdx.x % WARP, row = lane % 8, at = granule + row * 128;
        load_matrices(w[0], at + ((lane / 8 ^ row) << 4));
        load_matrices(w[1], at + (((4 + lane / 8) ^ row) << 4));
    }
};

// A warp's sums over some columns of a unit: element 0 and 1 of row 2 (lane % 4) and the next.
struct mega_unit {
    float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};

    __device__ __forceinline__ void add(const mega_columns &c)
    {
        multiply<bf16>(even, {c.x[0].x, 0, c.x[0].y, 0}, c.w[0][0], c.w[0][1]);
        multiply<bf16>(odd, {c.x[0].z, 0, c.x[0].w, 0}, c.w[0][2], c.w[0][3]);
        multiply<bf16>(even, {c.x[1].x, 0, c.x[1].y, 0}, c.w[1][0], c.w[1][1]);
        multiply<bf16>(odd, {c.x[1].z, 0, c.x[1].w, 0}, c.w[1][2], c.w[1][3]);
    }

    __device__ __forceinline__ void leave(float (&to)[MEGA_UNIT]) const
    {
        const uint32_t lane = threadIdx.x % WARP;
        if (lane < 4)
            *(float2 *)&to[2 * lane] = make_float2(even[0] + odd[0], even[1] + odd[1]);
    }
};

// All slots of a unit; x of this lane.
static __device__ __forceinline__ void mega_add_unit(const mega_project &p, mega_ring *ring,
                                                     const uint4 *x, mega_unit *u)
{
    const uint32_t warp = threadIdx.x / WARP, granule = warp * MEGA_GRANULE;
#pragma unroll 1
    for (uint32_t block = 0; block < p.blocks; block += MEGA_WARPS) {
        ring->take();
        if (block + warp < p.blocks)
            u->add(mega_columns(ring->at() + granule, x + block * (BOX_COLUMNS / 8)));
        ring->give();
    }
}

// The next two units, which have a slot each.
static __device__ __forceinline__ void mega_add_two(mega_ring *ring, const uint4 *x, mega_unit *u0,
                                                    mega_unit *u1)
{
    const uint32_t granule = threadIdx.x / WARP * MEGA_GRANULE;
    const mega_ring after = ring->after();
    ring->take();
    after.take();
    const mega_columns c0(ring->at() + granule, x), c1(after.at() + granule, x);
    u0->add(c0);
    u1->add(c1);
    ring->give();
    ring->give();
}

// Units [first, end), to their places in `to`. two: at a time, where a unit has one slot.
static __device__ __forceinline__ void mega_add_units(const mega_project &p, mega_ring *ring,
                                                      const uint4 *x, uint32_t first, uint32_t end,
                                                      bool two, float (*to)[MEGA_WARPS][MEGA_UNIT])
{
    const uint32_t warp = threadIdx.x / WARP;
    uint32_t unit = first;
#pragma unroll 1
    for (; two && unit + 1 < end; unit += 2) {
        mega_unit u0, u1;
        mega_add_two(ring, x, &u0, &u1);
        u0.leave(to[unit - first][warp]);
        u1.leave(to[unit - first + 1][warp]);
    }
#pragma unroll 1
    for (; unit < end; unit++) {
        mega_unit u;
        mega_add_unit(p, ring, x, &u);
        u.leave(to[unit - first][warp]);
    }
}

#endif
