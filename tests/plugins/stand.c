// SPDX-License-Identifier: Apache-2.0
/*
 * stand - what KubeRay's fruit and math samples ask of Ray: POST ["PEAR", 12] is answered with
 * 12 * price, ["ADD", 2] with 2 + increment, ["MUL", 2] with 2 * factor. The three are live
 * options.
 */
#include "plugin.h"

#include <stdlib.h>
#include <unistd.h>

typedef struct {
    const sv_host *host;
    int64_t price, increment, factor;
} stand;

static int reconfigure(void *self, const sv_cfg *cfg)
{
    stand *s = self;
    s->price = s->host->cfg_int(cfg, "price", 0);
    s->increment = s->host->cfg_int(cfg, "increment", 0);
    s->factor = s->host->cfg_int(cfg, "factor", 0);
    if (s->price < 0)
        return s->host->fail(s->host, SV_E_INVALID, "stand: a price is not below 0");
    return SV_OK;
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    stand *s = calloc(1, sizeof *s);
    if (!s)
        return h->fail(h, SV_E_NOMEM, "stand: no memory");
    s->host = h;
    *self = s;
    return reconfigure(s, cfg);
}

static void answer(const stand *s, sv_req *r)
{
    char what[16] = "", text[32], pid[32];
    int n = 0;
    if (!r->body_len || sscanf(r->body, " [ \"%15[A-Z]\" , %d ]", what, &n) != 2) {
        sv_fail(r, SV_E_INVALID, "send [\"PEAR\", 12]");
        return;
    }
    int64_t result = strcmp(what, "ADD") == 0   ? n + s->increment
                     : strcmp(what, "MUL") == 0 ? n * s->factor
                                                : n * s->price;
    int len = snprintf(text, sizeof text, "%lld", (long long)result);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    r->host->head(r, 200, "application/json");
    r->host->header(r, "x-pid", pid);
    r->host->send(r, text, (size_t)len, SV_FIN);
    sv_end(r);
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        answer(self, reqs[i]);
    return SV_OK;
}

static const sv_option options[] = {
    {SV_INT, SV_LIVE, "price", "0", 0, 0, "Of one piece of fruit."},
    {SV_INT, SV_LIVE, "increment", "0", 0, 0, "What ADD adds."},
    {SV_INT, SV_LIVE, "factor", "0", 0, 0, "By what MUL multiplies."},
};

SV_PLUGIN(.name = "stand", .version = "1.0", .about = "Sells fruit, for tests.",
          SV_OPTIONS(options), .create = create, .reconfigure = reconfigure, .run = run,
          .destroy = free);
