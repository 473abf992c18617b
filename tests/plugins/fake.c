// SPDX-License-Identifier: Apache-2.0
/*
 * fake - the plugin that tests misuse. One source, two modes: fake_run.so (run, batches by the
 * core) and fake_step.so (submit, step, input). README.md beside this file lists every knob.
 *
 * Config   how the process behaves: `do` (fake_rules.h), plan values, health, `defaults`.
 * Query    how one request behaves: each row of `knobs` below; `defaults` is a query string that
 *          fills in what the request doesn't say.
 * Answer   JSON that says who answered: pid, batch, open now, most ever open at once, ...
 */
#define _GNU_SOURCE
#include "fake_models.h"
#include "fake_rules.h"

#include <pthread.h>
#include <stdatomic.h>

enum { STREAMS_MAX = 65536, MESSAGE_MAX = 4096, CHUNK = 65536 };

typedef struct {
    int64_t sleep_ms, busy_ms, block_ms, late_ms, timer_ms; // before the answer
    int64_t n, interval_ms, bytes, chunk, flood_mb;         // its shape
    int64_t status, fail, fail_after, refuse, health;
    int64_t sse, raw, text, flush, polite, hold, ignore_cancel, reserve, echo, note;
    int64_t again_ms,
        input_ms; // input(): SV_AGAIN for so long after each piece; blocks for so long
    char rules[256], lie[32], type[128], ws[16];
} ask;

#define NUMBER(name)                                                                               \
    {                                                                                              \
#name, offsetof(ask, name), 0                                                              \
    }
#define STRING(name, as)                                                                           \
    {                                                                                              \
        as, offsetof(ask, name), sizeof(((ask *)0)->name)                                          \
    }
static const struct {
    const char *name;
    size_t at, cap; // cap 0: an int64_t
} knobs[] = {
    NUMBER(sleep_ms),    NUMBER(busy_ms),       NUMBER(block_ms),
    NUMBER(late_ms),     NUMBER(timer_ms),      NUMBER(n),
    NUMBER(interval_ms), NUMBER(bytes),         NUMBER(chunk),
    NUMBER(flood_mb),    NUMBER(status),        NUMBER(fail),
    NUMBER(refuse),      NUMBER(health),        NUMBER(fail_after),
    NUMBER(sse),         NUMBER(raw),           NUMBER(text),
    NUMBER(flush),       NUMBER(polite),        NUMBER(hold),
    NUMBER(reserve),     NUMBER(ignore_cancel), NUMBER(echo),
    NUMBER(note),        NUMBER(again_ms),      NUMBER(input_ms),
    STRING(rules, "do"), STRING(lie, "lie"),    STRING(type, "type"),
    STRING(ws, "ws"),
};

typedef struct stream {
    sv_req *req;
    ask ask;
    int64_t at;      // events sent
    uint64_t due_ns; // of the next
    uint64_t in_bytes, in_pieces, in_sum;
    bool paused, input_open, outside; // outside: a thread or timer will end it, step() must not
} stream;

typedef struct {
    const sv_host *host;
    const sv_cfg *cfg;
    const char *rules, *state, *defaults, *live, *tag;
    int trace_fd;
    _Atomic int64_t health;
    int64_t batch_sleep_ms, batch_busy_ms, refuse_first;
    _Atomic int64_t open_now, open_max, requests, cancels, ended, batches, largest, threads;
    _Atomic uint64_t calls[32]; // by callback, see called()
    sv_metric *m_requests, *m_cancels, *m_ended, *m_batches, *m_open_max;
    stream **open; // owned, open[0, n_open)
    int n_open;
} fake;

static const char *const callbacks[] = {
    "create",  "plan", "load",      "warm",   "reconfigure", "health", "drain",    "unload",
    "destroy", "run",  "batch_key", "submit", "input",       "cancel", "writable", "step",
};

// Config's rules for one callback. 0 or the code to return.
static int called(fake *f, const char *name)
{
    uint64_t nth = 1;
    for (size_t i = 0; i < sizeof callbacks / sizeof *callbacks; i++)
        if (!strcmp(callbacks[i], name))
            nth = ++f->calls[i];
    return trouble(f->host, f->rules, f->state, name, false, nth);
}

static int asked(fake *f, const ask *a, const char *name, bool first, uint64_t nth)
{
    return trouble(f->host, a->rules, f->state, name, first, nth);
}

// One line "PID WHAT ID" in the trace file; appended in one write, so that it survives a kill.
static void trace(fake *f, const char *what, const sv_req *r)
{
    char line[96];
    int len = snprintf(line, sizeof line, "%d %s %016llx\n", (int)getpid(), what,
                       (unsigned long long)r->id);
    if (f->trace_fd >= 0)
        (void)!write(f->trace_fd, line, (size_t)len);
}

static ask ask_of(const fake *f, const sv_req *r)
{
    ask a = {.status = 200, .chunk = CHUNK};
    sv_req defaults = {.query = f->defaults};
    const sv_req *from[] = {&defaults, r};
    for (size_t i = 0; i < 2 * sizeof knobs / sizeof *knobs; i++) {
        size_t k = i / 2;
        char text[sizeof a.rules], *field = (char *)&a + knobs[k].at;
        if (sv_query(from[i % 2], knobs[k].name, text, sizeof text) < 0)
            continue;
        if (knobs[k].cap)
            snprintf(field, knobs[k].cap, "%s", text);
        else
            *(int64_t *)(void *)field = strtoll(text, NULL, 10);
    }
    return a;
}

/* Counting: a request is open from run() or submit() to its end(). */

static void entered(fake *f, const sv_req *r)
{
    int64_t now = atomic_fetch_add(&f->open_now, 1) + 1, max = atomic_load(&f->open_max);
    while (now > max && !atomic_compare_exchange_weak(&f->open_max, &max, now))
        continue;
    atomic_fetch_add(&f->requests, 1);
    f->host->record(f->m_requests, 1);
    f->host->record(f->m_open_max, (double)atomic_load(&f->open_max));
    trace(f, r->flags & SV_REQ_WARMUP ? "warmup" : "given", r);
}

// The one honest end.
static void finish(fake *f, sv_req *r, int code, const char *text)
{
    trace(f, code == SV_E_CANCELLED ? "ended-cancelled" : "ended", r);
    atomic_fetch_add(&f->ended, 1);
    f->host->record(f->m_ended, 1);
    atomic_fetch_sub(&f->open_now, 1);
    r->host->end(r, code, text);
}

/* Answers */

static void clean(char *out, size_t cap, const char *in)
{
    size_t n = 0;
    for (; in[n] && n + 1 < cap; n++)
        out[n] = in[n] < 32 || in[n] == '"' || in[n] == '\\' ? '?' : in[n];
    out[n] = 0;
}

static size_t describe(fake *f, const sv_req *r, const stream *s, uint32_t batch, char *out)
{
    char path[256], query[512], type[128];
    uint64_t now = now_ns();
    clean(path, sizeof path, r->path);
    clean(query, sizeof query, r->query);
    clean(type, sizeof type, r->content_type);
    int len = snprintf(
        out, MESSAGE_MAX,
        "{\"pid\":%d,\"replica\":\"%s\",\"id\":\"%016llx\",\"batch\":%u,\"open\":%lld,"
        "\"open_max\":%lld,\"requests\":%lld,\"cancels\":%lld,\"ended\":%lld,\"batches\":%lld,"
        "\"largest_batch\":%lld,\"attempt\":%u,\"method\":\"%s\",\"path\":\"%s\",\"query\":\"%s\","
        "\"content_type\":\"%s\",\"body_len\":%zu,\"in_bytes\":%llu,\"in_pieces\":%llu,"
        "\"in_sum\":%llu,\"flags\":%u,\"deadline_ms\":%lld,\"tenant\":\"%s\",\"live\":\"%s\","
        "\"tag\":\"%s\"}",
        (int)getpid(), f->host->replica, (unsigned long long)r->id, batch,
        (long long)atomic_load(&f->open_now), (long long)atomic_load(&f->open_max),
        (long long)atomic_load(&f->requests), (long long)atomic_load(&f->cancels),
        (long long)atomic_load(&f->ended), (long long)atomic_load(&f->batches),
        (long long)atomic_load(&f->largest), r->attempt, r->method, path, query, type, r->body_len,
        (unsigned long long)(s ? s->in_bytes : 0), (unsigned long long)(s ? s->in_pieces : 0),
        (unsigned long long)(s ? s->in_sum : 0), r->flags,
        r->deadline_ns ? (long long)((r->deadline_ns - now) / 1000000u) : -1LL, r->tenant, f->live,
        f->tag);
    return len < MESSAGE_MAX ? (size_t)len : MESSAGE_MAX - 1;
}

static int put(sv_req *r, const ask *a, const void *data, size_t len, uint32_t more)
{
    uint32_t flags = (a->raw ? SV_RAW : 0u) | (a->text ? SV_TEXT : 0u) | (a->flush ? SV_FLUSH : 0u);
    if (!a->reserve)
        return r->host->send(r, data, len, flags | more);
    void *room = r->host->reserve(r, len);
    if (!room)
        return SV_E_CANCELLED;
    memcpy(room, data, len);
    return r->host->commit(r, len, flags | more);
}

// `total` bytes of x in pieces of a->chunk. Goes on over SV_AGAIN: that is the point of a flood.
static void pour(sv_req *r, const ask *a, int64_t total)
{
    size_t chunk = a->chunk > 0 ? (size_t)a->chunk : CHUNK;
    char *x = malloc(chunk);
    if (!x)
        return;
    memset(x, 'x', chunk);
    for (int64_t left = total; left > 0; left -= (int64_t)chunk)
        if (put(r, a, x, left < (int64_t)chunk ? (size_t)left : chunk, 0) == SV_E_CANCELLED)
            break;
    free(x);
}

static void start(sv_req *r, const ask *a)
{
    if (r->flags & SV_REQ_WEBSOCKET)
        return; // no status or headers to choose once it is open
    const char *type = *a->type ? a->type : a->sse || a->n > 0 ? "text/event-stream" : NULL;
    if (type == NULL)
        type = a->bytes || a->flood_mb || a->echo ? "application/octet-stream" : "application/json";
    r->host->head(r, (int)a->status, type);
    r->host->header(r, "x-fake", "yes");
    if (a->note)
        r->host->note(r, "note", (double)a->note);
}

// Everything but events: body, flood, echo or JSON.
static void answer_once(fake *f, sv_req *r, const stream *s, const ask *a, uint32_t batch)
{
    char text[MESSAGE_MAX];
    start(r, a);
    if (a->flood_mb)
        pour(r, a, a->flood_mb << 20);
    else if (a->bytes)
        pour(r, a, a->bytes);
    else if (a->echo)
        put(r, a, r->body, r->body_len, SV_FIN);
    else
        put(r, a, text, describe(f, r, s, batch, text), SV_FIN);
}

// The next event; the number is in front, padding up to a->bytes behind it.
static int send_event(const fake *f, sv_req *r, const ask *a, int64_t at)
{
    char small[256];
    size_t len = (size_t)snprintf(small, sizeof small,
                                  "{\"i\":%lld,\"pid\":%d,\"tag\":\"%.100s\",\"pad\":\"",
                                  (long long)at, (int)getpid(), f->tag);
    size_t pad = a->bytes > (int64_t)len + 2 ? (size_t)a->bytes - len - 2 : 0;
    char *all = malloc(len + pad + 3);
    if (!all)
        return SV_E_NOMEM;
    memcpy(all, small, len);
    memset(all + len, '.', pad);
    memcpy(all + len + pad, "\"}", 3);
    int got = put(r, a, all, len + pad + 2, 0);
    free(all);
    return got;
}

/* Lies: each breaks one rule of the ABI. */

static void lie_ends(sv_req *r, const char *lie)
{
    static char huge[100001];
    memset(huge, 'h', sizeof huge - 1);
    if (!strcmp(lie, "double_end"))
        sv_end(r), sv_end(r);
    else if (!strcmp(lie, "send_after_end"))
        sv_end(r), sv_send(r, "ghost", 5), r->host->head(r, 200, "text/plain");
    else if (!strcmp(lie, "bad_code"))
        r->host->end(r, -7, "a code that is no status");
    else if (!strcmp(lie, "huge_code"))
        r->host->end(r, INT32_MIN, "a code that can't be negated");
    else if (!strcmp(lie, "positive_code"))
        r->host->end(r, 12345, NULL);
    else if (!strcmp(lie, "huge_text"))
        r->host->end(r, SV_E_INVALID, huge);
    else if (!strcmp(lie, "bad_text"))
        r->host->end(r, SV_E_INVALID, "\xff\xfe \"quoted\"\r\n\x01");
}

static void lie_sends(sv_req *r, const char *lie)
{
    const sv_host *h = r->host;
    if (!strcmp(lie, "bad_head"))
        h->head(r, 99999, "text/plain\r\nx-evil: 1");
    else if (!strcmp(lie, "bad_header"))
        h->header(r, "x-bad\r\nname", "v"), h->header(r, "x-ok", "v\r\nx-evil: 1"),
            h->header(r, "content-length", "5"), h->header(r, "transfer-encoding", "chunked");
    else if (!strcmp(lie, "late_head"))
        sv_send(r, "first", 5), h->head(r, 404, "text/plain"), h->header(r, "x-late", "1");
    else if (!strcmp(lie, "null_send"))
        h->send(r, NULL, 10, 0);
    else if (!strcmp(lie, "bad_flags"))
        h->send(r, "x", 1, UINT32_MAX & ~(uint32_t)SV_FIN);
    else if (!strcmp(lie, "send_after_fin"))
        h->send(r, "x", 1, SV_FIN), h->send(r, "y", 1, 0);
    else if (!strcmp(lie, "commit_alone"))
        h->commit(r, 10, 0);
    else if (!strcmp(lie, "overcommit"))
        h->reserve(r, 8), h->commit(r, 1 << 20, 0);
    else if (!strcmp(lie, "huge_reserve"))
        h->reserve(r, SIZE_MAX / 2);
    sv_send(r, "done", 4);
}

static bool lies(fake *f, sv_req *r, const ask *a)
{
    static const char *const ends[] = {"double_end",    "send_after_end", "bad_code", "huge_code",
                                       "positive_code", "huge_text",      "bad_text"};
    if (!*a->lie)
        return false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(a->lie, ends[i])) {
            atomic_fetch_sub(&f->open_now, 1);
            lie_ends(r, a->lie);
            return true;
        }
    if (strcmp(a->lie, "no_end") != 0) {
        lie_sends(r, a->lie);
        finish(f, r, SV_OK, NULL);
    }
    return true;
}

/* Life */

static sv_metric *counter_of(const sv_host *h, const char *name, const char *help)
{
    return h->metric(h, SV_COUNTER, name, help, NULL, 0);
}

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    fake *f = calloc(1, sizeof *f);
    if (!f || !(f->open = calloc(STREAMS_MAX, sizeof(stream *))))
        return h->fail(h, SV_E_NOMEM, "fake: no memory");
    f->host = h;
    f->cfg = cfg;
    fake_models_create(h, cfg);
    f->rules = h->cfg_str(cfg, "do", "");
    f->state = h->cfg_str(cfg, "state", "/nonexistent");
    f->defaults = h->cfg_str(cfg, "defaults", "");
    f->live = h->cfg_str(cfg, "live", "");
    f->tag = h->cfg_str(cfg, "tag", "");
    f->health = h->cfg_int(cfg, "health", 0);
    f->refuse_first = h->cfg_int(cfg, "refuse_first", 0);
    f->batch_sleep_ms = h->cfg_int(cfg, "batch_sleep_ms", 0);
    f->batch_busy_ms = h->cfg_int(cfg, "batch_busy_ms", 0);
    const char *path = h->cfg_str(cfg, "trace", "");
    f->trace_fd = *path ? open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600) : -1;
    f->m_requests = counter_of(h, "fake_requests_total", "Requests given to the plugin.");
    f->m_cancels = counter_of(h, "fake_cancels_total", "Requests whose cancel came.");
    f->m_ended = counter_of(h, "fake_ended_total", "Requests ended.");
    f->m_batches = counter_of(h, "fake_batches_total", "Calls of run().");
    f->m_open_max = h->metric(h, SV_GAUGE, "fake_open_max", "Most requests open at once.", NULL, 0);
    *self = f;
    return called(f, "create");
}

static int plan(void *self, sv_plan *p)
{
    fake *f = self;
    const sv_host *h = f->host;
    p->max_batch = (uint32_t)h->cfg_int(f->cfg, "max_batch", p->max_batch);
    p->batch_wait_us = (uint32_t)h->cfg_int(f->cfg, "batch_wait_us", p->batch_wait_us);
    p->concurrency = (uint32_t)h->cfg_int(f->cfg, "concurrency", p->concurrency);
    p->max_inflight = (uint32_t)h->cfg_int(f->cfg, "max_inflight", STREAMS_MAX);
    p->devices = (uint32_t)h->cfg_int(f->cfg, "devices", p->devices);
    p->device_bytes = (uint64_t)h->cfg_int(f->cfg, "device_bytes", 0);
    if (h->cfg_int(f->cfg, "stream_in", 0))
        p->flags |= SV_PLAN_STREAM_IN;
    return called(f, "plan");
}

static int load(void *self, const sv_place *place)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    for (uint32_t i = 0; i < place->n_devices; i++) {
        const sv_device *d = place->devices[i];
        sv_log(((fake *)self)->host, SV_INFO,
               "device %d: kind %u, %s, %llu bytes of %s; visible %s", d->index, d->kind, d->uuid,
               (unsigned long long)d->bytes_limit, d->name, visible ? visible : "all");
    }
    return called(self, "load");
}

static int warm(void *self)
{
    return called(self, "warm");
}

static int reconfigure(void *self, const sv_cfg *cfg)
{
    fake *f = self;
    int code = called(f, "reconfigure");
    if (code == 0) {
        f->cfg = cfg;
        f->live = f->host->cfg_str(cfg, "live", "");
    }
    return code;
}

static int health(void *self)
{
    fake *f = self;
    int code = called(f, "health");
    return code ? code : (int)f->health;
}

static void drain(void *self, uint64_t deadline_ns)
{
    (void)deadline_ns;
    called(self, "drain");
}

static void unload(void *self)
{
    fake *f = self;
    called(f, "unload");
    while (atomic_load(&f->threads) > 0)
        sleep_ms(1);
}

static void destroy(void *self)
{
    fake *f = self;
    called(f, "destroy");
    free(f->open);
    free(f);
}

#ifdef FAKE_RUN
// Sleeps by the millisecond, so that cancelled() is seen. Whether it was.
static bool wait_asleep(const sv_req *r, int64_t ms, const ask *a)
{
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    while (ms > 0 && now_ns() < end) {
        if (!a->ignore_cancel && r->host->cancelled(r))
            return true;
        sleep_ms(1);
    }
    return !a->ignore_cancel && r->host->cancelled(r);
}

static void count_cancel(fake *f, const sv_req *r)
{
    atomic_fetch_add(&f->cancels, 1);
    f->host->record(f->m_cancels, 1);
    trace(f, "cancel", r);
}

// False: the client has gone.
static bool run_events(const fake *f, sv_req *r, const ask *a)
{
    start(r, a);
    for (int64_t i = 0; i < a->n; i++) {
        send_event(f, r, a, i);
        if (wait_asleep(r, a->interval_ms, a))
            return false;
        if (a->fail && i + 1 == a->fail_after)
            return true;
    }
    return true;
}

static void serve(fake *f, sv_req *r, uint32_t batch)
{
    ask a = ask_of(f, r);
    int code = asked(f, &a, "run", true, 1);
    if (a.health)
        f->health = a.health;
    busy_ms(a.busy_ms);
    sleep_ms(a.block_ms);
    bool gone = wait_asleep(r, a.hold ? INT32_MAX : a.sleep_ms, &a);
    if (!gone && lies(f, r, &a))
        return;
    if (!gone && code == 0 && a.n > 0)
        gone = !run_events(f, r, &a);
    else if (!gone && code == 0 && (!a.fail || a.fail_after))
        answer_once(f, r, NULL, &a, batch);
    if (gone)
        count_cancel(f, r);
    code = gone ? SV_E_CANCELLED : code ? code : (int)a.fail;
    finish(f, r, code, code < 0 ? "the fake plugin was told to fail" : NULL);
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    fake *f = self;
    atomic_fetch_add(&f->batches, 1);
    f->host->record(f->m_batches, 1);
    if ((int64_t)n > atomic_load(&f->largest))
        atomic_store(&f->largest, n);
    for (uint32_t i = 0; i < n; i++)
        entered(f, reqs[i]);
    int code = called(f, "run");
    sleep_ms(f->batch_sleep_ms);
    busy_ms(f->batch_busy_ms);
    for (uint32_t i = 0; i < n && code == 0; i++)
        serve(f, reqs[i], n);
    if (code != 0) // the core ends them with our code
        atomic_fetch_sub(&f->open_now, n);
    return code;
}

static uint64_t batch_key(void *self, const sv_req *r, uint32_t *cost)
{
    char text[64];
    uint64_t key = 0;
    trouble(r->host, ((fake *)self)->rules, ((fake *)self)->state, "batch_key", false, 1);
    if (sv_query(r, "cost", text, sizeof text) > 0)
        *cost = (uint32_t)strtoul(text, NULL, 10);
    if (sv_query(r, "key", text, sizeof text) > 0)
        for (const char *p = text; *p; p++)
            key = key * 31 + (unsigned char)*p;
    return key;
}
#endif

#ifdef FAKE_STEP
static void drop(fake *f, stream *s)
{
    for (int i = 0; i < f->n_open; i++)
        if (f->open[i] == s) {
            f->open[i] = f->open[--f->n_open];
            break;
        }
}

static void finish_stream(fake *f, stream *s, int code)
{
    sv_req *r = s->req;
    drop(f, s);
    r->user = NULL;
    free(s);
    finish(f, r, code, code < 0 ? "the fake plugin was told to fail" : NULL);
}

static void answer_stream(fake *f, stream *s)
{
    const ask a = s->ask;
    if (*a.lie) {
        sv_req *r = s->req;
        drop(f, s);
        r->user = NULL;
        free(s);
        lies(f, r, &a);
        return;
    }
    if (!a.fail || a.fail_after)
        answer_once(f, s->req, s, &a, 1);
    finish_stream(f, s, (int)a.fail);
}

typedef struct {
    fake *f;
    stream *s;
} errand;

static void *answer_late(void *arg)
{
    errand *e = arg;
    fake *f = e->f;
    sleep_ms(e->s->ask.late_ms);
    answer_once(f, e->s->req, e->s, &e->s->ask, 1);
    finish(f, e->s->req, (int)e->s->ask.fail, NULL);
    free(e->s);
    free(e);
    atomic_fetch_sub(&f->threads, 1);
    return NULL;
}

static void answer_by_timer(void *self, void *arg)
{
    answer_stream(self, arg);
}

// Somebody else than step() will answer: a thread or the core's timer.
static int hand_out(fake *f, stream *s)
{
    pthread_t thread;
    errand *e = s->ask.late_ms ? malloc(sizeof *e) : NULL;
    s->outside = true;
    s->req->user = NULL;
    if (s->ask.timer_ms)
        return f->host->post(f->host, (uint64_t)s->ask.timer_ms * 1000000u, answer_by_timer, s);
    if (!e)
        return SV_E_NOMEM;
    *e = (errand){f, s};
    atomic_fetch_add(&f->threads, 1);
    if (pthread_create(&thread, NULL, answer_late, e) != 0)
        abort();
    return pthread_detach(thread);
}

// < 0: not taken, for one of the reasons a test can ask for.
static int refuse(fake *f, sv_req *r, const ask *a)
{
    int code = asked(f, a, "submit", true, 1);
    if (code == 0)
        code = (int)a->refuse;
    if (code == 0 && f->refuse_first > 0 && f->refuse_first--)
        code = SV_E_OVERLOADED;
    if (!strcmp(a->lie, "ended_not_taken")) {
        r->host->end(r, SV_E_INVALID, "ended, and then not taken");
        return SV_E_OVERLOADED;
    }
    return code < 0 ? f->host->fail(f->host, code, "the fake plugin refused") : 0;
}

static int submit(void *self, sv_req *r)
{
    fake *f = self;
    ask a = ask_of(f, r);
    trace(f, "offered", r);
    int code = called(f, "submit");
    if (code == 0)
        code = refuse(f, r, &a);
    stream *s = code == 0 && f->n_open < STREAMS_MAX ? calloc(1, sizeof *s) : NULL;
    if (!s)
        return code ? code : SV_E_OVERLOADED;
    entered(f, r);
    if (a.health)
        f->health = a.health;
    *s = (stream){.req = r, .ask = a, .due_ns = now_ns() + (uint64_t)a.sleep_ms * 1000000u};
    s->input_open = (r->flags & (SV_REQ_WEBSOCKET | SV_REQ_STREAM_IN)) != 0;
    r->user = s;
    busy_ms(a.busy_ms);
    sleep_ms(a.block_ms);
    if (a.late_ms || a.timer_ms)
        return hand_out(f, s) < 0 ? SV_E_INTERNAL : SV_OK;
    f->open[f->n_open++] = s;
    if (a.n > 0 || a.hold)
        start(r, &a);
    return SV_OK;
}

// One turn of one stream. False: it is gone.
static bool advance(fake *f, stream *s, uint64_t now)
{
    const ask *a = &s->ask;
    int code = asked(f, a, "step", false, (uint64_t)s->at + 1);
    if (code < 0 || (!a->ignore_cancel && f->host->cancelled(s->req))) {
        finish_stream(f, s, code < 0 ? code : SV_E_CANCELLED);
        return false;
    }
    bool waits = a->n > 0 ? false : s->input_open;
    if (a->hold || waits || s->paused || s->due_ns > now)
        return true;
    if (a->n == 0 || *a->lie) {
        answer_stream(f, s);
        return false;
    }
    int got = send_event(f, s->req, a, s->at++);
    s->paused = got == SV_AGAIN && a->polite;
    s->due_ns = now + (uint64_t)a->interval_ms * 1000000u;
    bool over = (a->fail && s->at == a->fail_after) || s->at == a->n;
    if (over)
        finish_stream(f, s, (int)a->fail);
    return !over;
}

static int64_t step(void *self)
{
    fake *f = self;
    int code = called(f, "step");
    uint64_t next = UINT64_MAX;
    for (int i = f->n_open - 1; i >= 0; i--) {
        stream *s = f->open[i];
        if (!advance(f, s, now_ns()))
            continue;
        bool waits = s->ask.hold || s->paused || (s->input_open && s->ask.n == 0);
        if (!waits && s->due_ns < next)
            next = s->due_ns;
    }
    uint64_t now = now_ns();
    if (code < 0)
        return code;
    return next == UINT64_MAX ? SV_IDLE : next > now ? (int64_t)(next - now) : 0;
}

static void take_again(void *self, void *arg)
{
    fake *f = self;
    for (int i = 0; i < f->n_open; i++) // it may have ended meanwhile
        if (f->open[i] == arg)
            f->host->resume(f->open[i]->req);
}

static int input_websocket(stream *s, const void *data, size_t len, uint32_t flags)
{
    if (!strcmp(s->ask.ws, "sink") || !strcmp(s->ask.ws, "source"))
        return SV_OK;
    if (len == 0 && (flags & SV_FIN))
        return SV_OK;
    return s->req->host->send(s->req, data, len, flags & SV_TEXT);
}

static int input(void *self, sv_req *r, const void *data, size_t len, uint32_t flags)
{
    fake *f = self;
    stream *s = r->user;
    int code = called(f, "input");
    if (!s)
        return code;
    s->in_bytes += len;
    s->in_pieces++;
    for (size_t i = 0; i < len; i++)
        s->in_sum += ((const unsigned char *)data)[i];
    if (code == 0)
        code = asked(f, &s->ask, "input", false, s->in_pieces);
    sleep_ms(s->ask.input_ms);
    if (code == 0 && (r->flags & SV_REQ_WEBSOCKET))
        code = input_websocket(s, data, len, flags);
    if (flags & SV_FIN)
        s->input_open = false;
    if ((flags & SV_FIN) && (r->flags & SV_REQ_WEBSOCKET)) {
        finish_stream(f, s, SV_OK);
        return SV_OK;
    }
    if (s->ask.again_ms && !(flags & SV_FIN)) {
        f->host->post(f->host, (uint64_t)s->ask.again_ms * 1000000u, take_again, s);
        return SV_AGAIN;
    }
    return code;
}

static void cancel(void *self, sv_req *r)
{
    fake *f = self;
    stream *s = r->user;
    atomic_fetch_add(&f->cancels, 1);
    f->host->record(f->m_cancels, 1);
    trace(f, "cancel", r);
    called(f, "cancel");
    if (!s || s->outside)
        return;
    asked(f, &s->ask, "cancel", false, 1);
    if (!s->ask.ignore_cancel)
        finish_stream(f, s, SV_E_CANCELLED);
}

static void writable(void *self, sv_req *r)
{
    fake *f = self;
    stream *s = r->user;
    called(f, "writable");
    if (s) {
        s->paused = false;
        if (r->flags & SV_REQ_WEBSOCKET)
            f->host->resume(r);
    }
}
#endif

static const sv_option options[] = {
    {SV_STR, 0, "do", "", 0, 0, "Trouble in callbacks, see fake_rules.h."},
    {SV_STR, 0, "state", NULL, 0, 0, "Folder of the counts of rules with *TIMES."},
    {SV_STR, 0, "defaults", "", 0, 0, "Query string for what a request doesn't say."},
    {SV_STR, 0, "models", "", 0, 0, "Names, the first is the id."},
    {SV_STR, 0, "trace", "", 0, 0,
     "File that gets a line for each request given, cancelled, ended."},
    {SV_STR, SV_LIVE, "live", "", 0, 0, "Text in each answer; changes without a restart."},
    {SV_STR, 0, "tag", "", 0, 0, "Text in each answer and event; another one is another version."},
    {SV_INT, 0, "health", "0", -599, 100, "What health() returns."},
    {SV_INT, 0, "refuse_first", "0", 0, 1e9, "The first so many submits are refused with 429."},
    {SV_INT, 0, "batch_sleep_ms", "0", 0, 1e9, "Each run() sleeps so long (ms)."},
    {SV_INT, 0, "batch_busy_ms", "0", 0, 1e9, "Each run() burns so long (ms)."},
    {SV_INT, 0, "max_batch", NULL, 1, 4096, "plan.max_batch."},
    {SV_INT, 0, "batch_wait_us", NULL, 0, 1e9, "plan.batch_wait_us."},
    {SV_INT, 0, "concurrency", NULL, 1, 256, "plan.concurrency."},
    {SV_INT, 0, "max_inflight", NULL, 0, 1e9, "plan.max_inflight."},
    {SV_INT, 0, "devices", NULL, 0, 64, "plan.devices."},
    {SV_BYTES, 0, "device_bytes", NULL, 0, 0, "plan.device_bytes."},
    {SV_BOOL, 0, "stream_in", "false", 0, 0, "Bodies come by input()."},
};

#ifdef FAKE_RUN
#define FAKE_SERVES .run = run, .batch_key = batch_key
#else
#define FAKE_SERVES                                                                                \
    .submit = submit, .input = input, .cancel = cancel, .writable = writable, .step = step
#endif
SV_PLUGIN(.name = FAKE_NAME, .version = "1.0", .about = "For tests: misbehaves on demand.",
          SV_OPTIONS(options), .create = create, .plan = plan, .load = load, .warm = warm,
          .reconfigure = reconfigure, .health = health, .drain = drain, .unload = unload,
          .destroy = destroy, .extension = fake_extension, FAKE_SERVES);
