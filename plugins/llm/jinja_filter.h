// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_filter - what follows `|`: the filters of jinja2/filters.py, but for those that make HTML
 * or are different each time (urlize, xmlattr, striptags, wordwrap, pprint, random).
 */
#include "llm/jinja_value.h"

struct jfilter {
    const char *name;
    struct jv (*call)(struct jinja *j, struct jv v, const struct jargs *a);
};

const struct jfilter *jfilter_find(const char *name, size_t n); // NULL: none of that name
struct jv jfilter_apply(struct jinja *j, const struct jfilter *f, struct jv v,
                        const struct jargs *a);

// The filters of jinja_filter_list.c: what they work on has items.
extern const struct jfilter jfilter_lists[];
