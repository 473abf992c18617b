// SPDX-License-Identifier: Apache-2.0
#include "serve/ingress.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/turn.h"
#include "obs/log.h"
#include "serve/front.h"
#include "serve/inflight.h"
#include "serve/ingress_orders.h"
#include "serve/last_good.h"
#include "serve/pages.h"
#include "serve/peer.h"
#include "serve/request.h"
#include "wire/channel.h"
#include "wire/link.h"
#include "wire/page.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INGRESS_FDS = 512 };       // descriptors kept for links, pages and files
enum { HELD_MAX = 256 };          // pages handed to a new supervisor of the living, and of the dead
enum { ORPHAN_GRACE_MS = 20000 }; // without a supervisor nobody says how long a drain may take

struct control { // one link to a control process
    struct link link;
    struct ingress *ingress; // NULL: replaced or gone
};

struct ingress {
    uv_loop_t loop;
    struct turn turn;
    struct channel channel;  // to the supervisor
    struct control *control; // owned until its link is closed; NULL: away
    char name[128];
    struct ingress_orders orders;
    struct page *page, *fold; // its own, in `pages`; the fold page, owned
    struct pages pages;
    struct inflight inflight;
    struct front front;
    int listen_fd;       // -1: none yet, or the server's
    int listen_copy;     // for the next supervisor; -1: none yet, or no longer
    uint32_t open_files; // the limit
    enum wire_status state;
    uint32_t told_in_flight;
    bool booted, draining, stopping, ended;
    uint64_t deadline_ns; // of the drain
    uv_timer_t alone, tick, drain, sweep;
    int exit_code;
};

static int start(struct ingress *i, const char *name, struct err *err);
static void finish(struct ingress *i);
static void on_supervisor_frame(struct channel *c, struct wire_frame *f);
static void on_orphan(struct channel *c, const struct err *err);
static void on_nobody_came(struct channel *c);
static void introduce(struct channel *c, struct channel_words *w);
static int take_frame(struct ingress *i, struct wire_frame *f, struct err *err);
static int take_boot(struct ingress *i, struct wire_frame *f, struct err *err);
static int take_listener(struct ingress *i, struct wire_frame *f, struct err *err);
static int take_attach(struct ingress *i, struct wire_frame *f, struct err *err);
static int take_page(struct ingress *i, struct wire_frame *f, struct err *err);
static int take_page_gone(struct ingress *i, struct wire_frame *f, struct err *err);
static int attach_worker(struct ingress *i, const struct wire_attach *m, const struct page *page,
                         int own_fd, struct err *err);
static int attach_control(struct ingress *i, int own_fd, struct err *err);
static void on_worker_gone(struct peer *p, const struct err *fault);
static void on_control_frame(struct link *l, struct wire_frame *f);
static void on_control_closed(struct link *l, const struct err *err);
static void on_control_free(struct link *l);
static void take_snapshot(struct ingress *i, struct bytes json);
static void on_alone(uv_timer_t *t);
static void on_tick(uv_timer_t *t);
static void listen_if_ready(struct ingress *i);
static void set_state(struct ingress *i, enum wire_status state);
static void tell_state(struct ingress *i);
static void drain(struct ingress *i, uint64_t deadline_ns, bool stopping);
static void on_sweep(uv_timer_t *t);
static void on_drain_over(uv_timer_t *t);
static void on_last_moment(uv_timer_t *t);
static void on_http_idle(void *ctx);
static void end(struct ingress *i, int exit_code);
static void show_pages(struct ingress *i);

int ingress_main(const char *name)
{
    static struct ingress ingress;
    struct ingress *i = &ingress;
    struct log_conf log = {
        .fd = CHANNEL_FD_LOG, .level = LOG_INFO, .role = "ingress", .name = name};
    log_conf_from_env(&log);
    log_init(&log);
    signal(SIGPIPE, SIG_IGN);
    i->open_files = (uint32_t)os_nofile_raise();
    struct err err;
    if (start(i, name, &err) < 0) {
        LOGE("starting: %s", err.msg);
        return 1;
    }
    uv_run(&i->loop, UV_RUN_DEFAULT);
    finish(i);
    return i->exit_code;
}

static int start(struct ingress *i, const char *name, struct err *err)
{
    static const struct channel_ops ops = {.on_frame = on_supervisor_frame,
                                           .on_orphan = on_orphan,
                                           .on_alone = on_nobody_came,
                                           .introduce = introduce};
    i->listen_fd = i->listen_copy = -1;
    snprintf(i->name, sizeof i->name, "%s", name);
    if (uv_loop_init(&i->loop) < 0 || turn_init(&i->turn, &i->loop) < 0)
        return err_set(err, SV_E_INTERNAL, "no event loop");
    if (pages_add(&i->pages, 0, 0, CHANNEL_FD_PAGE, &i->page, err) < 0)
        return err_ctx(err, "own page (descriptor %d)", CHANNEL_FD_PAGE);
    if (page_map(CHANNEL_FD_FOLD, &i->fold, err) < 0)
        return err_ctx(err, "fold page (descriptor %d)", CHANNEL_FD_FOLD);
    atomic_store(&i->page->pid, (uint64_t)getpid());
    atomic_store(&i->page->heartbeat_ns, clock_now_ns());
    uv_timer_init(&i->loop, &i->alone);
    uv_timer_init(&i->loop, &i->tick);
    uv_timer_init(&i->loop, &i->drain);
    uv_timer_init(&i->loop, &i->sweep);
    i->alone.data = i->tick.data = i->drain.data = i->sweep.data = i;
    uv_timer_start(&i->tick, on_tick, INGRESS_TICK_MS, INGRESS_TICK_MS);
    if (inflight_init(&i->inflight, &i->loop, &i->turn, i->page) < 0)
        return err_set(err, SV_E_INTERNAL, "no timer");
    return channel_open(&i->channel, &i->loop, &i->turn, ROLE_INGRESS, i->name, &ops, i, err);
}

// After the loop: everything is given back, so that a leak checker sees only leaks.
static void finish(struct ingress *i)
{
    while (i->booted && !list_empty(&i->front.peers)) {
        struct peer *p = CONTAINER_OF(list_first(&i->front.peers), struct peer, node);
        while (!list_empty(&p->requests)) {
            struct request *r = CONTAINER_OF(list_first(&p->requests), struct request, node);
            request_leave_peer(r);
            request_release(r);
        }
        front_drop_peer(&i->front, p);
        peer_close(p);
    }
    if (i->booted)
        front_finish(&i->front);
    inflight_close(&i->inflight);
    if (i->control) {
        i->control->ingress = NULL;
        link_close(&i->control->link, on_control_free);
    }
    channel_close(&i->channel);
    uv_close((uv_handle_t *)&i->alone, NULL);
    uv_close((uv_handle_t *)&i->tick, NULL);
    uv_close((uv_handle_t *)&i->drain, NULL);
    uv_close((uv_handle_t *)&i->sweep, NULL);
    turn_close(&i->turn);
    uv_run(&i->loop, UV_RUN_DEFAULT);
    pages_finish(&i->pages);
    page_unmap(i->fold);
    uv_loop_close(&i->loop);
}

/* ---- the supervisor's channel ---- */

static void on_supervisor_frame(struct channel *c, struct wire_frame *f)
{
    struct ingress *i = c->ctx;
    struct err err;
    if (take_frame(i, f, &err) < 0)
        LOGE("%s frame of the supervisor: %s", wire_kind_name(f->head.kind), err.msg);
}

static void on_orphan(struct channel *c, const struct err *err)
{
    struct ingress *i = c->ctx;
    LOGW("the supervisor is gone%s%s; serving on for %.0f s, unless another one comes",
         err ? ": " : "", err ? err->msg : "", c->timeout_s);
    if (!i->booted)
        end(i, 1);
}

static void on_nobody_came(struct channel *c)
{
    LOGW("no supervisor came within %.0f s", c->timeout_s);
    drain(c->ctx, clock_now_ns() + ORPHAN_GRACE_MS * NS_PER_MS, true);
}

static bool is_linked(struct ingress *i, uint64_t child_id)
{
    list_for_each (n, &i->front.peers) {
        struct peer *p = CONTAINER_OF(n, struct peer, node);
        if (p->child_id == child_id && !p->dead)
            return true;
    }
    return false;
}

// The numbers of those that have died, or may before they are taken over, nobody else may have.
static void hand_over_page(struct ingress *i, size_t k)
{
    char name[128];
    const struct page *p = i->pages.all[k];
    if (!channel_put_copy(&i->channel, i->pages.held[k].fd))
        return;
    page_str(p->name, sizeof p->name, name, sizeof name);
    wire_put_held(&i->channel.link.out, 0, 0,
                  &(struct wire_held){.child_id = i->pages.child_ids[k],
                                      .role = p->role,
                                      .generation = i->pages.held[k].generation,
                                      .name = name});
}

static void hand_over_pages(struct ingress *i, bool linked)
{
    size_t n = 0;
    for (size_t k = 1; k < i->pages.n && n < HELD_MAX; k++) // the first one is its own
        if (is_linked(i, i->pages.child_ids[k]) == linked) {
            hand_over_page(i, k);
            n++;
        }
}

// To a new supervisor.
static void introduce(struct channel *c, struct channel_words *w)
{
    struct ingress *i = c->ctx;
    if (channel_put_copy(c, CHANNEL_FD_FOLD))
        wire_put_fold(&c->link.out, 0, 0, &(struct wire_fold){0});
    hand_over_pages(i, false);
    hand_over_pages(i, true); // they may die before they have come
    list_for_each (n, &i->front.peers) {
        const struct peer *p = CONTAINER_OF(n, struct peer, node);
        if (!p->dead)
            buf_put(&w->peers, &p->child_id, sizeof p->child_id);
    }
    w->place = i->orders.place;
    w->draining = i->draining;
    w->kept_fd = i->listen_copy;
}

static int take_frame(struct ingress *i, struct wire_frame *f, struct err *err)
{
    if (f->head.kind == WIRE_boot)
        return take_boot(i, f, err);
    if (f->head.kind == WIRE_stop) {
        struct wire_stop m;
        int rc = wire_get_stop(f, &m, err);
        if (rc >= 0)
            drain(i, clock_now_ns() + m.grace_ms * NS_PER_MS, true);
        return rc;
    }
    if (!i->booted) {
        for (int k = 0; k < f->head.n_fds; k++)
            close(f->fds[k]);
        return err_set(err, SV_E_INVALID, "came before boot");
    }
    switch (f->head.kind) {
    case WIRE_listener:
        return take_listener(i, f, err);
    case WIRE_attach:
        return take_attach(i, f, err);
    case WIRE_page:
        return take_page(i, f, err);
    case WIRE_page_gone:
        return take_page_gone(i, f, err);
    default:
        return 0;
    }
}

// Clients must leave room for links: a worker that comes anew could not be attached, and the
// supervisor's channel would lose its descriptors.
static void bound_connections(struct ingress *i)
{
    uint32_t quarter = i->open_files / 4;
    uint32_t room = i->open_files - (quarter < INGRESS_FDS ? quarter : INGRESS_FDS);
    uint32_t *limit = &i->orders.limits.connections;
    if (*limit <= room)
        return;
    LOGW("max_connections is %u, but only %u files may be open: %u connections are taken", *limit,
         i->open_files, room);
    *limit = room;
}

static int take_boot(struct ingress *i, struct wire_frame *f, struct err *err)
{
    struct wire_boot m;
    int rc = wire_get_boot(f, &m, err);
    if (rc < 0)
        return rc;
    if (i->booted)
        return err_set(err, SV_E_INVALID, "came twice");
    rc = ingress_orders_parse(m.orders, &i->orders, err);
    if (rc < 0) {
        end(i, 1);
        return rc;
    }
    if (m.state_dir[0])
        snprintf(i->orders.state_dir, sizeof i->orders.state_dir, "%s", m.state_dir);
    bound_connections(i);
    i->booted = true;
    i->channel.timeout_s = i->orders.orphan_timeout_s;
    i->inflight.timeout_s = i->orders.request_timeout_s;
    i->inflight.access_log = i->orders.access_log;
    front_init(&i->front, &i->inflight, i->orders.place, i->orders.root_path);
    i->front.core.fold = i->fold;
    show_pages(i);
    uv_timer_start(&i->alone, on_alone, INGRESS_ALONE_MS, 0);
    return 0;
}

static int take_listener(struct ingress *i, struct wire_frame *f, struct err *err)
{
    struct wire_listener m;
    if (f->head.n_fds != 1)
        return err_set(err, SV_E_INVALID, "%d descriptors instead of 1", f->head.n_fds);
    int rc = wire_get_listener(f, &m, err);
    if (rc < 0 || i->listen_fd >= 0 || i->front.server || i->draining) {
        close(f->fds[0]);
        return rc;
    }
    i->listen_fd = f->fds[0];
    i->listen_copy = fcntl(i->listen_fd, F_DUPFD_CLOEXEC, CHANNEL_FD_KIN + 1);
    listen_if_ready(i);
    return 0;
}

static int take_attach(struct ingress *i, struct wire_frame *f, struct err *err)
{
    struct wire_attach m;
    struct page *page;
    if (f->head.n_fds != 2)
        return err_set(err, SV_E_INVALID, "%d descriptors instead of 2", f->head.n_fds);
    int rc = wire_get_attach(f, &m, err);
    if (rc < 0)
        close(f->fds[1]);
    else
        rc = pages_add(&i->pages, m.child_id, m.generation, f->fds[1], &page, err);
    if (rc >= 0) {
        show_pages(i);
        if (m.role == ROLE_WORKER)
            rc = attach_worker(i, &m, page, f->fds[0], err);
        else if (m.role == ROLE_CONTROL)
            rc = attach_control(i, f->fds[0], err);
        else
            rc = err_set(err, SV_E_INVALID, "a peer of role %u", m.role);
    }
    if (rc < 0)
        close(f->fds[0]);
    return rc;
}

static int take_page(struct ingress *i, struct wire_frame *f, struct err *err)
{
    struct wire_page m;
    struct page *page;
    if (f->head.n_fds != 1)
        return err_set(err, SV_E_INVALID, "%d descriptors instead of 1", f->head.n_fds);
    int rc = wire_get_page(f, &m, err);
    if (rc < 0) {
        close(f->fds[0]);
        return rc;
    }
    rc = pages_add(&i->pages, m.child_id, 0, f->fds[0], &page, err);
    show_pages(i);
    return rc;
}

static int take_page_gone(struct ingress *i, struct wire_frame *f, struct err *err)
{
    struct wire_page_gone m;
    int rc = wire_get_page_gone(f, &m, err);
    if (rc < 0)
        return rc;
    // A link's end may be read after this: then its page must not be looked at.
    list_for_each (n, &i->front.peers) {
        struct peer *p = CONTAINER_OF(n, struct peer, node);
        if (p->child_id == m.child_id)
            p->page = NULL;
    }
    pages_drop(&i->pages, m.child_id);
    show_pages(i);
    return 0;
}

static void show_pages(struct ingress *i)
{
    i->front.core.pages = i->pages.all;
    i->front.core.n_pages = i->pages.n;
}

/* ---- workers ---- */

static int attach_worker(struct ingress *i, const struct wire_attach *m, const struct page *page,
                         int own_fd, struct err *err)
{
    struct peer *p;
    int rc = peer_open(&(struct peer_conf){.child_id = m->child_id,
                                           .generation = m->generation,
                                           .name = m->name,
                                           .page = page,
                                           .all = &i->inflight,
                                           .on_gone = on_worker_gone},
                       own_fd, i->name, &p, err);
    if (rc >= 0)
        front_add_peer(&i->front, p);
    return rc;
}

static void on_worker_gone(struct peer *p, const struct err *fault)
{
    struct ingress *i = CONTAINER_OF(p->all, struct ingress, inflight);
    front_drop_peer(&i->front, p);
    if (!fault || !i->control)
        return;
    wire_put_broken(&i->control->link.out, 0, 0,
                    &(struct wire_broken){.child_id = p->child_id, .why = fault->msg});
    link_kick(&i->control->link);
}

/* ---- control ---- */

static int attach_control(struct ingress *i, int own_fd, struct err *err)
{
    static const struct link_ops ops = {.on_frame = on_control_frame,
                                        .on_closed = on_control_closed};
    struct control *c = xcalloc(1, sizeof *c);
    int rc = link_open(&c->link, &i->loop, &i->turn, own_fd, ROLE_INGRESS, i->name, &ops, c, err);
    if (rc < 0) {
        xfree(c);
        return rc;
    }
    if (i->control) { // its end has not been read yet
        load_attach(&i->inflight.load, NULL);
        i->control->ingress = NULL;
        link_close(&i->control->link, on_control_free);
    }
    c->ingress = i;
    i->control = c;
    tell_state(i);
    load_attach(&i->inflight.load, &c->link);
    return 0;
}

static void on_control_frame(struct link *l, struct wire_frame *f)
{
    struct control *c = l->ctx;
    struct ingress *i = c->ingress;
    struct err err;
    int rc = 0;
    struct wire_snapshot snapshot;
    struct wire_drain order;
    if (!i)
        return;
    if (f->head.kind == WIRE_snapshot && (rc = wire_get_snapshot(f, &snapshot, &err)) >= 0)
        take_snapshot(i, snapshot.json);
    else if (f->head.kind == WIRE_drain && (rc = wire_get_drain(f, &order, &err)) >= 0)
        drain(i, order.deadline_ns, false);
    if (rc < 0)
        LOGE("%s frame of control: %s", wire_kind_name(f->head.kind), err.msg);
}

static void on_control_closed(struct link *l, const struct err *err)
{
    struct control *c = l->ctx;
    struct ingress *i = c->ingress;
    if (err)
        LOGW("link to control: %s", err->msg);
    if (i) {
        i->control = NULL;
        load_attach(&i->inflight.load, NULL);
        if (!i->front.has_snapshot)
            uv_timer_start(&i->alone, on_alone, INGRESS_ALONE_MS, 0);
    }
    link_close(l, on_control_free);
}

static void on_control_free(struct link *l)
{
    xfree(l->ctx);
}

static void take_snapshot(struct ingress *i, struct bytes json)
{
    struct snapshot s;
    struct err err;
    if (snapshot_parse(json, &s, &err) < 0) {
        LOGE("%s; keeping the routes as they are", err.msg);
        return;
    }
    LOGD("snapshot %llu with %u applications", (unsigned long long)s.version, s.n_apps);
    front_set_snapshot(&i->front, &s);
    listen_if_ready(i);
}

static void on_alone(uv_timer_t *t)
{
    struct ingress *i = t->data;
    if (i->front.has_snapshot)
        return;
    struct buf text = {0};
    struct err err;
    if (last_good_read(i->orders.state_dir, &text, &err) < 0) {
        LOGD("control says nothing yet and there is no last snapshot (%s)", err.msg);
    } else {
        LOGI("control says nothing; serving by the last snapshot");
        take_snapshot(i, (struct bytes){buf_head(&text), buf_len(&text)});
    }
    buf_finish(&text);
}

/* ---- state ---- */

static void listen_if_ready(struct ingress *i)
{
    if (i->listen_fd < 0 || !i->front.has_snapshot || i->front.server || i->draining)
        return;
    struct err err;
    int fd = i->listen_fd;
    i->listen_fd = -1;
    if (front_listen(&i->front, fd, &i->orders.limits, &err) < 0) {
        LOGE("accepting connections: %s", err.msg);
        close(fd);
        end(i, 1);
        return;
    }
    set_state(i, WS_READY);
}

static void set_state(struct ingress *i, enum wire_status state)
{
    i->state = state;
    atomic_store(&i->page->state, state);
    tell_state(i);
}

static void tell_state(struct ingress *i)
{
    i->told_in_flight = i->inflight.waiting;
    if (!i->control)
        return;
    wire_put_state(&i->control->link.out, 0, 0,
                   &(struct wire_state){.state = i->state,
                                        .in_flight = i->inflight.waiting,
                                        .progress = i->state == WS_STARTING ? 0 : 1,
                                        .text = ""});
    link_kick(&i->control->link);
}

static void on_tick(uv_timer_t *t)
{
    struct ingress *i = t->data;
    atomic_store_explicit(&i->page->heartbeat_ns, clock_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&i->page->in_flight, i->inflight.waiting, memory_order_relaxed);
    if (i->told_in_flight != i->inflight.waiting)
        tell_state(i);
}

/* ---- the end ---- */

static void drain(struct ingress *i, uint64_t deadline_ns, bool stopping)
{
    if (i->ended || (i->draining && i->stopping >= stopping && i->deadline_ns <= deadline_ns))
        return;
    if (!i->draining || deadline_ns < i->deadline_ns)
        i->deadline_ns = deadline_ns;
    bool first = !i->draining;
    i->draining = true;
    if (i->listen_copy >= 0)
        close(i->listen_copy);
    i->listen_copy = -1;
    i->stopping |= stopping;
    i->inflight.stopping = i->stopping;
    i->front.core.draining = true;
    uint64_t now = clock_now_ns();
    uint64_t wait_ms = i->deadline_ns > now ? (i->deadline_ns - now) / NS_PER_MS : 0;
    LOGI("draining: %u requests in flight, %llu ms left", i->inflight.waiting,
         (unsigned long long)wait_ms);
    if (!i->front.server) {
        end(i, 0);
        return;
    }
    uv_timer_start(&i->drain, on_drain_over, wait_ms, 0);
    set_state(i, WS_DRAINING);
    if (first)
        http_server_drain(i->front.server, on_http_idle);
    if (i->stopping && !i->ended)
        uv_timer_start(&i->sweep, on_sweep, 0, INGRESS_SWEEP_MS);
}

// A stop waits for no idle connection, nor for one that becomes idle after an answer that had begun
// before and so could not say `Connection: close`.
static void on_sweep(uv_timer_t *t)
{
    struct ingress *i = t->data;
    if (i->front.server)
        http_server_close_idle(i->front.server);
}

static void on_drain_over(uv_timer_t *t)
{
    struct ingress *i = t->data;
    if (i->inflight.waiting)
        LOGW("the time to drain is over with %u requests in flight; they end with an error",
             i->inflight.waiting);
    i->inflight.stopping = true; // a connection's next request finds no open door
    uv_timer_start(&i->drain, on_last_moment, INGRESS_LAST_MS, 0);
    inflight_fail_all(&i->inflight, "the server is shutting down");
    if (i->front.server)
        http_server_close_idle(i->front.server);
}

// Clients that take their last answer slowly have had their time.
static void on_last_moment(uv_timer_t *t)
{
    end(t->data, 0);
}

static void on_http_idle(void *ctx)
{
    struct front *f = ctx;
    end(CONTAINER_OF(f, struct ingress, front), 0);
}

static void on_server_free(void *ctx)
{
    struct front *f = ctx;
    f->server = NULL;
    uv_stop(f->all->loop);
}

static void end(struct ingress *i, int exit_code)
{
    if (i->ended)
        return;
    i->ended = true;
    uv_timer_stop(&i->sweep);
    uv_timer_stop(&i->drain);
    i->exit_code = exit_code;
    if (i->booted && i->front.server)
        http_server_destroy(i->front.server, on_server_free);
    else
        uv_stop(&i->loop);
}
