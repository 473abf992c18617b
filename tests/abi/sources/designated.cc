// SPDX-License-Identifier: Apache-2.0
// A plugin in C++20, which has designated initialisers.
#include "plugin.h"

static int run(void *, sv_req **reqs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        sv_fail(reqs[i], SV_E_UNSUPPORTED, "request %u of %u", i, n);
    return SV_OK;
}

static const sv_option options[] = {
    {SV_TIME, SV_REQUIRED, "wait", nullptr, 0, 60, "How long (s)."},
};

SV_PLUGIN(.name = "designated", SV_OPTIONS(options), .run = run);
