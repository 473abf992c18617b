// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * attend - paged attention over a batch of prompts and single tokens.
 *
 * Work    some tokens of a sequence (all query heads of a KV head together, so keys and values are
 *         read once) against its keys up to themselves. When there is too little of it for all
 *         threads, single tokens are split over their segments of keys.
 * Order   keys are taken in units of 64 at absolute positions, units summed into segments of
 *         `segment_keys`, segments folded from the first on: the same for a token alone, in a
 *         chunk, in a batch and split.
 */
#include "cpu/step.h"

void attend_plan(struct step *t); // the works of a batch; once for all layers
uint32_t attend_items(struct step *t, const struct op *op);
void attend_run(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                uint64_t number);
