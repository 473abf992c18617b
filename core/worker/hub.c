// SPDX-License-Identifier: Apache-2.0
#include "worker/hub.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "worker/answer.h"
#include "worker/change.h"
#include "worker/crash.h"
#include "worker/liveness.h"
#include "worker/neighbour.h"
#include "worker/worker.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { ROUNDS_MAX = 16 }; // of one turn, before the loop has its say

static void on_turn(uv_prepare_t *p);
static void on_async(uv_async_t *a);
static void on_tick(uv_timer_t *t);
static void on_alarm(uv_poll_t *p, int status, int events);
static void on_up_frame(struct channel *c, struct wire_frame *f);
static void on_orphan(struct channel *c, const struct err *err);
static void on_nobody_came(struct channel *c);
static void introduce(struct channel *c, struct channel_words *w);
static void on_event(struct hub *h, struct event *ev);

static uint64_t ns_of(double seconds)
{
    return (uint64_t)(seconds * (double)NS_PER_S);
}

int hub_init(struct hub *h, struct page *page, struct err *err)
{
    *h = (struct hub){.page = page, .alarm_fd = -1};
    list_init(&h->neighbours);
    list_init(&h->limbo);
    list_init(&h->mails);
    slots_init(&h->slots, 0);
    batch_init(&h->batch, &(struct batch_conf){.max = 1});
    slots_close(&h->slots, true);
    h->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int rc = h->alarm_fd < 0 ? UV_EMFILE : uv_loop_init(&h->loop);
    if (rc == 0)
        rc = turn_init(&h->turn, &h->loop);
    if (rc == 0)
        rc = uv_prepare_init(&h->loop, &h->prepare);
    if (rc == 0)
        rc = uv_prepare_start(&h->prepare, on_turn);
    if (rc == 0)
        rc = uv_async_init(&h->loop, &h->async, on_async);
    if (rc == 0)
        rc = uv_timer_init(&h->loop, &h->tick);
    if (rc == 0)
        rc = uv_timer_start(&h->tick, on_tick, HUB_TICK_MS, HUB_TICK_MS);
    if (rc == 0)
        rc = uv_poll_init(&h->loop, &h->alarm, h->alarm_fd);
    if (rc == 0)
        rc = uv_poll_start(&h->alarm, UV_READABLE, on_alarm);
    if (rc < 0)
        return err_set(err, SV_E_INTERNAL, "setting up the loop: %s", uv_strerror(rc));
    return 0;
}

int hub_run(struct hub *h, const char *name, struct err *err)
{
    static const struct channel_ops ops = {.on_frame = on_up_frame,
                                           .on_orphan = on_orphan,
                                           .on_alone = on_nobody_came,
                                           .introduce = introduce};
    int rc = channel_open(&h->up, &h->loop, &h->turn, ROLE_WORKER, name, &ops, h, err);
    if (rc < 0)
        return rc;
    uv_run(&h->loop, UV_RUN_DEFAULT);
    return err_set(err, SV_E_INTERNAL, "the loop ended");
}

void hub_flush(struct hub *h)
{
    list_for_each_safe (n, &h->neighbours)
        neighbour_flush(CONTAINER_OF(n, struct neighbour, node));
}

void hub_die(struct hub *h, int status, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    capture_drain(&h->capture);
    LOGE("%s", text);
    crash_why(h->page, "%s", text);
    hub_flush(h);
    _exit(status);
}

void hub_set_state(struct hub *h, enum wire_status state, const char *text)
{
    h->state = state;
    snprintf(h->text, sizeof h->text, "%s", text);
    atomic_store(&h->page->state, state);
    list_for_each (n, &h->neighbours)
        neighbour_state(CONTAINER_OF(n, struct neighbour, node));
}

static void tell_control(struct hub *h)
{
    h->told_ns = clock_now_ns();
    list_for_each (n, &h->neighbours) {
        struct neighbour *to = CONTAINER_OF(n, struct neighbour, node);
        if (!to->ingress)
            neighbour_state(to);
    }
}

/* ---- towards the instance threads ---- */

void hub_mail(struct hub *h, struct request *r, uint32_t todo)
{
    if (request_todo(r, todo))
        list_push(&h->mails, &r->mail.node);
}

void hub_call(struct hub *h, const struct call *what)
{
    struct call *c = xcalloc(1, sizeof *c);
    *c = *what;
    c->mail = (struct mail){.kind = MAIL_CALL};
    list_push(&h->mails, &c->mail.node);
}

// The only plugin code on this thread. While it looks, the request counts as given, so that a
// plugin that crashes on it is not fed with it for ever.
static void ask_key(struct hub *h, struct request *r)
{
    struct engine *e = &h->engine;
    struct page_thread *seen = &h->page->threads[ENGINE_IO_THREAD];
    if (!e->plugin.d.batch_key)
        return;
    page_request_give(h->page, r->page_slot);
    atomic_store(&seen->since_ns, clock_now_ns());
    atomic_store(&seen->doing, PD_BATCH_KEY);
    r->item.key = e->plugin.d.batch_key(e->self, &r->pub, &r->item.cost);
    atomic_store(&seen->doing, PD_IDLE);
    atomic_store(&h->page->requests[r->page_slot].state, PR_HELD);
}

void hub_queue(struct hub *h, struct request *r)
{
    if (r->pub.deadline_ns && r->item.arrived_ns >= r->pub.deadline_ns) {
        request_close(r, SV_E_TIMEOUT, NULL);
        return;
    }
    if (h->engine.plugin.d.submit) {
        r->state = RS_ABOARD;
        hub_mail(h, r, TODO_SUBMIT);
        return;
    }
    ask_key(h, r);
    r->state = RS_QUEUED;
    batch_push(&h->batch, &r->item);
}

void hub_cancel(struct hub *h, struct request *r, enum wire_why why)
{
    if (r->told)
        return;
    r->told = true;
    request_cancel(r, why);
    if (atomic_load(&r->given) && !r->own)
        metrics_add(h->cancelled, 1);
    if (r->state == RS_QUEUED)
        batch_remove(&h->batch, &r->item);
    if (r->state == RS_QUEUED || r->state == RS_BODY) {
        r->state = RS_ABOARD;
        request_close(r, SV_E_CANCELLED, NULL);
    } else if (r->state == RS_ABOARD && (h->engine.plugin.d.submit || h->engine.plugin.d.cancel)) {
        hub_mail(h, r, TODO_CANCEL); // also wakes a step() that waits for events
    }
}

static bool may_hand(struct hub *h, uint32_t i, bool *ret_full_only)
{
    struct engine_thread *t = &h->engine.threads[i];
    uint32_t ahead = h->handed[i] - atomic_load(&t->runs_done);
    uint64_t each = atomic_load_explicit(&t->run_ns, memory_order_relaxed);
    *ret_full_only = ahead > 0;
    if (h->engine.n_threads > 1) // another thread may be free sooner
        return ahead == 0;
    return ahead == 0 || (ahead < HUB_AHEAD && each && (ahead + 1) * each <= HUB_AHEAD_NS);
}

static struct run *next_run(struct hub *h, uint64_t now, bool full_only, uint64_t *ret_again)
{
    struct batch_item *items[BATCH_MAX];
    enum batch_reason reason;
    bool more = h->batch.len < h->slots.cap && !(h->slots.closed && h->in_flight == h->batch.len);
    uint32_t n = batch_take(&h->batch, now, more, full_only, items, &reason, ret_again);
    if (n == 0)
        return NULL;
    struct run *run = xcalloc(1, sizeof *run + n * sizeof run->reqs[0]);
    run->mail.kind = MAIL_RUN;
    run->n = n;
    for (uint32_t i = 0; i < n; i++) {
        struct request *r = CONTAINER_OF(items[i], struct request, item);
        r->state = RS_ABOARD;
        request_ref(r);
        run->reqs[i] = r;
    }
    if (!run->reqs[0]->own) { // else it is alone
        metrics_observe(h->batch_size, n);
        metrics_add(h->batches[reason], 1);
    }
    return run;
}

static void set_alarm(struct hub *h, uint64_t at_ns)
{
    if (at_ns == h->alarm_ns)
        return;
    h->alarm_ns = at_ns;
    struct itimerspec t = {
        .it_value = {.tv_sec = (time_t)(at_ns / NS_PER_S), .tv_nsec = (long)(at_ns % NS_PER_S)}};
    timerfd_settime(h->alarm_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void on_alarm(uv_poll_t *p, int status, int events)
{
    struct hub *h = CONTAINER_OF(p, struct hub, alarm);
    uint64_t times;
    (void)status;
    (void)events;
    atomic_store(&h->engine.outbox.sleeping, false);
    if (read(h->alarm_fd, &times, sizeof times) > 0)
        h->alarm_ns = 0;
}

// Hands out batches and mails. When to look again; UINT64_MAX: when something happens.
static uint64_t hand_out(struct hub *h)
{
    uint64_t again = UINT64_MAX;
    for (uint32_t i = 0; i < h->engine.n_threads && h->batch.len; i++) {
        struct list mails;
        bool full_only;
        list_init(&mails);
        for (struct run *run; may_hand(h, i, &full_only); h->handed[i]++) {
            uint64_t then;
            run = next_run(h, clock_now_ns(), full_only, &then);
            if (!run) {
                again = !full_only && then < again ? then : again;
                break;
            }
            list_push(&mails, &run->mail.node);
        }
        inbox_put(&h->engine.threads[i].inbox, &mails);
    }
    inbox_put(&h->engine.threads[0].inbox, &h->mails);
    return again;
}

static void lend(struct hub *h)
{
    struct slots_act acts[2 * SLOTS_PEERS];
    uint32_t n = slots_decide(&h->slots, clock_now_ns(), acts);
    if (n == 0)
        return;
    list_for_each (node, &h->neighbours) {
        struct neighbour *to = CONTAINER_OF(node, struct neighbour, node);
        for (uint32_t i = 0; to->ingress && i < n; i++) {
            if (acts[i].peer != to->peer)
                continue;
            struct wire_grant grant = {acts[i].count, h->in_flight, h->slots.cap};
            struct wire_recall recall = {acts[i].count};
            if (acts[i].recall)
                wire_put_recall(&to->link.out, 0, 0, &recall);
            else
                wire_put_grant(&to->link.out, 0, 0, &grant);
            to->dirty = true;
        }
    }
}

static bool empty_outbox(struct hub *h)
{
    struct list requests, events;
    list_init(&requests);
    list_init(&events);
    if (!outbox_take(&h->engine.outbox, &requests, &events))
        return false;
    list_for_each_safe (n, &requests) {
        struct request *r = CONTAINER_OF(n, struct request, out_node);
        pthread_mutex_lock(&r->lock);
        list_remove(n);
        r->queued = false;
        pthread_mutex_unlock(&r->lock);
        answer_pump(h, r);
        request_unref(r);
    }
    list_for_each_safe (n, &events) {
        struct event *ev = CONTAINER_OF(n, struct event, node);
        list_remove(n);
        on_event(h, ev);
        xfree(ev);
    }
    return true;
}

// A run() that is over sooner than a wake costs: its thread gets the core for a moment, instead of
// waking us when we sleep. Only for a few requests (with many a wake is shared), and not while
// somebody else holds the core: then giving it away costs a time slice. Whether something came.
static bool wait_a_moment(struct hub *h)
{
    struct engine_thread *t = &h->engine.threads[0];
    uint64_t each = atomic_load_explicit(&t->run_ns, memory_order_relaxed);
    if (each == 0 || each > HUB_YIELD_NS || h->in_flight > HUB_YIELD_REQUESTS ||
        h->handed[0] == atomic_load(&t->runs_done))
        return false;
    uint64_t began = clock_now_ns();
    if (began < h->no_yield_ns)
        return false;
    for (int i = 0; i < HUB_YIELDS && h->handed[0] != atomic_load(&t->runs_done); i++) {
        sched_yield();
        uint64_t now = clock_now_ns();
        if (now - began > HUB_YIELD_LATE_NS) {
            h->no_yield_ns = now + HUB_YIELD_PAUSE_NS;
            break;
        }
    }
    return !outbox_empty(&h->engine.outbox);
}

static void on_async(uv_async_t *a)
{
    struct hub *h = CONTAINER_OF(a, struct hub, async);
    atomic_store(&h->engine.outbox.sleeping, false); // the turn does the work
}

// A flush may have emptied a link for which answers wait; then nothing else would wake us.
static bool answers_can_go_on(struct hub *h)
{
    list_for_each (n, &h->neighbours) {
        struct neighbour *to = CONTAINER_OF(n, struct neighbour, node);
        if (!list_empty(&to->stalled) && !link_blocked(&to->link))
            return true;
    }
    return false;
}

static void on_turn(uv_prepare_t *p)
{
    struct hub *h = CONTAINER_OF(p, struct hub, prepare);
    struct outbox *out = &h->engine.outbox;
    if (!h->booted)
        return;
    for (int i = 0; i < ROUNDS_MAX; i++) {
        atomic_store(&out->sleeping, false);
        empty_outbox(h);
        list_for_each_safe (n, &h->neighbours)
            answer_stalled(h, CONTAINER_OF(n, struct neighbour, node));
        answer_limbo(h);
        if (h->drain.phase != DRAIN_NONE)
            drain_turn(h);
        uint64_t again = hand_out(h);
        lend(h);
        hub_flush(h);
        if (h->slots.again_ns && h->slots.again_ns < again)
            again = h->slots.again_ns;
        set_alarm(h, again == UINT64_MAX ? 0 : again);
        if (wait_a_moment(h))
            continue;
        atomic_store(&out->sleeping, true);
        if (outbox_empty(out) && !answers_can_go_on(h))
            return;
    }
    uv_async_send(&h->async);
}

/* ---- what the instance says ---- */

void hub_set_numbers(struct hub *h)
{
    const struct engine *e = &h->engine;
    struct orders_numbers n = orders_numbers(&h->orders, &e->plan, e->plugin.d.run, e->concurrency);
    if (h->orders.max_ongoing > n.cap)
        LOGW("max_ongoing_requests %u is more than the plugin takes; it is %u",
             h->orders.max_ongoing, n.cap);
    h->batch.conf = (struct batch_conf){.max = n.max_batch, .wait_ns = n.batch_wait_ns};
    slots_resize(&h->slots, n.cap);
}

static void on_loaded(struct hub *h)
{
    struct engine *e = &h->engine;
    struct err err = {0};
    hub_set_numbers(h);
    for (uint32_t i = 1; i < e->concurrency; i++)
        if (engine_thread_start(e, i, &err) < 0)
            hub_die(h, WORKER_EXIT_FAILED, "%s", err.msg);
    atomic_store(&h->page->n_threads, e->n_threads);
    if (h->drain.phase == DRAIN_NONE)
        warmup_begin(h);
}

void hub_ready(struct hub *h)
{
    slots_close(&h->slots, false);
    h->progress = 1;
    hub_set_state(h, WS_READY, "");
    LOGI("ready: plugin %s, %u slots", h->page->plugin, h->slots.cap);
    change_next(h);
}

void hub_fail(struct hub *h, const char *text)
{
    hub_set_state(h, WS_FAILED, text);
    hub_die(h, WORKER_EXIT_FAILED, "%s", text);
}

static void on_health(struct hub *h, const struct event *ev)
{
    h->asking_health = false;
    h->asked_health_ns = clock_now_ns();
    if (ev->code < 0)
        hub_die(h, WORKER_EXIT_FATAL, "health() returned %d: %s", ev->code, ev->text);
    if (h->drain.phase != DRAIN_NONE)
        return;
    if (ev->code > 0 && h->state == WS_READY) {
        LOGW("health() returned %d: %s; no new work for now", ev->code, ev->text);
        slots_close(&h->slots, true);
        hub_set_state(h, WS_DEGRADED, ev->text);
    } else if (ev->code == 0 && h->state == WS_DEGRADED) {
        LOGI("health() is good again");
        slots_close(&h->slots, false);
        hub_set_state(h, WS_READY, "");
    }
}

static void on_event(struct hub *h, struct event *ev)
{
    switch (ev->kind) {
    case EVENT_READY:
        on_loaded(h);
        break;
    case EVENT_FAILED:
        hub_fail(h, ev->text);
    case EVENT_PROGRESS:
        h->progress = ev->done;
        snprintf(h->text, sizeof h->text, "%s", ev->text);
        tell_control(h);
        break;
    case EVENT_FATAL:
        empty_outbox(h); // what was answered before still leaves
        hub_die(h, WORKER_EXIT_FATAL, "%s", ev->text);
    case EVENT_HEALTH:
        on_health(h, ev);
        break;
    case EVENT_DRAINED:
        break;
    case EVENT_STOPPED:
        drain_stopped(h);
        break;
    case EVENT_CHANGED:
        change_done(h, ev->code, ev->text);
        break;
    }
}

/* ---- the tick ---- */

static void die_stalled(struct hub *h, uint32_t i, uint64_t silent, uint64_t limit,
                        const char *name)
{
    struct page_thread *seen = &h->page->threads[i];
    uint32_t doing = atomic_load(&seen->doing);
    h->page->last.tid = atomic_load(&seen->tid);
    h->page->last.doing = doing;
    bool dumped = crash_dump(h->engine.threads[i].thread);
    LOGE("stack of the stuck thread:\n%s", dumped ? h->page->last.backtrace : "not to be had");
    hub_die(h, WORKER_EXIT_STALLED, "stalled in %s() for %.1f s without a sign of life (%s: %.1f)",
            page_doing_names[doing < PD_COUNT ? doing : PD_IDLE], (double)silent / (double)NS_PER_S,
            name, (double)limit / (double)NS_PER_S);
}

static void check_liveness(struct hub *h, uint64_t now)
{
    struct engine *e = &h->engine;
    struct liveness_limits limits = {.stall_ns = ns_of(h->orders.stall_timeout_s),
                                     .run_ns = ns_of(h->orders.run_timeout_s),
                                     .load_ns = ns_of(h->orders.load_timeout_s)};
    if (h->warmup.on)
        warmup_soften(&limits);
    for (uint32_t i = 0; i < e->n_threads; i++) {
        struct page_thread *seen = &h->page->threads[i];
        uint64_t sign = atomic_load(&seen->sign_ns), foreign = atomic_load(&e->foreign_ns), limit;
        const char *name;
        struct liveness_view v = {.doing = atomic_load_explicit(&seen->doing, memory_order_acquire),
                                  .since_ns = atomic_load(&seen->since_ns),
                                  .sign_ns = sign > foreign ? sign : foreign,
                                  .progress_ns = atomic_load(&e->progress_ns),
                                  .last_deadline_ns = atomic_load(&e->threads[i].last_deadline_ns)};
        uint64_t silent = liveness_check(&v, &limits, now, &limit, &name);
        if (silent)
            die_stalled(h, i, silent, limit, name);
    }
}

static void check_deadlines(struct hub *h, uint64_t now)
{
    size_t pos = 0;
    for (struct request *r; (r = map_next(&h->requests, &pos, NULL));)
        if (r->pub.deadline_ns && now >= r->pub.deadline_ns)
            hub_cancel(h, r, WHY_DEADLINE);
}

static void check_health(struct hub *h, uint64_t now)
{
    bool degraded = h->state == WS_DEGRADED;
    uint64_t period = degraded ? HUB_DEGRADED_MS * NS_PER_MS : ns_of(h->orders.health_period_s);
    if (!h->engine.plugin.d.health || h->asking_health || (!degraded && h->state != WS_READY) ||
        now - h->asked_health_ns < period)
        return;
    h->asking_health = true;
    hub_call(h, &(struct call){.kind = CALL_HEALTH});
}

static void on_tick(uv_timer_t *t)
{
    struct hub *h = CONTAINER_OF(t, struct hub, tick);
    uint64_t now = clock_now_ns();
    atomic_store(&h->page->heartbeat_ns, now);
    if (!h->booted)
        return;
    warmup_tick(h, now);
    check_liveness(h, now);
    check_deadlines(h, now);
    if (h->state == WS_READY || h->state == WS_DEGRADED)
        check_health(h, now);
    if (now - h->told_ns >= NS_PER_S)
        tell_control(h);
}

/* ---- the supervisor ---- */

static int boot(struct hub *h, const struct wire_frame *f, struct err *err)
{
    struct wire_boot m;
    int rc = wire_get_boot(f, &m, err);
    if (rc == 0 && h->booted)
        rc = err_set(err, SV_E_INVALID, "a second BOOT");
    if (rc == 0)
        rc = orders_parse(&h->orders, m.orders, err);
    if (rc < 0)
        return rc;
    h->up.timeout_s = h->orders.orphan_timeout_s;
    orders_show_devices(&h->orders);
    engine_init(&h->engine, &h->orders, h->page, &h->async);
    const char *labels = h->engine.host.labels;
    h->batch_size = metrics_core(h->page, M_batch_size, labels);
    h->cancelled = metrics_core(h->page, M_cancelled, labels);
    for (uint32_t i = 0; i < BATCH_REASONS; i++) {
        char with[256], reason[32];
        metrics_labels(reason, sizeof reason, "reason", batch_reason_names[i], (const char *)NULL);
        snprintf(with, sizeof with, "%.200s,%s", labels, reason);
        h->batches[i] = metrics_core(h->page, M_batches, with);
    }
    atomic_store(&h->page->threads[ENGINE_IO_THREAD].tid, os_thread_id());
    atomic_store(&h->page->n_threads, 1);
    h->booted = true;
    h->asked_health_ns = clock_now_ns();
    hub_set_state(h, WS_STARTING, "");
    rc = engine_thread_start(&h->engine, 0, err);
    if (rc == 0)
        hub_call(h, &(struct call){.kind = CALL_START});
    return rc;
}

static int take_up(struct hub *h, struct wire_frame *f, struct err *err)
{
    struct wire_attach attach;
    struct wire_stop stop;
    int rc;
    switch (f->head.kind) {
    case WIRE_boot:
        return boot(h, f, err);
    case WIRE_attach:
        if ((rc = wire_get_attach(f, &attach, err)) < 0)
            return rc;
        if (!h->booted || f->head.n_fds < 1)
            return err_set(err, SV_E_INVALID, "ATTACH with %u descriptors", f->head.n_fds);
        for (int i = 1; i < f->head.n_fds; i++)
            close(f->fds[i]); // the neighbour's page: nothing here needs it
        neighbour_attach(h, &attach, f->fds[0]);
        return 0;
    case WIRE_stop:
        if ((rc = wire_get_stop(f, &stop, err)) < 0)
            return rc;
        if (!h->booted)
            _exit(0);
        drain_begin(h, clock_now_ns() + stop.grace_ms * NS_PER_MS);
        return 0;
    default:
        return 0;
    }
}

static void on_up_frame(struct channel *c, struct wire_frame *f)
{
    struct hub *h = c->ctx;
    struct err err = {0};
    if (take_up(h, f, &err) < 0)
        hub_die(h, WORKER_EXIT_PROTOCOL, "the supervisor broke the protocol: %s", err.msg);
}

static void on_orphan(struct channel *c, const struct err *err)
{
    struct hub *h = c->ctx;
    if (!h->booted)
        _exit(WORKER_EXIT_PROTOCOL);
    LOGW("the supervisor is gone%s%s; serving on for %.0f s, unless another one comes",
         err ? ": " : "", err ? err->msg : "", c->timeout_s);
}

static void on_nobody_came(struct channel *c)
{
    struct hub *h = c->ctx;
    LOGW("no supervisor came within %.0f s", c->timeout_s);
    drain_begin(h, clock_now_ns() + ns_of(h->orders.shutdown_timeout_s));
}

// To a new supervisor.
static void introduce(struct channel *c, struct channel_words *w)
{
    struct hub *h = c->ctx;
    list_for_each (n, &h->neighbours) {
        const struct neighbour *to = CONTAINER_OF(n, struct neighbour, node);
        buf_put(&w->peers, &to->child_id, sizeof to->child_id);
    }
    w->draining = h->drain.phase != DRAIN_NONE;
    w->kept_fd = CHANNEL_FD_OUTPUT;
}
