// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * skinny_ends - device code of skinny: what CTAs of a cluster send one another, ends of a sum.
 */
#include "cuda/gemm_parts.h"
#include "cuda/skinny.h"

/*
 * Between CTAs of a cluster that send each other sums, or the threads of one that has no cluster.
 * Sums go by st.async, which counts bytes at the receiver's barrier: a fence would wait for what
 * else is under way, the ring too. That they have been read, and so may be sent again, is told by
 * the cluster's barrier, a round ahead.
 */
struct skinny_gate {
    uint32_t barrier; // address, if clustered
    bool clustered;
    uint32_t phase;

    // Once, before anything else.
    __device__ __forceinline__ void open() const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (clustered && threadIdx.x == 0)
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;"
                         "fence.mbarrier_init.release.cluster;" ::"r"(barrier)
                         : "memory");
#endif
        have_read();
    }

    // Every thread, in turn: that it needs no sums any more; until all do.
    __device__ __forceinline__ void have_read() const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (clustered)
            asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
    }

    __device__ __forceinline__ void wait_read() const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (clustered) {
            asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
            return;
        }
#endif
        __syncthreads();
    }

    // 16 bytes to that address in CTA `rank`, 4 of another's.
    __device__ __forceinline__ void send(uint32_t to, uint32_t rank, const float (&f)[4]) const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (clustered) {
            asm volatile("{\n\t.reg .b32 place, there;\n\t"
                         "mapa.shared::cluster.u32 place, %0, %2;\n\t"
                         "mapa.shared::cluster.u32 there, %1, %2;\n\t"
                         "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [place], "
                         "{%3, %4, %5, %6}, [there];\n\t}" ::"r"(to),
                         "r"(barrier), "r"(rank), "f"(f[0]), "f"(f[1]), "f"(f[2]), "f"(f[3])
                         : "memory");
            return;
        }
#endif
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(f[0]), "f"(f[1]),
                     "f"(f[2]), "f"(f[3])
                     : "memory");
    }

    __device__ __forceinline__ void send(uint32_t to, uint32_t rank, float f) const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        asm volatile("{\n\t.reg .b32 place, there;\n\t"
                     "mapa.shared::cluster.u32 place, %0, %2;\n\t"
                     "mapa.shared::cluster.u32 there, %1, %2;\n\t"
                     "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [place], %3, "
                     "[there];\n\t}" ::"r"(to),
                     "r"(barrier), "r"(rank), "f"(f)
                     : "memory");
#endif
    }

    // This CTA is sent so many bytes in this round.
    __device__ __forceinline__ void expect(uint32_t bytes) const
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if (clustered && threadIdx.x == 0)
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                         "r"(bytes)
                         : "memory");
#endif
    }

    // Until all have been sent.
    __device__ __forceinline__ void wait_sent()
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        for (uint32_t done = 0; clustered && !done;)
            asm volatile("{\n\t.reg .pred p;\n\t"
                         "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                         "selp.u32 %0, 1, 0, p;\n\t}"
                         : "=r"(done)
                         : "r"(barrier), "r"(phase)
                         : "memory");
        phase ^= 1;
        if (clustered)
            return;
#endif
        __syncthreads();
    }
};

/*
 * Where the four sums of a lane belong, as a product gives them: two rows of w, of two tokens each.
 * q: lane / 4.
 */
struct skinny_place {
    uint32_t row[2], t;

    __device__ __forceinline__ skinny_place(const skinny_walk &w, uint32_t tile, uint32_t q,
                                            uint32_t t)
        : t(t)
    {
        row[0] = tile / w.run * w.jump + tile % w.run * 8 + q * w.step;
        row[1] = row[0] + w.half;
    }
};

// What the sums will be joined with, loaded before they are there.
struct skinny_old {
    float of[4];
    // Of rows to be turned `of` has the cosines and the sines of both tokens; these are theirs:
    float bias[2];
    uint64_t slot[2]; // of the tokens in the KV blocks, in elements
};

// As gemm.end says.
struct skinny_store {
    static __device__ __forceinline__ bool has(const gemm &g, const skinny_place &p, int i, int e)
    {
        return p.t + e < g.m && (g.end == GEMM_GATE_UP || p.row[i] < g.n);
    }

    static __device__ __forceinline__ void load(const gemm &g, const skinny_place &p,
                                                skinny_old &old)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            old.of[i] = has(g, p, i / 2, i % 2) ? joined(g, p.row[i / 2], p.t + i % 2) : 0;
    }

    static __device__ __forceinline__ void finish(const gemm &g, const skinny_place &p,
                                                  const float (&sum)[4], const skinny_old &old,
                                                  const float (&scale)[2])
    {
        float f[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            f[i] = fmaf(sum[i], scale[i % 2], old.of[i]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (g.end != GEMM_GATE_UP && has(g, p, i / 2, i % 2))
                store(g, p.row[i / 2], p.t + i % 2, f[i]);
            else if (g.end == GEMM_GATE_UP && i < 2 && has(g, p, 0, i))
                store(g, p.row[0], p.t + i, activated(f[i], g.activation) * f[2 + i]);
    }
};

// Turned, 8 pairs of a tile; q NULL: as gemm.end says.
struct skinny_qkv : qkv_rows {
    __device__ __forceinline__ bool has(const gemm &g, const skinny_place &p, int e) const
    {
        return p.t + e < g.m && p.t + e < v.counts[0];
    }

    // Of the head's elements: the pair's number.
    __device__ __forceinline__ uint32_t pair_of(const skinny_place &p) const
    {
        return rope.style == SV_ROPE_PAIRS ? p.row[0] % v.head_dim / 2 : p.row[0] % v.head_dim;
    }

    __device__ __forceinline__ void load(const gemm &g, const skinny_place &p,
                                         skinny_old &old) const
    {
        const bool turned =
            rope.style != SV_ROPE_NONE && p.row[0] < (v.heads + v.kv_heads) * v.head_dim;
        const float frequency = turned ? rope.inv_freq[pair_of(p)] : 0;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            old.bias[e] = rope.bias ? rope.bias[p.row[e]] : 0;
            old.of[e] = 1;
            old.of[2 + e] = 0;
            if (!has(g, p, e))
                continue;
            const uint32_t at = (uint32_t)v.pos[p.t + e];
            old.slot[e] = slot_of(p.t + e, at);
            if (!turned)
                continue;
            sincosf((float)at * frequency, &old.of[2 + e], &old.of[e]);
            old.of[e] *= rope.scale;
            old.of[2 + e] *= rope.scale;
        }
    }

    __device__ __forceinline__ void put_row(uint32_t t, uint64_t slot, uint32_t row, float f) const
    {
        put(t, slot, row / v.head_dim, row % v.head_dim, f);
    }

    __device__ __forceinline__ void finish(const gemm &g, const skinny_place &p,
                                           const float (&sum)[4], const skinny_old &old,
                                           const float (&scale)[2]) const
    {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (!has(g, p, e))
                continue;
            const float x = fmaf(sum[e], scale[e], old.bias[0]),
                        y = fmaf(sum[2 + e], scale[e], old.bias[1]);
            put_row(p.t + e, old.slot[e], p.row[0], x * old.of[e] - y * old.of[2 + e]);
            put_row(p.t + e, old.slot[e], p.row[1], y * old.of[e] + x * old.of[2 + e]);
        }
    }
};
