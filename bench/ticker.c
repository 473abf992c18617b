// SPDX-License-Identifier: Apache-2.0
/*
 * ticker - every open stream gets one event each tick, so that the ingress's cost of one event in a
 * frame of its own can be measured. All streams tick together, like the streams of one LLM batch.
 */
#define _POSIX_C_SOURCE 200809L
#include "plugin.h"

#include <stdlib.h>
#include <time.h>

enum { STREAMS_MAX = 1024 };

struct ticker {
    int64_t every_ns, next_ns;
    uint32_t bytes, n;
    char event[1024];
    sv_req *streams[STREAMS_MAX];
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    struct ticker *t = calloc(1, sizeof *t);
    if (!t)
        return host->fail(host, SV_E_NOMEM, "ticker: no memory");
    t->every_ns = host->cfg_int(cfg, "every_us", 1000) * 1000;
    t->bytes = (uint32_t)host->cfg_int(cfg, "bytes", 16);
    memset(t->event, 'x', sizeof t->event);
    *self = t;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_inflight = STREAMS_MAX;
    return SV_OK;
}

static int submit(void *self, sv_req *r)
{
    struct ticker *t = self;
    if (t->n == STREAMS_MAX)
        return SV_E_OVERLOADED;
    r->host->head(r, 200, "text/event-stream");
    if (t->n == 0)
        t->next_ns = now_ns() + t->every_ns;
    t->streams[t->n++] = r;
    return SV_OK;
}

static void cancel(void *self, sv_req *r)
{
    struct ticker *t = self;
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->streams[i] == r) {
            t->streams[i] = t->streams[--t->n];
            r->host->end(r, SV_E_CANCELLED, NULL);
            return;
        }
    }
}

static int64_t step(void *self)
{
    struct ticker *t = self;
    if (t->n == 0)
        return SV_IDLE;
    int64_t now = now_ns();
    if (now >= t->next_ns) {
        for (uint32_t i = 0; i < t->n; i++)
            sv_send(t->streams[i], t->event, t->bytes);
        t->next_ns += t->every_ns;
        if (t->next_ns < now) // a late tick is not made up for
            t->next_ns = now + t->every_ns;
    }
    int64_t left = t->next_ns - now_ns();
    return left > 0 ? left : 0;
}

static const sv_option options[] = {
    {SV_INT, 0, "every_us", "1000", 10, 1e9, "Time between two events of a stream, in us."},
    {SV_INT, 0, "bytes", "16", 1, 1024, "Bytes of one event."},
};

SV_PLUGIN(.name = "ticker", .version = "1.0", .about = "one event a tick on every stream",
          SV_OPTIONS(options), .create = create, .destroy = free, .plan = plan, .submit = submit,
          .cancel = cancel, .step = step);
