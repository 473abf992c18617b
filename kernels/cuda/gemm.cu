// SPDX-License-Identifier: Apache-2.0
/*
 * gemm - y[m, n] = x[m, k] w[n, k]^T: a GEMV of our own for few tokens, cuBLASLt above.
 *
 * traffic  the weights once: 2 * n * k bytes; below GEMV_TOKENS that is all that counts
 */
#include "cuda/program.h"

enum { GEMV_TOKENS = 8, GEMV_THREADS = 256 };

// A warp a row of w; 8 elements a lane and turn.
template <int M, bool F32, bool ADD>
static __global__ void gemv_kernel(const bf16 *w, const bf16 *x, void *y, uint32_t n, uint32_t k)
{
    uint32_t row = blockIdx.x * (GEMV_THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n)
        return;
    float sum[M] = {};
    for (uint32_t i = lane * 8; i < k; i += 256) {
        uint4 a = __ldcs((const uint4 *)(w + (uint64_t)row * k + i));
        const __nv_bfloat162 *wa = (const __nv_bfloat162 *)&a;
#pragma unroll
        for (int t = 0; t < M; t++) {
            uint4 b = *(const uint4 *)(x + (uint64_t)t * k + i);
            const __nv_bfloat162 *xb = (const __nv_bfloat162 *)&b;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float2 p = __bfloat1622float2(wa[j]), q = __bfloat1622float2(xb[j]);
                sum[t] = fmaf(p.x, q.x, sum[t]);
                sum[t] = fmaf(p.y, q.y, sum[t]);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < M; t++) {
        for (int o = 16; o > 0; o >>= 1)
            sum[t] += __shfl_xor_sync(~0u, sum[t], o);
        if (lane != 0)
            continue;
        uint64_t at = (uint64_t)t * n + row;
        if (F32)
            ((float *)y)[at] = sum[t] + (ADD ? ((float *)y)[at] : 0);
        else
            ((bf16 *)y)[at] = __float2bfloat16(sum[t]);
    }
}

template <int M> static void gemv_of(const gemm *g, cudaStream_t q)
{
    dim3 grid((unsigned)((g->n + GEMV_THREADS / 32 - 1) / (GEMV_THREADS / 32)));
    uint32_t n = (uint32_t)g->n, k = (uint32_t)g->k;
    if (!g->y_f32)
        gemv_kernel<M, false, false><<<grid, GEMV_THREADS, 0, q>>>(g->w, g->x, g->y, n, k);
    else if (g->add)
        gemv_kernel<M, true, true><<<grid, GEMV_THREADS, 0, q>>>(g->w, g->x, g->y, n, k);
    else
        gemv_kernel<M, true, false><<<grid, GEMV_THREADS, 0, q>>>(g->w, g->x, g->y, n, k);
}

static cudaError_t lt_run(sv_dev *d, const gemm *g, cudaStream_t q)
{
    // Column-major: y^T [n, m] = op(w [k, n])^T x^T [k, m].
    cublasLtMatmulDesc_t op = NULL;
    cublasLtMatrixLayout_t a = NULL, b = NULL, c = NULL;
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t best = {};
    cublasOperation_t transposed = CUBLAS_OP_T;
    size_t workspace = GEMM_WORKSPACE;
    int found = 0;
    float alpha = 1, beta = g->add ? 1 : 0;
    cudaDataType_t out = g->y_f32 ? CUDA_R_32F : CUDA_R_16BF;
    bool ok =
        cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, g->k, g->n, (int64_t)g->k) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, g->k, g->m, (int64_t)g->k) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&c, out, g->n, g->m, (int64_t)g->n) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulPreferenceCreate(&pref) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace,
                                             sizeof workspace) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulAlgoGetHeuristic(d->lt, op, a, b, c, c, pref, 1, &best, &found) ==
            CUBLAS_STATUS_SUCCESS &&
        found == 1 &&
        cublasLtMatmul(d->lt, op, &alpha, g->w, a, g->x, b, &beta, g->y, c, g->y, c, &best.algo,
                       d->workspace, workspace, q) == CUBLAS_STATUS_SUCCESS;
    cublasLtMatmulPreferenceDestroy(pref);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatmulDescDestroy(op);
    return ok ? cudaSuccess : cudaErrorNotSupported;
}

cudaError_t gemm_run(sv_dev *d, const gemm *g, cudaStream_t q)
{
    switch (g->m) {
    case 1:
        gemv_of<1>(g, q);
        break;
    case 2:
        gemv_of<2>(g, q);
        break;
    case 4:
        gemv_of<4>(g, q);
        break;
    case GEMV_TOKENS:
        gemv_of<GEMV_TOKENS>(g, q);
        break;
    default:
        return lt_run(d, g, q);
    }
    return cudaGetLastError();
}
