// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * tokenizer_parts - what a tokenizer is made of, for the tokenizer_*.c that fill and run it.
 *
 * A text goes through: added (raw) -> normalizer -> added (normalized) -> pretok -> model, and what
 * the model puts around a text (head, tail) is added last. Back: decoder, detok.
 */
#include "llm/added.h"
#include "llm/bpe.h"
#include "llm/decoder.h"
#include "llm/normalize.h"
#include "llm/pretok.h"
#include "llm/spm.h"
#include "llm/tokenizer.h"
#include "llm/unigram.h"
#include "llm/vocab.h"
#include "llm/wordpiece.h"

#include <yyjson.h>

enum tokenizer_model { MODEL_BPE, MODEL_SPM, MODEL_UNIGRAM, MODEL_WORDPIECE };

enum { TOKENIZER_AROUND = 32 }; // ids before and behind a text

struct tokenizer {
    struct vocab vocab;
    struct added raw, normalized; // matched before and after the normalizer
    struct added trusted;         // raw and the special ones of normalized: see tokenizer_encode.c
    bool special_normalized;      // some are both
    struct normalizer normalizer;
    struct pretok pretok;
    enum tokenizer_model model;
    struct bpe bpe;
    struct spm spm;
    struct unigram unigram;
    struct wordpiece wordpiece;
    int32_t head[TOKENIZER_AROUND], tail[TOKENIZER_AROUND];
    uint32_t n_head, n_tail;
    struct decoder decoder;
    int32_t bos, eos;
};

struct tokenizer *tokenizer_create(void);
// Puts an added token into the vocabulary's flags and where it is matched.
void tokenizer_put_added(struct tokenizer *t, const struct added_token *like, bool normalized);
// After the last change: sorts the added tokens and lets a byte-level model read bytes.
int tokenizer_seal(struct tokenizer *t, struct err *err);

// From the parts of tokenizer.json.
int tokenizer_json_model(struct tokenizer *t, yyjson_val *json, struct err *err);
int tokenizer_json_normalizer(struct tokenizer *t, yyjson_val *json, struct err *err);
int tokenizer_json_pretok(struct tokenizer *t, yyjson_val *json, struct err *err);
int tokenizer_json_post(struct tokenizer *t, yyjson_val *json, struct err *err);
int tokenizer_json_decoder(struct tokenizer *t, yyjson_val *json, struct err *err);

// Calls one() with each member of a Sequence, whose members `list` names, or with the thing itself.
int tokenizer_json_each(struct tokenizer *t, yyjson_val *json, const char *list,
                        int (*one)(struct tokenizer *t, yyjson_val *json, const char *type,
                                   struct err *err),
                        struct err *err);
int tokenizer_json_unknown(const char *what, const char *type, const char *known, struct err *err);
int tokenizer_json_scheme(yyjson_val *json, enum pretok_prepend *ret, struct err *err);
// A string of the JSON, which may hold NUL; {NULL, 0}: it is none.
struct bytes tokenizer_json_text(yyjson_val *string);
// tokenizer.json's text. `file` is for messages.
int tokenizer_from_json(const char *text, size_t n, const char *file, struct tokenizer **ret,
                        struct err *err);
