// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * roles - sm_90a: what a CTA needs whose warps have different tasks: barriers in shared memory that
 * count arrivals and bytes, barriers of some of the threads, registers that one warpgroup gives to
 * another, copies of boxes of a tensor by the copy engine.
 *
 * Phases   of a barrier in shared memory are numbered from 0; phase_wait() returns once the phase
 *          of that parity is over, and at once for the phase "before the first", of parity 1.
 * Proxies  what threads wrote to shared memory, by cp.async too, is for products and the copy
 *          engine only after wgmma_publish() of the thread that wrote it.
 */
#include "cuda/attend.h"

#include <cuda.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ void phase_init(uint64_t *barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// Of the thread that did phase_init(), before the others are let at them.
static __device__ __forceinline__ void phases_publish()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void phase_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

// Of the one that arrives: the phase is over when that many bytes have been copied.
static __device__ __forceinline__ void phase_arrive_expecting(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

// The phase under way is over only when that many bytes more have been copied.
static __device__ __forceinline__ void phase_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

static __device__ __forceinline__ bool phase_is_over(uint32_t barrier, uint32_t parity)
{
    uint32_t over;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(over)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return over;
}

// Of CTAs of one cluster: which this is, where a place of this one's shared memory lies in
// another's.
static __device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %cluster_ctarank;" : "=r"(rank));
    return rank;
}

static __device__ __forceinline__ uint32_t place_at(const void *here, uint32_t rank)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(there)
                 : "r"(shared_address(here)), "r"(rank));
    return there;
}

// Of all threads of all its CTAs.
static __device__ __forceinline__ void cluster_meet()
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// At another CTA's barrier: what this thread has done with shared memory is done.
static __device__ __forceinline__ void phase_arrive_at(uint64_t *barrier, uint32_t rank)
{
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(place_at(barrier, rank))
                 : "memory");
}

// The same with a number, which is there for whom phase_wait_number() lets go on.
static __device__ __forceinline__ void phase_arrive_number(uint64_t *barrier, uint32_t *number,
                                                           uint32_t x, uint32_t rank)
{
    asm volatile("st.relaxed.cluster.shared::cluster.u32 [%0], %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%2];" ::"r"(
                     place_at(number, rank)),
                 "r"(x), "r"(place_at(barrier, rank))
                 : "memory");
}

enum { TRIES_MOST = 1 << 22 }; // a second or more

// A wait without end is made an error: a store to nowhere, since with a trap in the kernel ptxas
// does not let the warpgroups that registers_take() use what they took (13.0).
static __device__ __forceinline__ void phase_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t at = shared_address(barrier), tries = 0;
    while (!phase_is_over(at, parity & 1))
        if (++tries == TRIES_MOST)
            asm volatile("st.global.u32 [%0], %1;" ::"l"(0ull), "r"(at) : "memory");
}

static __device__ __forceinline__ uint32_t phase_wait_number(uint64_t *barrier, uint32_t parity,
                                                             const uint32_t *number)
{
    phase_wait(barrier, parity);
    uint32_t x;
    asm volatile("fence.acq_rel.cluster;\nld.relaxed.cluster.shared::cta.u32 %0, [%1];"
                 : "=r"(x)
                 : "r"(shared_address(number))
                 : "memory");
    return x;
}

// A barrier of `threads` threads, whole warps.
static __device__ __forceinline__ void meet(uint32_t id, uint32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Of a whole warpgroup, once.
template <int N> static __device__ __forceinline__ void registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// True for one lane of a whole warp, the same each time. ptxas knows what it means, and issues what
// one thread does without asking who does it.
static __device__ __forceinline__ bool is_elected()
{
    uint32_t mine;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(mine));
    return mine;
}

static __device__ __forceinline__ void box_ahead(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// One thread's: the box at (x, y, z) of the tensor; what lies outside of it comes as zeros, and
// counts as bytes all the same.
static __device__ __forceinline__ void box_copy(uint32_t to, const CUtensorMap *map, int32_t x,
                                                int32_t y, int32_t z, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(barrier))
                 : "memory");
}

// The same to that place of every CTA of the cluster in `ctas`, a bit a CTA, and to its barrier.
static __device__ __forceinline__ void box_copy_to(uint32_t to, const CUtensorMap *map, int32_t x,
                                                   int32_t y, int32_t z, uint64_t *barrier,
                                                   uint16_t ctas)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(barrier)), "h"(ctas)
                 : "memory");
}

// The same by a policy of the L2.
static __device__ __forceinline__ void box_copy(uint32_t to, const CUtensorMap *map, int32_t x,
                                                int32_t y, int32_t z, uint64_t *barrier,
                                                uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(barrier)), "l"(policy)
                 : "memory");
}

#endif
