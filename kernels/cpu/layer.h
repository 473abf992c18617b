// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * layer - the phases of all blocks but attention: operands of the tokens, products with a weight
 * and what follows each, logits and sampling.
 */
#include "cpu/step.h"

uint32_t layer_embed_items(struct step *t, const struct op *op);
void layer_embed(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                 uint64_t number);
// norm and operand of each token; no items when threads make them for themselves.
uint32_t layer_operand_items(struct step *t, const struct op *op);
void layer_operand(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number);
uint32_t layer_qkv_items(struct step *t, const struct op *op);
void layer_qkv(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
               uint64_t number);
uint32_t layer_project_items(struct step *t, const struct op *op);
void layer_project(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number);
uint32_t layer_gate_up_items(struct step *t, const struct op *op);
void layer_gate_up(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                   uint64_t number);
uint32_t layer_logits_items(struct step *t, const struct op *op);
void layer_logits(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                  uint64_t number);
uint32_t layer_sample_items(struct step *t, const struct op *op);
void layer_sample(struct step *t, const struct op *op, uint32_t item, uint32_t thread,
                  uint64_t number);
