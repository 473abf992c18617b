// SPDX-License-Identifier: Apache-2.0
// Audio in, text out over one websocket: every callback of the streaming side.
#include "form.h"

#include <stdlib.h>

typedef struct {
    size_t bytes;
} session;

static int load(void *self, const sv_place *place)
{
    (void)self;
    return place->n_devices > 0 && place->devices[0]->kind == SV_CUDA ? SV_E_UNSUPPORTED : SV_OK;
}

static int submit(void *self, sv_req *r)
{
    (void)self;
    return (r->user = calloc(1, sizeof(session))) ? SV_OK : SV_E_OVERLOADED;
}

static int input(void *self, sv_req *r, const void *pcm, size_t n, uint32_t flags)
{
    (void)self, (void)pcm;
    session *s = r->user;
    char text[32];
    s->bytes += n;
    int len = snprintf(text, sizeof text, "%zu", s->bytes);
    int got = r->host->send(r, text, (size_t)len, SV_TEXT | SV_FLUSH);
    if (flags & SV_FIN) {
        free(s);
        sv_end(r);
    }
    return got == SV_AGAIN ? SV_AGAIN : SV_OK;
}

static void cancel(void *self, sv_req *r)
{
    (void)self;
    free(r->user);
    r->host->end(r, SV_E_CANCELLED, NULL);
}

static void again(void *self, void *arg)
{
    (void)self;
    sv_req *r = arg;
    r->host->resume(r);
}

static void writable(void *self, sv_req *r)
{
    (void)self;
    if (SV_HAS(r->host, post))
        r->host->post(r->host, 0, again, r);
}

static int64_t step(void *self)
{
    (void)self;
    return SV_IDLE;
}

SV_PLUGIN(.name = "asr", .load = load, .submit = submit, .input = input, .cancel = cancel,
          .writable = writable, .step = step);
