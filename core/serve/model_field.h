// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * model_field - finds which model a request's body names, without parsing the body, piece by piece.
 *
 * JSON     the member "model" of the outermost object, when it is a string; escapes are decoded in
 *          key and value, what is nested is skipped. Of several the last one counts, as it does for
 *          Python, yyjson and plugins/llm; null and other kinds count as none. Nothing else is
 *          checked: whoever gets the body says what is wrong with it. Any content type but the one
 *          below is taken for JSON.
 * Form     multipart/form-data: the first part of the name `model`, as form.h's find() has it.
 * Pieces   where a body is cut changes nothing.
 * Bounds   a name is MODEL_FIELD_MAX bytes; of a longer one the beginning is kept. Nothing is
 *          allocated, depth is a number.
 * Pure     no clock, no I/O.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODEL_FIELD_MAX = 1024,    // bytes of a name, as in abi/models.h
    MODEL_FORM_BOUNDARY = 70,  // bytes, RFC 2046 section 5.1.1
    MODEL_FORM_HEADERS = 4098, // bytes of a part's header lines, as in abi/form.h, and a blank one
};

enum model_field_state {
    MF_START,    // JSON, in the order of a text
    MF_KEY,      // before a key
    MF_KEY_TEXT, // in it
    MF_COLON,
    MF_VALUE,      // before a value
    MF_VALUE_TEXT, // in a string
    MF_REST,       // in a number, or behind a value
    MF_NESTED,     // in an array or object
    MF_NESTED_TEXT,
    MF_DATA,     // form: what stands before the next boundary
    MF_BOUNDARY, // behind it
    MF_HEADERS,
};

struct model_field {
    bool has;      // a name was found so far: text[0, n)
    bool done;     // nothing that comes can change it
    bool too_long; // the name goes on behind text
    enum model_field_state state;
    uint32_t n;

    bool match; // this key, or this part, is `model`
    // JSON
    bool skip;      // of this string only the end matters
    bool odd;       // it is skipped, and an odd number of backslashes ended the last piece
    uint8_t escape; // 0, 1 behind a backslash, 2 to 5 in the digits of \u
    uint16_t unit;  // of \u
    uint16_t high;  // half of a pair, waits for the other
    uint64_t depth; // open brackets within the outermost object
    // Form
    char mark[MODEL_FORM_BOUNDARY + 5]; // CRLF, two dashes and the boundary
    uint32_t mark_n, at;                // so much of the mark was just seen
    uint32_t headers;                   // bytes of this part's header lines
    uint8_t behind;                     // behind the boundary: '-' or '\r' came, else 0
    bool cr;                            // in a header: the last byte

    char text[MODEL_FIELD_MAX];
};

void model_field_init(struct model_field *f, const char *content_type);
void model_field_feed(struct model_field *f, const char *p, size_t n);

// For the two files of model_field. Each takes a piece [p, end) until it is done.
void model_field_put(struct model_field *f, char c); // to the name
void model_field_end(struct model_field *f, bool has);
bool model_form_init(struct model_field *f, const char *content_type); // false: not a form
void model_form_feed(struct model_field *f, const char *p, const char *end);
