// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_lexer - a template's source as tokens, white space control (trim_blocks, lstrip_blocks,
 * '-' and '+') done and string literals unescaped. The rules are those of jinja2/lexer.py.
 *
 * Owner  the arena. Texts are borrowed from the source where nothing had to be changed.
 */
#include "llm/jinja_value.h"

enum jinja_token {
    JTOK_EOF,
    JTOK_DATA, // text of the template; s
    JTOK_BLOCK_BEGIN,
    JTOK_BLOCK_END,
    JTOK_VARIABLE_BEGIN,
    JTOK_VARIABLE_END,
    JTOK_NAME,     // s
    JTOK_STRING,   // s
    JTOK_NUMBER,   // value
    JTOK_OPERATOR, // op: its characters
};

struct jtoken {
    enum jinja_token kind;
    uint32_t line;
    char op[3];
    struct jv value; // of numbers, a string for DATA, NAME, STRING
};

struct jtokens {
    struct jtoken *v; // ends with JTOK_EOF
    size_t n, cap;
};

// source: valid UTF-8 that outlives the arena.
void jlexer_run(struct jinja *j, const char *source, size_t n, struct jtokens *ret);
