// SPDX-License-Identifier: Apache-2.0
/*
 * abi_pull - streams that send as fast as their client takes it, and what that takes of the plugin.
 *
 * GET /pull sends events of 1 KiB until send() says SV_AGAIN, and again at each writable().
 * GET /tick is its neighbour: one event each 10 ms. Metrics count sends, pauses and writables.
 */
#define _GNU_SOURCE
#include "plugin.h"

#include <stdlib.h>
#include <time.h>

enum { STREAMS_MAX = 2048, EVENT_BYTES = 1024, EVERY_NS = 10000000 };

struct pull {
    sv_metric *sends, *pauses, *writables;
    char event[EVENT_BYTES];
    uint32_t n;
    int64_t next_ns;
    sv_req *ticking[STREAMS_MAX];
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    (void)cfg;
    struct pull *p = calloc(1, sizeof *p);
    if (!p)
        return h->fail(h, SV_E_NOMEM, "abi_pull: no memory");
    memset(p->event, 'x', sizeof p->event);
    p->sends = h->metric(h, SV_COUNTER, "pull_sends_total", "Events sent.", NULL, 0);
    p->pauses = h->metric(h, SV_COUNTER, "pull_pauses_total", "SV_AGAIN of send().", NULL, 0);
    p->writables = h->metric(h, SV_COUNTER, "pull_writables_total", "Calls.", NULL, 0);
    *self = p;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_inflight = STREAMS_MAX;
    return SV_OK;
}

static void fill(struct pull *p, sv_req *r)
{
    int rc;
    uint32_t n = 0;
    do {
        rc = sv_send(r, p->event, EVENT_BYTES);
        n++;
    } while (rc == SV_OK);
    r->host->record(p->sends, n);
    if (rc == SV_AGAIN)
        r->host->record(p->pauses, 1);
}

static int submit(void *self, sv_req *r)
{
    struct pull *p = self;
    bool tick = strcmp(r->path, "/tick") == 0;
    if (tick && p->n == STREAMS_MAX)
        return SV_E_OVERLOADED;
    r->host->head(r, 200, "text/event-stream");
    if (!tick)
        fill(p, r);
    else
        p->ticking[p->n++] = r;
    return SV_OK;
}

static void writable(void *self, sv_req *r)
{
    struct pull *p = self;
    r->host->record(p->writables, 1);
    fill(p, r);
}

static void cancel(void *self, sv_req *r)
{
    struct pull *p = self;
    for (uint32_t i = 0; i < p->n; i++)
        if (p->ticking[i] == r) {
            p->ticking[i] = p->ticking[--p->n];
            break;
        }
    r->host->end(r, SV_E_CANCELLED, NULL);
}

static int64_t step(void *self)
{
    struct pull *p = self;
    if (p->n == 0)
        return SV_IDLE;
    if (now_ns() >= p->next_ns) {
        for (uint32_t i = 0; i < p->n; i++)
            sv_send(p->ticking[i], "tick", 4);
        p->next_ns = p->next_ns + EVERY_NS > now_ns() ? p->next_ns + EVERY_NS : now_ns() + EVERY_NS;
    }
    int64_t left = p->next_ns - now_ns();
    return left > 0 ? left : 0;
}

SV_PLUGIN(.name = "abi_pull", .version = "1.0", .about = "streams as fast as the client takes it",
          .create = create, .destroy = free, .plan = plan, .submit = submit, .writable = writable,
          .cancel = cancel, .step = step);
