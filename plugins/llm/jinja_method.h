// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_method - attributes of values: the methods of Python's str, list, dict and numbers, and
 * what loops, macros and namespaces have. Methods that would change a value are refused.
 */
#include "llm/jinja_value.h"

// v.name, without the items; false: there is none.
bool jmethod_find(struct jinja *j, struct jv v, const struct jstr *name, struct jv *ret);

// A method of str, by name (it must exist).
struct jv jmethod_text(struct jinja *j, struct jstr *s, const char *name, const struct jargs *a);
struct jv jmethod_lines(struct jinja *j, struct jstr *s, bool keep_ends); // list: splitlines
struct jv jmethod_replace(struct jinja *j, struct jstr *s, struct jstr *from, struct jstr *to,
                          int64_t count); // negative: all

typedef struct jv jmethod_call(struct jinja *j, struct jv self, const struct jargs *a);
struct jmethod_entry {
    const char *name;
    jmethod_call *call; // NULL: refused, it would change the value
};
extern const struct jmethod_entry jmethod_str[], jmethod_str_is[]; // end with a NULL name
