// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * draw - which ids a draw is from (min_p, top_k, top_p), and the draw.
 *
 * Nothing sorts the vocabulary: the k-th largest is looked for above the k-th largest of the maxima
 * of 64 ids each; the weight at which top_p ends by halving the range of floats, then among the few
 * that are left. Weights below (1 - p) / vocab of the whole are together too little to be kept.
 * Exact   thresholds compare the floats themselves; weights are added in double in a fixed order.
 */
#include "cpu/sample.h"

/*
 * t->w: logits over the temperature, used up. best: of them. random: 64 bits.
 */
int32_t draw(const struct lanes *lanes, struct sample_scratch *t, uint32_t vocab,
             const sv_sampling *a, struct lanes_best best, uint64_t random);

// The k best ids, best first, the lowest first among equals.
void top_of(const struct lanes *lanes, const float *x, uint32_t n, uint32_t k,
            struct sample_scratch *t, int32_t *id);
