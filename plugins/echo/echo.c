// SPDX-License-Identifier: Apache-2.0
/*
 * echo - answers each request with its own body; the core collects the batches.
 */
#include "plugin.h"

#include <stdlib.h>

typedef struct {
    const sv_host *host;
    const char *prefix;
    size_t prefix_len;
    sv_metric *bytes;
} echo;

static int reconfigure(void *self, const sv_cfg *cfg)
{
    echo *e = self;
    e->prefix = e->host->cfg_str(cfg, "prefix", ""); // cfg lives as long as we do
    e->prefix_len = strlen(e->prefix);
    return SV_OK;
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    echo *e = calloc(1, sizeof *e);
    if (!e)
        return h->fail(h, SV_E_NOMEM, "echo: no memory");
    e->host = h;
    reconfigure(e, cfg);
    e->bytes = h->metric(h, SV_COUNTER, "echo_bytes_total", "Bytes echoed.", NULL, 0);
    *self = e;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_batch = 32;
    p->batch_wait_us = 0; // nothing is gained by waiting: a batch is what came meanwhile
    p->max_inflight = 1024;
    return SV_OK;
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    echo *e = self;
    for (uint32_t i = 0; i < n; i++) {
        sv_req *r = reqs[i];
        if (r->body_len == 0) {
            sv_fail(r, SV_E_INVALID, "There is nothing to echo: send a body.");
            continue;
        }
        r->host->record(e->bytes, (double)r->body_len);
        r->host->head(r, 200, *r->content_type ? r->content_type : "text/plain");
        if (e->prefix_len > 0)
            sv_send(r, e->prefix, e->prefix_len);
        r->host->send(r, r->body, r->body_len, SV_FIN);
        sv_end(r);
    }
    return SV_OK;
}

static const sv_option options[] = {
    {SV_STR, SV_LIVE, "prefix", "", 0, 0, "Written before every echo."},
};

SV_PLUGIN(.name = "echo", .version = "1.0", .about = "Answers with what it was sent.",
          SV_OPTIONS(options), .create = create, .plan = plan, .reconfigure = reconfigure,
          .run = run, .destroy = free);
