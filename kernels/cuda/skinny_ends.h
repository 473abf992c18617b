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
 * Where the four sums of a lane belong, as a product gives them: two rows of two tokens each. q:
 * lane / 4. Of gate and up the rows are those of w, and the first is y's.
 */
struct skinny_place {
    uint32_t row[2], t;

    __device__ __forceinline__ skinny_place(const gemm &g, uint32_t tile, uint32_t q, uint32_t t)
        : t(t)
    {
        const bool both = g.end == GEMM_GATE_UP;
        row[0] = tile * (both ? TILE / 2 : TILE) + q;
        row[1] = both ? g.n + row[0] : row[0] + TILE / 2;
    }

    __device__ __forceinline__ bool has(const gemm &g, int i, int e) const
    {
        return t + e < g.m && (g.end == GEMM_GATE_UP || row[i] < g.n);
    }

    // What the sums will be joined with.
    __device__ __forceinline__ void load(const gemm &g, float (&old)[4]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            old[i] = has(g, i / 2, i % 2) ? joined(g, row[i / 2], t + i % 2) : 0;
    }

    __device__ __forceinline__ void finish(const gemm &g, const float (&sum)[4],
                                           const float (&old)[4], const float (&scale)[2]) const
    {
        float f[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            f[i] = fmaf(sum[i], scale[i % 2], old[i]);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (g.end != GEMM_GATE_UP && has(g, i / 2, i % 2))
                store(g, row[i / 2], t + i % 2, f[i]);
            else if (g.end == GEMM_GATE_UP && i < 2 && has(g, 0, i))
                store(g, row[0], t + i, activated(f[i], g.activation) * f[2 + i]);
    }
};
