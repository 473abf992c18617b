// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * unicode - what `tokenizers` knows of characters, where the libraries below us know an older
 * Unicode.
 *
 * Reference  Oniguruma 6.9.10 inside `tokenizers`: Unicode 16. PCRE2 10.38 (our oldest) and
 * utf8proc know 14 and later; unicode_new_ranges is what was assigned or changed since 14, so that
 * a class written as \p{X} plus these is the same with every version of theirs. Thread     any;
 * constant tables.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The character at s[0, n), n > 0, of valid UTF-8; *len is its bytes.
uint32_t unicode_get(const char *s, size_t n, size_t *len);
void unicode_put(struct buf *out, uint32_t c);
size_t unicode_encode(uint32_t c, char out[4]); // bytes written
// The character that ends at s[n), n > 0, of valid UTF-8; *len is its bytes.
uint32_t unicode_before(const char *s, size_t n, size_t *len);

struct unicode_range {
    uint32_t lo, hi; // [lo, hi]
    char category[3];
};
const struct unicode_range *unicode_new_ranges(size_t *n);

// General category in two letters, e.g. "Lu".
const char *unicode_category(uint32_t c);
bool unicode_is_space(uint32_t c); // White_Space
bool unicode_is_word(uint32_t c);  // \w of Rust's regex

// What single steps of `tokenizers` take a character for: unicode_old.c.
bool unicode_is_numeric(uint32_t c);     // Digits
bool unicode_is_punctuation(uint32_t c); // Punctuation, BertPreTokenizer
bool unicode_is_mark(uint32_t c);        // StripAccents
bool unicode_is_nonspacing(uint32_t c);  // BertNormalizer, accents
bool unicode_is_other(uint32_t c);       // BertNormalizer, control characters; also of its spaces
size_t unicode_lower(uint32_t c, uint32_t out[2]); // characters written

// For the normal forms: false where the character is too new for them to have a decomposition.
bool unicode_decomposes(uint32_t c);
unsigned unicode_class(uint32_t c); // canonical combining class
