// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * rope - the frequencies of rotary position embeddings, in the precision of the reference.
 *
 * Reference  transformers' modeling_rope_utils.py: single precision where torch computes in it, so
 *            that logits agree; double where Python does.
 */
#include "llm/spec.h"

void rope_frequencies(const struct spec_rope *r, float *ret); // [dims / 2]
float rope_scale(const struct spec_rope *r);                  // of cos and sin
