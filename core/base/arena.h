// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * arena - memory that lives exactly as long as its owner (a request, a parsed file).
 *
 * Bounds  `limit` bytes in all, given at init (0 = none, for files that were bounded before).
 * Owner   whoever holds the struct; one arena_finish releases everything.
 * Thread  one at a time.
 * Align   16 bytes.
 */
#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *blocks; // owned, newest first
    size_t used, limit;
};

void arena_init(struct arena *a, size_t limit);
void arena_finish(struct arena *a); // a zeroed arena is fine
void arena_reset(struct arena *a);  // empties it, keeps one block for the next use

// NULL when the limit would be passed (never on exhaustion: that aborts). Memory is zeroed.
void *arena_alloc(struct arena *a, size_t n);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
__attribute__((format(printf, 2, 3))) char *arena_printf(struct arena *a, const char *fmt, ...);
