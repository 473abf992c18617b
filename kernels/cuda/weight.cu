// SPDX-License-Identifier: Apache-2.0
/*
 * weight - what a weight is on the device: its parts stacked as bf16 [rows, cols], biases and
 * vectors as f32. Made without waiting: a step that follows on the stream finds it whole.
 */
#include "cuda/device.h"
#include "cuda/upload.h"

#include <stdlib.h>

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

static bool known_part(const sv_weight_desc *d, const sv_part_desc *p)
{
    return upload_known(p->dtype) && d->cols % sv_dtype(p->dtype).elements == 0 &&
           (!p->bias || float_type(p->bias_dtype)) && p->rows > 0 && p->rows <= 1u << 24;
}

static bool known(const sv_weight_desc *d)
{
    if (d->n_parts < 1 || d->n_parts > SV_PARTS_MAX || d->cols == 0 || d->cols > 1u << 24)
        return false;
    for (uint32_t i = 0; i < d->n_parts; i++)
        if (!known_part(d, &d->part[i]))
            return false;
    if (d->role == SV_VECTOR)
        return d->n_parts == 1 && d->part[0].rows == 1 && float_type(d->part[0].dtype) &&
               d->cols * sizeof(float) <= UPLOAD_SCRATCH;
    return d->cols % 8 == 0; // rows of whole 16 bytes
}

uint64_t weight_bytes(const sv_dev_options *, const sv_weight_desc *d)
{
    if (!known(d))
        return 0;
    if (d->role == SV_VECTOR)
        return taken_by(d->cols * sizeof(float));
    uint64_t rows = rows_of(d);
    return taken_by(rows * d->cols * sizeof(bf16)) +
           (wants_bias(d) ? taken_by(rows * sizeof(float)) : 0);
}

static bool fill_part(sv_weight *w, const sv_weight_desc *desc, uint32_t i, uint64_t row, char *why)
{
    const sv_part_desc *p = &desc->part[i];
    uint64_t n = p->rows * w->cols;
    bf16 *to = w->data + row * w->cols;
    if (!p->data)
        return make_up_matrix(w->dev, desc->seed, row * w->cols, n, w->cols, to, why);
    return upload_matrix(w->dev, p->dtype, p->data, n, desc->keep, to, why) &&
           (!p->bias ||
            upload_floats(w->dev, p->bias_dtype, p->bias, p->rows, desc->keep, w->bias + row, why));
}

static bool fill_matrix(sv_weight *w, const sv_weight_desc *desc, char *why)
{
    sv_dev *d = w->dev;
    if (!(w->data = (bf16 *)device_take(d, w->rows * w->cols * sizeof(bf16), why)))
        return false;
    if (wants_bias(desc) && !(w->bias = (float *)device_alloc(d, w->rows * sizeof(float), why)))
        return false;
    uint64_t row = 0;
    for (uint32_t i = 0; i < desc->n_parts; i++) {
        if (!fill_part(w, desc, i, row, why))
            return false;
        row += desc->part[i].rows;
    }
    return true;
}

static bool fill_vector(sv_weight *w, const sv_weight_desc *desc, char *why)
{
    const sv_part_desc *p = &desc->part[0];
    if (!(w->vector = (float *)device_take(w->dev, w->cols * sizeof(float), why)))
        return false;
    if (!p->data)
        return make_up_vector(w->dev, desc->seed, w->cols, w->vector, why);
    return upload_floats(w->dev, p->dtype, p->data, w->cols, desc->keep, w->vector, why);
}

int weight_make(sv_dev *d, const sv_weight_desc *desc, sv_weight **ret, char *why)
{
    if (!known(desc))
        return fail(why, -400,
                    "a weight of type %s with %llu columns: the CUDA backend wants whole blocks "
                    "and columns in eights",
                    sv_dtype(desc->part[0].dtype).name, (unsigned long long)desc->cols);
    sv_weight *w = (sv_weight *)calloc(1, sizeof *w);
    if (!w)
        return fail(why, -507, "no memory");
    *w = {d->weights, d, desc->role, desc->n_parts, rows_of(desc), desc->cols};
    d->weights = w;
    for (uint32_t i = 0; i < desc->n_parts; i++)
        w->part_rows[i] = desc->part[i].rows;
    if (!(desc->role == SV_VECTOR ? fill_vector(w, desc, why) : fill_matrix(w, desc, why)))
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
