// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * str - text that people write: suggestions, numbers with units.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

// The candidate nearest to `word` (Damerau-Levenshtein, at most a third of its length and 1 at
// least), or NULL when nothing is near. `candidate(i)` is called for 0, 1, ... until it gives NULL.
const char *str_suggest(const char *word, const char *(*candidate)(void *arg, size_t i), void *arg);
unsigned str_distance(const char *a, const char *b);

// Strict: the whole text, decimal, in range; else an err that says what was wanted.
int str_to_i64(const char *s, int64_t *ret, struct err *err);
int str_to_f64(const char *s, double *ret, struct err *err);    // finite only
int str_to_bytes(const char *s, int64_t *ret, struct err *err); // 4096, 64KiB, 1GiB, 2MB ...
int str_to_time(const char *s, double *ret_s, struct err *err); // 5 (s), 250ms, 10us, 2m, 1h
bool str_valid_utf8(const char *s, size_t n);
// Length of the valid UTF-8 sequence at the front of s[0, n): 1 to 4; 0 when there is none.
size_t str_utf8_len(const char *s, size_t n);
