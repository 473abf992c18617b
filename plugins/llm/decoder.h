// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * decoder - how tokens become text again: steps on each token by itself, then how bytes are put
 * together, then what is dropped at the very beginning. Any decoder of huggingface/tokenizers that
 * can be run token by token is of this form; the others are refused.
 *
 * Bounds  DECODER_STEPS, DECODER_LITERAL bytes each.
 * Owner   decoder_finish.
 * Thread  immutable once made.
 */
#include "llm/vocab.h"

enum { DECODER_STEPS = 8, DECODER_LITERAL = 64 };

enum decoder_kind {
    DECODE_REPLACE,
    DECODE_METASPACE,
    DECODE_WORDPIECE,
    DECODE_SUFFIX,
    DECODE_STRIP,
    DECODE_LEADING // SentencePiece's: while there is no text yet, once, or with `flag` of each
                   // token
};

// TEXT: tokens are text. LEVEL: characters stand for bytes, a token with others is text. FALLBACK:
// <0x41> is a byte.
enum decoder_bytes { BYTES_TEXT, BYTES_LEVEL, BYTES_FALLBACK };

struct decoder_step {
    enum decoder_kind kind;
    char from[DECODER_LITERAL], to[DECODER_LITERAL];
    uint8_t from_n, to_n;
    bool flag;           // METASPACE: drop at the first token; WORDPIECE: clean up
    uint8_t left, right; // STRIP: at most so many at either end
};

struct decoder {
    struct decoder_step steps[DECODER_STEPS];
    uint32_t n;
    enum decoder_bytes bytes;
    bool spaced;   // no decoder: a space between tokens
    bool fused;    // while it is read: what follows is for the text as a whole
    char strip[5]; // after all: this character, strip_n times at most, at the very beginning
    uint8_t strip_n;
};

// What a text's tokens so far leave behind for the next one; 0 before the first.
enum { DECODER_STARTED = 1, DECODER_SPACE_DUE = 2, DECODER_TEXT = 4, DECODER_LED = 8 };

// Appends what the next token of a text says; its bytes may be parts of characters.
void decoder_token(const struct decoder *d, const struct vocab *v, int32_t id, uint8_t *state,
                   struct buf *out);
