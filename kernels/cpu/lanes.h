// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * lanes - all that is done on vectors of floats beside products with weights: norms, rotations,
 * activations, attention, and the passes over logits. One table for each instruction set, all made
 * from the same text (lanes_*.inc).
 *
 * Order   every sum has one fixed order for a given instruction set, whatever is computed beside
 *         it. Sums of different instruction sets differ in their last bits.
 * exp     one function everywhere, within 2 units in the last place; exact 0 below -87.33.
 * NaN     what is not a number stays so, but for keys out of a query's range, which are not read.
 * Align   none needed.
 */
#include "cpu/isa.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    UNIT_KEYS = 64, // keys that attention takes at a time: 4 KV blocks
    UNIT_BLOCKS = 4,
    UNIT_FEW = 4,   // rows that one reading of K and V serves
    CHUNK_IDS = 256 // ids whose weights are summed apart, in floats
};

/*
 * A unit of keys against some queries of one KV head. Row r sees keys [lo[r], hi[r]) of the unit;
 * lo = hi: none, its state stays untouched. State: the largest score so far, the sum of weights,
 * and weighted values; it begins as -INFINITY, 0, 0.
 */
struct unit {
    uint32_t rows, head_dim;
    uint32_t dtype; // of k and v: SV_F32; SV_F16 and SV_BF16 are best for at most UNIT_FEW rows
    float scale;
    const float *q;             // [rows][head_dim]
    const void *k[UNIT_BLOCKS]; // [head_dim][16] each; one with no key in range may be any other
    const void *v[UNIT_BLOCKS]; // [16][head_dim]
    const uint8_t *lo, *hi;     // [rows]
    float *most, *sum;          // [rows]
    float *out;                 // [rows][head_dim]
    float *p;                   // scratch [rows][UNIT_KEYS]
};

struct lanes_best {
    float value;
    int32_t id;  // the lowest among equals
    bool finite; // all of them were
};

struct lanes {
    // out = x * rsqrt(mean(x^2) + eps) * (w + offset); out may be x.
    void (*norm)(const float *x, const float *w, float eps, float offset, size_t n, float *out);
    void (*rope_half)(float *x, const float *cos, const float *sin, size_t half);
    void (*rope_pairs)(float *x, const float *cos, const float *sin, size_t half);
    void (*add)(float *y, const float *x, size_t n);   // y += x
    void (*scale)(float *y, float by, size_t n);       // y *= by
    void (*silu)(float *g, const float *up, size_t n); // g = g / (1 + exp(-g)) * up
    void (*gelu)(float *g, const float *up, size_t n); // the tanh form
    // KV: f16 and bf16 from and to f32.
    void (*widen)(uint32_t dtype, const void *x, size_t n, float *out);
    void (*narrow)(uint32_t dtype, const float *x, size_t n, void *out);
    void (*unit)(const struct unit *);
    // out (of one row) takes in another state, which saw later keys.
    void (*fold)(float *most, float *sum, float *out, float most2, float sum2, const float *out2,
                 size_t head_dim);
    // Logits.
    void (*divide)(const float *x, float by, size_t n, float *out);
    void (*most64)(const float *x, size_t n, float *out); // the largest of each 64
    struct lanes_best (*best)(const float *x, size_t n);
    // x = exp(x - most), 0 where x < floor or the result is < least. sums: of each CHUNK_IDS.
    void (*weights)(float *x, size_t n, float most, float floor, float least, double *sums);
    double (*exp_sum)(const float *x, size_t n, float most); // of exp(x - most), x stays
    size_t (*count_above)(const float *x, size_t n, float than);
    double (*sum_from)(const float *x, size_t n, float least); // of all x >= least
    // x = 0 where x < least. sums: of each CHUNK_IDS.
    void (*keep_from)(float *x, size_t n, float least, double *sums);
    // Ids of least <= x < below, ascending, at most `cap`; returns how many there are.
    size_t (*find)(const float *x, size_t n, float least, float below, uint32_t *ids, size_t cap);
};

const struct lanes *lanes_of(enum isa isa);
extern const struct lanes lanes_scalar, lanes_avx2, lanes_avx512, lanes_neon;
