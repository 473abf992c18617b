// SPDX-License-Identifier: Apache-2.0
#include "supervise/child.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"
#include "wire/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_FDS = 8 };

struct ends { // what a start opens; -1 when not (or no longer) ours
    int ours, theirs, page, out_r, out_w;
};

static int open_ends(const struct child_start *start, struct ends *e, struct err *err);
static void close_ends(struct ends *e);
static int spawn(const struct child_start *start, const struct ends *e, pid_t *ret_pid,
                 struct err *err);
static int hold(struct child *c, const struct child_start *start, struct ends *e, struct err *err);
static void watch_process(struct child *c, uv_loop_t *loop);
static int watch(struct child *c, const struct child_start *start, int own_socket, struct err *err);
static void fill_page(struct child *c);
static void say_boot(struct child *c, const struct child_start *start);
static void on_watch(uv_poll_t *h, int status, int events);
static void on_mute(uv_timer_t *h);
static void on_frame(struct link *l, struct wire_frame *f);
static void on_closed(struct link *l, const struct err *err);
static void on_link_free(struct link *l);
static void on_handle_closed(uv_handle_t *h);
static void handle_gone(struct child *c);

static const struct link_ops link_ops = {.on_frame = on_frame, .on_closed = on_closed};

int child_create(const struct child_start *start, struct child **ret, struct err *err)
{
    struct ends e = {-1, -1, -1, -1, -1};
    pid_t pid;
    int rc = open_ends(start, &e, err);
    if (rc == 0)
        rc = spawn(start, &e, &pid, err);
    if (rc < 0) {
        close_ends(&e);
        return err_ctx(err, "starting %s", start->name);
    }
    struct child *c = xcalloc(1, sizeof *c);
    c->pid = pid;
    c->pidfd = -1;
    rc = hold(c, start, &e, err);
    close_ends(&e);
    if (rc < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0); // it has just been killed: this does not take long
        page_unmap(c->page);
        if (c->pidfd >= 0)
            close(c->pidfd);
        xfree(c);
        return err_ctx(err, "starting %s", start->name);
    }
    say_boot(c, start);
    *ret = c;
    return 0;
}

void child_kill(struct child *c, int sig)
{
    if (!c->ended)
        os_pidfd_kill(c->pidfd, c->pid, sig, sig == SIGKILL); // it leads its own process group
}

void child_close(struct child *c)
{
    CHECK(c->ended && !c->closing);
    c->closing = true;
    link_close(&c->link, on_link_free);
    uv_close((uv_handle_t *)&c->watch, on_handle_closed);
    uv_close((uv_handle_t *)&c->mute, on_handle_closed);
}

static int open_ends(const struct child_start *start, struct ends *e, struct err *err)
{
    int pair[2];
    int rc = os_socketpair(pair, err);
    if (rc < 0)
        return rc;
    e->ours = pair[0];
    e->theirs = pair[1];
    if ((e->page = page_create(start->name, err)) < 0)
        return e->page;
    if (start->role != ROLE_WORKER)
        return 0;
    if ((rc = os_pipe(pair, err)) < 0)
        return rc;
    e->out_r = pair[0];
    e->out_w = pair[1];
    return 0;
}

static void close_ends(struct ends *e)
{
    int *all[] = {&e->ours, &e->theirs, &e->page, &e->out_r, &e->out_w};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

static int spawn(const struct child_start *start, const struct ends *e, pid_t *ret_pid,
                 struct err *err)
{
    struct os_fdmap fds[CHILD_FDS];
    size_t n = 0;
    int out = start->role == ROLE_WORKER ? e->out_w : STDERR_FILENO;
    fds[n++] = (struct os_fdmap){out, STDOUT_FILENO};
    fds[n++] = (struct os_fdmap){out, STDERR_FILENO};
    fds[n++] = (struct os_fdmap){e->theirs, CHANNEL_FD};
    fds[n++] = (struct os_fdmap){e->page, CHANNEL_FD_PAGE};
    fds[n++] = (struct os_fdmap){STDERR_FILENO, CHANNEL_FD_LOG};
    if (start->role == ROLE_WORKER)
        fds[n++] = (struct os_fdmap){e->out_r, CHANNEL_FD_OUTPUT};
    else
        fds[n++] = (struct os_fdmap){start->fold_fd, CHANNEL_FD_FOLD};
    int kin = start->role == ROLE_CONTROL ? CHANNEL_FD_KIN_CONTROL : CHANNEL_FD_KIN;
    fds[n++] = (struct os_fdmap){start->kin_fd, kin};
    char self[] = "salver", role[16], name[CHILD_NAME_MAX];
    snprintf(role, sizeof role, "%s", wire_role_name(start->role));
    snprintf(name, sizeof name, "%s", start->name);
    char *argv[] = {self, role, name, NULL};
    return os_spawn(start->exe, argv, NULL, fds, n, ret_pid, err);
}

// Everything of a process we have started.
static int hold(struct child *c, const struct child_start *start, struct ends *e, struct err *err)
{
    c->id = start->id;
    c->role = start->role;
    c->generation = start->generation;
    c->place = start->place;
    c->started_ns = clock_now_ns();
    snprintf(c->name, sizeof c->name, "%s", start->name);
    int rc = page_map(e->page, &c->page, err);
    if (rc < 0)
        return rc;
    fill_page(c);
    if ((c->pidfd = os_pidfd_open(c->pid, err)) < 0)
        return c->pidfd;
    if ((rc = watch(c, start, e->ours, err)) < 0)
        return rc;
    c->page_fd = e->page;
    c->output_fd = e->out_r;
    e->ours = e->page = e->out_r = -1;
    return 0;
}

// Takes own_socket on success.
static int watch(struct child *c, const struct child_start *start, int own_socket, struct err *err)
{
    c->ops = start->ops;
    c->ctx = start->ctx;
    int rc = link_open(&c->link, start->loop, start->turn, own_socket, ROLE_SUPERVISOR,
                       "supervisor", &link_ops, c, err);
    if (rc < 0)
        return rc;
    watch_process(c, start->loop);
    return 0;
}

static void watch_process(struct child *c, uv_loop_t *loop)
{
    uv_timer_init(loop, &c->mute);
    CHECK(uv_poll_init(loop, &c->watch, c->pidfd) == 0);
    CHECK(uv_poll_start(&c->watch, UV_READABLE, on_watch) == 0);
    c->handles = 3; // with the link's
}

int child_resume(const struct child_start *start, const struct wire_living *m, struct child **ret,
                 struct err *err)
{
    struct child *c = xcalloc(1, sizeof *c);
    c->id = m->child_id;
    c->role = (enum wire_role)m->role;
    c->generation = m->generation;
    c->place = m->place;
    c->started_ns = m->started_ns;
    c->pid = (pid_t)m->pid;
    c->adopted = m->adopted != 0;
    c->retired = m->retired != 0;
    c->pidfd = m->pidfd;
    c->page_fd = m->page_fd;
    c->output_fd = m->output_fd;
    c->ops = start->ops;
    c->ctx = start->ctx;
    snprintf(c->name, sizeof c->name, "%s", m->name);
    buf_put(&c->peers, m->peers.p, m->peers.n);
    int rc = page_map(c->page_fd, &c->page, err);
    if (rc == 0)
        rc = link_resume(&c->link, start->loop, start->turn, m->channel_fd, m->greeted != 0,
                         c->name, &link_ops, c, err);
    if (rc < 0) { // nothing goes on: the process ends
        xfree(c);
        return err_ctx(err, "going on with %s", m->name);
    }
    watch_process(c, start->loop);
    *ret = c;
    return 0;
}

int child_greet(const struct child_start *start, int own_socket, pid_t pid, int own_pidfd,
                struct child **ret, struct err *err)
{
    struct child *c = xcalloc(1, sizeof *c);
    c->pid = pid;
    c->pidfd = own_pidfd;
    c->page_fd = c->output_fd = -1;
    c->guest = c->adopted = true;
    snprintf(c->name, sizeof c->name, "an orphan");
    int rc = watch(c, start, own_socket, err);
    if (rc < 0) {
        xfree(c);
        return rc;
    }
    *ret = c;
    return 0;
}

int child_introduce(struct child *c, const struct wire_orphan *m, int own_page, int own_output,
                    struct err *err)
{
    CHECK(c->guest && !c->page);
    struct page *page;
    if (m->role != ROLE_INGRESS && m->role != ROLE_WORKER)
        return err_set(err, SV_E_INVALID, "an orphan of role %u", m->role);
    if (!*m->name || strlen(m->name) >= CHILD_NAME_MAX || m->child_id == 0 || m->peers.n % 8)
        return err_set(err, SV_E_INVALID,
                       "orphan %llu with a name of %zu bytes and %zu bytes of peers",
                       (unsigned long long)m->child_id, strlen(m->name), m->peers.n);
    int rc = page_map(own_page, &page, err);
    if (rc < 0)
        return rc;
    if (page->child_id != m->child_id) {
        page_unmap(page);
        return err_set(err, SV_E_INVALID, "the page of orphan %s is another's", m->name);
    }
    c->page = page;
    c->page_fd = own_page;
    c->output_fd = own_output;
    c->id = m->child_id;
    c->role = (enum wire_role)m->role;
    c->generation = m->generation;
    c->place = m->place;
    c->started_ns = page->started_ns;
    snprintf(c->name, sizeof c->name, "%s", m->name);
    buf_put(&c->peers, m->peers.p, m->peers.n);
    return 0;
}

void child_adopt(struct child *c, const struct child_ops *ops, void *ctx)
{
    CHECK(c->guest && c->page);
    c->guest = false;
    c->ops = ops;
    c->ctx = ctx;
    int log = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (log >= 0)
        link_put_fds(&c->link, &log, 1);
    wire_put_adopted(&c->link.out, 0, 0, &(struct wire_adopted){.child_id = c->id});
    link_kick(&c->link);
}

void child_forget(struct child *c)
{
    CHECK(c->guest);
    c->ended = true;
    child_close(c);
}

static void fill_page(struct child *c)
{
    c->page->role = c->role;
    c->page->child_id = c->id;
    c->page->started_ns = c->started_ns;
    atomic_store(&c->page->pid, (uint64_t)c->pid);
    snprintf(c->page->name, sizeof c->page->name, "%s", c->name);
}

static void say_boot(struct child *c, const struct child_start *start)
{
    wire_put_boot(&c->link.out, 0, 0,
                  &(struct wire_boot){.state_dir = start->state_dir,
                                      .child_id = c->id,
                                      .generation = c->generation,
                                      .orders = start->orders});
    link_kick(&c->link);
}

// What it wrote and nobody read; of more than CHILD_OUTPUT_MAX the last part. A grandchild may hold
// the writing end and write for ever: no more is read than a pipe can hold.
static void read_output(struct child *c)
{
    if (c->output_fd < 0)
        return;
    for (size_t all = 0; all < CHILD_PIPE_MAX; all += CHILD_OUTPUT_MAX) {
        char *room = buf_reserve(&c->output, CHILD_OUTPUT_MAX);
        ssize_t n = read(c->output_fd, room, CHILD_OUTPUT_MAX);
        if (n <= 0)
            break;
        buf_commit(&c->output, (size_t)n);
        if (buf_len(&c->output) > CHILD_OUTPUT_MAX)
            buf_consume(&c->output, buf_len(&c->output) - CHILD_OUTPUT_MAX);
    }
    close(c->output_fd);
    c->output_fd = -1;
}

static bool reap(struct child *c)
{
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG) < 0)
        return errno == ECHILD;
    if (info.si_pid == 0)
        return false;
    if (info.si_code == CLD_EXITED)
        c->status = info.si_status;
    else
        c->signal = (uint32_t)info.si_status;
    return true;
}

static void on_watch(uv_poll_t *h, int status, int events)
{
    (void)status, (void)events;
    struct child *c = CONTAINER_OF(h, struct child, watch);
    if (c->adopted ? !os_pidfd_ended(c->pidfd) : !reap(c))
        return;
    if (c->adopted)
        c->status = WIRE_STATUS_UNKNOWN;
    uv_poll_stop(&c->watch);
    uv_timer_stop(&c->mute);
    c->ended = true;
    read_output(c);
    c->ops->on_end(c);
}

static void on_mute(uv_timer_t *h)
{
    struct child *c = CONTAINER_OF(h, struct child, mute);
    LOGW("%s (pid %d) closed its channel and did not end within %d ms; killing it", c->name,
         (int)c->pid, CHILD_MUTE_MS);
    child_kill(c, SIGKILL);
}

static void on_frame(struct link *l, struct wire_frame *f)
{
    struct child *c = l->ctx;
    for (unsigned i = 0; (!c->guest || c->ended) && i < f->head.n_fds; i++)
        close(f->fds[i]); // no child of ours has descriptors to give
    if (!c->ended)
        c->ops->on_frame(c, f);
}

static void on_closed(struct link *l, const struct err *err)
{
    struct child *c = l->ctx;
    if (c->ended)
        return;
    if (err)
        LOGW("channel of %s (pid %d): %s", c->name, (int)c->pid, err->msg);
    if (c->guest) {
        c->ops->on_gone(c);
        return;
    }
    uv_timer_start(&c->mute, on_mute, CHILD_MUTE_MS, 0);
}

static void on_link_free(struct link *l)
{
    handle_gone(l->ctx);
}

static void on_handle_closed(uv_handle_t *h)
{
    if (h->type == UV_TIMER)
        handle_gone(CONTAINER_OF(h, struct child, mute));
    else
        handle_gone(CONTAINER_OF(h, struct child, watch));
}

static void handle_gone(struct child *c)
{
    CHECK(c->handles > 0);
    if (--c->handles > 0)
        return;
    close(c->pidfd);
    if (c->page_fd >= 0)
        close(c->page_fd);
    page_unmap(c->page);
    buf_finish(&c->output);
    buf_finish(&c->peers);
    xfree(c);
}
