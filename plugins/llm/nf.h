// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * nf - the normal forms NFC, NFD, NFKC and NFKD (Unicode Standard Annex 15), with decompositions
 * and compositions from utf8proc, and no newer ones than `tokenizers` has (unicode.h).
 *
 * Time    linear; long runs of combining marks too.
 * Bounds  a character becomes at most 18, of 4 bytes each.
 */
#include "base/buf.h"

#include <stdbool.h>

// Appends text[0, n), valid UTF-8.
void nf_put(struct buf *out, const char *text, size_t n, bool compose, bool compatible);
