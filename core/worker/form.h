// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * form - the core's side of "sv.form/1": parts of multipart/form-data and urlencoded bodies.
 *
 * Input   hostile: every length is checked against the body, every part counts against the bounds
 *         of abi/form.h. The parser itself (form_parse) knows no request and is fuzzed.
 * Memory  parts, names and decoded values on the arena; multipart data stays in the body.
 */
#include "abi/form.h"
#include "base/arena.h"
#include "base/buf.h"

struct form {
    int code; // number of parts, or the error
    const char *why;
    sv_part *parts; // on the arena
    uint32_t n;
};

// Fills *f; the code.
int form_parse(struct form *f, struct arena *a, const char *content_type, struct bytes body);
const sv_form *form_extension(void);
