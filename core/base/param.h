// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * param - the parameters of a header's value: `form-data; name="a"; filename=b`.
 */
#include <stddef.h>

// The value of `; name=value` or `; name="value"` in text[0, n): the first whose name is this one,
// whatever its case. Backslashes before '"' and '\' go; everything else stays as it was sent. Its
// length, of which the first `cap` bytes are in out (no NUL behind them); -1: there is none, or a
// quote before it is not closed.
ptrdiff_t param_find(const char *text, size_t n, const char *name, char *out, size_t cap);
