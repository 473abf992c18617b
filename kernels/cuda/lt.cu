// SPDX-License-Identifier: Apache-2.0
/*
 * lt - a projection of more tokens by cuBLASLt; the activation after it is a kernel of its own.
 *
 * shape    column-major: y^T [n, m] = (w [k, n])^T x^T [k, m]; a residual is added by beta = 1
 * plans    by shape, of a device, at most LT_PLANS: a call asks nothing but the product
 * oracle   tests/cuda/gemm.cu, in double
 */
#include "cuda/gemm.h"
#include "cuda/gemm_state.h"
#include "cuda/program.h"

#include <stdlib.h>

static bool worked(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS;
}

static bool ask(cublasLtHandle_t lt, lt_plan *p)
{
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t best[LT_CANDIDATES];
    size_t workspace = GEMM_WORKSPACE;
    int found = 0;
    if (!worked(cublasLtMatmulPreferenceInit(&wish)) ||
        !worked(cublasLtMatmulPreferenceSetAttribute(
            &wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace)) ||
        !worked(cublasLtMatmulAlgoGetHeuristic(lt, &p->op, &p->w, &p->x, &p->y, &p->y, &wish,
                                               LT_CANDIDATES, best, &found)))
        return false;
    for (int i = 0; i < found; i++)
        if (worked(best[i].state))
            p->algo[p->found++] = best[i].algo;
    return p->found > 0;
}

static bool describe(lt_plan *p)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cudaDataType_t y = p->y_f32 ? CUDA_R_32F : CUDA_R_16BF;
    return worked(cublasLtMatmulDescInit(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           worked(cublasLtMatmulDescSetAttribute(&p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                 sizeof transposed)) &&
           worked(cublasLtMatrixLayoutInit(&p->w, CUDA_R_16BF, p->k, p->n, p->k)) &&
           worked(cublasLtMatrixLayoutInit(&p->x, CUDA_R_16BF, p->k, p->m, p->k)) &&
           worked(cublasLtMatrixLayoutInit(&p->y, y, p->n, p->m, p->n));
}

static bool same(const lt_plan *a, const lt_plan *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->y_f32 == b->y_f32 && a->add == b->add;
}

// A place for one more, the oldest's if there is none.
static lt_plan **vacancy(gemm_state *s)
{
    if (s->n_plans < LT_PLANS)
        return &s->plans[s->n_plans++];
    lt_plan **place = &s->plans[s->oldest];
    s->oldest = (s->oldest + 1) % LT_PLANS;
    free(*place);
    return place;
}

// NULL: cuBLASLt does not have it.
static lt_plan *plan_of(sv_dev *d, const lt_plan &wanted)
{
    gemm_state *s = d->gemm;
    for (uint32_t i = 0; i < s->n_plans; i++)
        if (same(s->plans[i], &wanted))
            return s->plans[i];
    lt_plan *p = (lt_plan *)calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = wanted;
    if (!device_lt(d) || !describe(p) || !ask(d->lt, p)) {
        free(p);
        return NULL;
    }
    *vacancy(s) = p;
    return p;
}

bool lt_product(const sv_dev *d, lt_plan *p, int which, const bf16 *w, const bf16 *x, void *y,
                cudaStream_t q)
{
    const float alpha = 1, beta = p->add ? 1 : 0;
    return worked(cublasLtMatmul(d->lt, &p->op, &alpha, w, &p->w, x, &p->x, &beta, y, &p->y, y,
                                 &p->y, &p->algo[which], d->workspace, GEMM_WORKSPACE, q));
}

static cudaError_t product(sv_dev *d, const gemm &g, uint32_t n, void *y, int which, cudaStream_t q)
{
    lt_plan wanted = {};
    wanted.m = g.m;
    wanted.n = n;
    wanted.k = g.k;
    wanted.y_f32 = g.end == GEMM_F32 || g.end == GEMM_ADD;
    wanted.add = g.end == GEMM_ADD;
    lt_plan *p = plan_of(d, wanted);
    if (!p)
        return cudaErrorNotSupported;
    if (!p->first_w) {
        p->first_w = g.w;
        p->first_x = g.x;
        p->first_y = y;
    }
    if (which == LT_BEST)
        which = p->best;
    return which < p->found && lt_product(d, p, which, g.w, g.x, y, q) ? cudaSuccess
                                                                       : cudaErrorNotSupported;
}

cudaError_t lt_run(sv_dev *d, const gemm &g, int which, cudaStream_t q)
{
    if (g.end == GEMM_GATE_UP) {
        if (g.n % 8 != 0)
            return cudaErrorNotSupported;
        cudaError_t e = product(d, g, 2 * g.n, g.wide, which, q);
        if (e == cudaSuccess)
            act_run(g.wide, g.bias, (bf16 *)g.y, g.n, g.activation, g.m, q);
        return e == cudaSuccess ? cudaGetLastError() : e;
    }
    cudaError_t e = product(d, g, g.n, g.y, which, q);
    if (e == cudaSuccess && g.bias)
        bias_run((float *)g.y, g.bias, g.n, g.m, q);
    return e == cudaSuccess ? cudaGetLastError() : e;
}
