// SPDX-License-Identifier: Apache-2.0
/*
 * lt_library - cuBLASLt, loaded at its first call: half a gigabyte takes a tenth of a second, which
 * a probe never needs and a worker spends beside other work. What is defined here are its functions
 * by their own names, hidden in this library: each finds the real one and calls it.
 */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

static void *symbol(const char *name)
{
    static void *const library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, name) : NULL;
    if (!found)
        fprintf(stderr, "prompts of more than a few tokens need cuBLASLt: %s\n", dlerror());
    return found;
}

#define FORWARD(name, parameters, arguments)                                                       \
    extern "C" cublasStatus_t name parameters                                                      \
    {                                                                                              \
        static decltype(&name) const real = (decltype(&name))symbol(#name);                        \
        return real ? real arguments : CUBLAS_STATUS_NOT_INITIALIZED;                              \
    }

FORWARD(cublasLtCreate, (cublasLtHandle_t * h), (h))
FORWARD(cublasLtDestroy, (cublasLtHandle_t h), (h))
FORWARD(cublasLtMatmulDescInit_internal,
        (cublasLtMatmulDesc_t d, size_t n, cublasComputeType_t c, cudaDataType_t t), (d, n, c, t))
FORWARD(cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *p, size_t n),
        (d, a, p, n))
FORWARD(cublasLtMatrixLayoutInit_internal,
        (cublasLtMatrixLayout_t l, size_t n, cudaDataType t, uint64_t rows, uint64_t cols,
         int64_t ld),
        (l, n, t, rows, cols, ld))
FORWARD(cublasLtMatmulPreferenceInit_internal, (cublasLtMatmulPreference_t p, size_t n), (p, n))
FORWARD(cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t w, cublasLtMatmulPreferenceAttributes_t a, const void *p,
         size_t n),
        (w, a, p, n))
FORWARD(cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t h, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
         cublasLtMatmulPreference_t w, int n, cublasLtMatmulHeuristicResult_t *r, int *found),
        (h, op, a, b, c, d, w, n, r, found))
FORWARD(cublasLtMatmul,
        (cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
         cublasLtMatrixLayout_t al, const void *b, cublasLtMatrixLayout_t bl, const void *beta,
         const void *c, cublasLtMatrixLayout_t cl, void *d, cublasLtMatrixLayout_t dl,
         const cublasLtMatmulAlgo_t *algo, void *w, size_t n, cudaStream_t q),
        (h, op, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, w, n, q))
