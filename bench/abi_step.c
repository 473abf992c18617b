// SPDX-License-Identifier: Apache-2.0
/*
 * abi_step - one engine in four forms, to see what the choice of a thread costs.
 *
 * The engine's iteration keeps a device busy until `every_us` after the one before, then gives each
 * open stream one event; the instance or engine thread sleeps meanwhile, as in a wait for a device.
 *
 *   form   who waits for the device                 who sends
 *   step   step(), until it is done                 step()
 *   timer  nobody: step() says when to come again   step()
 *   own    a thread of the engine's own             that thread, SV_FLUSH with the last event
 *   post   a thread of the engine's own             a function that it posts
 *
 * A request with ?refuse is refused by submit() at once: how long that takes says how long the
 * instance thread is out of reach.
 */
#define _GNU_SOURCE
#include "plugin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { STREAMS_MAX = 1024, EVENT_BYTES = 16, NS_PER_US = 1000 };
enum form { STEP, TIMER, OWN, POST };

struct engine {
    const sv_host *host;
    enum form form;
    int64_t every_ns, next_ns;
    pthread_t thread;
    pthread_mutex_t lock;  // of what follows; only `own` has two threads here
    pthread_cond_t change; // of n, from 0, and of stop
    uint32_t n;
    sv_req *streams[STREAMS_MAX];
    bool stop;
    _Atomic bool posted; // and not yet run
};

static const char event[EVENT_BYTES + 1] = "xxxxxxxxxxxxxxxx";

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void wait_until(int64_t at_ns)
{
    struct timespec t = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void start_next(struct engine *e)
{
    e->next_ns += e->every_ns;
    if (e->next_ns < now_ns()) // a late iteration is not made up for
        e->next_ns = now_ns() + e->every_ns;
}

static void send_all(struct engine *e)
{
    for (uint32_t i = 0; i < e->n; i++) {
        uint32_t flags = e->form == OWN && i + 1 == e->n ? SV_FLUSH : 0;
        e->host->send(e->streams[i], event, EVENT_BYTES, flags);
    }
}

static void on_done(void *self, void *arg)
{
    struct engine *e = self;
    (void)arg;
    pthread_mutex_lock(&e->lock);
    send_all(e);
    pthread_mutex_unlock(&e->lock);
    atomic_store(&e->posted, false);
}

static void *engine_main(void *arg)
{
    struct engine *e = arg;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (e->n == 0 && !e->stop)
            pthread_cond_wait(&e->change, &e->lock);
        if (e->stop)
            break;
        start_next(e);
        pthread_mutex_unlock(&e->lock);
        wait_until(e->next_ns);
        if (e->form == POST && !atomic_exchange(&e->posted, true))
            e->host->post(e->host, 0, on_done, NULL);
        pthread_mutex_lock(&e->lock);
        if (e->form == OWN)
            send_all(e);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static int64_t step(void *self)
{
    struct engine *e = self;
    if (e->n == 0 || e->form > TIMER)
        return SV_IDLE;
    if (e->form == STEP)
        wait_until(e->next_ns);
    if (now_ns() >= e->next_ns) {
        send_all(e);
        start_next(e);
    }
    int64_t left = e->next_ns - now_ns();
    return e->form == TIMER && left > 0 ? left : 0;
}

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    static const char *const names[] = {"step", "timer", "own", "post"};
    const char *form = host->cfg_str(cfg, "form", "step");
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return host->fail(host, SV_E_NOMEM, "abi_step: no memory");
    while (e->form <= POST && strcmp(form, names[e->form]) != 0)
        e->form++;
    if (e->form > POST) {
        free(e);
        return host->fail(host, SV_E_INVALID, "abi_step: form is step, timer, own or post");
    }
    e->host = host;
    e->every_ns = host->cfg_int(cfg, "every_us", 5000) * NS_PER_US;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->change, NULL);
    *self = e;
    return SV_OK;
}

static int plan(void *self, sv_plan *p)
{
    (void)self;
    p->max_inflight = STREAMS_MAX;
    return SV_OK;
}

static int load(void *self, const sv_place *place)
{
    struct engine *e = self;
    (void)place;
    return e->form >= OWN && pthread_create(&e->thread, NULL, engine_main, e) ? SV_E_INTERNAL
                                                                              : SV_OK;
}

static void unload(void *self)
{
    struct engine *e = self;
    if (e->form < OWN)
        return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_signal(&e->change);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
}

static int submit(void *self, sv_req *r)
{
    struct engine *e = self;
    if (strcmp(r->query, "refuse") == 0)
        return SV_E_INVALID;
    pthread_mutex_lock(&e->lock);
    bool full = e->n == STREAMS_MAX;
    if (!full) {
        r->host->head(r, 200, "text/event-stream");
        e->streams[e->n++] = r;
    }
    if (!full && e->n == 1) {
        e->next_ns = now_ns() + e->every_ns;
        pthread_cond_signal(&e->change);
    }
    pthread_mutex_unlock(&e->lock);
    return full ? SV_E_OVERLOADED : SV_OK;
}

static void cancel(void *self, sv_req *r)
{
    struct engine *e = self;
    pthread_mutex_lock(&e->lock);
    uint32_t i = 0;
    while (i < e->n && e->streams[i] != r)
        i++;
    if (i < e->n)
        e->streams[i] = e->streams[--e->n];
    pthread_mutex_unlock(&e->lock);
    r->host->end(r, SV_E_CANCELLED, NULL);
}

static const sv_option options[] = {
    {SV_STR, 0, "form", "step", 0, 0, "Who waits and who sends: step, timer, own or post."},
    {SV_INT, 0, "every_us", "5000", 10, 1e9, "Time of one iteration, in us."},
};

SV_PLUGIN(.name = "abi_step", .version = "1.0", .about = "one engine in four forms",
          SV_OPTIONS(options), .create = create, .destroy = free, .plan = plan, .load = load,
          .unload = unload, .submit = submit, .cancel = cancel, .step = step);
