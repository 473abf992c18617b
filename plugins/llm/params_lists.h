// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * params_lists - the fields of a request that are lists or maps, and the numbers in them.
 */
#include "llm/params.h"

enum { PARAMS_SHOWN = 96 }; // bytes of a value in a refusal

struct params_reader {
    struct params *p;
    const struct params_limits *limits;
    struct refusal *why;
    bool wants_logprobs, has_stream_options, no_tool_calls, says_generation_prompt;
    bool all_prompt_logprobs; // prompt_logprobs: -1
    int64_t logprobs_default;
};

// A whole number, also as 16.0; false: it is none, or none that fits.
bool params_int(yyjson_val *v, int64_t *ret);
// The value as the client wrote it, cut; an array or object by its kind. NULL: "nothing".
const char *params_show(yyjson_val *v, char out[PARAMS_SHOWN]);

int params_read_ids(struct params_reader *r, const char *name, yyjson_val *v, struct id_list *ret);
int params_read_bias(struct params_reader *r, yyjson_val *v);
int params_read_stop(struct params_reader *r, yyjson_val *v);
int params_check_prompt(struct params_reader *r, yyjson_val *v);
