// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * api - OpenAI's paths below the route prefix, and who answers them.
 *
 *     POST /v1/chat/completions, /v1/completions      exchange.c
 *     POST /tokenize, /detokenize                     here, at once
 *     GET  /v1/models                                 the core, before it comes here; also here
 *
 * Body   JSON. curl's default of application/x-www-form-urlencoded is let by: it is what people
 *        send by -d, and the body is parsed strictly in any case.
 */
#include "abi/plugin.h"

struct instance;

int api_submit(struct instance *in, sv_req *r); // as sv_plugin's submit; refusals are answered
