// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * step - a launch: the batch is checked, then all threads walk the program's phases.
 *
 * Phases  a block is one or two, each cut in items that write to places of their own. With few
 *         tokens the phase that makes operands is left out: each thread makes its own.
 * Sums    no result depends on how a phase is cut: products, norms and attention sum each output
 *         in an order of its own (matrix.h, lanes.h, attend.h).
 */
#include "cpu/program.h"

struct step {
    sv_program *program;
    sv_session *s;
    const sv_batch *b;
    struct result *result;
    struct cut { // of the phase under way
        uint32_t tiles, groups, tokens, chunks;
        uint64_t all_tiles;
    } cut;
    uint64_t number; // of the first phase, over all launches: tells operands of different phases
    bool lazy;       // threads make operands for themselves
};

struct phase {
    const struct op *op;
    uint32_t (*items)(struct step *, const struct op *);
    void (*run)(struct step *, const struct op *, uint32_t item, uint32_t thread, uint64_t number);
};

// How many phases the program has; into `ret` unless NULL.
uint32_t step_phases(const sv_program *p, struct phase *ret);
int64_t step_launch(sv_program *p, const sv_batch *b);
