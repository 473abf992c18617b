// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_scope - which variable a name is: done once, after parsing.
 *
 * Loops, macros, calls, filters, `with` and set blocks have scopes of their own; `if` has not. A
 * name belongs to the scope that sets it anywhere in its text, also where that comes later, and
 * begins there as the outer variable of that name, as the input's, or as undefined: the rules of
 * jinja2/idtracking.py, surprises included, because templates were written against them.
 *
 * Bounds  compilation's steps: names of one scope are searched in turn.
 */
#include "llm/jinja_node.h"

void jscope_run(struct jinja *j, struct node *root);
