// SPDX-License-Identifier: Apache-2.0
/*
 * ledger - a batched plugin that is busy for a while and writes down every request it was given:
 * which, when, in which process and batch. ?us=N asks for another time, the longest of a batch
 * counts; ?reply=N for an answer of N bytes.
 */
#define _GNU_SOURCE
#include "plugin.h"

#include <stdlib.h>

#include "ledger.h"

enum { BATCH_MAX = 1024, REPLY_MAX = 64 << 10 };

struct self {
    struct ledger *ledger;
    int64_t busy_us;
    _Atomic uint64_t now; // requests in run()
};

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    struct self *s = calloc(1, sizeof *s);
    if (!s)
        return host->fail(host, SV_E_NOMEM, "ledger: no memory");
    s->busy_us = host->cfg_int(cfg, "busy_us", 0);
    *self = s;
    const char *path = host->cfg_str(cfg, "path", "");
    s->ledger = *path ? ledger_open(path) : NULL;
    if (!s->ledger) {
        free(s);
        return host->fail(host, SV_E_INVALID, "ledger: `path` is not a file that can be mapped");
    }
    return SV_OK;
}

static int64_t number(const sv_req *r, const char *name, int64_t fallback)
{
    char text[24];
    return sv_query(r, name, text, sizeof text) > 0 ? strtoll(text, NULL, 10) : fallback;
}

static void sleep_us(int64_t us)
{
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

static void answer(sv_req *r, const struct ledger_row *row)
{
    static const char filler[REPLY_MAX] = {0};
    char text[128];
    int64_t more = number(r, "reply", 0);
    int n = snprintf(text, sizeof text, "%llu %u %u %u\n", (unsigned long long)row->id, row->pid,
                     row->batch, row->n_batch);
    r->host->head(r, 200, "text/plain");
    r->host->send(r, text, (size_t)n, 0);
    if (more > 0)
        r->host->send(r, filler, more < REPLY_MAX ? (size_t)more : REPLY_MAX, SV_FIN);
    sv_end(r);
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    struct self *s = self;
    struct ledger_row *rows[BATCH_MAX];
    int64_t busy_us = 0;
    if (n > BATCH_MAX)
        return SV_E_OVERLOADED;
    uint64_t batch = atomic_fetch_add(&s->ledger->batches, 1) + 1;
    ledger_at_once(s->ledger, atomic_fetch_add(&s->now, n) + n);
    for (uint32_t i = 0; i < n; i++) {
        int64_t us = number(reqs[i], "us", s->busy_us);
        rows[i] = ledger_begin(s->ledger, reqs[i], batch, n);
        busy_us = us > busy_us ? us : busy_us;
    }
    if (busy_us > 0)
        sleep_us(busy_us);
    for (uint32_t i = 0; i < n; i++)
        ledger_end(s->ledger, rows[i], LEDGER_ENDED);
    atomic_fetch_sub(&s->now, n);
    for (uint32_t i = 0; i < n; i++)
        answer(reqs[i], rows[i]);
    return SV_OK;
}

static const sv_option options[] = {
    {SV_STR, SV_REQUIRED, "path", NULL, 0, 0, "The ledger's file."},
    {SV_INT, 0, "busy_us", "0", 0, 1e9, "How long one run() takes, in us."},
};

SV_PLUGIN(.name = "ledger", .version = "1.0", .about = "writes down what it is given",
          SV_OPTIONS(options), .create = create, .destroy = free, .run = run);
