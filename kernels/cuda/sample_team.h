// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample_team - the CTAs that sample one row together, and what they tell one another.
 *
 * Team   CTAS of them: a cluster, or one alone. Their warps are numbered through.
 * Tell   each warp writes a number into the shared memory of every CTA; after one barrier all
 *        have all of them at home. Two places in turn, so that the next needs no other barrier.
 * Order  numbers are joined in the order of the warps, or are integers: bits repeat.
 */
#include "cuda/entry.h"
#include "cuda/sample_task.h"

enum {
    THREADS = 512,
    WARPS = THREADS / 32,
    ITEMS = 2 * THREADS, // bins of a histogram, or entries of a list: two a thread
    ROOM = 256           // entries that a CTA of several can add to a list
};
constexpr uint32_t ALL_LANES = ~0u;

template <int CTAS> struct team_shared {
    task row;
    uint64_t told_all[2], listed; // mbarriers
    unsigned long long item[ITEMS];
    unsigned long long sent[CTAS > 1 ? CTAS *ROOM : ITEMS]; // by CTAs; pick()'s weights
    uint64_t told[2][CTAS * WARPS], other[2][CTAS * WARPS];
    uint64_t part[WARPS]; // of a scan
    uint64_t top[SV_TOP_MAX];
    uint64_t before; // what cross() found
    uint32_t index, found;
};

extern __shared__ float4 values_of_cta[];

// A name of its own, so that it is known to be shared memory wherever it is asked for.
template <int CTAS> static __device__ __forceinline__ team_shared<CTAS> *shared_of()
{
    __shared__ team_shared<CTAS> s;
    return &s;
}

static __device__ __forceinline__ uint32_t lane_of()
{
    return threadIdx.x % 32;
}

static __device__ __forceinline__ uint32_t warp_sum(uint32_t x)
{
    return __reduce_add_sync(ALL_LANES, x);
}

static __device__ __forceinline__ uint64_t warp_sum(uint64_t x) // of weights: below 2^54
{
    uint32_t low = (uint32_t)x & ((1u << 27) - 1);
    return warp_sum(low) + ((uint64_t)warp_sum((uint32_t)(x >> 27)) << 27);
}

static __device__ __forceinline__ double warp_sum(double x)
{
    for (int o = 16; o > 0; o >>= 1)
        x += __shfl_xor_sync(ALL_LANES, x, o);
    return x;
}

// Sum over the lanes up to this one.
template <class T> static __device__ __forceinline__ T warp_scan(T x)
{
    for (uint32_t o = 1; o < 32; o <<= 1) {
        T add = __shfl_up_sync(ALL_LANES, x, o);
        x += lane_of() >= o ? add : 0;
    }
    return x;
}

static __device__ __forceinline__ uint32_t shared_place(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void open_barrier(uint64_t *b)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_place(b)) : "memory");
}

// This phase of b ends when so many bytes have been put with it. One thread says so, early or late.
static __device__ __forceinline__ void expect(uint64_t *b, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_place(b)),
                 "r"(bytes)
                 : "memory");
}

// x to the place of `to` in CTA r, and 8 bytes to the barrier there.
static __device__ __forceinline__ void put(uint32_t r, const void *to, uint64_t x, uint64_t *b)
{
    asm volatile("{\n\t.reg .b32 place, barrier;\n\t"
                 "mapa.shared::cluster.u32 place, %0, %3;\n\t"
                 "mapa.shared::cluster.u32 barrier, %2, %3;\n\t"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [place], %1, "
                 "[barrier];\n\t}" ::"r"(shared_place(to)),
                 "l"(x), "r"(shared_place(b)), "r"(r)
                 : "memory");
}

static __device__ __forceinline__ void await(uint64_t *b, uint32_t phase)
{
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(shared_place(b)), "r"(phase)
                     : "memory");
}

template <int CTAS> struct team {
    enum { N = CTAS * WARPS };
    uint32_t rank;
    uint32_t tells, lists; // how many there were: of tells, all CTAs count alike

    __device__ __forceinline__ team_shared<CTAS> *s() const
    {
        return shared_of<CTAS>();
    }

    // Of the row, this CTA's.
    __device__ __forceinline__ float *values() const
    {
        return CTAS > 1 ? (float *)values_of_cta : s()->row.values;
    }

    // Once, before anything else, and what it began: then all of them run, and their memory is
    // there. What lies between is of this CTA alone.
    __device__ __forceinline__ void open()
    {
        if constexpr (CTAS > 1) {
            if (threadIdx.x == 0) {
                open_barrier(&s()->told_all[0]);
                open_barrier(&s()->told_all[1]);
                open_barrier(&s()->listed);
                asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            }
            asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        }
    }
    __device__ __forceinline__ void meet_first() const
    {
        if constexpr (CTAS > 1)
            asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }

    __device__ __forceinline__ uint32_t me() const
    {
        return rank * WARPS + threadIdx.x / 32;
    }

    // The same place in the shared memory of CTA r.
    template <class T> __device__ __forceinline__ T *in(uint32_t r, T *p) const
    {
        if constexpr (CTAS > 1) {
            T *there;
            asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(r));
            return there;
        }
        return p;
    }

    // Every thread is there, and what any wrote is seen by all. A telling is cheaper.
    __device__ __forceinline__ void sync() const
    {
        if constexpr (CTAS > 1)
            asm volatile("barrier.cluster.arrive.release.aligned;\n\t"
                         "barrier.cluster.wait.acquire.aligned;" ::
                             : "memory");
        else
            __syncthreads();
    }

    /*
     * What every warp tells, all of its lanes the same: [N], until the telling after the next. With
     * `also`, a second number, in others(). Nobody goes on before all have come, but of memory only
     * what was told is sure to be seen.
     */
    __device__ __forceinline__ const uint64_t *tell(uint64_t x, const uint64_t *also = NULL)
    {
        uint32_t turn = tells & 1, phase = tells >> 1 & 1;
        uint64_t *told = s()->told[turn], *all = &s()->told_all[turn];
        tells++;
        if constexpr (CTAS > 1) {
            if (threadIdx.x == 0)
                expect(all, (also ? 2 : 1) * N * sizeof x);
            if (lane_of() < CTAS) {
                put(lane_of(), told + me(), x, all);
                if (also)
                    put(lane_of(), s()->other[turn] + me(), *also, all);
            }
            await(all, phase);
        } else {
            if (lane_of() == 0) {
                told[me()] = x;
                if (also)
                    s()->other[turn][me()] = *also;
            }
            __syncthreads();
        }
        return told;
    }

    // Of the last telling.
    __device__ __forceinline__ const uint64_t *told() const
    {
        return s()->told[(tells - 1) & 1];
    }
    __device__ __forceinline__ const uint64_t *others() const
    {
        return s()->other[(tells - 1) & 1];
    }

    __device__ __forceinline__ uint64_t most(uint64_t entry);

    // Of what was told: the sum over the warps before this one, and over all.
    __device__ __forceinline__ uint64_t before_me(const uint64_t *told, uint64_t *all) const
    {
        uint64_t before = 0, sum = 0;
        for (uint32_t i = lane_of(); i < N; i += 32) {
            before += i < me() ? told[i] : 0;
            sum += told[i];
        }
        *all = warp_sum(sum);
        return warp_sum(before);
    }

    __device__ __forceinline__ uint64_t sum(uint64_t mine)
    {
        const uint64_t *told = tell(warp_sum(mine));
        uint64_t sum = 0;
        for (uint32_t i = lane_of(); i < N; i += 32)
            sum += told[i];
        return warp_sum(sum);
    }

    __device__ __forceinline__ double sum(double mine)
    {
        const uint64_t *told = tell((uint64_t)__double_as_longlong(warp_sum(mine)));
        double sum = 0;
        for (uint32_t i = lane_of(); i < N; i += 32)
            sum += __longlong_as_double((long long)told[i]);
        return warp_sum(sum);
    }
};

// A function, since it is asked for so often that its code would be long.
template <int CTAS> static __device__ __noinline__ uint64_t most_of(team<CTAS> t, uint64_t entry)
{
    const uint64_t *told = t.tell(warp_most(entry));
    uint64_t x = 0;
    for (uint32_t i = lane_of(); i < t.N; i += 32)
        x = max(x, told[i]);
    return warp_most(x);
}

template <int CTAS> __device__ __forceinline__ uint64_t team<CTAS>::most(uint64_t entry)
{
    uint64_t x = most_of(*this, entry);
    tells++;
    return x;
}
