// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_global - the functions every chat template finds: range, dict, namespace, cycler, joiner,
 * raise_exception, strftime_now.
 */
#include "llm/jinja_value.h"

void jglobal_add(struct jinja *j, struct jdict *context);
