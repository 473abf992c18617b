// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * device - what the CUDA backend's parts share: handles, and one shape of failure.
 *
 * Numbers  weights bf16; the residual stream f32, other activations bf16; sums f32.
 * Memory   every buffer is counted before it is made (weight_bytes, session_bytes) and comes from
 *          device_alloc or device_take; nothing allocates or waits between launch and collect.
 * Stream   one for a device; weights, steps, slot updates and copies are ordered by it.
 * Waiting  a thread that waits for the device sleeps: it never spins.
 */
#include "kernels/kernels.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <pthread.h>

enum { CUDA_LISTS_MAX = 4096, GEMM_WORKSPACE = 32 << 20 }; // numbers in a list of a slot; bytes

using bf16 = __nv_bfloat16;

struct allocation {
    allocation *next;
    void *p;
    bool pinned;
};

struct sv_dev {
    int index;
    bool by_block;        // sv_dev_options
    bool no_mega;         // steps of one token by kernels of their own: for comparison
    uint64_t *mega_trace; // mega.h; NULL
    cudaStream_t stream;
    cublasLtHandle_t lt; // by device_lt
    pthread_t lt_thread; // that makes it, while lt_started
    bool lt_started;
    void *workspace;         // GEMM_WORKSPACE bytes
    struct gemm_state *gemm; // owned; what projections keep
    allocation *allocations; // owned, of everything on this device
    sv_weight *weights;
    sv_session *sessions;
    struct uploads *uploads; // owned, until what loading holds is given back
    cudaDeviceProp prop;
    char about[256];
};

struct sv_weight {
    sv_weight *next;
    sv_dev *dev;
    uint32_t role, n_parts;
    uint64_t rows, cols, part_rows[SV_PARTS_MAX];
    bf16 *data;    // [rows, cols]; a vector: NULL
    float *bias;   // [rows], NULL: none
    float *vector; // SV_VECTOR: [cols]
};

// Whether the call worked; else fills why with the call's name and CUDA's text.
bool cuda_ok(cudaError_t e, const char *what, char *why);
int fail(char *why, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
cublasLtHandle_t device_lt(sv_dev *d); // waits until it is there; NULL: there is none
void *device_alloc(sv_dev *d, uint64_t bytes, char *why);        // zeroed; NULL with why
void *device_take(sv_dev *d, uint64_t bytes, char *why);         // not zeroed
void *device_alloc_pinned(sv_dev *d, uint64_t bytes, char *why); // zeroed

uint64_t weight_bytes(const sv_dev_options *, const sv_weight_desc *);
int weight_make(sv_dev *, const sv_weight_desc *, sv_weight **ret, char *why);
void weights_free(sv_dev *d);

/*
 * Programmatic dependent launch: a kernel started by enqueue() may begin while the one before it
 * still runs. Until wait_previous() it touches nothing but weights; every thread calls it.
 * let_next_start() allows the same to the one after it. Below sm_90 both do nothing.
 * enqueue_clusters(): CTAs in clusters of so many in succession.
 */
template <class... P, class... A>
static inline cudaError_t enqueue_clusters(void (*kernel)(P...), uint32_t cluster, dim3 grid,
                                           dim3 block, size_t shared, cudaStream_t q, A &&...args)
{
    cudaLaunchAttribute how[2] = {};
    how[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    how[0].val.programmaticStreamSerializationAllowed = 1;
    how[1].id = cudaLaunchAttributeClusterDimension;
    how[1].val.clusterDim = {cluster, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = q;
    config.attrs = how;
    config.numAttrs = cluster > 1 ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

template <class... P, class... A>
static inline cudaError_t enqueue(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                                  cudaStream_t q, A &&...args)
{
    return enqueue_clusters(kernel, 1, grid, block, shared, q, static_cast<A &&>(args)...);
}

static __device__ __forceinline__ void wait_previous()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void let_next_start()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static inline uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

// What cudaMalloc takes for n bytes: whole pages of its own from half a page on.
static inline uint64_t taken_by(uint64_t n)
{
    return round_up(n, n >= 1 << 20 ? 2 << 20 : 512);
}
