// SPDX-License-Identifier: Apache-2.0
/*
 * llm - language models behind OpenAI's API.
 */
#include "plugin.h"

static int submit(void *self, sv_req *r)
{
    (void)self;
    return r->host->fail(r->host, SV_E_UNSUPPORTED, "no model is served yet");
}

SV_PLUGIN(.name = "llm", .version = "1.0", .about = "Language models behind OpenAI's API.",
          .submit = submit);
