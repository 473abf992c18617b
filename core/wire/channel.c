// SPDX-License-Identifier: Apache-2.0
#include "wire/channel.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static void on_starved(struct link *l);
static void on_link_free(struct link *l);
static void on_timer(uv_timer_t *h);
static void remember(struct channel *c, const struct wire_frame *f);
static void take_adopted(struct channel *c, struct wire_frame *f);
static void seek(struct channel *c);
static void introduce(struct channel *c);

static const struct link_ops link_ops = {
    .on_frame = on_frame, .on_closed = on_closed, .on_starved = on_starved};

int channel_open(struct channel *c, uv_loop_t *loop, struct turn *turn, enum wire_role role,
                 const char *name, const struct channel_ops *ops, void *ctx, struct err *err)
{
    *c = (struct channel){
        .ops = ops, .ctx = ctx, .loop = loop, .turn = turn, .role = role, .name = name};
    fcntl(CHANNEL_FD_KIN, F_SETFD, FD_CLOEXEC); // who runs a program does not lend it our life
    // Who is stopped when its parent dies gets SIGHUP, and SIGCONT behind it (setpgid(2)): it goes
    // on.
    signal(SIGHUP, SIG_IGN);
    uv_timer_init(loop, &c->timer);
    return link_open(&c->link, loop, turn, CHANNEL_FD, role, name, &link_ops, c, err);
}

void channel_set_orders(struct channel *c, struct bytes orders)
{
    buf_clear(&c->orders);
    buf_put(&c->orders, orders.p, orders.n);
}

bool channel_put_copy(struct channel *c, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, CHANNEL_FD_KIN + 1);
    if (copy >= 0)
        link_put_fds(&c->link, &copy, 1);
    return copy >= 0;
}

void channel_close(struct channel *c)
{
    bool open = c->state == CS_OPEN || c->state == CS_ASKED;
    c->state = CS_OVER;
    if (open)
        link_close(&c->link, NULL);
    uv_close((uv_handle_t *)&c->timer, NULL);
    buf_finish(&c->orders);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct channel *c = l->ctx;
    if (f->head.kind == WIRE_boot)
        remember(c, f);
    if (f->head.kind == WIRE_adopted)
        take_adopted(c, f);
    else
        c->ops->on_frame(c, f);
}

// A BOOT that is broken is for the holder to complain about.
static void remember(struct channel *c, const struct wire_frame *f)
{
    struct wire_boot m;
    if (c->booted || wire_get_boot(f, &m, NULL) < 0)
        return;
    c->booted = true;
    c->child_id = m.child_id;
    c->generation = m.generation;
    snprintf(c->state_dir, sizeof c->state_dir, "%s", m.state_dir);
    channel_set_orders(c, m.orders);
}

// From now on it logs where its supervisor does.
static void take_adopted(struct channel *c, struct wire_frame *f)
{
    if (f->head.n_fds == 1) {
        dup3(f->fds[0], CHANNEL_FD_LOG, O_CLOEXEC);
        if (c->role != ROLE_WORKER) { // whose stdout and stderr are its own pipe
            dup2(f->fds[0], STDOUT_FILENO);
            dup2(f->fds[0], STDERR_FILENO);
        }
    }
    for (unsigned i = 0; i < f->head.n_fds; i++)
        close(f->fds[i]);
    if (c->state != CS_ASKED)
        return;
    c->state = CS_OPEN;
    c->alone = false;
    uv_timer_stop(&c->timer);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct channel *c = l->ctx;
    bool had_one = c->state == CS_OPEN;
    c->state = CS_CLOSING;
    link_close(l, on_link_free);
    if (!had_one)
        return;
    c->since_ns = clock_now_ns();
    uv_timer_start(&c->timer, on_timer, CHANNEL_RETRY_MS, CHANNEL_RETRY_MS);
    c->ops->on_orphan(c, err);
}

// What is there waits until something was closed.
static void on_starved(struct link *l)
{
    struct channel *c = l->ctx;
    uv_timer_start(&c->timer, on_timer, CHANNEL_RETRY_MS, CHANNEL_RETRY_MS);
}

static void on_link_free(struct link *l)
{
    struct channel *c = l->ctx;
    if (c->state == CS_CLOSING)
        c->state = CS_SEEKING;
}

static void on_timer(uv_timer_t *h)
{
    struct channel *c = CONTAINER_OF(h, struct channel, timer);
    bool open = c->state == CS_OPEN || c->state == CS_ASKED;
    if (c->state == CS_OPEN)
        uv_timer_stop(h);
    if (open)
        link_read_again(&c->link);
    if (c->state == CS_OPEN)
        return;
    if (c->state == CS_SEEKING)
        seek(c);
    if (c->alone || (double)(clock_now_ns() - c->since_ns) < c->timeout_s * (double)NS_PER_S)
        return;
    c->alone = true;
    c->ops->on_alone(c);
}

static void seek(struct channel *c)
{
    struct err err;
    uid_t uid;
    pid_t pid;
    int fd = os_unix_connect(c->state_dir, CHANNEL_SOCKET, NULL);
    if (fd < 0)
        return; // nobody listens yet
    if (os_unix_peer(fd, &uid, &pid, &err) < 0 || uid != geteuid()) {
        close(fd);
        return;
    }
    if (link_open(&c->link, c->loop, c->turn, fd, c->role, c->name, &link_ops, c, &err) < 0) {
        close(fd);
        return;
    }
    c->state = CS_ASKED;
    introduce(c);
}

static int copy(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, CHANNEL_FD_KIN_CONTROL + 1);
}

// Without what a supervisor keeps of us it would take us for less than we are: later, then.
static void turn_back(struct channel *c)
{
    c->state = CS_CLOSING;
    link_close(&c->link, on_link_free);
}

static void introduce(struct channel *c)
{
    struct channel_words w = {.kept_fd = -1};
    int n = 1, fds[2] = {copy(CHANNEL_FD_PAGE), copy(CHANNEL_FD_PAGE)}; // room for the second one
    if (fds[0] < 0 || fds[1] < 0) {
        close(fds[0] < 0 ? fds[1] : fds[0]);
        turn_back(c);
        return;
    }
    c->ops->introduce(c, &w);
    if (w.kept_fd >= 0 && dup3(w.kept_fd, fds[1], O_CLOEXEC) >= 0)
        n = 2;
    else
        close(fds[1]);
    link_put_fds(&c->link, fds, n);
    size_t n_peers = buf_len(&w.peers), n_orders = buf_len(&c->orders);
    wire_put_orphan(
        &c->link.out, 0, 0,
        &(struct wire_orphan){.name = c->name,
                              .child_id = c->child_id,
                              .role = c->role,
                              .generation = c->generation,
                              .place = w.place,
                              .draining = w.draining,
                              .peers = {n_peers ? buf_head(&w.peers) : "", n_peers},
                              .orders = {n_orders ? buf_head(&c->orders) : "", n_orders}});
    link_kick(&c->link);
    buf_finish(&w.peers);
}
