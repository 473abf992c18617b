// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_repr - values as text: Python's str() and repr().
 */
#include "llm/jinja_value.h"

struct jbuild;

struct jstr *jrepr_str(struct jinja *j, struct jv v); // str(v); a string is itself
struct jv jrepr_repr(struct jinja *j, struct jv v);
void jrepr_put(struct jbuild *b, struct jv v);       // repr(v)
void jrepr_put_str(struct jbuild *b, struct jv v);   // str(v)
void jrepr_put_ascii(struct jbuild *b, struct jv v); // ascii(v)
// For messages: cut, NUL-ended.
void jrepr_short(struct jinja *j, struct jv v, char *out, size_t cap);
bool jrepr_printable(uint32_t c); // Python's str.isprintable
