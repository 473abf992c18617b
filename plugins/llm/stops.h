// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * stops - stop strings, looked for in a text that comes in pieces.
 *
 * Match   the first to end in the text; of two that end together the longer one, so that nothing of
 *         a stop string is left before it.
 * Held    a suffix of the text that may become a stop string is held back, never more: at most the
 *         longest string less one byte. It begins at a character, as the strings do.
 * Cost    constant for each byte and string (Knuth, Morris, Pratt), whatever the strings are.
 * Bounds  STOPS_MAX strings; the caller bounds their length.
 * Owner   strings and tables lie on the arena given.
 */
#include <stddef.h>
#include <stdint.h>

struct arena;

enum { STOPS_MAX = 4 };

struct stop {
    const char *text;
    uint32_t n;
    uint32_t *fail; // [n]: the longest border of text[0, i]
};

struct stops {
    struct stop v[STOPS_MAX];
    uint32_t n;
};

struct stops_state { // of one text
    uint32_t matched[STOPS_MAX];
};

// n >= 1 bytes, copied. There must be room.
void stops_add(struct stops *s, struct arena *arena, const char *text, size_t n);
// Reads p[0, n). The number of the string that was found, *ret_end the bytes of p up to its end; or
// -1.
int stops_feed(const struct stops *s, struct stops_state *st, const char *p, size_t n,
               size_t *ret_end);
size_t stops_held(const struct stops *s, const struct stops_state *st); // bytes
