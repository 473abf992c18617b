// SPDX-License-Identifier: Apache-2.0
#include "worker/engine.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "worker/cfg.h"
#include "worker/crash.h"

enum { THREAD_STACK = 8 << 20 }; // bytes

static _Thread_local struct engine_thread *self_thread;

static void *thread_main(void *arg);
static void on_mails(struct engine_thread *t, struct list *mails);
static void on_call(struct engine_thread *t, struct call *c);
static void on_request(struct engine_thread *t, struct request *r);
static void on_run(struct engine_thread *t, struct run *run);
static bool run_timers(struct engine_thread *t);
static uint64_t step(struct engine_thread *t);
static void leave_together(struct engine_thread *t);

void engine_init(struct engine *e, const struct orders *o, struct page *page, uv_async_t *async)
{
    *e = (struct engine){.orders = o, .page = page};
    outbox_init(&e->outbox, async);
    request_pool_init(&e->pool);
    pthread_mutex_init(&e->gate.lock, NULL);
    pthread_cond_init(&e->gate.change, NULL);
    host_init(&e->host, &(struct host_conf){.app = o->app,
                                            .deployment = o->deployment,
                                            .replica = o->replica,
                                            .plugin_dir = o->plugin_dir,
                                            .engine = e,
                                            .page = page});
    e->given = metrics_core(page, M_given, e->host.labels);
    e->nomem = metrics_core(page, M_nomem, e->host.labels);
    for (uint32_t i = 0; i < PAGE_THREADS; i++) {
        struct engine_thread *t = &e->threads[i];
        t->engine = e;
        t->index = i;
        t->seen = &page->threads[i];
        list_init(&t->touched);
        inbox_init(&t->inbox);
    }
}

int engine_thread_start(struct engine *e, uint32_t index, struct err *err)
{
    struct engine_thread *t = &e->threads[index];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    int rc = pthread_create(&t->thread, &attr, thread_main, t);
    pthread_attr_destroy(&attr);
    if (rc)
        return err_set(err, SV_E_INTERNAL, "starting instance thread %u: %s", index, err_errno(rc));
    t->started = true;
    if (index >= e->n_threads)
        e->n_threads = index + 1;
    return 0;
}

struct engine_thread *engine_self(void)
{
    return self_thread;
}

void engine_sign(struct engine *e)
{
    if (self_thread)
        atomic_store_explicit(&self_thread->seen->sign_ns, clock_now_ns(), memory_order_relaxed);
    else if (e)
        atomic_store_explicit(&e->foreign_ns, clock_now_ns(), memory_order_relaxed);
}

void engine_event(struct engine *e, enum event_kind kind, int code, double done, const char *text)
{
    struct event *ev = xcalloc(1, sizeof *ev);
    struct list one;
    ev->kind = kind;
    ev->code = code;
    ev->done = done;
    snprintf(ev->text, sizeof ev->text, "%s", text ? text : "");
    list_init(&one);
    list_push(&one, &ev->node);
    outbox_put(&e->outbox, NULL, &one);
}

void engine_touch(struct engine *e, struct request *r, bool now)
{
    struct engine_thread *t = self_thread;
    if (r->queued || (!now && r->touched))
        return;
    request_ref(r);
    if (t && !now) {
        r->touched = true;
        if (list_empty(&t->touched))
            t->touched_ns = atomic_load_explicit(&t->seen->sign_ns, memory_order_relaxed);
        list_push(&t->touched, &r->touched_node);
        return;
    }
    struct list one;
    r->queued = true;
    list_init(&one);
    list_push(&one, &r->out_node);
    outbox_put(&e->outbox, &one, NULL);
}

static void leave_together(struct engine_thread *t)
{
    struct list out;
    list_init(&out);
    list_for_each_safe (n, &t->touched) {
        struct request *r = CONTAINER_OF(n, struct request, touched_node);
        list_remove(n);
        pthread_mutex_lock(&r->lock);
        bool goes = !r->queued;
        r->touched = false;
        r->queued = true;
        if (goes)
            list_push(&out, &r->out_node);
        pthread_mutex_unlock(&r->lock);
        if (!goes)
            request_unref(r);
    }
    if (!list_empty(&out))
        outbox_put(&t->engine->outbox, &out, NULL);
}

/* ---- callbacks ---- */

// Only run() may overlap, and only itself.
static void gate_enter(struct engine *e, bool alone)
{
    if (e->concurrency < 2)
        return;
    pthread_mutex_lock(&e->gate.lock);
    while (e->gate.alone)
        pthread_cond_wait(&e->gate.change, &e->gate.lock);
    e->gate.alone = alone;
    while (alone && e->gate.runs > 0)
        pthread_cond_wait(&e->gate.change, &e->gate.lock);
    e->gate.runs += !alone;
    pthread_mutex_unlock(&e->gate.lock);
}

static void gate_leave(struct engine *e, bool alone)
{
    if (e->concurrency < 2)
        return;
    pthread_mutex_lock(&e->gate.lock);
    if (alone)
        e->gate.alone = false;
    else
        e->gate.runs--;
    pthread_cond_broadcast(&e->gate.change);
    pthread_mutex_unlock(&e->gate.lock);
}

void engine_enter(struct engine_thread *t, enum page_doing doing)
{
    gate_enter(t->engine, doing != PD_RUN);
    uint64_t now = clock_now_ns();
    atomic_fetch_add(&t->epoch, 1);
    atomic_store_explicit(&t->seen->since_ns, now, memory_order_relaxed);
    atomic_store_explicit(&t->seen->sign_ns, now, memory_order_relaxed);
    atomic_store_explicit(&t->seen->doing, doing, memory_order_release);
}

void engine_leave(struct engine_thread *t)
{
    bool alone = atomic_load_explicit(&t->seen->doing, memory_order_relaxed) != PD_RUN;
    atomic_store_explicit(&t->seen->doing, PD_IDLE, memory_order_release);
    atomic_fetch_add(&t->epoch, 1);
    gate_leave(t->engine, alone);
    if (t->index == 0 && atomic_load(&t->engine->limbo_waits))
        outbox_wake(&t->engine->outbox);
}

// A callback returned a failure: what it means beyond its request.
static void check_code(struct engine *e, int code, const char *where)
{
    char text[HOST_TEXT_MAX], why[HOST_TEXT_MAX];
    if (code == SV_E_NOMEM)
        metrics_add(e->nomem, 1);
    if (code != SV_E_FATAL)
        return;
    snprintf(why, sizeof why, "%.32s() failed for good: %.400s", where,
             host_text(&e->host, "SV_E_FATAL", text));
    engine_event(e, EVENT_FATAL, code, 0, why);
}

static void *thread_main(void *arg)
{
    struct engine_thread *t = arg;
    char name[16];
    self_thread = t;
    snprintf(name, sizeof name, "instance-%u", t->index);
    os_thread_name(name);
    crash_thread_init();
    atomic_store(&t->seen->tid, os_thread_id());
    uint64_t step_at = UINT64_MAX;
    for (;;) {
        struct list mails;
        list_init(&mails);
        bool due = inbox_take(&t->inbox, 0, &mails);
        if (!due && list_empty(&mails) && step_at > clock_now_ns()) {
            leave_together(t);
            due = inbox_take(&t->inbox, step_at, &mails);
        }
        bool events = !list_empty(&mails);
        on_mails(t, &mails);
        if (due)
            events |= run_timers(t);
        if (!t->engine->plugin.d.step || !t->engine->loaded)
            continue;
        leave_together(t);
        if (events || clock_now_ns() >= step_at)
            step_at = step(t);
    }
    return NULL;
}

static void on_mails(struct engine_thread *t, struct list *mails)
{
    list_for_each_safe (n, mails) {
        struct mail *m = CONTAINER_OF(n, struct mail, node);
        list_remove(n);
        if (m->kind == MAIL_REQUEST)
            on_request(t, CONTAINER_OF(m, struct request, mail));
        else if (m->kind == MAIL_RUN)
            on_run(t, CONTAINER_OF(m, struct run, mail));
        else
            on_call(t, CONTAINER_OF(m, struct call, mail));
        uint64_t now = atomic_load_explicit(&t->seen->sign_ns, memory_order_relaxed);
        if (!list_empty(&t->touched) && now - t->touched_ns > ENGINE_COALESCE_NS)
            leave_together(t);
    }
}

static bool run_timers(struct engine_thread *t)
{
    struct mail_timer timer;
    uint64_t now = clock_now_ns();
    bool some = false;
    for (; inbox_due(&t->inbox, now, &timer); some = true) {
        engine_enter(t, PD_POST);
        timer.fn(t->engine->self, timer.arg);
        engine_leave(t);
        leave_together(t);
    }
    return some;
}

static uint64_t step(struct engine_thread *t)
{
    struct engine *e = t->engine;
    host_clear_text(&e->host);
    engine_enter(t, PD_STEP);
    int64_t wait = e->plugin.d.step(e->self);
    engine_leave(t);
    leave_together(t);
    if (wait < 0) {
        check_code(e, wait < INT32_MIN ? SV_E_INTERNAL : (int)wait, "step");
        LOGE("step() failed with %lld; it is called again when something happens", (long long)wait);
        return UINT64_MAX;
    }
    uint64_t now = clock_now_ns();
    return wait == SV_IDLE ? UINT64_MAX : now + (uint64_t)wait;
}

/* ---- requests ---- */

// False: it was cancelled before the plugin saw it.
static bool give(struct engine_thread *t, struct request *r)
{
    if (atomic_load(&r->cancelled)) {
        request_close(r, SV_E_CANCELLED, NULL);
        return false;
    }
    page_request_give(t->engine->page, r->page_slot);
    atomic_store(&r->given, true);
    return true;
}

static void submit(struct engine_thread *t, struct request *r)
{
    struct engine *e = t->engine;
    char text[HOST_TEXT_MAX];
    if (!give(t, r))
        return;
    if (!r->own)
        metrics_add(e->given, 1);
    host_clear_text(&e->host);
    engine_enter(t, PD_SUBMIT);
    int rc = e->plugin.d.submit(e->self, &r->pub);
    engine_leave(t);
    if (rc >= 0) {
        pthread_mutex_lock(&r->lock);
        r->accepted = true;
        if (r->pub.flags & SV_REQ_WEBSOCKET && !r->ended)
            engine_touch(e, r, false); // its handshake is answered now
        pthread_mutex_unlock(&r->lock);
    } else if (rc == SV_E_OVERLOADED || rc == SV_E_UNAVAILABLE) {
        request_refuse(r, rc);
    } else {
        request_close(r, rc, host_text(&e->host, "", text));
        check_code(e, rc, "submit");
    }
}

// The next piece that input() may have, taken off; NULL: none now.
static struct piece *next_piece(struct request *r, uint32_t *ret_resumes)
{
    pthread_mutex_lock(&r->lock);
    bool may = !r->ended && !r->paused && !atomic_load(&r->cancelled);
    struct list *n = may ? list_first(&r->pieces) : NULL;
    if (n)
        list_remove(n);
    *ret_resumes = r->resumes;
    pthread_mutex_unlock(&r->lock);
    return n ? CONTAINER_OF(n, struct piece, node) : NULL;
}

// What came of a piece: its window goes back now, or when resume() is called.
static void settle_piece(struct engine *e, struct request *r, const struct piece *p, bool again,
                         uint32_t resumes)
{
    pthread_mutex_lock(&r->lock);
    r->paused = again && r->resumes == resumes;
    if (r->paused)
        r->in_owed += p->owed;
    else
        r->in_done += p->owed;
    if (r->in_done >= REQUEST_EARLY && !r->ended)
        engine_touch(e, r, false);
    pthread_mutex_unlock(&r->lock);
}

static void cancel(struct engine_thread *t, struct request *r);

// One client that sends a lot must not keep the thread from the others: the rest goes behind them.
static bool had_its_turn(struct engine_thread *t, uint64_t began, uint32_t pieces)
{
    uint64_t last = atomic_load_explicit(&t->seen->since_ns, memory_order_relaxed);
    return pieces == ENGINE_PIECES || (pieces && last > began + ENGINE_INPUT_NS);
}

static void input_later(struct engine_thread *t, struct request *r)
{
    struct list one;
    if (!request_todo(r, TODO_INPUT))
        return;
    list_init(&one);
    list_push(&one, &r->mail.node);
    inbox_put(&t->inbox, &one);
}

static void input(struct engine_thread *t, struct request *r)
{
    struct engine *e = t->engine;
    struct piece *p;
    uint64_t began = clock_now_ns();
    uint32_t resumes, pieces = 0;
    char text[HOST_TEXT_MAX];
    while (!had_its_turn(t, began, pieces) && (p = next_piece(r, &resumes))) {
        pieces++;
        host_clear_text(&e->host);
        engine_enter(t, PD_INPUT);
        int rc = e->plugin.d.input(e->self, &r->pub, p->data, p->n, p->flags);
        engine_leave(t);
        settle_piece(e, r, p, rc == SV_AGAIN, resumes);
        xfree(p);
        if (rc >= 0)
            continue;
        check_code(e, rc, "input");
        log_line(LOG_WARN, r->name, "input() failed with %d: %s; the request is cancelled", rc,
                 host_text(&e->host, "", text));
        request_cancel(r, WHY_CLIENT_GONE);
        cancel(t, r);
    }
    if (had_its_turn(t, began, pieces))
        input_later(t, r);
}

static bool is_ended(struct request *r)
{
    pthread_mutex_lock(&r->lock);
    bool ended = r->ended;
    pthread_mutex_unlock(&r->lock);
    return ended;
}

static void cancel(struct engine_thread *t, struct request *r)
{
    struct engine *e = t->engine;
    if (!e->plugin.d.cancel || r->hinted || !atomic_load(&r->given) || is_ended(r))
        return;
    r->hinted = true;
    engine_enter(t, PD_CANCEL);
    e->plugin.d.cancel(e->self, &r->pub);
    engine_leave(t);
}

static void writable(struct engine_thread *t, struct request *r)
{
    struct engine *e = t->engine;
    if (!e->plugin.d.writable || is_ended(r))
        return;
    engine_enter(t, PD_WRITABLE);
    e->plugin.d.writable(e->self, &r->pub);
    engine_leave(t);
}

static void on_request(struct engine_thread *t, struct request *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t todo = r->todo;
    r->todo = 0;
    r->mailed = false;
    pthread_mutex_unlock(&r->lock);
    if (todo & TODO_SUBMIT)
        submit(t, r);
    if (todo & TODO_INPUT && t->engine->plugin.d.input)
        input(t, r);
    if (todo & TODO_WRITABLE)
        writable(t, r);
    if (todo & TODO_CANCEL)
        cancel(t, r);
    request_unref(r);
}

/* ---- batches ---- */

static uint64_t last_deadline(struct request *const *reqs, uint32_t n)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (reqs[i]->pub.deadline_ns == 0)
            return 0;
        if (reqs[i]->pub.deadline_ns > last)
            last = reqs[i]->pub.deadline_ns;
    }
    return last;
}

// What run() left open is ended with its result.
static void close_open(struct engine *e, struct request *r, int rc)
{
    char text[HOST_TEXT_MAX];
    pthread_mutex_lock(&r->lock);
    bool open = !r->ended, sent = r->sent;
    pthread_mutex_unlock(&r->lock);
    if (!open)
        return;
    if (rc < 0)
        request_close(r, rc >= -599 && rc <= -400 ? rc : SV_E_INTERNAL,
                      host_text(&e->host, "", text));
    else if (sent || atomic_load(&r->cancelled))
        request_close(r, SV_OK, NULL);
    else
        request_close(r, SV_E_INTERNAL, "no answer");
}

static void note_duration(struct engine_thread *t, uint64_t ns)
{
    uint64_t old = atomic_load_explicit(&t->run_ns, memory_order_relaxed);
    uint64_t now = old ? old - old / 8 + ns / 8 : ns;
    atomic_store_explicit(&t->run_ns, now ? now : 1, memory_order_relaxed);
}

static void run_batch(struct engine_thread *t, struct request **reqs, sv_req **pubs, uint32_t n)
{
    struct engine *e = t->engine;
    if (!reqs[0]->own)
        metrics_add(e->given, n);
    host_clear_text(&e->host);
    atomic_store(&t->last_deadline_ns, last_deadline(reqs, n));
    engine_enter(t, PD_RUN);
    uint64_t began = atomic_load_explicit(&t->seen->since_ns, memory_order_relaxed);
    int rc = e->plugin.d.run(e->self, pubs, n);
    engine_leave(t);
    engine_sign(e);
    note_duration(t, atomic_load_explicit(&t->seen->sign_ns, memory_order_relaxed) - began);
    for (uint32_t i = 0; i < n; i++)
        close_open(e, reqs[i], rc);
    if (rc < 0)
        check_code(e, rc, "run");
}

static void on_run(struct engine_thread *t, struct run *run)
{
    struct request *reqs[BATCH_MAX];
    sv_req *pubs[BATCH_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < run->n; i++)
        if (give(t, run->reqs[i])) {
            reqs[n] = run->reqs[i];
            pubs[n++] = &run->reqs[i]->pub;
        }
    if (n)
        run_batch(t, reqs, pubs, n);
    atomic_fetch_add(&t->runs_done, 1);
    for (uint32_t i = 0; i < run->n; i++)
        request_unref(run->reqs[i]);
    xfree(run);
}

/* ---- the life of the instance ---- */

static int failed(struct engine *e, int rc, const char *where, struct err *err)
{
    char text[HOST_TEXT_MAX], plain[64];
    snprintf(plain, sizeof plain, "%s() returned %d", where, rc);
    if (rc == SV_E_NOMEM)
        metrics_add(e->nomem, 1);
    return err_set(err, rc, "%s: %s", where, host_text(&e->host, plain, text));
}

static int create(struct engine_thread *t, struct err *err)
{
    struct engine *e = t->engine;
    int rc = cfg_create(e->orders->config, &e->plugin, &e->cfg, err);
    if (rc < 0)
        return rc;
    if (e->plugin.d.create) {
        engine_enter(t, PD_CREATE);
        rc = e->plugin.d.create(&e->host.pub, e->cfg, &e->self);
        engine_leave(t);
    }
    if (rc < 0)
        return failed(e, rc, "create", err);
    e->created = true;
    e->plan = (sv_plan){.size = sizeof e->plan,
                        .max_batch = 1,
                        .concurrency = 1,
                        .ranks = 1,
                        .devices = e->orders->plan_devices,
                        .device_bytes_max = e->orders->plan_device_bytes};
    if (e->plugin.d.plan) {
        engine_enter(t, PD_PLAN);
        rc = e->plugin.d.plan(e->self, &e->plan);
        engine_leave(t);
    }
    if (rc < 0)
        return failed(e, rc, "plan", err);
    uint32_t wanted = e->orders->concurrency ? e->orders->concurrency : e->plan.concurrency;
    bool many = e->plugin.d.run && wanted > 1;
    e->concurrency = !many ? 1 : wanted < ENGINE_THREADS_MAX ? wanted : ENGINE_THREADS_MAX;
    return 0;
}

static int load(struct engine_thread *t, struct err *err)
{
    struct engine *e = t->engine;
    int rc = 0;
    for (uint32_t i = 0; i < e->orders->n_devices; i++)
        e->devices[i] = &e->orders->device[i];
    e->place = (sv_place){.size = sizeof e->place,
                          .n_devices = e->orders->n_devices,
                          .devices = e->devices,
                          .world = 1,
                          .cache_dir = e->orders->cache_dir};
    atomic_store(&e->progress_ns, clock_now_ns());
    if (e->plugin.d.load) {
        engine_enter(t, PD_LOAD);
        rc = e->plugin.d.load(e->self, &e->place);
        engine_leave(t);
    }
    if (rc < 0)
        return failed(e, rc, "load", err);
    e->loaded = true;
    atomic_store(&e->progress_ns, clock_now_ns());
    if (e->plugin.d.warm) {
        engine_enter(t, PD_WARM);
        rc = e->plugin.d.warm(e->self);
        engine_leave(t);
    }
    return rc < 0 ? failed(e, rc, "warm", err) : 0;
}

static void start(struct engine_thread *t)
{
    struct engine *e = t->engine;
    struct err err = {0};
    host_clear_text(&e->host);
    engine_enter(t, PD_DLOPEN);
    int rc = plugin_open(&e->plugin, e->orders->plugin_path, &err);
    engine_leave(t);
    if (rc == 0) {
        for (uint32_t i = 0; i < e->plugin.n_warnings; i++)
            LOGW("plugin '%s': %s", e->plugin.d.name, e->plugin.warnings[i]);
        snprintf(e->page->plugin, sizeof e->page->plugin, "%s %.40s", e->plugin.d.name,
                 e->plugin.d.version);
        rc = create(t, &err);
    }
    if (rc == 0)
        rc = load(t, &err);
    engine_event(e, rc < 0 ? EVENT_FAILED : EVENT_READY, rc, 0, err.msg);
}

static void stop(struct engine_thread *t)
{
    struct engine *e = t->engine;
    if (e->loaded && e->plugin.d.unload) {
        engine_enter(t, PD_UNLOAD);
        e->plugin.d.unload(e->self);
        engine_leave(t);
    }
    e->loaded = false;
    if (e->created && e->plugin.d.destroy) {
        engine_enter(t, PD_DESTROY);
        e->plugin.d.destroy(e->self);
        engine_leave(t);
    }
    e->created = false;
    engine_event(e, EVENT_STOPPED, 0, 0, NULL);
}

static void on_call(struct engine_thread *t, struct call *c)
{
    struct engine *e = t->engine;
    char text[HOST_TEXT_MAX], plain[64];
    int rc = 0;
    host_clear_text(&e->host);
    switch (c->kind) {
    case CALL_START:
        start(t);
        break;
    case CALL_HEALTH:
        engine_enter(t, PD_HEALTH);
        rc = e->plugin.d.health(e->self);
        engine_leave(t);
        engine_event(e, EVENT_HEALTH, rc, 0, host_text(&e->host, "", text));
        break;
    case CALL_DRAIN:
        if (e->plugin.d.drain) {
            engine_enter(t, PD_DRAIN);
            e->plugin.d.drain(e->self, c->deadline_ns);
            engine_leave(t);
        }
        engine_event(e, EVENT_DRAINED, 0, 0, NULL);
        break;
    case CALL_STOP:
        stop(t);
        break;
    case CALL_RECONFIGURE:
        engine_enter(t, PD_RECONFIGURE);
        rc = e->plugin.d.reconfigure(e->self, c->cfg);
        engine_leave(t);
        snprintf(plain, sizeof plain, "reconfigure() returned %d", rc);
        engine_event(e, EVENT_CHANGED, rc, 0, rc < 0 ? host_text(&e->host, plain, text) : NULL);
        check_code(e, rc, "reconfigure");
        break;
    }
    xfree(c);
}
