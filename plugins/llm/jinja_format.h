// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_format - text made by a pattern: "%s" % value, "{}".format(value), HTML escapes.
 *
 * Bounds  a width or precision of at most JFORMAT_WIDTH.
 */
#include "llm/jinja_value.h"

struct jbuild;

enum { JFORMAT_WIDTH = 100000 };

struct jformat_spec { // what a conversion asks for: of "%+08.3f" or "{:+08.3f}"
    uint32_t fill;    // 0: none said
    char align;       // < > = ^ or 0
    char sign;        // + - space or 0
    bool alternate, zero;
    int64_t width, precision; // precision -1: none said
    char grouping;            // , _ or 0
    char type;                // 0: none said
};

struct jv jformat_percent(struct jinja *j, struct jstr *pattern, struct jv values);
struct jv jformat_braces(struct jinja *j, struct jstr *pattern, const struct jargs *a);
struct jv jformat_escape(struct jinja *j, struct jv v); // Markup with & < > ' " escaped
// A number by a spec; type one of b d o x X n e E f F g G % or 0.
void jformat_number(struct jbuild *b, struct jv v, const struct jformat_spec *spec);
// Text of that many characters by fill, align and width.
void jformat_pad(struct jbuild *b, const struct jstr *s, const struct jformat_spec *spec,
                 char align);
