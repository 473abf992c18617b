// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_iter - going through values: lazily, as Python's generators do, each item once.
 */
#include "llm/jinja_value.h"

struct jiter {
    bool (*next)(struct jinja *j, struct jiter *it, struct jv *ret); // false: no more
    struct jv of;                                                    // what it goes through
    size_t at;
    struct jiter *from; // for those that take items of another one
    void *more;         // what else `next` needs
};

bool jiter_can(struct jv v);
struct jiter *jiter_open(struct jinja *j, struct jv v);     // fails where Python's iter() does
struct jiter *jiter_reversed(struct jinja *j, struct jv v); // NULL: has no end to begin from
bool jiter_next(struct jinja *j, struct jiter *it, struct jv *ret);
struct jiter *jiter_new(struct jinja *j, struct jiter *from, void *more,
                        bool (*next)(struct jinja *, struct jiter *, struct jv *));
struct jv jiter_value(struct jiter *it);
struct jv jiter_list(struct jinja *j, struct jv v); // list(v)
