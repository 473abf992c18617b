// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_test - what follows `is`: the tests of jinja2/tests.py.
 */
#include "llm/jinja_value.h"

struct jtest {
    const char *name;
    bool (*call)(struct jinja *j, struct jv v, const struct jv *arg);
    size_t n_args;
};

const struct jtest *jtest_find(const char *name, size_t n); // NULL: none of that name
bool jtest_apply(struct jinja *j, const struct jtest *t, struct jv v, const struct jargs *a);
