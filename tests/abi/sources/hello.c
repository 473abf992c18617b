// SPDX-License-Identifier: Apache-2.0
// The smallest plugin, as the comment at the top of plugin.h has it.
#include "plugin.h"

static int run(void *self, sv_req **reqs, uint32_t n)
{
    (void)self;
    for (uint32_t i = 0; i < n; i++)
        sv_send(reqs[i], "hello", 5);
    return SV_OK;
}

SV_PLUGIN(.name = "hello", .run = run);
