// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"
#include "cuda/program.h"
#include "cuda/session.h"
#include "cuda/upload.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fail(char *why, int code, const char *fmt, ...)
{
    va_list ap;
    if (!why)
        return code;
    va_start(ap, fmt);
    vsnprintf(why, SV_WHY_MAX, fmt, ap);
    va_end(ap);
    return code;
}

bool cuda_ok(cudaError_t e, const char *what, char *why)
{
    if (e == cudaSuccess)
        return true;
    fail(why, 0, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
    return false;
}

static void *keep(sv_dev *d, void *p, bool pinned)
{
    allocation *a = (allocation *)calloc(1, sizeof *a);
    if (!a)
        abort();
    *a = {d->allocations, p, pinned};
    d->allocations = a;
    return p;
}

void *device_take(sv_dev *d, uint64_t bytes, char *why)
{
    void *p = NULL;
    char what[64];
    snprintf(what, sizeof what, "cudaMalloc of %llu bytes", (unsigned long long)bytes);
    return cuda_ok(cudaMalloc(&p, bytes), what, why) ? keep(d, p, false) : NULL;
}

void *device_alloc(sv_dev *d, uint64_t bytes, char *why)
{
    void *p = device_take(d, bytes, why);
    return p && cuda_ok(cudaMemsetAsync(p, 0, bytes, d->stream), "cudaMemset", why) ? p : NULL;
}

void *device_alloc_pinned(sv_dev *d, uint64_t bytes, char *why)
{
    void *p = NULL;
    if (!cuda_ok(cudaMallocHost(&p, bytes), "cudaMallocHost", why))
        return NULL;
    memset(p, 0, bytes);
    return keep(d, p, true);
}

cublasLtHandle_t device_lt(sv_dev *d)
{
    if (d->lt_started)
        pthread_join(d->lt_thread, NULL);
    d->lt_started = false;
    return d->lt;
}

static void device_close(sv_dev *d)
{
    if (!d)
        return;
    cudaSetDevice(d->index);
    if (d->stream)
        cudaStreamSynchronize(d->stream);
    sessions_free(d);
    weights_free(d);
    uploads_free(d);
    gemm_close(d->gemm);
    while (d->allocations) {
        allocation *a = d->allocations;
        d->allocations = a->next;
        if (a->pinned)
            cudaFreeHost(a->p);
        else
            cudaFree(a->p);
        free(a);
    }
    if (device_lt(d))
        cublasLtDestroy(d->lt);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    free(d);
}

static cudaError_t start_context(const sv_dev *d)
{
    cudaError_t e =
        cudaInitDevice(d->index, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid);
    return e == cudaSuccess ? cudaSetDevice(d->index) : e;
}

// Beside the context and the weights; the library is loaded before the first call that needs
// either.
static void *make_lt(void *arg)
{
    sv_dev *d = (sv_dev *)arg;
    cublasLtMatmulPreferenceOpaque_t anything;
    cublasLtHandle_t lt = NULL;
    if (cublasLtMatmulPreferenceInit(&anything) == CUBLAS_STATUS_SUCCESS &&
        start_context(d) == cudaSuccess && cublasLtCreate(&lt) == CUBLAS_STATUS_SUCCESS)
        d->lt = lt;
    return NULL;
}

static int device_open(const sv_dev_options *o, sv_dev **ret, char *why)
{
    sv_dev *d = (sv_dev *)calloc(1, sizeof *d);
    if (!d)
        return fail(why, -507, "no memory");
    d->index = o->index;
    d->by_block = o->by_block;
    d->lt_started = pthread_create(&d->lt_thread, NULL, make_lt, d) == 0;
    if (!cuda_ok(start_context(d), "making a CUDA context", why) ||
        !cuda_ok(cudaGetDeviceProperties(&d->prop, d->index), "cudaGetDeviceProperties", why) ||
        !cuda_ok(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "cudaStreamCreate",
                 why) ||
        !(d->workspace = device_alloc(d, GEMM_WORKSPACE, why)) || !(d->gemm = gemm_open(why))) {
        device_close(d);
        return -599;
    }
    if (d->prop.major < 8) {
        int code =
            fail(why, -400, "GPU %d (%s) has compute capability %d.%d; 8.0 at least is needed",
                 d->index, d->prop.name, d->prop.major, d->prop.minor);
        device_close(d);
        return code;
    }
    snprintf(d->about, sizeof d->about, "%.128s, %d SMs, bf16 weights and activations, f32 sums",
             d->prop.name, d->prop.multiProcessorCount);
    *ret = d;
    return 0;
}

static const char *device_about(const sv_dev *d)
{
    return d->about;
}

static uint64_t device_room(const sv_dev *)
{
    size_t left = 0, all = 0;
    return cudaMemGetInfo(&left, &all) == cudaSuccess ? left : 0;
}

static int device_idle(sv_dev *d)
{
    int rc = upload_idle(d);
    return rc == 0 ? program_idle(d) : rc;
}

extern "C" SV_KERNELS_EXPORT const sv_kernels sv_kernels_v1 = {
    sizeof(sv_kernels), SV_KERNELS_VERSION, "cuda",          2,
    device_open,        device_close,       device_about,    weight_bytes,
    session_bytes,      block_bytes,        weight_make,     session_make,
    session_buffer,     program_buckets,    program_record,  program_embed,
    program_qkv,        program_attend,     program_project, program_gate_up,
    program_head,       program_ready,      session_slot,    session_batch,
    program_launch,     session_collect,    session_logits,  device_idle,
    device_room,
};
