// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_loop - `loop` inside of {% for %}: where the loop is, and what comes next.
 */
#include "llm/jinja_value.h"

struct jframe;
struct node;

struct jloop {
    struct jv items;
    struct jiter *it;
    struct jv after, current, before; // JV_MISSING: none
    struct jv changed;                // of loop.changed
    int64_t index0, depth0;
    size_t length; // SIZE_MAX: not known yet
    const struct node *n;
    struct jframe *frame; // around the loop
};

struct jloop *jloop_new(struct jinja *j, struct jv items, const struct node *n,
                        struct jframe *frame, int64_t depth);
bool jloop_next(struct jinja *j, struct jloop *l, struct jv *ret);
size_t jloop_length(struct jinja *j, struct jloop *l);
bool jloop_attribute(struct jinja *j, struct jloop *l, const struct jstr *name, struct jv *ret);
struct jv jloop_call(struct jinja *j, struct jloop *l, const struct jargs *a); // recursion
