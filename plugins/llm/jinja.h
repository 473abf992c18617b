// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja - what one compilation or one rendering of a template shares: memory, bounds, the way out.
 *
 * Errors  jinja_fail ends everything by longjmp to the one setjmp in template.c. Whatever a
 *         template makes lies in the arena, so there is nothing to undo on the way.
 * Bounds  steps: one for each node, item and comparison, and one for each JINJA_STEP_BYTES of
 *         text that is read or written. levels: C functions in each other, whatever nests: so the
 *         C stack is bounded. Memory: the arena's limit.
 * Owner   the struct lives in template.c; the arena may outlive it (a compiled template).
 * Thread  one at a time.
 */
#include "base/arena.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jdict;
struct jframe;
struct jstr;
struct node;

enum {
    JINJA_LEVELS_MAX = 2400, // at most some 400 bytes of stack each
    JINJA_STEP_BYTES = 64
};

struct jinja {
    struct arena arena;
    struct err *err; // borrowed from the caller
    jmp_buf way_out;
    uint32_t line; // of what is being done, for errors
    uint64_t steps, steps_max;
    uint32_t levels;

    // of a rendering
    const struct node *root;
    struct jdict *context;   // globals and input, by name
    struct jframe *frame;    // of the template itself
    struct jframe *toplevel; // the same inside of a block, which sees what is set there; else NULL
    struct jstr *block_text; // what the filter of a filter block works on
    struct jstr *final_text; // of the message that is to be continued
    int64_t now;             // s since 1970
};

__attribute__((noreturn, format(printf, 2, 3))) void jinja_fail(struct jinja *j, const char *fmt,
                                                                ...);
// Without the line: the template's own words.
__attribute__((noreturn)) void jinja_raise(struct jinja *j, const char *text, size_t n);

__attribute__((returns_nonnull)) void *jinja_alloc(struct jinja *j, size_t n); // zeroed
__attribute__((returns_nonnull)) void *jinja_array(struct jinja *j, size_t n, size_t size);

void jinja_enter(struct jinja *j); // one level deeper
static inline void jinja_leave(struct jinja *j)
{
    j->levels--;
}

void jinja_step_limit(struct jinja *j);
static inline void jinja_step(struct jinja *j, size_t n)
{
    j->steps += n;
    if (j->steps > j->steps_max)
        jinja_step_limit(j);
}
static inline void jinja_step_bytes(struct jinja *j, size_t n)
{
    jinja_step(j, n / JINJA_STEP_BYTES);
}
