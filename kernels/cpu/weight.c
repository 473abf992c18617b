// SPDX-License-Identifier: Apache-2.0
#include "cpu/weight.h"

#include "cpu/dequant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const roles[] = {"matrix", "qkv", "gate and up", "table", "vector"};
static const uint32_t parts_of[] = {1, 3, 2, 1, 1};

static bool is_float(uint32_t dtype)
{
    return dtype == SV_F32 || dtype == SV_F16 || dtype == SV_BF16;
}

static uint64_t vector_bytes(const sv_weight_desc *w, char *why)
{
    const sv_part_desc *p = &w->part[0];
    if (p->rows != 1 || p->bias || !is_float(p->dtype) || !w->cols || w->cols > MATRIX_COLS_MAX) {
        why_set(
            why, -400,
            "a vector of type %s with %llu rows of %llu%s; it must be F32, F16 or BF16 with one "
            "row of at most %d",
            sv_dtype(p->dtype).name, (unsigned long long)p->rows, (unsigned long long)w->cols,
            p->bias ? " and a bias" : "", MATRIX_COLS_MAX);
        return 0;
    }
    return w->cols * sizeof(float);
}

static uint64_t part_bytes(const struct device_config *c, const sv_weight_desc *w, uint32_t i,
                           char *why)
{
    const sv_part_desc *p = &w->part[i];
    uint64_t bytes = matrix_bytes(c->isa, c->activations, p->dtype, p->rows, w->cols);
    if (!bytes) {
        why_set(why, -400,
                "weight (%s), part %u: no matrix of type %s with %llu rows of %llu; rows must be "
                "whole blocks of %u, at most %d long",
                roles[w->role], i, sv_dtype(p->dtype).name, (unsigned long long)p->rows,
                (unsigned long long)w->cols, sv_dtype(p->dtype).elements, MATRIX_COLS_MAX);
        return 0;
    }
    if (p->bias && !is_float(p->bias_dtype)) {
        why_set(why, -400, "weight (%s), part %u: a bias of type %s; it must be F32, F16 or BF16",
                roles[w->role], i, sv_dtype(p->bias_dtype).name);
        return 0;
    }
    return device_round(bytes) + (p->bias ? device_round(p->rows * sizeof(float)) : 0);
}

static bool shape_fits(const sv_weight_desc *w, char *why)
{
    if (w->size < sizeof *w || w->role > SV_VECTOR) {
        why_set(why, -400, "sv_weight_desc has %u bytes, not %zu, or role %u is none of 0 to %d",
                w->size, sizeof *w, w->role, SV_VECTOR);
        return false;
    }
    if (w->n_parts != parts_of[w->role]) {
        why_set(why, -400, "weight (%s) has %u parts, not %u", roles[w->role], w->n_parts,
                parts_of[w->role]);
        return false;
    }
    const sv_part_desc *p = w->part;
    bool equal = w->role == SV_QKV ? p[1].rows == p[2].rows : p[0].rows == p[1].rows;
    if ((w->role == SV_QKV || w->role == SV_GATE_UP) && !equal) {
        why_set(why, -400, "weight (%s): the last two parts have %llu and %llu rows, not the same",
                roles[w->role], (unsigned long long)p[w->n_parts - 2].rows,
                (unsigned long long)p[w->n_parts - 1].rows);
        return false;
    }
    return true;
}

uint64_t weight_bytes(const struct device_config *c, const sv_weight_desc *w, char *why)
{
    if (!shape_fits(w, why))
        return 0;
    uint64_t total = device_round(sizeof(sv_weight));
    if (w->role == SV_VECTOR) {
        uint64_t bytes = vector_bytes(w, why);
        return bytes ? total + device_round(bytes) : 0;
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        uint64_t bytes = part_bytes(c, w, i, why);
        if (!bytes)
            return 0;
        total = size_add(total, bytes);
    }
    return total;
}

struct packing {
    struct matrix *m;
    const void *stored;
    uint64_t tiles; // of an item
};

static uint32_t pack_items(void *arg, uint32_t phase)
{
    (void)phase;
    const struct packing *p = arg;
    return (uint32_t)((matrix_tiles(p->m) + p->tiles - 1) / p->tiles);
}

static void pack_run(void *arg, uint32_t phase, uint32_t item, uint32_t thread)
{
    (void)phase;
    (void)thread;
    const struct packing *p = arg;
    uint64_t begin = item * p->tiles, end = begin + p->tiles;
    uint64_t tiles = matrix_tiles(p->m);
    matrix_pack_tiles(p->m, p->stored, begin, end < tiles ? end : tiles);
}

// bf16, rounded towards 0; elements [begin, begin + n) of the weight.
static uint16_t *make_up(const sv_weight_desc *w, uint64_t begin, uint64_t n)
{
    uint16_t *made = malloc(n * sizeof *made);
    float scale = sqrtf(3 / (float)w->cols);
    for (uint64_t i = 0; made && i < n; i++) {
        float u = sv_made_up(w->seed, begin + i);
        float f = w->role == SV_VECTOR ? 1 + 0.1f * u : scale * u;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        made[i] = (uint16_t)(bits >> 16);
    }
    return made;
}

static const float *floats(sv_dev *d, uint32_t dtype, const void *stored, uint64_t n)
{
    float *f = device_keep(d, n * sizeof *f);
    if (f)
        dequant(dtype, stored, n, f);
    return f;
}

static int make_part(sv_dev *d, sv_weight *w, uint32_t i, const sv_part_desc *p, const void *stored)
{
    uint64_t bytes = matrix_bytes(d->c.isa, d->c.activations, p->dtype, p->rows, w->cols);
    void *memory = device_keep(d, bytes);
    if (!memory)
        return -507;
    int rc =
        matrix_place(&w->part[i], d->c.isa, d->c.activations, p->dtype, p->rows, w->cols, memory);
    if (rc < 0)
        return rc;
    struct packing packing = {&w->part[i], stored, 16 + matrix_tiles(&w->part[i]) / 65536};
    pool_run(d->pool, &(struct pool_job){
                          .arg = &packing, .phases = 1, .items = pack_items, .run = pack_run});
    if (p->bias && !p->data && !(w->bias[i] = device_keep(d, p->rows * sizeof(float))))
        return -507;
    if (p->bias && p->data && !(w->bias[i] = floats(d, p->bias_dtype, p->bias, p->rows)))
        return -507;
    return 0;
}

// Parts whose data is not there are made up.
static int make_all(sv_dev *d, sv_weight *w, const sv_weight_desc *desc)
{
    int rc = 0;
    uint64_t begin = 0;
    for (uint32_t i = 0; i < desc->n_parts && rc == 0; i++) {
        const sv_part_desc *p = &desc->part[i];
        uint64_t n = p->rows * w->cols;
        uint16_t *made = p->data ? NULL : make_up(desc, begin, n);
        const void *stored = p->data ? p->data : made;
        begin += n;
        if (!stored)
            rc = -507;
        else if (w->role == SV_VECTOR)
            w->vector = floats(d, p->dtype, stored, w->cols);
        else
            rc = make_part(d, w, i, p, stored);
        free(made);
    }
    return rc;
}

int weight_make(sv_dev *d, const sv_weight_desc *desc, sv_weight **ret, char *why)
{
    uint64_t bytes = weight_bytes(&d->c, desc, why);
    if (!bytes)
        return -400;
    if (bytes > d->region_bytes - d->region_used)
        return why_set(why, -507, "a weight of %llu bytes: of %llu bytes for weights %llu are left",
                       (unsigned long long)bytes, (unsigned long long)d->region_bytes,
                       (unsigned long long)(d->region_bytes - d->region_used));
    sv_weight *w = device_keep(d, sizeof *w);
    if (!w)
        return -507;
    *w = (sv_weight){.role = desc->role, .n_parts = desc->n_parts, .cols = desc->cols};
    *ret = w;
    return make_all(d, w, desc);
}
