// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gguf - a GGUF file (versions 2 and 3, little-endian), mmapped: its key-value pairs and tensors.
 * Format: docs/gguf.md of ggml-org/ggml.
 *
 * Checked  as tensors.h says; keys are unique too, arrays of strings are walked once while opening.
 * Bounds   GGUF_KEYS pairs, GGUF_ARRAY elements of an array; arrays of arrays are refused.
 * Owner    strings point into the map, are NOT ended by NUL, and die with gguf_close.
 */
#include "common/tensors.h"

#include "base/buf.h"

enum { GGUF_KEYS = 1 << 16, GGUF_ARRAY = 1 << 24, GGUF_ALIGN_MAX = 1 << 16 };

struct gguf;

int gguf_open(const char *path, struct gguf **ret, struct err *err);
void gguf_close(struct gguf *g);
const struct tensors *gguf_tensors(const struct gguf *g); // borrowed

bool gguf_has(const struct gguf *g, const char *key);
// Numbers of any integer or float type that fit; false: absent or of another kind.
bool gguf_u64(const struct gguf *g, const char *key, uint64_t *ret);
bool gguf_f64(const struct gguf *g, const char *key, double *ret);
bool gguf_bool(const struct gguf *g, const char *key, bool *ret);
bool gguf_str(const struct gguf *g, const char *key, struct bytes *ret);

// Arrays: the number of elements, 0 if absent or of another kind.
uint64_t gguf_array_strs(const struct gguf *g, const char *key);
uint64_t gguf_array_nums(const struct gguf *g, const char *key);
// All strings of the array in file order, into ret[0, n); n as gguf_array_strs gave it.
void gguf_array_get_strs(const struct gguf *g, const char *key, struct bytes *ret, uint64_t n);
void gguf_array_get_nums(const struct gguf *g, const char *key, double *ret, uint64_t n);
