// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * table - all that a supervisor is, as bytes: what it leaves for itself when it executes another
 * program in its own place (upgrade.c), and finds there again (resume.c).
 *
 * Form    frames of wire.def: RESUME, then rows, then RESUMED, which counts what came before it.
 *         Descriptors are numbers. Frames of an unknown kind are skipped.
 * Version RESUME.version: N reads N and N-1. Pages must be of the same PAGE_VERSION.
 * Trust   none, although it is our own word: whatever does not fit together is refused.
 * Pure    no descriptor is touched.
 */
#include "base/buf.h"
#include "wire/wire.h"

#include <stddef.h>

enum {
    TABLE_VERSION = 1,
    TABLE_MAX = 256 << 20,      // bytes
    TABLE_CHILDREN_MAX = 16384, // living; specs are bounded by KEEP_SPECS_MAX
    TABLE_JOBS_MAX = 1 << 20,
    TABLE_PIECES_MAX = 1 << 20, // of what is unsent, of what is unread
    TABLE_CONTROLS_MAX = 1      // more specs than KEEP_SPECS_MAX: control's own
};

// name, most rows
#define TABLE_ROWS(X)                                                                              \
    X(kept, KEEP_SPECS_MAX + TABLE_CONTROLS_MAX)                                                   \
    X(living, TABLE_CHILDREN_MAX)                                                                  \
    X(unsent, TABLE_PIECES_MAX)                                                                    \
    X(unread, TABLE_PIECES_MAX)                                                                    \
    X(grave, KEEP_GRAVES_MAX)                                                                      \
    X(job, TABLE_JOBS_MAX)

#define TABLE_ROW(name, most)                                                                      \
    struct wire_##name *name; /* owned */                                                          \
    size_t n_##name;
struct table { // texts and bytes are borrowed: from what was parsed, or from the supervisor
    struct wire_resume head;
    TABLE_ROWS(TABLE_ROW)
};
#undef TABLE_ROW

// Appends a row, zeroed.
#define TABLE_ADD(name, most) struct wire_##name *table_add_##name(struct table *t);
TABLE_ROWS(TABLE_ADD)
#undef TABLE_ADD

void table_put(const struct table *t, struct buf *out);
int table_parse(struct bytes text, struct table *ret, struct err *err); // on success: finish it
void table_finish(struct table *t);

// Every descriptor in it.
void table_each_fd(const struct table *t, void (*each)(void *ctx, int fd), void *ctx);
int table_fd(struct bytes fds, size_t i); // of a blob of descriptors
