/*
 * @name@ - greets whoever asks: a plugin to start from. Everything it may use is in plugin.h.
 */
#include "plugin.h"

#include <stdlib.h>

typedef struct {
    const char *greeting; // the core's, valid until destroy
    sv_metric *greeted;
} state;

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    state *s = calloc(1, sizeof *s);
    if (!s)
        return h->fail(h, SV_E_NOMEM, "@name@: no memory");
    s->greeting = h->cfg_str(cfg, "greeting", "Hello");
    s->greeted = h->metric(h, SV_COUNTER, "@name@_greeted_total", "Names greeted.", NULL, 0);
    *self = s;
    return SV_OK;
}

// One call for each batch. Whatever stays open here the core ends.
static int run(void *self, sv_req **reqs, uint32_t n)
{
    state *s = self;
    for (uint32_t i = 0; i < n; i++) {
        char name[128], text[512];
        if (sv_query(reqs[i], "name", name, sizeof name) <= 0) {
            sv_fail(reqs[i], SV_E_INVALID, "Say who you are: ?name=NAME, up to 127 bytes.");
            continue;
        }
        int len = snprintf(text, sizeof text, "%.256s, %s!\n", s->greeting, name);
        reqs[i]->host->record(s->greeted, 1);
        sv_reply(reqs[i], "text/plain; charset=utf-8", text, (size_t)len);
    }
    return SV_OK;
}

static const sv_option options[] = {
    {SV_STR, 0, "greeting", "Hello", 0, 0, "The word before the name."},
};

SV_PLUGIN(.name = "@name@", .version = "0.1", .about = "Greets whoever asks.", SV_OPTIONS(options),
          .create = create, .run = run, .destroy = free);
