// SPDX-License-Identifier: Apache-2.0
/*
 * lanes_neon - vectors of 4 floats (AArch64).
 */
#include "cpu/lanes.h"

#include "cpu/half.h"
#include "kernels/kernels.h"

#include <arm_neon.h>
#include <math.h>

typedef float32x4_t vf;
typedef uint32x4_t vm;

enum { VL = 4, VALUES = 4 };
#define SCORE_BLOCKS(rows) ((rows) > 2 ? 1 : 4 / (rows)) // 16 sums at most, of 32 registers
#define LANES              lanes_neon

static inline vf v_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void v_store(float *p, vf x)
{
    vst1q_f32(p, x);
}
static inline vf v_set(float x)
{
    return vdupq_n_f32(x);
}
static inline vf v_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
static inline vf v_max(vf a, vf b) // b when either is NaN
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vf v_min(vf a, vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vf v_round(vf x)
{
    return vrndnq_f32(x);
}
static inline vf v_pow2(vf n) // of a whole number in [-126, 127]
{
    int32x4_t e = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(e, 23));
}
static inline vm v_less(vf a, vf b)
{
    return vcltq_f32(a, b);
}
static inline vf v_select(vm m, vf yes, vf no)
{
    return vbslq_f32(m, yes, no);
}
static inline uint32_t v_bits(vm m)
{
    const uint32x4_t bit = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(m, bit));
}
// Halves are added until one is left.
static inline float v_sum(vf x)
{
    float32x2_t b = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
static inline float v_most(vf x)
{
    return vmaxvq_f32(x);
}
static inline vf v_iota(void)
{
    const float32x4_t iota = {0, 1, 2, 3};
    return iota;
}
static inline vf v_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vf v_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline void widen_f16(const uint16_t *x, size_t n, float *out)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        v_store(out + i, v_f16(x + i));
    for (; i < n; i++)
        out[i] = half_f16_f32(x[i]);
}
static inline void narrow_f16(const float *x, size_t n, uint16_t *out)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(v_load(x + i))));
    for (; i < n; i++)
        out[i] = half_f32_f16(x[i]);
}

#include "cpu/lanes_attend.inc"
#include "cpu/lanes_layer.inc"
#include "cpu/lanes_logits.inc"
#include "cpu/lanes_table.inc"
