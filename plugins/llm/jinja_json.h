// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_json - the filter tojson as transformers defines it: json.dumps(value, ensure_ascii,
 * indent, separators, sort_keys).
 */
#include "llm/jinja_value.h"

struct jv jjson_filter(struct jinja *j, struct jv value, const struct jargs *a);
