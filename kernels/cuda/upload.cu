// SPDX-License-Identifier: Apache-2.0
/*
 * shape    elements in eights, one thread each eight: 16 bytes of bf16 are written at once
 * traffic  the stored bytes and 2 bytes an element; hidden behind the copy from the host, which is
 *          40 times slower
 * oracle   kernels/cpu/dequant.c, rounded to bf16
 */
#include "cuda/upload.h"

#include "cuda/dequant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 256, EIGHT = 8 };

struct region { // of host memory, registered
    region *next;
    uintptr_t begin, end;
};

struct uploads {
    region *regions; // owned, the newest first
    char *scratch;   // owned, UPLOAD_SCRATCH bytes of the device; NULL: not needed yet
    bool pageable;   // registering failed once: copies go through the driver's own buffer
};

static uploads *uploads_of(sv_dev *d)
{
    if (!d->uploads && !(d->uploads = (uploads *)calloc(1, sizeof *d->uploads)))
        abort();
    return d->uploads;
}

/* ---- host memory that copies read without the driver's help ---- */

static region *region_of(const uploads *u, uintptr_t at)
{
    region *r = u->regions;
    while (r && (at < r->begin || at >= r->end))
        r = r->next;
    return r;
}

// Where the next region above `at` begins, or `end`.
static uintptr_t gap_end(const uploads *u, uintptr_t at, uintptr_t end)
{
    for (const region *r = u->regions; r; r = r->next)
        if (r->begin > at && r->begin < end)
            end = r->begin;
    return end;
}

// Registers from the page of `at` on, at most up to `end` (of a page), where that is free.
static region *make_region(sv_dev *d, uintptr_t at, uintptr_t end)
{
    uploads *u = d->uploads;
    static const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = at / page * page;
    end = (end + page - 1) / page * page;
    if (end - begin > UPLOAD_REGISTER)
        end = begin + UPLOAD_REGISTER;
    end = gap_end(u, begin, end);
    region *r = (region *)calloc(1, sizeof *r);
    if (!r)
        abort();
    if (cudaHostRegister((void *)begin, end - begin, cudaHostRegisterReadOnly) != cudaSuccess) {
        size_t n = strlen(d->about);
        snprintf(d->about + n, sizeof d->about - n, ", weights copied slowly: %s",
                 cudaGetErrorString(cudaGetLastError()));
        u->pageable = true;
        free(r);
        return NULL;
    }
    *r = {u->regions, begin, end};
    return u->regions = r;
}

// A copy lies within one region: pieces are registered apart from one another.
static bool copy_in(sv_dev *d, const void *from, uint64_t bytes, bool stays, void *to, char *why)
{
    uploads *u = uploads_of(d);
    uintptr_t at = (uintptr_t)from, end = at + bytes;
    char *out = (char *)to;
    while (at < end) {
        region *r = stays ? region_of(u, at) : NULL;
        if (!r && stays && !u->pageable)
            r = make_region(d, at, end);
        uint64_t n = r && r->end < end ? r->end - at : end - at;
        if (!r)
            n = gap_end(u, at, end) - at;
        if (!cuda_ok(cudaMemcpyAsync(out, (void *)at, n, cudaMemcpyHostToDevice, d->stream),
                     "copy of a weight", why))
            return false;
        at += n;
        out += n;
    }
    return true;
}

/* ---- kernels ---- */

template <uint32_t DTYPE>
static __global__ void to_bf16(const uint8_t *stored, uint32_t elements, uint32_t bytes,
                               uint32_t eights, bf16 *out)
{
    uint32_t step = gridDim.x * THREADS;
    for (uint32_t e = blockIdx.x * THREADS + threadIdx.x; e < eights; e += step) {
        union {
            bf16 v[EIGHT];
            uint4 all;
        } made;
        bool single = DTYPE <= SV_BF16; // else the eight are of one block
        uint32_t per = single ? 1 : elements / EIGHT;
        const uint8_t *block = stored + (uint64_t)(e / per) * (single ? EIGHT * bytes : bytes);
#pragma unroll
        for (uint32_t k = 0; k < EIGHT; k++) {
            float f = single ? stored_value<DTYPE>(block + k * bytes, 0)
                             : stored_value<DTYPE>(block, e % per * EIGHT + k);
            made.v[k] = __float2bfloat16_rn(f);
        }
        ((uint4 *)out)[e] = made.all;
    }
}

template <uint32_t DTYPE>
static __global__ void to_f32(const uint8_t *stored, uint32_t, uint32_t bytes, uint64_t n,
                              float *out)
{
    for (uint64_t i = blockIdx.x * (uint64_t)THREADS + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * THREADS)
        out[i] = stored_value<DTYPE>(stored + i * bytes, 0);
}

static __global__ void make_up_bf16(uint64_t seed, uint64_t begin, uint64_t eights, float scale,
                                    bf16 *out)
{
    for (uint64_t e = blockIdx.x * (uint64_t)THREADS + threadIdx.x; e < eights;
         e += (uint64_t)gridDim.x * THREADS) {
        union {
            uint16_t v[EIGHT];
            uint4 all;
        } made;
#pragma unroll
        for (uint32_t k = 0; k < EIGHT; k++) {
            float f = __fmul_rn(scale, sv_made_up(seed, begin + e * EIGHT + k));
            made.v[k] = (uint16_t)(__float_as_uint(f) >> 16);
        }
        ((uint4 *)out)[e] = made.all;
    }
}

static __global__ void make_up_f32(uint64_t seed, uint64_t n, float *out)
{
    for (uint64_t i = blockIdx.x * (uint64_t)THREADS + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * THREADS) {
        float f = __fadd_rn(1, __fmul_rn(0.1f, sv_made_up(seed, i)));
        out[i] = __uint_as_float(__float_as_uint(f) & 0xffff0000u);
    }
}

static uint32_t grid_of(const sv_dev *d, uint64_t items)
{
    uint64_t blocks = (items + THREADS - 1) / THREADS;
    uint64_t most = (uint64_t)d->prop.multiProcessorCount * 8;
    return (uint32_t)(blocks < most ? blocks : most);
}

/* ---- a weight's elements ---- */

typedef void widen(const uint8_t *stored, uint32_t elements, uint32_t bytes, uint32_t eights,
                   bf16 *out);
static widen *const wideners[SV_DTYPES] = {
    to_bf16<SV_F32>,  to_bf16<SV_F16>,  NULL,
    to_bf16<SV_Q4_0>, to_bf16<SV_Q4_1>, to_bf16<SV_Q5_0>,
    to_bf16<SV_Q5_1>, to_bf16<SV_Q8_0>, to_bf16<SV_Q4_K>,
    to_bf16<SV_Q5_K>, to_bf16<SV_Q6_K>,
};

bool upload_known(uint32_t dtype)
{
    return dtype == SV_BF16 || (dtype < SV_DTYPES && wideners[dtype]);
}

static char *scratch_of(sv_dev *d, char *why)
{
    uploads *u = uploads_of(d);
    void *p = NULL;
    if (!u->scratch && cuda_ok(cudaMalloc(&p, UPLOAD_SCRATCH), "cudaMalloc of a scratch", why))
        u->scratch = (char *)p;
    return u->scratch;
}

bool upload_matrix(sv_dev *d, uint32_t dtype, const void *data, uint64_t n, bool stays, bf16 *to,
                   char *why)
{
    if (dtype == SV_BF16)
        return copy_in(d, data, 2 * n, stays, to, why);
    char *scratch = scratch_of(d, why);
    if (!scratch)
        return false;
    // Pieces of whole blocks and whole eights of elements.
    sv_dtype_info t = sv_dtype(dtype);
    uint64_t most = UPLOAD_SCRATCH / (t.bytes * EIGHT) * EIGHT * t.elements;
    const char *from = (const char *)data;
    for (uint64_t at = 0; at < n; at += most) {
        uint64_t some = n - at < most ? n - at : most, bytes = some / t.elements * t.bytes;
        if (!copy_in(d, from, bytes, stays, scratch, why))
            return false;
        wideners[dtype]<<<grid_of(d, some / EIGHT), THREADS, 0, d->stream>>>(
            (const uint8_t *)scratch, t.elements, t.bytes, (uint32_t)(some / EIGHT), to + at);
        if (!cuda_ok(cudaGetLastError(), "widening a weight", why))
            return false;
        from += bytes;
    }
    return true;
}

bool upload_floats(sv_dev *d, uint32_t dtype, const void *data, uint64_t n, bool stays, float *to,
                   char *why)
{
    uint32_t bytes = sv_dtype(dtype).bytes;
    char *scratch = scratch_of(d, why);
    if (!scratch || n * bytes > UPLOAD_SCRATCH)
        return fail(why, 0, "a vector of %llu elements", (unsigned long long)n), false;
    if (!copy_in(d, data, n * bytes, stays, scratch, why))
        return false;
    uint32_t grid = grid_of(d, n);
    const uint8_t *stored = (const uint8_t *)scratch;
    if (dtype == SV_F32)
        to_f32<SV_F32><<<grid, THREADS, 0, d->stream>>>(stored, 1, bytes, n, to);
    else if (dtype == SV_F16)
        to_f32<SV_F16><<<grid, THREADS, 0, d->stream>>>(stored, 1, bytes, n, to);
    else
        to_f32<SV_BF16><<<grid, THREADS, 0, d->stream>>>(stored, 1, bytes, n, to);
    return cuda_ok(cudaGetLastError(), "widening a vector", why);
}

bool make_up_matrix(sv_dev *d, uint64_t seed, uint64_t begin, uint64_t n, uint64_t cols, bf16 *to,
                    char *why)
{
    float scale = sqrtf(3 / (float)cols);
    make_up_bf16<<<grid_of(d, n / EIGHT), THREADS, 0, d->stream>>>(seed, begin, n / EIGHT, scale,
                                                                   to);
    return cuda_ok(cudaGetLastError(), "making up a weight", why);
}

bool make_up_vector(sv_dev *d, uint64_t seed, uint64_t n, float *to, char *why)
{
    make_up_f32<<<grid_of(d, n), THREADS, 0, d->stream>>>(seed, n, to);
    return cuda_ok(cudaGetLastError(), "making up a vector", why);
}

/* ---- the end ---- */

static void forget(uploads *u)
{
    region *r = u->regions;
    u->regions = r->next;
    cudaHostUnregister((void *)r->begin);
    free(r);
}

int upload_idle(sv_dev *d)
{
    uploads *u = d->uploads;
    if (!u)
        return 0;
    cudaError_t e = cudaStreamQuery(d->stream);
    if (e != cudaSuccess) {
        cudaGetLastError(); // remembers what is no error, too
        return e == cudaErrorNotReady ? 1 : -599;
    }
    if (u->scratch) {
        cudaFree(u->scratch);
        u->scratch = NULL;
    } else if (u->regions) {
        forget(u);
    }
    if (!u->regions)
        uploads_free(d);
    return d->uploads != NULL;
}

void uploads_free(sv_dev *d)
{
    uploads *u = d->uploads;
    while (u && u->regions)
        forget(u);
    if (u)
        cudaFree(u->scratch);
    free(u);
    d->uploads = NULL;
}
