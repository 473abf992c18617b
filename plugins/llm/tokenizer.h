// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * tokenizer - text to token ids and back, as the model's own tokenizer does it: byte-level BPE
 * (GPT-2, Llama 3, Qwen, o200k ...), SentencePiece BPE and Unigram with byte fallback, WordPiece.
 *
 * Reference  `tokenizers` and `sentencepiece`: ids are identical.
 * Trust      a special token's text is that token only inside a trusted span; elsewhere, as in what
 *            a user wrote, it is text. A match never crosses the border of a span.
 * Bounds     TOKENIZER_VOCAB ids, TOKENIZER_PIECE bytes of a token; the caller bounds the text.
 * Owner      tokenizer_destroy; it keeps nothing of the file it was made from.
 * Thread     immutable once made: any thread, at the same time.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct gguf;
struct tokenizer;

enum { TOKENIZER_VOCAB = 1 << 20, TOKENIZER_PIECE = 1 << 16, TOKENIZER_JSON_MAX = 256 << 20 };

struct span { // of bytes, [begin, end)
    size_t begin, end;
};

struct ids {    // growing array of token ids; `= {0}` is empty
    int32_t *v; // owned
    size_t n, cap;
};
void ids_push(struct ids *a, int32_t id);
void ids_finish(struct ids *a);

// From the tokenizer.ggml.* keys. An unknown kind or pre-tokenizer is refused with the known ones.
int tokenizer_from_gguf(const struct gguf *g, struct tokenizer **ret, struct err *err);
// From tokenizer.json (and tokenizer_config.json beside it, which may name bos and eos).
int tokenizer_from_folder(const char *folder, struct tokenizer **ret, struct err *err);
void tokenizer_destroy(struct tokenizer *t);

uint32_t tokenizer_vocab(const struct tokenizer *t);              // one more than the highest id
int32_t tokenizer_bos(const struct tokenizer *t);                 // -1: none
int32_t tokenizer_eos(const struct tokenizer *t);                 // -1: none
bool tokenizer_is_special(const struct tokenizer *t, int32_t id); // skipped by skip_special_tokens
int32_t tokenizer_find(const struct tokenizer *t, const char *token, size_t n); // -1: no such token

/*
 * Appends the ids of text[0, n). `add_special`: with what the model puts around a text (bos, eos).
 * Special tokens are recognised in spans[0, n_spans), ascending and disjoint; spans NULL with
 * n_spans 1: everywhere. text must be valid UTF-8. SV_E_TOO_LARGE: more than max_ids (ret then
 * holds what came so far), or a hostile file's normalizer that lets the text grow without end;
 * otherwise never fails.
 */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_special,
                     const struct span *spans, size_t n_spans, size_t max_ids, struct ids *ret,
                     struct err *err);

// The token as the vocabulary writes it, e.g. "Ġthe" or "▁the" (for /tokenize's token_strs).
struct bytes tokenizer_token(const struct tokenizer *t, int32_t id);
// All ids at once, as `tokenizers` decode does; but bytes <0x..> that are no character are U+FFFD
// one by one, as in SentencePiece, where `tokenizers` gives up the whole run of bytes around them.
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                      struct buf *out);

/*
 * Incremental decoding. What is emitted over all pushes and the flush is what decode gives of
 * all ids; a push never emits a part of a UTF-8 character. Broken bytes become U+FFFD once it
 * is certain that they are broken.
 */
struct detok {
    const struct tokenizer *t;
    bool skip_special;
    uint8_t pending[8]; // bytes of a character that is not whole yet
    uint8_t n_pending;
    uint8_t strip; // how often a decoder still drops its character at the very beginning
    uint8_t state; // of the decoder
};
void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special);
void detok_push(struct detok *d, int32_t id, struct buf *out);
void detok_flush(struct detok *d, struct buf *out); // what is pending, as U+FFFD
