// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_eval - the value of an expression, in a frame: the variables of a scope while it runs.
 */
#include "llm/jinja_node.h"

struct jframe {
    struct jframe *up; // of the scope around
    struct jv v[];     // scope->n variables
};

struct jframe *jframe_new(struct jinja *j, const struct scope *s, struct jframe *up);
// As at the beginning of the scope.
void jframe_begin(struct jinja *j, const struct scope *s, struct jframe *f);
struct jv *jframe_at(struct jframe *f, struct node_place place);

struct jv jeval(struct jinja *j, struct jframe *f, const struct node *n);
void jeval_assign(struct jinja *j, struct jframe *f, const struct node *target, struct jv value);
struct jv jeval_attribute(struct jinja *j, struct jv v, struct jv name); // v.name
struct jv jeval_item(struct jinja *j, struct jv v, struct jv key);       // v[key]
struct jv jeval_context(struct jinja *j, const struct jstr *name);       // JV_MISSING: none
