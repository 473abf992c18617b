// SPDX-License-Identifier: Apache-2.0
/*
 * lanes_scalar - vectors of one float: plain C for any processor.
 */
#include "cpu/lanes.h"

#include "cpu/half.h"
#include "kernels/kernels.h"

#include <math.h>

typedef float vf;
typedef bool vm; // a mask

enum { VL = 1, VALUES = 8 };
#define SCORE_BLOCKS(rows) 1
#define LANES              lanes_scalar

static inline vf v_load(const float *p)
{
    return *p;
}
static inline void v_store(float *p, vf x)
{
    *p = x;
}
static inline vf v_set(float x)
{
    return x;
}
static inline vf v_add(vf a, vf b)
{
    return a + b;
}
static inline vf v_sub(vf a, vf b)
{
    return a - b;
}
static inline vf v_mul(vf a, vf b)
{
    return a * b;
}
static inline vf v_div(vf a, vf b)
{
    return a / b;
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return a * b + c;
}
static inline vf v_max(vf a, vf b) // b when either is NaN
{
    return a > b ? a : b;
}
static inline vf v_min(vf a, vf b)
{
    return a < b ? a : b;
}
static inline vf v_round(vf x)
{
    return rintf(x);
}
static inline vf v_pow2(vf n) // of a whole number in [-126, 127]
{
    return half_bits_f32((uint32_t)((n < -126 || n > 127 || n != n ? 0 : (int32_t)n) + 127) << 23);
}
static inline vm v_less(vf a, vf b)
{
    return a < b;
}
static inline vf v_select(vm m, vf yes, vf no)
{
    return m ? yes : no;
}
static inline uint32_t v_bits(vm m)
{
    return m;
}
static inline float v_sum(vf x)
{
    return x;
}
static inline float v_most(vf x)
{
    return x;
}
static inline vf v_iota(void)
{
    return 0;
}
static inline vf v_f16(const uint16_t *p)
{
    return half_f16_f32(*p);
}
static inline vf v_bf16(const uint16_t *p)
{
    return half_bf16_f32(*p);
}
static inline void widen_f16(const uint16_t *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half_f16_f32(x[i]);
}
static inline void narrow_f16(const float *x, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = half_f32_f16(x[i]);
}

#include "cpu/lanes_attend.inc"
#include "cpu/lanes_layer.inc"
#include "cpu/lanes_logits.inc"
#include "cpu/lanes_table.inc"
