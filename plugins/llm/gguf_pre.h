// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * gguf_pre - what the names in tokenizer.ggml.pre stand for: patterns that cut a text into words,
 * one after the other. Names: llama.cpp's src/llama-vocab.cpp. Patterns: those of the models' own
 * tokenizer.json where it is known, which llama.cpp's, rewritten for its own matcher, approximate.
 */
#include "base/buf.h"

#include <stdbool.h>

struct err;

enum { GGUF_PRE_PATTERNS = 6 };

struct gguf_pre {
    const char *names;                       // "a b c"
    const char *patterns[GGUF_PRE_PATTERNS]; // NULL ends them
    bool ignore_merges;                      // a word that is a token is that token
    bool bos;                                // where there is no add_bos_token
};

// SV_E_UNSUPPORTED with the known names.
int gguf_pre_find(struct bytes name, const struct gguf_pre **ret, struct err *err);
