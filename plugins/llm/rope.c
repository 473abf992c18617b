// SPDX-License-Identifier: Apache-2.0
/*
 * Linear: position interpolation (kaiokendev; Chen et al., arXiv:2306.15595). Yarn: Peng et al.,
 * arXiv:2309.00071. Llama 3: llama_models' apply_scaling. Each as transformers'
 * modeling_rope_utils.py computes it.
 */
#include "llm/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static void scale_llama3(const struct spec_rope *r, float *freq, uint32_t n)
{
    double low = r->original_context / r->low_freq_factor;
    double high = r->original_context / r->high_freq_factor;
    float factor = (float)r->factor;
    for (uint32_t i = 0; i < n; i++) {
        float length = (float)(2 * pi) / freq[i];
        if (length > (float)low) {
            freq[i] /= factor;
        } else if (!(length < (float)high)) {
            float smooth = ((float)r->original_context / length - (float)r->low_freq_factor) /
                           (float)(r->high_freq_factor - r->low_freq_factor);
            freq[i] = (1 - smooth) * freq[i] / factor + smooth * freq[i];
        }
    }
}

// The dimension that turns `rotations` times within the original context.
static double turning_dim(const struct spec_rope *r, double rotations)
{
    return r->dims * log(r->original_context / (rotations * 2 * pi)) / (2 * log(r->base));
}

// `wave` holds the inverse frequencies and becomes the frequencies.
static void scale_yarn(const struct spec_rope *r, float *wave, uint32_t n)
{
    double low = turning_dim(r, r->beta_fast), high = turning_dim(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, r->dims - 1);
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < n; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float slow = 1 / ((float)r->factor * wave[i]), fast = 1 / wave[i];
        wave[i] = slow * (1 - keep) + fast * keep;
    }
}

void rope_frequencies(const struct spec_rope *r, float *ret)
{
    uint32_t n = r->dims / 2;
    for (uint32_t i = 0; i < n; i++) {
        ret[i] = powf((float)r->base, (float)(2 * i) / (float)r->dims);
        if (r->factors)
            ret[i] *= r->factors[i];
    }
    if (r->kind == ROPE_YARN) {
        scale_yarn(r, ret, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        ret[i] = 1 / ret[i];
        if (r->kind == ROPE_LINEAR)
            ret[i] /= (float)r->factor;
    }
    if (r->kind == ROPE_LLAMA3)
        scale_llama3(r, ret, n);
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

float rope_scale(const struct spec_rope *r)
{
    if (r->kind != ROPE_YARN)
        return 1;
    if (r->attention_factor > 0)
        return (float)r->attention_factor;
    if (r->mscale != 0 && r->mscale_all_dim != 0)
        return (float)(yarn_mscale(r->factor, r->mscale) /
                       yarn_mscale(r->factor, r->mscale_all_dim));
    return (float)yarn_mscale(r->factor, 1);
}
