// SPDX-License-Identifier: Apache-2.0
/*
 * weight - matrices to bf16 on the device. Types that are not bf16 are widened on the host, a piece
 * at a time through a pinned buffer; bf16 goes as it is.
 */
#include "cuda/device.h"

#include <stdlib.h>
#include <string.h>

#include <cuda_fp16.h>

enum { PIECE = 8 << 20 }; // bytes of bf16 that travel at once

static bool float_type(uint32_t dtype)
{
    return dtype == SV_F32 || dtype == SV_F16 || dtype == SV_BF16;
}

static bool wants_bias(const sv_weight_desc *d)
{
    for (uint32_t i = 0; i < d->n_parts; i++)
        if (d->part[i].bias)
            return true;
    return false;
}

static uint64_t rows_of(const sv_weight_desc *d)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < d->n_parts; i++)
        rows += d->part[i].rows;
    return rows;
}

static bool known(const sv_weight_desc *d)
{
    if (d->n_parts < 1 || d->n_parts > SV_PARTS_MAX || d->cols == 0 || d->cols > 1u << 24)
        return false;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        const sv_part_desc *p = &d->part[i];
        if (!float_type(p->dtype) || (p->bias && !float_type(p->bias_dtype)) || p->rows == 0 ||
            p->rows > 1u << 24)
            return false;
    }
    // cuBLASLt wants 16-byte rows.
    return d->role == SV_VECTOR ? d->n_parts == 1 : d->cols % 8 == 0;
}

uint64_t weight_bytes(const sv_dev_options *, const sv_weight_desc *d)
{
    if (!known(d))
        return 0;
    if (d->role == SV_VECTOR)
        return round_up(d->cols * sizeof(float), 512);
    uint64_t rows = rows_of(d);
    return round_up(rows * d->cols * sizeof(bf16), 512) +
           (wants_bias(d) ? round_up(rows * sizeof(float), 512) : 0);
}

static float element(uint32_t dtype, const void *data, uint64_t i)
{
    if (dtype == SV_F32) {
        float f;
        memcpy(&f, (const char *)data + 4 * i, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)data + 2 * i, 2);
    if (dtype == SV_F16) {
        __half_raw r = {h};
        return __half2float(__half(r));
    }
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

// Elements [begin, begin + n) of a part as bf16, rounded to nearest even.
static void convert(const sv_part_desc *p, uint64_t begin, uint64_t n, bf16 *out)
{
    if (p->dtype == SV_BF16) {
        memcpy(out, (const char *)p->data + 2 * begin, 2 * n);
        return;
    }
    for (uint64_t i = 0; i < n; i++)
        out[i] = __float2bfloat16(element(p->dtype, p->data, begin + i));
}

static bool upload(sv_dev *d, const sv_part_desc *p, uint64_t n, bf16 *to, bf16 *stage, char *why)
{
    for (uint64_t at = 0; at < n;) {
        uint64_t some = n - at < PIECE / 2 ? n - at : PIECE / 2;
        convert(p, at, some, stage);
        if (!cuda_ok(cudaMemcpyAsync(to + at, stage, 2 * some, cudaMemcpyHostToDevice, d->stream),
                     "copy of a weight", why) ||
            !cuda_ok(cudaStreamSynchronize(d->stream), "copy of a weight", why))
            return false;
        at += some;
    }
    return true;
}

static bool upload_floats(sv_dev *d, const void *data, uint32_t dtype, uint64_t n, float *to,
                          char *why)
{
    float *f = (float *)malloc(n * sizeof *f);
    if (!f)
        return fail(why, 0, "no memory for %llu floats", (unsigned long long)n), false;
    for (uint64_t i = 0; i < n; i++)
        f[i] = element(dtype, data, i);
    bool ok = cuda_ok(cudaMemcpyAsync(to, f, n * sizeof *f, cudaMemcpyHostToDevice, d->stream),
                      "copy of a vector", why) &&
              cuda_ok(cudaStreamSynchronize(d->stream), "copy of a vector", why);
    free(f);
    return ok;
}

static bool fill_matrix(sv_weight *w, const sv_weight_desc *desc, char *why)
{
    sv_dev *d = w->dev;
    if (!(w->data = (bf16 *)device_alloc(d, w->rows * w->cols * sizeof(bf16), why)))
        return false;
    if (wants_bias(desc) && !(w->bias = (float *)device_alloc(d, w->rows * sizeof(float), why)))
        return false;
    bf16 *stage = NULL;
    if (!cuda_ok(cudaMallocHost((void **)&stage, PIECE), "cudaMallocHost", why))
        return false;
    bool ok = true;
    uint64_t row = 0;
    for (uint32_t i = 0; ok && i < desc->n_parts; i++) {
        const sv_part_desc *p = &desc->part[i];
        ok = upload(d, p, p->rows * w->cols, w->data + row * w->cols, stage, why) &&
             (!p->bias || upload_floats(d, p->bias, p->bias_dtype, p->rows, w->bias + row, why));
        row += p->rows;
    }
    cudaFreeHost(stage);
    return ok;
}

int weight_make(sv_dev *d, const sv_weight_desc *desc, sv_weight **ret, char *why)
{
    if (!known(desc))
        return fail(why, -400,
                    "a weight of type %s with %llu columns: the CUDA backend has F32, F16 and BF16 "
                    "with columns in eights",
                    sv_dtype(desc->part[0].dtype).name, (unsigned long long)desc->cols);
    sv_weight *w = (sv_weight *)calloc(1, sizeof *w);
    if (!w)
        return fail(why, -507, "no memory");
    *w = {d->weights, d, desc->role, desc->n_parts, rows_of(desc), desc->cols};
    d->weights = w;
    for (uint32_t i = 0; i < desc->n_parts; i++)
        w->part_rows[i] = desc->part[i].rows;
    bool ok;
    if (desc->role == SV_VECTOR)
        ok = (w->vector = (float *)device_alloc(d, w->cols * sizeof(float), why)) &&
             upload_floats(d, desc->part[0].data, desc->part[0].dtype, w->cols, w->vector, why);
    else
        ok = fill_matrix(w, desc, why);
    if (!ok)
        return -507;
    *ret = w;
    return 0;
}

void weights_free(sv_dev *d)
{
    while (d->weights) {
        sv_weight *w = d->weights;
        d->weights = w->next;
        free(w);
    }
}
