// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend_merge - puts together what several warps and CTAs of the decode kernel found of one
 * sequence, each in its own range of keys.
 *
 * Part     for each of 16 rows: the highest score (in powers of two) and the sum of the weights
 *          relative to it; then the rows' weighted sums of V, [16, D] f32. In shared memory, or in
 *          session_view.parts: of each CTA one for each warp's first sequence, one for its last.
 * Who      the warps' parts: their CTA. The CTAs': if all are of one cluster, they do, each some
 *          of the columns, from one another's shared memory; else the one that comes last.
 * Order    of the keys, whoever does it.
 */
#include "cuda/attend_deal.h"

enum { MERGE_BATCH = 16 }; // parts of which all loads are under way at once

// What a warp has of a sequence that others have a share in.
struct leftover {
    float *part;
    int32_t seq;          // NOBODY: none
    uint32_t first, last; // groups that have a share
    bool inside;          // it begins within the first one's range
    uint32_t token, rows; // of the batch; of the part
};

static __host__ __device__ constexpr uint32_t part_floats(uint32_t d)
{
    return ROWS * (2 + d);
}

static __device__ __forceinline__ float2 *part_head(float *part)
{
    return (float2 *)part;
}

template <int D> static __device__ __forceinline__ float *part_row(float *part, uint32_t row)
{
    return part + 2 * ROWS + row * D;
}

// Where CTA `cta` leaves its i-th part for others.
template <int D> static __device__ float *part_of(const session_view &v, uint32_t cta, uint32_t i)
{
    return v.parts + ((uint64_t)cta * decode_shape<D>::PARTS + i) * part_floats(D);
}

// Until all threads of the cluster are here and see what all have written.
static __device__ __forceinline__ void cluster_wait()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

// Until all have read what they wanted of one another's shared memory.
static __device__ __forceinline__ void cluster_end()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.relaxed;\n\tbarrier.cluster.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void device_fence()
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// The same place in the shared memory of a CTA of this cluster.
static __device__ __forceinline__ float *in_cta(float *at, uint32_t rank)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm("mapa.u64 %0, %0, %1;" : "+l"(at) : "r"(rank));
#endif
    return at;
}

// Past the L1 cache: another CTA may have written it. In shared memory they are plain loads.
static __device__ __forceinline__ float2 load_fresh(const float2 *p)
{
    float2 x;
    asm volatile("ld.relaxed.gpu.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(p));
    return x;
}

static __device__ __forceinline__ float4 load_fresh(const float4 *p)
{
    float4 x;
    asm volatile("ld.relaxed.gpu.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(p));
    return x;
}

// Up to MERGE_BATCH parts more.
template <int D>
static __device__ __forceinline__ void add_parts(merged *m, float *const *at, uint32_t n,
                                                 uint32_t row, uint32_t column)
{
    float2 head[MERGE_BATCH];
    float4 x[MERGE_BATCH];
#pragma unroll
    for (uint32_t i = 0; i < MERGE_BATCH; i++) {
        head[i] = i < n ? load_fresh(part_head(at[i]) + row) : make_float2(-INFINITY, 0);
        x[i] = i < n ? load_fresh((const float4 *)(part_row<D>(at[i], row) + column))
                     : make_float4(0, 0, 0, 0);
    }
    m->add(head, x);
}

/*
 * The n parts at[], visible to this CTA, of the rows of `l` into one at `to` or, NULL, the output;
 * of `shares` shares of them this one. Not inlined: short code starts sooner.
 */
template <int D>
static __device__ __noinline__ void merge(const session_view &v, bf16 *out, uint32_t head,
                                          const leftover &l, float *const *at, uint32_t n,
                                          float *to, uint32_t share, uint32_t shares)
{
    uint32_t group = v.heads / v.kv_heads, all = l.rows * (D / 4), end = all * (share + 1) / shares;
    for (uint32_t i = all * share / shares + threadIdx.x; i < end; i += blockDim.x) {
        uint32_t row = i / (D / 4), column = i % (D / 4) * 4;
        merged m;
#pragma unroll 1
        for (uint32_t p = 0; p < n; p += MERGE_BATCH)
            add_parts<D>(&m, at + p, n - p, row, column);
        if (to) {
            *(float4 *)(part_row<D>(to, row) + column) = m.sum;
            if (column == 0)
                part_head(to)[row] = make_float2(m.most, m.weight);
        } else if (column < v.head_dim) {
            m.scale(one_over(m.weight));
            uint64_t token = l.token + row / group;
            bf16 *y = out + (token * v.heads + head * group + row % group) * v.head_dim;
            *(uint2 *)(y + column) =
                make_uint2(pack<bf16>(m.sum.x, m.sum.y), pack<bf16>(m.sum.z, m.sum.w));
        }
    }
    __syncthreads();
}

// Whether this CTA is the last of those that have a share; then all their parts can be read.
static __device__ bool comes_last(const session_view &v, uint32_t head, const leftover &l)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t *ticket = v.tickets + (uint64_t)(uint32_t)l.seq * v.kv_heads + head;
        device_fence();
        last = atomicAdd(ticket, 1) == l.last - l.first;
        if (last)
            *ticket = 0;
        device_fence();
    }
    __syncthreads();
    return last;
}

// A CTA's part with the first tile of its range is its first, another its last. In shared memory
// they lie behind those of warps.
template <int D> static __device__ float *near_part(char *rings, bool is_last)
{
    constexpr uint32_t RING = decode_shape<D>::RING_BYTES;
    static_assert(RING / 2 >= 4 * part_floats(D), "two parts fit a ring");
    return (float *)(rings + is_last * RING + RING / 2);
}

template <int D>
static __device__ float *far_part(const session_view &v, uint32_t cta, bool is_last)
{
    return part_of<D>(v, cta, is_last ? (uint32_t)decode_shape<D>::WARPS : 0);
}

/*
 * The sequences of which this CTA's warps left parts: one of which it has all keys is written; of
 * another it leaves one part. One whose other parts are in this cluster is put into `near`, another
 * written if this CTA comes last.
 */
template <int D>
static __device__ void conclude(const session_view &v, bf16 *out, const post &p, char *rings,
                                const leftover (&left)[2 * decode_shape<D>::WARPS],
                                leftover (&near)[2], float *(&at)[SHARERS_MOST])
{
    constexpr uint32_t WARPS = decode_shape<D>::WARPS;
    static_assert(SHARERS_MOST <= WARPS * WARP, "a thread a part");
    uint32_t lane = threadIdx.x % WARP;
    int32_t seq = lane < 2 * WARPS ? left[lane].seq : NOBODY;
    for (uint32_t all = __ballot_sync(~0u, seq != NOBODY), same; all; all &= ~same) {
        const leftover &l = left[__ffs((int)all) - 1];
        same = __ballot_sync(~0u, seq == l.seq);
        if (threadIdx.x < WARP && (same >> lane & 1))
            at[__popc(same & ((1u << lane) - 1))] = left[lane].part;
        __syncthreads();
        bool is_last = p.group == l.first && l.inside, shared = l.first < l.last;
        bool is_near = v.together > 1 && l.first / v.together == l.last / v.together;
        float *to = !shared   ? NULL
                    : is_near ? near_part<D>(rings, is_last)
                              : far_part<D>(v, blockIdx.x, is_last);
        if (l.part != to)
            merge<D>(v, out, p.head, l, at, (uint32_t)__popc(same), to, 0, 1);
        if (!shared)
            continue;
        if (is_near) {
            if (threadIdx.x == 0)
                near[is_last] = l;
            continue;
        }
        if (!comes_last(v, p.head, l))
            continue;
        uint32_t g = l.first + threadIdx.x;
        if (g <= l.last)
            at[threadIdx.x] = far_part<D>(v, cta_of(v, g, p.head), g == l.first && l.inside);
        __syncthreads();
        merge<D>(v, out, p.head, l, at, l.last - l.first + 1, NULL, 0, 1);
    }
}

// All CTAs of a cluster: its share of what they have in common.
template <int D>
static __device__ void conclude_near(const session_view &v, bf16 *out, const post &p, char *rings,
                                     const leftover (&near)[2], float *(&at)[SHARERS_MOST])
{
    cluster_wait();
#pragma unroll 1
    for (uint32_t i = 0; i < 2; i++) {
        const leftover &l = near[i];
        if (l.seq == NOBODY)
            continue;
        uint32_t g = l.first + threadIdx.x, n = l.last - l.first + 1;
        if (g <= l.last)
            at[threadIdx.x] = in_cta(near_part<D>(rings, g == l.first && l.inside), g % v.together);
        __syncthreads();
        merge<D>(v, out, p.head, l, at, n, NULL, p.group - l.first, n);
    }
    cluster_end();
}
