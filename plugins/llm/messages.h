// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * messages - a conversation as a chat template expects it: contents as one string, the arguments of
 * tool calls as objects, reasoning under both its names (vLLM's entrypoints/chat_utils.py).
 */
#include "llm/params.h"

struct refusal;

struct messages {
    yyjson_val *list;  // of the request, or of `doc`
    yyjson_val *extra; // object of template variables, or NULL
    yyjson_doc *doc;   // owned; NULL where the request's own will do
};

int messages_make(const struct params *p, struct messages *ret, struct refusal *why);
void messages_finish(struct messages *m);
