// SPDX-License-Identifier: Apache-2.0
/*
 * counter - counts aloud as server-sent events: continuous batching in miniature, without threads
 * or locks. Each step() advances every open stream that is due by one event, as a language model
 * advances every sequence by one token. ?count=N asks for another length.
 */
#define _POSIX_C_SOURCE 200809L
#include "plugin.h"

#include <stdlib.h>
#include <time.h>

enum { STREAMS_MAX = 1024, COUNT_MAX = 1000000 };

typedef struct {
    sv_req *req;
    int64_t at, count;
    uint64_t due_ns;
    bool paused; // the client is slow: wait for writable()
} stream;

typedef struct {
    int64_t count;
    uint64_t interval_ns;
    sv_metric *events, *cancels;
    stream *open[STREAMS_MAX]; // owned, open[0, n_open)
    int n_open;
} counter;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    counter *c = calloc(1, sizeof *c);
    if (!c)
        return h->fail(h, SV_E_NOMEM, "counter: no memory");
    c->count = h->cfg_int(cfg, "count", 10);
    c->interval_ns = (uint64_t)(h->cfg_num(cfg, "interval", 0.1) * 1e9);
    c->events = h->metric(h, SV_COUNTER, "counter_events_total", "Events sent.", NULL, 0);
    c->cancels = h->metric(h, SV_COUNTER, "counter_cancelled_total",
                           "Streams whose client left early.", NULL, 0);
    *self = c;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_inflight = STREAMS_MAX;
    return SV_OK;
}

// The number in ?count=, or the configured one; 0 if it is none or out of range.
static int64_t wanted(const counter *c, const sv_req *r)
{
    char text[24], *end;
    if (sv_query(r, "count", text, sizeof text) < 0)
        return c->count;
    long long n = strtoll(text, &end, 10);
    return *end == 0 && n >= 1 && n <= COUNT_MAX ? n : 0;
}

static int submit(void *self, sv_req *r)
{
    counter *c = self;
    int64_t count = wanted(c, r);
    if (count == 0)
        return r->host->fail(r->host, SV_E_INVALID, "count must be a number from 1 to 1000000");
    if (c->n_open == STREAMS_MAX)
        return SV_E_OVERLOADED;
    stream *s = calloc(1, sizeof *s);
    if (!s)
        return SV_E_OVERLOADED;
    *s = (stream){.req = r, .count = count, .due_ns = now_ns()};
    r->user = s;
    c->open[c->n_open++] = s;
    r->host->head(r, 200, "text/event-stream");
    return SV_OK;
}

static void close_stream(counter *c, int i, int code)
{
    stream *s = c->open[i];
    if (code == SV_E_CANCELLED)
        s->req->host->record(c->cancels, 1);
    s->req->host->end(s->req, code, NULL);
    c->open[i] = c->open[--c->n_open];
    free(s);
}

static void advance(counter *c, stream *s, uint64_t now)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%lld", (long long)++s->at);
    s->paused = sv_send(s->req, text, (size_t)len) == SV_AGAIN;
    s->req->host->record(c->events, 1);
    s->due_ns += c->interval_ns;
    if (s->due_ns < now) // late, as after a pause: no burst to catch up
        s->due_ns = now;
}

static int64_t step(void *self)
{
    counter *c = self;
    uint64_t now = now_ns(), next = UINT64_MAX;
    for (int i = c->n_open - 1; i >= 0; i--) {
        stream *s = c->open[i];
        if (s->req->host->cancelled(s->req)) {
            close_stream(c, i, SV_E_CANCELLED);
            continue;
        }
        if (!s->paused && s->due_ns <= now)
            advance(c, s, now);
        if (s->at == s->count)
            close_stream(c, i, SV_OK);
        else if (!s->paused && s->due_ns < next)
            next = s->due_ns;
    }
    if (next == UINT64_MAX)
        return SV_IDLE;
    return next > now ? (int64_t)(next - now) : 0;
}

// step() would notice too, but only when the next event is due.
static void cancel(void *self, sv_req *r)
{
    counter *c = self;
    for (int i = 0; i < c->n_open; i++)
        if (c->open[i]->req == r) {
            close_stream(c, i, SV_E_CANCELLED);
            return;
        }
}

static void writable(void *self, sv_req *r)
{
    (void)self;
    ((stream *)r->user)->paused = false;
}

static const sv_option options[] = {
    {SV_INT, 0, "count", "10", 1, COUNT_MAX, "How far to count where the request doesn't say."},
    {SV_TIME, 0, "interval", "100ms", 0, 3600, "Time between two events."},
};

SV_PLUGIN(.name = "counter", .version = "1.0", .about = "Counts aloud as server-sent events.",
          SV_OPTIONS(options), .create = create, .plan = plan, .submit = submit, .cancel = cancel,
          .writable = writable, .step = step, .destroy = free);
