// SPDX-License-Identifier: Apache-2.0
#include "supervise/adopt.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"
#include "supervise/keep.h"
#include "supervise/kin.h"
#include "wire/channel.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ADOPT_BACKLOG = 4096, ADOPT_ACCEPTS = 64 }; // connections; accepted in one turn

struct awaited { // one orphan
    pid_t pid;
    int pidfd; // owned
    bool over; // it has come, or ended
};

struct guest {
    struct list node; // adopt.guests
    struct adopt *adopt;
    struct child *child; // owned until adopt_finish hands it to keep
    struct awaited *who;
    int listener; // owned, or -1
    bool introduced, draining, unfit;
    bool gone; // its connection has ended: it comes again, or ends
    struct buf orders;
};

struct held {         // a page of somebody who may be dead
    struct list node; // adopt.held
    struct wire_held what;
    char name[CHILD_NAME_MAX];
    int fd; // owned
};

struct adopt {
    struct supervisor *s;
    void (*done)(struct supervisor *s);
    int listen_fd, fold_fd; // owned; fold_fd -1: nobody brought it
    uv_poll_t poll;
    uv_timer_t tick;
    unsigned handles;        // that are not closed yet
    struct awaited *awaited; // owned
    size_t n_awaited, n_held;
    size_t n_controls; // the first of the awaited
    struct list guests, held;
    uint64_t began_ns;
    bool killed, over;
};

static void find_kin(struct adopt *a);
static void on_poll(uv_poll_t *h, int status, int events);
static void on_tick(uv_timer_t *h);
static bool welcome(struct adopt *a, int own_socket);
static void kill_late(struct adopt *a);
static void end_wait(struct adopt *a);
static void on_frame(struct child *c, struct wire_frame *f);
static void on_end(struct child *c);
static void on_gone(struct child *c);
static int take_orphan(struct guest *g, struct wire_frame *f, struct err *err);
static int take_fold(struct guest *g, struct wire_frame *f, struct err *err);
static int take_held(struct guest *g, struct wire_frame *f, struct err *err);
static void drop(struct guest *g);
static void bury_held(struct adopt *a);

static const struct child_ops ops = {.on_frame = on_frame, .on_end = on_end, .on_gone = on_gone};

int adopt_begin(struct supervisor *s, void (*done)(struct supervisor *s), struct err *err)
{
    int fd = os_unix_listen(s->state_dir, CHANNEL_SOCKET, ADOPT_BACKLOG, err);
    if (fd < 0)
        return err_ctx(err, "taking over what an earlier server left running");
    struct adopt *a = xcalloc(1, sizeof *a);
    *a = (struct adopt){.s = s, .done = done, .listen_fd = fd, .fold_fd = -1, .handles = 2};
    list_init(&a->guests);
    list_init(&a->held);
    s->adopt = a;
    a->began_ns = clock_now_ns();
    find_kin(a);
    if (a->n_awaited > a->n_controls)
        LOGI("%zu processes of an earlier server still run; taking them over",
             a->n_awaited - a->n_controls);
    uv_timer_init(&s->loop, &a->tick);
    uv_timer_start(&a->tick, on_tick, 0, ADOPT_TICK_MS);
    CHECK(uv_poll_init(&s->loop, &a->poll, fd) == 0);
    CHECK(uv_poll_start(&a->poll, UV_READABLE, on_poll) == 0);
    return 0;
}

// The pidfd first, then a second look: a number that was reused meanwhile is not kin.
static struct awaited *await(struct adopt *a, pid_t pid, int as)
{
    for (size_t i = 0; i < a->n_awaited; i++)
        if (a->awaited[i].pid == pid)
            return &a->awaited[i];
    int pidfd = a->n_awaited < ADOPT_MAX ? os_pidfd_open(pid, NULL) : -1;
    if (pidfd < 0)
        return NULL;
    if (!kin_is(a->s->kin_fd, as, pid)) {
        close(pidfd);
        return NULL;
    }
    a->awaited[a->n_awaited] = (struct awaited){.pid = pid, .pidfd = pidfd};
    return &a->awaited[a->n_awaited++];
}

static void find(struct adopt *a, int as)
{
    pid_t *pids = xcalloc(ADOPT_MAX, sizeof *pids);
    size_t n = kin_find(a->s->kin_fd, as, pids, ADOPT_MAX);
    for (size_t i = 0; i < n && i < ADOPT_MAX; i++)
        await(a, pids[i], as);
    xfree(pids);
}

// A control without a supervisor leaves; but two of them must never be at one store, so it is
// helped, and waited for.
static void find_kin(struct adopt *a)
{
    a->awaited = xcalloc(ADOPT_MAX, sizeof *a->awaited);
    find(a, CHANNEL_FD_KIN_CONTROL);
    for (size_t i = 0; i < a->n_awaited; i++)
        os_pidfd_kill(a->awaited[i].pidfd, a->awaited[i].pid, SIGKILL, true);
    a->n_controls = a->n_awaited;
    find(a, CHANNEL_FD_KIN);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct adopt *a = CONTAINER_OF(h, struct adopt, poll);
    (void)status, (void)events;
    for (int i = 0; i < ADOPT_ACCEPTS; i++) {
        int fd = accept4(a->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (!welcome(a, fd))
            close(fd);
    }
}

// Takes own_socket when true.
static bool welcome(struct adopt *a, int own_socket)
{
    uid_t uid;
    pid_t pid;
    struct err err;
    if (os_unix_peer(own_socket, &uid, &pid, &err) < 0 || uid != geteuid() || pid <= 0)
        return false;
    struct awaited *who = await(a, pid, CHANNEL_FD_KIN);
    int pidfd = who ? dup(who->pidfd) : -1;
    if (pidfd < 0)
        return false;
    list_for_each_safe (n, &a->guests) {
        struct guest *old = CONTAINER_OF(n, struct guest, node);
        if (old->who == who)
            drop(old);
    }
    struct guest *g = xcalloc(1, sizeof *g);
    const struct child_start start = {
        .loop = &a->s->loop, .turn = &a->s->turn, .ops = &ops, .ctx = g};
    *g = (struct guest){.adopt = a, .who = who, .listener = -1};
    if (child_greet(&start, own_socket, pid, pidfd, &g->child, &err) < 0) {
        LOGE("%s", err.msg);
        close(pidfd);
        xfree(g);
        return false;
    }
    list_push(&a->guests, &g->node);
    return true;
}

static bool all_over(struct adopt *a)
{
    bool all = true;
    for (size_t i = 0; i < a->n_awaited; i++) {
        struct awaited *w = &a->awaited[i];
        w->over |= os_pidfd_ended(w->pidfd);
        all &= w->over;
    }
    return all;
}

static void on_tick(uv_timer_t *h)
{
    struct adopt *a = CONTAINER_OF(h, struct adopt, tick);
    uint64_t waited_ms = (clock_now_ns() - a->began_ns) / NS_PER_MS;
    bool all = all_over(a);
    if (!all && waited_ms >= ADOPT_WAIT_MS && !a->killed)
        kill_late(a);
    if (all || waited_ms >= ADOPT_WAIT_MS + ADOPT_KILL_MS)
        end_wait(a);
}

static void kill_late(struct adopt *a)
{
    a->killed = true;
    for (size_t i = 0; i < a->n_awaited; i++) {
        struct awaited *w = &a->awaited[i];
        if (w->over)
            continue;
        LOGW("process %d of an earlier server did not say who it is within %d ms; killing it",
             (int)w->pid, ADOPT_WAIT_MS);
        os_pidfd_kill(w->pidfd, w->pid, SIGKILL, true);
    }
}

static void free_when_closed(struct adopt *a)
{
    if (--a->handles == 0)
        xfree(a);
}

static void on_poll_closed(uv_handle_t *h)
{
    free_when_closed(CONTAINER_OF((uv_poll_t *)h, struct adopt, poll));
}

static void on_tick_closed(uv_handle_t *h)
{
    free_when_closed(CONTAINER_OF((uv_timer_t *)h, struct adopt, tick));
}

// Whoever tries later finds nobody: it has been killed, or is about to end by itself.
static void end_wait(struct adopt *a)
{
    char path[CHANNEL_DIR_MAX + sizeof CHANNEL_SOCKET + 1];
    uv_timer_stop(&a->tick);
    uv_poll_stop(&a->poll);
    snprintf(path, sizeof path, "%s/%s", a->s->state_dir, CHANNEL_SOCKET);
    unlink(path);
    a->over = true;
    list_for_each_safe (n, &a->guests) {
        struct guest *g = CONTAINER_OF(n, struct guest, node);
        if (!g->introduced || g->gone)
            drop(g);
    }
    a->done(a->s);
}

/* ---- what a guest says ---- */

static void on_frame(struct child *c, struct wire_frame *f)
{
    struct guest *g = c->ctx;
    struct err err;
    int rc = 0;
    bool known = !g->introduced && !g->adopt->over;
    if (known && f->head.kind == WIRE_orphan)
        rc = take_orphan(g, f, &err);
    else if (known && f->head.kind == WIRE_fold)
        rc = take_fold(g, f, &err);
    else if (known && f->head.kind == WIRE_held)
        rc = take_held(g, f, &err);
    else
        known = false;
    if (rc < 0)
        LOGE("%s frame of process %d of an earlier server: %s", wire_kind_name(f->head.kind),
             (int)c->pid, err.msg);
    for (unsigned i = 0; (rc < 0 || !known) && i < f->head.n_fds; i++)
        close(f->fds[i]);
    if (rc < 0)
        drop(g);
}

static int count_fds(const struct wire_frame *f, unsigned least, unsigned most, struct err *err)
{
    if (f->head.n_fds >= least && f->head.n_fds <= most)
        return 0;
    return err_set(err, SV_E_INVALID, "%u descriptors, not %u to %u", f->head.n_fds, least, most);
}

static bool is_known(struct adopt *a, uint64_t child_id)
{
    list_for_each (n, &a->guests) {
        const struct guest *g = CONTAINER_OF(n, struct guest, node);
        if (g->introduced && g->child->id == child_id)
            return true;
    }
    return false;
}

static int take_orphan(struct guest *g, struct wire_frame *f, struct err *err)
{
    struct wire_orphan m;
    if (count_fds(f, 1, 2, err) < 0 || wire_get_orphan(f, &m, err) < 0)
        return err->code;
    if (is_known(g->adopt, m.child_id))
        return err_set(err, SV_E_INVALID, "another one is child %llu",
                       (unsigned long long)m.child_id);
    int more = f->head.n_fds == 2 ? f->fds[1] : -1;
    bool worker = m.role == ROLE_WORKER;
    int rc = child_introduce(g->child, &m, f->fds[0], worker ? more : -1, err);
    if (rc < 0)
        return rc;
    g->listener = worker ? -1 : more;
    g->draining = m.draining != 0;
    g->introduced = g->who->over = true;
    buf_put(&g->orders, m.orders.p, m.orders.n);
    return 0;
}

static int take_fold(struct guest *g, struct wire_frame *f, struct err *err)
{
    struct wire_fold m;
    struct page *page;
    struct adopt *a = g->adopt;
    if (count_fds(f, 1, 1, err) < 0 || wire_get_fold(f, &m, err) < 0 ||
        page_map(f->fds[0], &page, err) < 0)
        return err->code;
    page_unmap(page);
    if (a->fold_fd >= 0)
        close(f->fds[0]); // all ingresses of one server share it
    else
        a->fold_fd = f->fds[0];
    return 0;
}

static bool find_held(struct adopt *a, uint64_t child_id)
{
    list_for_each (n, &a->held) {
        if (CONTAINER_OF(n, struct held, node)->what.child_id == child_id)
            return true;
    }
    return false;
}

static int take_held(struct guest *g, struct wire_frame *f, struct err *err)
{
    struct adopt *a = g->adopt;
    struct wire_held m;
    struct page *page;
    if (count_fds(f, 1, 1, err) < 0 || wire_get_held(f, &m, err) < 0)
        return err->code;
    if (!*m.name || strlen(m.name) >= CHILD_NAME_MAX || m.role < ROLE_CONTROL ||
        m.role > ROLE_WORKER || a->n_held >= ADOPT_HELD_MAX)
        return err_set(err, SV_E_INVALID,
                       "a name of %zu bytes, role %u, or more than %d pages of the dead",
                       strlen(m.name), m.role, ADOPT_HELD_MAX);
    if (page_map(f->fds[0], &page, err) < 0)
        return err->code;
    page_unmap(page);
    if (find_held(a, m.child_id)) { // each ingress has all of them
        close(f->fds[0]);
        return 0;
    }
    struct held *h = xcalloc(1, sizeof *h);
    h->what = m;
    snprintf(h->name, sizeof h->name, "%s", m.name);
    h->what.name = h->name;
    h->fd = f->fds[0];
    list_push(&a->held, &h->node);
    a->n_held++;
    return 0;
}

static void free_guest(struct guest *g)
{
    list_remove(&g->node);
    if (g->listener >= 0)
        close(g->listener);
    buf_finish(&g->orders);
    xfree(g);
}

static void drop(struct guest *g)
{
    child_forget(g->child);
    free_guest(g);
}

// It ended while it was a guest: what it was is gone with it, but for its page.
static void on_end(struct child *c)
{
    struct guest *g = c->ctx;
    LOGW("%s (pid %d) ended before it was taken over", c->name, (int)c->pid);
    if (g->introduced)
        keep_adopt_dead(g->adopt->s, c);
    child_close(c);
    free_guest(g);
}

static void on_gone(struct child *c)
{
    struct guest *g = c->ctx;
    g->who->over = false;
    g->gone = true; // kept until then: should it have ended, its page is all there is
}

/* ---- what becomes of them ---- */

size_t adopt_count(const struct supervisor *s)
{
    size_t n = 0;
    list_for_each (it, &s->adopt->guests)
        n++;
    return n;
}

bool adopt_any(const struct supervisor *s)
{
    return s->adopt && s->adopt->n_awaited > s->adopt->n_controls;
}

int adopt_take_fold(struct supervisor *s)
{
    int fd = s->adopt->fold_fd;
    s->adopt->fold_fd = -1;
    return fd;
}

void adopt_take_listeners(struct supervisor *s)
{
    struct err err;
    list_for_each (n, &s->adopt->guests) {
        struct guest *g = CONTAINER_OF(n, struct guest, node);
        if (g->child->role != ROLE_INGRESS || g->draining)
            continue;
        if (g->listener < 0) { // one of ours at its place would be nobody's
            g->unfit = true;
            continue;
        }
        if (listeners_adopt(&s->listeners, s->host, s->want_port, s->want_ingress, g->child->place,
                            g->listener, &err) == 0) {
            g->listener = -1;
            continue;
        }
        LOGI("%s (pid %d) of an earlier server is told to stop: %s", g->child->name,
             (int)g->child->pid, err.msg);
        g->unfit = true;
    }
}

void adopt_finish(struct supervisor *s)
{
    struct adopt *a = s->adopt;
    s->adopt = NULL;
    list_for_each_safe (n, &a->guests) {
        struct guest *g = CONTAINER_OF(n, struct guest, node);
        struct bytes orders = {buf_len(&g->orders) ? buf_head(&g->orders) : "",
                               buf_len(&g->orders)};
        LOGI("took over %s (pid %d, generation %u)", g->child->name, (int)g->child->pid,
             g->child->generation);
        keep_adopt(s, g->child, orders, g->draining || g->unfit);
        if (g->unfit) {
            wire_put_stop(&g->child->link.out, 0, 0, &(struct wire_stop){.grace_ms = s->grace_ms});
            link_kick(&g->child->link);
        }
        free_guest(g);
    }
    bury_held(a);
    for (size_t i = 0; i < a->n_awaited; i++)
        close(a->awaited[i].pidfd);
    xfree(a->awaited);
    if (a->fold_fd >= 0)
        close(a->fold_fd);
    uv_close((uv_handle_t *)&a->poll, on_poll_closed);
    uv_close((uv_handle_t *)&a->tick, on_tick_closed);
    close(a->listen_fd);
}

// Who is not there any more gets a grave: control folds its numbers.
static void bury_held(struct adopt *a)
{
    list_for_each_safe (n, &a->held) {
        struct held *h = CONTAINER_OF(n, struct held, node);
        keep_grave(a->s, &h->what, h->fd);
        list_remove(n);
        xfree(h);
    }
}
