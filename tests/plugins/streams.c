// SPDX-License-Identifier: Apache-2.0
/*
 * streams - event streams on demand, written down in a ledger (see ledger.h).
 *
 * ?n=N events (0: until cancelled), ?every_us=N between two, ?bytes=N each. ?push=1 goes on sending
 * when send() says SV_AGAIN, as a plugin must not; else it waits for writable(). With the option
 * `stream_in` bodies come by input(), and ?upload=1 is answered with the number of its bytes.
 */
#define _GNU_SOURCE
#include "plugin.h"

#include <stdlib.h>

#include "ledger.h"

enum { STREAMS_MAX = 2048, EVENT_MAX = 64 << 10 };

struct stream {
    sv_req *req;
    struct ledger_row *row;
    int64_t left, every_ns, next_ns;
    size_t bytes;
    bool endless, push, paused, upload;
    uint64_t received;
};

struct self {
    struct ledger *ledger;
    bool stream_in;
    uint32_t n;
    struct stream *open[STREAMS_MAX]; // owned, [0, n)
    char event[EVENT_MAX];
};

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    struct self *s = calloc(1, sizeof *s);
    if (!s)
        return host->fail(host, SV_E_NOMEM, "streams: no memory");
    memset(s->event, 'x', sizeof s->event);
    s->stream_in = host->cfg_int(cfg, "stream_in", 0) != 0;
    *self = s;
    const char *path = host->cfg_str(cfg, "path", "");
    s->ledger = *path ? ledger_open(path) : NULL;
    if (!s->ledger) {
        free(s);
        return host->fail(host, SV_E_INVALID, "streams: `path` is not a file that can be mapped");
    }
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    p->max_inflight = STREAMS_MAX;
    if (((struct self *)self)->stream_in)
        p->flags |= SV_PLAN_STREAM_IN;
    return SV_OK;
}

static int64_t number(const sv_req *r, const char *name, int64_t fallback)
{
    char text[24];
    return sv_query(r, name, text, sizeof text) > 0 ? strtoll(text, NULL, 10) : fallback;
}

static int submit(void *self, sv_req *r)
{
    struct self *s = self;
    if (s->n == STREAMS_MAX)
        return SV_E_OVERLOADED;
    struct stream *t = calloc(1, sizeof *t);
    if (!t)
        return SV_E_OVERLOADED;
    t->req = r;
    t->row = ledger_begin(s->ledger, r, 0, 1);
    t->left = number(r, "n", 10);
    t->endless = t->left == 0;
    t->every_ns = number(r, "every_us", 10000) * 1000;
    t->next_ns = (int64_t)ledger_now();
    t->bytes = (size_t)number(r, "bytes", 16);
    t->bytes = t->bytes < EVENT_MAX ? t->bytes : EVENT_MAX;
    t->push = number(r, "push", 0) != 0;
    t->upload = number(r, "upload", 0) != 0;
    t->paused = t->upload;
    r->user = t;
    s->open[s->n++] = t;
    ledger_at_once(s->ledger, s->n);
    r->host->head(r, 200, t->upload ? "text/plain" : "text/event-stream");
    return SV_OK;
}

static void finish(struct self *s, struct stream *t, int code)
{
    uint32_t at = 0;
    while (s->open[at] != t)
        at++;
    s->open[at] = s->open[--s->n];
    ledger_end(s->ledger, t->row, code == SV_OK ? LEDGER_ENDED : LEDGER_CANCELLED);
    t->req->host->end(t->req, code, NULL);
    free(t);
}

static int input(void *self, sv_req *r, const void *data, size_t n, uint32_t flags)
{
    (void)data;
    struct stream *t = r->user;
    char text[32];
    t->received += n;
    if (t->upload && (flags & SV_FIN)) {
        sv_send(r, text,
                (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)t->received));
        finish(self, t, SV_OK);
    }
    return SV_OK;
}

static void cancel(void *self, sv_req *r)
{
    struct self *s = self;
    atomic_fetch_add(&s->ledger->cancels, 1);
    finish(s, r->user, SV_E_CANCELLED);
}

static void writable(void *self, sv_req *r)
{
    (void)self;
    struct stream *t = r->user;
    t->paused = t->upload;
}

// False: that was its last event.
static bool advance(struct self *s, struct stream *t, int64_t now)
{
    if (t->paused || t->next_ns > now)
        return true;
    if (sv_send(t->req, s->event, t->bytes) == SV_AGAIN) {
        atomic_fetch_add(&s->ledger->paused, 1);
        t->paused = !t->push;
    }
    atomic_fetch_add(&s->ledger->events, 1);
    t->next_ns = t->next_ns + t->every_ns > now ? t->next_ns + t->every_ns : now;
    return t->endless || --t->left > 0;
}

static int64_t step(void *self)
{
    struct self *s = self;
    int64_t now = (int64_t)ledger_now(), next = SV_IDLE;
    for (uint32_t i = 0; i < s->n;) {
        struct stream *t = s->open[i];
        if (!advance(s, t, now)) {
            finish(s, t, SV_OK);
            continue;
        }
        if (!t->paused && t->next_ns < next)
            next = t->next_ns;
        i++;
    }
    if (next == SV_IDLE)
        return SV_IDLE;
    now = (int64_t)ledger_now();
    return next > now ? next - now : 0;
}

static const sv_option options[] = {
    {SV_STR, SV_REQUIRED, "path", NULL, 0, 0, "The ledger's file."},
    {SV_BOOL, 0, "stream_in", "false", 0, 0, "Bodies come by input()."},
};

SV_PLUGIN(.name = "streams", .version = "1.0", .about = "event streams on demand",
          SV_OPTIONS(options), .create = create, .destroy = free, .plan = plan, .submit = submit,
          .input = input, .cancel = cancel, .writable = writable, .step = step);
