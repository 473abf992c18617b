// SPDX-License-Identifier: Apache-2.0
/*
 * wsecho - sends every websocket message back. A client that sends but doesn't read is held up by
 * its own answers: when send() says SV_AGAIN, so does input(), until writable().
 */
#include "plugin.h"

#include <stdlib.h>

typedef struct {
    sv_metric *messages;
} wsecho;

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    (void)cfg;
    wsecho *w = calloc(1, sizeof *w);
    if (!w)
        return h->fail(h, SV_E_NOMEM, "wsecho: no memory");
    w->messages = h->metric(h, SV_COUNTER, "wsecho_messages_total", "Messages sent back.", NULL, 0);
    *self = w;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_inflight = 1024;
    return SV_OK;
}

static int submit(void *self, sv_req *r)
{
    (void)self;
    if (r->flags & SV_REQ_WEBSOCKET)
        return SV_OK;
    return r->host->fail(r->host, -426, "wsecho speaks websocket only (RFC 6455)");
}

static int input(void *self, sv_req *r, const void *data, size_t len, uint32_t flags)
{
    wsecho *w = self;
    int got = SV_OK;
    if (len > 0 || !(flags & SV_FIN)) { // an empty message counts, an empty end does not
        got = r->host->send(r, data, len, flags & SV_TEXT);
        r->host->record(w->messages, 1);
    }
    if (flags & SV_FIN) {
        sv_end(r);
        return SV_OK;
    }
    return got == SV_AGAIN ? SV_AGAIN : SV_OK;
}

static void writable(void *self, sv_req *r)
{
    (void)self;
    r->host->resume(r);
}

static void cancel(void *self, sv_req *r)
{
    (void)self;
    r->host->end(r, SV_E_CANCELLED, NULL);
}

SV_PLUGIN(.name = "wsecho", .version = "1.0", .about = "Sends websocket messages back.",
          .create = create, .plan = plan, .submit = submit, .input = input, .writable = writable,
          .cancel = cancel, .destroy = free);
