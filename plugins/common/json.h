// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * json - JSON by RFC 8259 exactly, in valid UTF-8, read-only: request bodies, model files.
 * yyjson underneath; whoever needs more of it than is here includes yyjson.h.
 *
 * Bounds  `max` bytes of text, JSON_DEPTH levels; checked before anything recurses.
 * Twice   of two equal keys the last counts, as in Python.
 * Owner   json_doc owns every value; strings are UTF-8 with a length and may hold NUL.
 * Thread  any, one at a time for each document; reading is free.
 */
#include <yyjson.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum { JSON_DEPTH = 64 };

// The text is copied. SV_E_INVALID with line, column and what is wrong; SV_E_TOO_LARGE over max.
int json_parse(const char *text, size_t n, size_t max, yyjson_doc **ret, struct err *err);

yyjson_val *json_get(yyjson_val *object, const char *key); // the last of that name; NULL: absent
yyjson_val *json_at(yyjson_val *object, const char *path); // "a.b.c"; NULL: absent
const char *json_str(yyjson_val *object, const char *key,
                     const char *fallback); // no string: fallback
int64_t json_int(yyjson_val *object, const char *key,
                 int64_t fallback); // no whole number: fallback
double json_num(yyjson_val *object, const char *key, double fallback);
bool json_bool(yyjson_val *object, const char *key, bool fallback);
