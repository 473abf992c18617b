// SPDX-License-Identifier: Apache-2.0
/*
 * limits - what the machine gives, before any kernel of ours: read and copy bandwidth, the bf16
 * matrix product by cuBLASLt, and what one launch costs in a graph, with and without overlap.
 */
#include "bench/cuda/timing.h"
#include "kernels/cuda/device.h"

static constexpr int MATMUL = 8192;      // m, n and k
static constexpr size_t COPY = 1u << 30; // bytes

static __global__ void empty_kernel()
{
    let_next_start();
    wait_previous();
}

static void launches()
{
    const int calls = 200;
    const double s =
        seconds_of([](int, cudaStream_t q) { empty_kernel<<<132, 256, 0, q>>>(); }, calls);
    table_row("launch of 132 CTAs", s, 0, 0, 0);
    const double overlapped = seconds_of(
        [](int, cudaStream_t q) {
            timing::must(enqueue(empty_kernel, dim3(132), dim3(256), 0, q), "enqueue");
        },
        calls);
    table_row("launch of 132 CTAs, overlapped", overlapped, 0, 0, s);
}

static void copy()
{
    float *from = random_f32(COPY / 4, 2, 1), *to = random_f32(COPY / 4, 3, 1);
    const double s = seconds_of(
        [&](int, cudaStream_t q) {
            timing::must(cudaMemcpyAsync(to, from, COPY, cudaMemcpyDeviceToDevice, q), "copy");
        },
        4);
    table_row("copy on the device, both ways counted", s, 2.0 * COPY, 0, 0);
    timing::must(cudaFree(from), "cudaFree");
    timing::must(cudaFree(to), "cudaFree");
}

static void worked(cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS) {
        fprintf(stderr, "%s: cuBLASLt status %d\n", what, (int)status);
        exit(2);
    }
}

// Column-major, A transposed: as a weight [n, k] and rows of k are multiplied.
static void matmul()
{
    const size_t n = (size_t)MATMUL * MATMUL, workspace_bytes = 32 << 20;
    bf16 *a = random_bf16(n, 4, 1), *b = random_bf16(n, 5, 1), *c = random_bf16(n, 6, 1);
    float *workspace = random_f32(workspace_bytes / 4, 7, 1);
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t layout;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    const cublasOperation_t transpose = CUBLAS_OP_T;
    int count = 0;
    worked(cublasLtCreate(&lt), "create");
    worked(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "op");
    worked(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                          sizeof transpose),
           "transpose");
    worked(cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, MATMUL, MATMUL, MATMUL), "layout");
    worked(cublasLtMatmulPreferenceCreate(&preference), "preference");
    worked(cublasLtMatmulPreferenceSetAttribute(preference,
                                                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace_bytes, sizeof workspace_bytes),
           "workspace");
    worked(cublasLtMatmulAlgoGetHeuristic(lt, op, layout, layout, layout, layout, preference, 1,
                                          &found, &count),
           "heuristic");
    const float one = 1, zero = 0;
    const double s = seconds_of(
        [&](int, cudaStream_t q) {
            worked(cublasLtMatmul(lt, op, &one, a, layout, b, layout, &zero, c, layout, c, layout,
                                  &found.algo, workspace, workspace_bytes, q),
                   "matmul");
        },
        4);
    table_row("cuBLASLt 8192^3 bf16", s, 0, 2.0 * MATMUL * MATMUL * MATMUL, 0);
}

int main()
{
    table_begin("limits");
    launches();
    copy();
    matmul();
    return 0;
}
