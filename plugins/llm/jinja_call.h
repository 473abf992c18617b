// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_call - calls: arguments, macros, and the functions that are ours.
 */
#include "llm/jinja_value.h"

struct jframe;
struct node;
struct node_call;

struct jmacro { // or the body of a call block
    const struct node *n;
    struct jframe *frame; // where it was made
};

struct jv jcall_new_macro(struct jinja *j, const struct node *n, struct jframe *f);
struct jv jcall_macro_name(struct jinja *j, const struct jmacro *m); // None: of a call block
bool jcall_macro_attribute(struct jinja *j, const struct jmacro *m, const struct jstr *name,
                           struct jv *ret);
struct jv jcall_method(struct jinja *j, struct jv self, const char *name,
                       struct jv (*call)(struct jinja *, struct jv, const struct jargs *));

struct jargs jcall_args(struct jinja *j, struct jframe *f, const struct node_call *c);
void jcall_keyword(struct jinja *j, struct jargs *a, const char *name, struct jv value);
bool jcall_can(struct jv v);
struct jv jcall_value(struct jinja *j, struct jv callee, const struct jargs *a);

// Arguments of one of ours, by position or name, into out[0, n): JV_MISSING where none is given.
// Fails as Python does for too many, unknown, twice given, or fewer than `required`.
void jcall_bind(struct jinja *j, const char *what, const struct jargs *a, const char *const *names,
                size_t n, size_t required, struct jv *out);
void jcall_no_keywords(struct jinja *j, const char *what, const struct jargs *a);
