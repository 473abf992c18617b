// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_operator - what + - * / // % ** == < in and indexing do to values, by Python's rules.
 */
#include "llm/jinja_value.h"

enum jinja_op {
    JOP_ADD,
    JOP_SUB,
    JOP_MUL,
    JOP_DIV,
    JOP_FLOORDIV,
    JOP_MOD,
    JOP_POW,
    JOP_EQ,
    JOP_NE,
    JOP_LT,
    JOP_LE,
    JOP_GT,
    JOP_GE,
    JOP_IN,
    JOP_NOT_IN
};

struct jv joperator_binary(struct jinja *j, enum jinja_op op, struct jv a, struct jv b); // + .. **
bool joperator_compare(struct jinja *j, enum jinja_op op, struct jv a, struct jv b);     // == .. in
struct jv joperator_negate(struct jinja *j, struct jv v);
struct jv joperator_plus(struct jinja *j, struct jv v);
bool joperator_equal(struct jinja *j, struct jv a, struct jv b);
// Python's a < b; fails for what has no order.
bool joperator_less(struct jinja *j, struct jv a, struct jv b);
bool joperator_contains(struct jinja *j, struct jv container, struct jv item);

// v[key], without the attributes; JV_MISSING: IndexError, KeyError or TypeError.
struct jv joperator_item(struct jinja *j, struct jv v, struct jv key);
struct jv joperator_slice(struct jinja *j, struct jv v, struct jv start, struct jv stop,
                          struct jv step);             // JV_NONE: left out
int64_t joperator_index(struct jinja *j, struct jv v); // an int, or it fails
