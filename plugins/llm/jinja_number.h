// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_number - numbers as text and back, by Python's rules.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JNUMBER_TEXT = 48 };

// repr(float): the shortest digits that give the same number; "inf", "nan", "1e+16".
void jnumber_repr(double d, char out[JNUMBER_TEXT]);
void jnumber_int(int64_t i, char out[JNUMBER_TEXT]);

// int(text, base) and float(text): white space around, single '_' between digits. False: Python
// raises ValueError, or (int) it doesn't fit 64 bits.
bool jnumber_parse_int(const char *p, size_t n, int base, int64_t *ret);
bool jnumber_parse_float(const char *p, size_t n, double *ret);
