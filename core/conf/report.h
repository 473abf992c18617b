// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * report - what is wrong with a file, all of it: lines of `file:line:column: text`.
 *
 * Order   by place once report_sort was called; lines of one place keep the order they came in.
 * Bounds  REPORT_LINES_MAX errors and as many warnings are kept; the rest is only counted.
 * Owner   texts hang on the arena given at init, which outlives the report.
 * Thread  one at a time.
 */
#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct err;

enum { REPORT_LINES_MAX = 50 };

// Where a key or value was written. line 0 = not in a file: then `file` alone names it.
struct place {
    const char *file;
    uint32_t line, column; // both from 1
};

struct report_line {
    struct place at;
    bool warning;
    bool told;        // the holder's mark: it was logged
    const char *text; // whole, with its place before it
};

struct report {
    struct arena *arena; // borrowed
    struct report_line lines[2 * REPORT_LINES_MAX];
    uint32_t n, n_errors, n_warnings; // n is of `lines`, the others count all
};

void report_init(struct report *r, struct arena *arena);

__attribute__((format(printf, 3, 4))) void report_error(struct report *r, struct place at,
                                                        const char *fmt, ...);
__attribute__((format(printf, 3, 4))) void report_warn(struct report *r, struct place at,
                                                       const char *fmt, ...);
void report_sort(struct report *r);

// 0 without errors; else SV_E_INVALID with the first one and how many more there are.
int report_result(const struct report *r, struct err *err);
