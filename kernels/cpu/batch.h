// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * batch - a step's numbers, checked before anything is computed from them.
 *
 * Refused  a count beyond the program or the session; a slot, block, position, token or row out of
 *          range; a slot twice; positions that do not ascend by one; a position whose block the
 * page table never got; SV_SAMPLED where nothing was sampled. Nothing is launched then, but the
 *          page table has taken the edits before the first wrong one.
 */
#include "cpu/program.h"

// 0 or -400. Applies the edits and fills token_slot and token_block.
int batch_check(const sv_program *p, const sv_batch *b);
