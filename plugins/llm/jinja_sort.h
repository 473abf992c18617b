// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_sort - Python's sorted(): stable, also in reverse; fails for keys without an order.
 */
#include "llm/jinja_value.h"

// items in the order of keys, both lists of the same length.
struct jv jsort(struct jinja *j, struct jv items, struct jv keys, bool reverse);
