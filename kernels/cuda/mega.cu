// SPDX-License-Identifier: Apache-2.0
/*
 * mega - the kernel.
 *
 * shape    one token; a CTA of 16 warps and the one that fills on every SM, all at work at once. A
 *          projection's rows and attention's keys are dealt out to the CTAs in equal shares; which
 *          CTA gets what is left over goes around from one operation to the next
 * depth    176 KB a SM: about 7 us of the bus, more than a barrier, a norm or the attention of a
 *          thousand keys takes. A warp that multiplies copies nothing: where it did, it was held
 *          up by how many copies a SM may have under way, and caught up no time
 * traffic  the weights and the keys once; x from the L2 once a CTA
 * barrier  one counter of arrivals, zero at the step's begin (schedule.cu). What is read behind it
 *          has been settled (mega_ring.h) before its writer arrived
 * oracle   tests/cuda/mega.cu: steps by kernels of their own, which have theirs
 */
#include "cuda/mega_project.h"

// Shared memory behind the ring. `x` is also the room of what attention's warps found.
template <int D> struct mega_shared {
    mega_sums sums;
    mega_heads<D> heads;
    uint64_t barriers[2 * MEGA_SLOTS]; // mega_barriers
    __align__(16) uint32_t x[1];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What this CTA has settled is there for all that wait for it.
static __device__ __forceinline__ void arrive(uint32_t *count)
{
    sync_workers();
    if (threadIdx.x == 0)
        asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

// What others have settled is read past the L1 cache.
static __device__ __forceinline__ void wait_all(const uint32_t *count, uint32_t arrivals)
{
    if (threadIdx.x == 0) {
        uint32_t n;
        do {
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(n) : "l"(count) : "memory");
        } while (n < arrivals * gridDim.x);
    }
    sync_workers();
}

static __device__ __forceinline__ void stamp(const mega_args &a, uint32_t op, uint32_t which)
{
    if (!a.trace || threadIdx.x > 0)
        return;
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    a.trace[((uint64_t)op * MEGA_STAMPS + which) * gridDim.x + blockIdx.x] = now;
}

template <int D>
static __device__ __forceinline__ void
attend(const mega_args &a, const mega_op &op, const mega_keys &k, const mega_range &r,
       const mega_token &token, mega_shared<D> *shared, mega_ring *ring)
{
    using shape = mega_tile<D>;
    mega_heads<D> *h = &shared->heads;
    mega_take_heads<D>(a, op.attend, token, r.head, r.number + 1 == k.ranges, h);
    sync_workers();
    mega_finding<D> f;
    f.start(*h);
    const uint32_t warp = threadIdx.x / WARP;
#pragma unroll 1
    for (uint32_t i = 0; i < r.count; i += shape::OF_SLOT) {
        const uint32_t mine = (warp - i) % MEGA_WARPS; // of the slot's tiles
        ring->take();
        if (mine < shape::OF_SLOT && i + mine < r.count) {
            const uint32_t tile = ring->at() + mine * shape::BYTES,
                           first = (r.tile + i + mine) * SV_BLOCK;
            if (first < k.begin || first + SV_BLOCK > token.pos)
                mega_mend<D>(*h, tile, first, k.begin, token.pos);
            f.add(tile, first, k.begin, token.pos + 1, op.attend.scale);
        }
        ring->give();
    }
    mega_conclude<D>(a.v, r, f, (float *)shared->x, &shared->sums.seen[threadIdx.x]);
}

// Many ranges, each CTA some of the columns.
template <int D>
static __device__ __forceinline__ void merge_ranges(const session_view &v, uint32_t ranges,
                                                    volatile uint32_t *seen)
{
    const uint32_t quads = v.heads * (D / 4), step = gridDim.x * MEGA_WORKERS;
    for (uint32_t i = blockIdx.x + threadIdx.x * gridDim.x; i < quads; i += step) {
        const uint32_t head = i / (D / 4), column = i % (D / 4) * 4;
        settle(mega_whole<D>(v) + 4 * i, mega_merge_ranges<D>(v, head, column, ranges), seen);
    }
}

template <int D>
static __device__ __forceinline__ void make_turns(const mega_args &a, uint32_t pos, float2 *turn)
{
    const uint32_t i = threadIdx.x;
    if (a.rope_style == SV_ROPE_NONE || i >= D / 2)
        return;
    float sine, cosine;
    sincosf((float)pos * a.inv_freq[i], &sine, &cosine);
    turn[i] = make_float2(cosine * a.rope_scale, sine * a.rope_scale);
}

template <int D>
static __device__ __forceinline__ void project(const mega_args &a, uint32_t i, uint32_t barriers,
                                               uint32_t ranges, mega_shared<D> *shared,
                                               mega_ring *ring)
{
    const mega_op &op = a.op[i];
    const mega_project &p = op.project;
    const mega_units units(op);
    const uint32_t *count = a.v.jobs + JOB_ARRIVED;
    if (op.input == MEGA_RESIDUAL) {
        const mega_norm norm(p);
        wait_all(count, barriers);
        stamp(a, i, MEGA_WAITED);
        mega_take_residual(p, norm, shared->x, &shared->sums);
    } else {
        wait_all(count, barriers);
        stamp(a, i, MEGA_WAITED);
        if (op.input == MEGA_BF16)
            mega_take_bf16(p, shared->x);
        else
            mega_take_parts<D>(a.v, p, ranges, shared->x);
    }
    sync_workers();
    stamp(a, i, MEGA_STAGED);
    mega_multiply(p, units, shared->x, &shared->sums, ring, a.v.best);
}

// The warps that compute.
template <int D>
static __device__ __forceinline__ void work(const mega_args &a, mega_shared<D> *shared,
                                            mega_ring ring)
{
    for (uint32_t i = threadIdx.x; i < sizeof shared->heads.q / 4; i += MEGA_WORKERS)
        ((uint32_t *)shared->heads.q)[i] = 0; // heads that the group doesn't have
    wait_previous();
    const mega_token token = mega_token_of(a.v);
    make_turns<D>(a, token.pos, shared->heads.turn);
    uint32_t *count = a.v.jobs + JOB_ARRIVED, barriers = 0, ranges = 0;
#pragma unroll 1
    for (uint32_t i = 0; i < a.n_ops; i++) {
        stamp(a, i, MEGA_COMES);
        if (i + 1 == a.n_ops) // on a SM that is done, while others are not
            let_next_start();
        if (a.op[i].kind == MEGA_PROJECT) {
            project<D>(a, i, barriers, ranges, shared, &ring);
        } else {
            const mega_op &op = a.op[i];
            const mega_keys k(a.v, token.pos, op.attend.window);
            const mega_range r(a.v, k, op.start);
            ranges = k.ranges;
            wait_all(count, barriers);
            stamp(a, i, MEGA_WAITED);
            if (token.there && r.count > 0)
                attend<D>(a, op, k, r, token, shared, &ring);
            if (ranges > MEGA_DIRECT) {
                arrive(count);
                wait_all(count, ++barriers);
                merge_ranges<D>(a.v, ranges, &shared->sums.seen[threadIdx.x]);
            }
        }
        stamp(a, i, MEGA_DONE);
        if (i + 1 < a.n_ops)
            arrive(count);
        barriers++;
    }
}

#endif

template <int D>
static __global__ void __launch_bounds__(MEGA_THREADS, 1)
    mega_kernel(const __grid_constant__ mega_args a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    mega_shared<D> *shared = (mega_shared<D> *)(memory + MEGA_SLOTS * MEGA_SLOT);
    mega_barriers *barriers = (mega_barriers *)shared->barriers;
    if (threadIdx.x == 0)
        barriers->make();
    __syncthreads();
    const mega_ring ring(memory, barriers);
    if (threadIdx.x < MEGA_WORKERS)
        work<D>(a, shared, ring);
    else
        fill<D>(a, ring);
#endif
}

template <int D> static uint32_t shared_bytes(uint32_t x_bytes)
{
    return MEGA_SLOTS * MEGA_SLOT + (uint32_t)sizeof(mega_shared<D>) + x_bytes;
}

uint32_t mega_shared_bytes(uint32_t head_dim, uint32_t x_bytes)
{
    return head_dim == 64 ? shared_bytes<64>(x_bytes) : shared_bytes<128>(x_bytes);
}

template <int D> static cudaError_t launch(const mega_args &a, cudaStream_t q)
{
    const uint32_t bytes = shared_bytes<D>(a.x_bytes);
    cudaError_t e = allow_shared(mega_kernel<D>, bytes);
    return e == cudaSuccess ? enqueue(mega_kernel<D>, a.v.processors, MEGA_THREADS, bytes, q, a)
                            : e;
}

cudaError_t mega_launch(const mega_args &a, cudaStream_t q)
{
    return a.v.head_dim == 64 ? launch<64>(a, q) : launch<128>(a, q);
}
