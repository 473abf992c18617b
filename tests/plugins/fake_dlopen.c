// SPDX-License-Identifier: Apache-2.0
/*
 * fake_dlopen - never gets as far as being looked at: fake_dlcrash.so dies in dlopen(),
 * fake_dlhang.so hangs there.
 */
#include "plugin.h"

#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void at_dlopen(void)
{
    for (;;) {
        if (FAKE_DLCRASH)
            abort();
        pause();
    }
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    (void)self, (void)reqs, (void)n;
    return SV_OK;
}

SV_PLUGIN(.name = FAKE_NAME, .run = run);
