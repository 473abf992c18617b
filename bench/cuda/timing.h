// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * timing - how a kernel's time is taken and printed.
 *
 * Time    a graph of CALLS calls is replayed; the median of the replays over CALLS. So launch gaps
 *         are those of a step's graph, programmatic dependent launches included.
 * Inputs  random, never zeros. One buffer read again and again measures the L2: rotate
 *         copies_beyond_l2(bytes) sets by `turn`.
 * Share   of the read bandwidth measured in this process, or of MATMUL_RATE.
 * Errors  any CUDA error ends the program.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace timing
{
enum { CALLS = 20, REPLAYS = 15, WARM_UPS = 2 };
constexpr double MATMUL_RATE = 780e12;      // FLOP/s: bf16, 8192^3 on an H100
constexpr size_t STREAM_BYTES = 4ull << 30; // read for the bandwidth
constexpr int STREAM_DEPTH = 8;             // 16-byte loads under way in a thread

static inline void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) {
        return;
    }
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

static inline cudaDeviceProp device()
{
    int index = 0;
    cudaDeviceProp prop;
    must(cudaGetDevice(&index), "cudaGetDevice");
    must(cudaGetDeviceProperties(&prop, index), "cudaGetDeviceProperties");
    return prop;
}

static inline double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

// splitmix64: number i of the stream of that seed.
static __device__ __forceinline__ uint64_t mix(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0xd1342543de82ef95ull + (i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Standard normal, by Box and Muller.
static __device__ __forceinline__ float normal(uint64_t seed, uint64_t i)
{
    const uint64_t bits = mix(seed, i);
    const float u = ((uint32_t)(bits >> 40) + 1) * 0x1p-24f; // (0, 1]
    const float v = (uint32_t)(bits & 0xffffff) * 0x1p-24f;
    return sqrtf(-2 * logf(u)) * cospif(2 * v);
}

static __device__ __forceinline__ void put(float *p, float x)
{
    *p = x;
}

static __device__ __forceinline__ void put(__nv_bfloat16 *p, float x)
{
    *p = __float2bfloat16(x);
}

template <class T> __global__ void fill_normal(T *p, size_t n, uint64_t seed, float scale)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        put(p + i, scale * normal(seed, i));
    }
}

template <class T> T *random(size_t n, uint64_t seed, float scale)
{
    T *p = nullptr;
    must(cudaMalloc((void **)&p, n * sizeof *p), "cudaMalloc");
    fill_normal<<<1024, 256>>>(p, n, seed, scale);
    must(cudaGetLastError(), "fill_normal");
    must(cudaDeviceSynchronize(), "fill_normal");
    return p;
}

static __device__ __forceinline__ uint4 load_once(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// Reads all n; the sum is stored only where it is what random data never gives in every thread.
static __global__ void __launch_bounds__(512) stream_kernel(const uint4 *p, size_t n, uint32_t *out)
{
    const size_t width = (size_t)blockDim.x * STREAM_DEPTH;
    uint32_t sum = 0;
    for (size_t at = blockIdx.x * width; at + width <= n; at += gridDim.x * width) {
        uint4 v[STREAM_DEPTH];
#pragma unroll
        for (int k = 0; k < STREAM_DEPTH; k++) {
            v[k] = load_once(p + at + k * blockDim.x + threadIdx.x);
        }
#pragma unroll
        for (int k = 0; k < STREAM_DEPTH; k++) {
            sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
        }
    }
    if (sum == 0x9e3779b9) {
        *out = sum;
    }
}

static inline cudaStream_t stream()
{
    static cudaStream_t q;
    if (!q) {
        must(cudaStreamCreateWithFlags(&q, cudaStreamNonBlocking), "cudaStreamCreate");
    }
    return q;
}

// Seconds of one replay, each of n.
static inline std::vector<double> replay(cudaGraphExec_t exec, int n)
{
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "cudaEventCreate");
    must(cudaEventCreate(&end), "cudaEventCreate");
    std::vector<double> s;
    for (int i = 0; i < n; i++) {
        float ms = 0;
        must(cudaEventRecord(begin, stream()), "cudaEventRecord");
        must(cudaGraphLaunch(exec, stream()), "cudaGraphLaunch");
        must(cudaEventRecord(end, stream()), "cudaEventRecord");
        must(cudaEventSynchronize(end), "replay");
        must(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        s.push_back(ms / 1e3);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return s;
}
} // namespace timing

// enqueue(int turn, cudaStream_t) only enqueues. Seconds of one call.
template <class F> double seconds_of(F enqueue, int calls = timing::CALLS)
{
    using namespace timing;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "begin capture");
    for (int turn = 0; turn < calls; turn++) {
        enqueue(turn, stream());
    }
    must(cudaStreamEndCapture(stream(), &graph), "end capture");
    must(cudaGetLastError(), "capture");
    must(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    must(cudaGraphUpload(exec, stream()), "cudaGraphUpload");
    replay(exec, WARM_UPS);
    const double s = median(replay(exec, REPLAYS)) / calls;
    must(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    must(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return s;
}

// On the device, standard deviation `scale`, not freed.
static inline __nv_bfloat16 *random_bf16(size_t n, uint64_t seed, float scale)
{
    return timing::random<__nv_bfloat16>(n, seed, scale);
}

static inline float *random_f32(size_t n, uint64_t seed, float scale)
{
    return timing::random<float>(n, seed, scale);
}

// How many input sets of that size exceed twice the L2; graphs of fewer calls rotate fewer.
static inline size_t copies_beyond_l2(size_t bytes)
{
    return 2 * (size_t)timing::device().l2CacheSize / std::max<size_t>(bytes, 1) + 1;
}

// Bytes a second, read only. Measured at the first call.
static inline double measured_bandwidth()
{
    using namespace timing;
    static double rate;
    if (rate > 0) {
        return rate;
    }
    uint32_t *out = nullptr;
    must(cudaMalloc((void **)&out, sizeof *out), "cudaMalloc");
    float *data = random_f32(STREAM_BYTES / sizeof(float), 1, 1);
    const unsigned ctas = 4 * (unsigned)device().multiProcessorCount;
    const double s = seconds_of(
        [&](int, cudaStream_t q) {
            stream_kernel<<<ctas, 512, 0, q>>>((const uint4 *)data, STREAM_BYTES / sizeof(uint4),
                                               out);
        },
        2);
    must(cudaFree(data), "cudaFree");
    must(cudaFree(out), "cudaFree");
    rate = STREAM_BYTES / s;
    return rate;
}

static inline void table_begin(const char *title)
{
    printf("\n%s: %s, read %.3f TB/s\n", title, timing::device().name, measured_bandwidth() / 1e12);
    printf("%-44s %9s %9s %7s %7s\n", "", "us", "T/s", "share", "x ref");
    fflush(stdout);
}

/*
 * One line: TB/s where the bytes are what bounds it, else TFLOP/s; the share of that bound; and the
 * reference's time over ours (0: none, so above 1 we are faster).
 */
static inline void table_row(const char *name, double s, double bytes, double flops,
                             double reference_s)
{
    const double byte_floor = bytes / measured_bandwidth(),
                 flop_floor = flops / timing::MATMUL_RATE;
    const bool by_bytes = byte_floor >= flop_floor;
    printf("%-44s %9.2f %7.2f%s %6.1f%%", name, s * 1e6, (by_bytes ? bytes : flops) / s / 1e12,
           by_bytes ? " B" : " F", 100 * std::max(byte_floor, flop_floor) / s);
    if (reference_s > 0) {
        printf(" %7.2f", reference_s / s);
    }
    printf("\n");
    fflush(stdout);
}
