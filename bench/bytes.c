// SPDX-License-Identifier: Apache-2.0
/*
 * bytes - answers GET /N with N bytes `x`, so that a no-op can be measured against a static file.
 * N is at most 1 MiB; anything else is 404.
 */
#include "plugin.h"

#include <stdlib.h>

enum { BYTES_MAX = 1 << 20 };

static char text[BYTES_MAX];

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    (void)host;
    (void)cfg;
    memset(text, 'x', sizeof text);
    *self = text;
    return SV_OK;
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    (void)self;
    for (uint32_t i = 0; i < n; i++) {
        const char *path = reqs[i]->path;
        unsigned long want = strtoul(path + (*path == '/'), NULL, 10);
        if (want == 0 || want > BYTES_MAX)
            sv_fail(reqs[i], SV_E_NOT_FOUND, "ask for /1 to /%d", BYTES_MAX);
        else
            sv_reply(reqs[i], "text/plain", text, want);
    }
    return SV_OK;
}

SV_PLUGIN(.name = "bytes", .version = "1.0", .about = "N bytes for GET /N", .create = create,
          .run = run);
