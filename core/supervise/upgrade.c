// SPDX-License-Identifier: Apache-2.0
#include "supervise/upgrade.h"

#include "abi/plugin.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"
#include "supervise/keep.h"
#include "supervise/mesh.h"
#include "supervise/resume.h"
#include "supervise/table.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHECK_FD = 3 }; // of the table, in the process that is asked

struct upgrade { // a process that is asked whether it can go on
    struct supervisor *s;
    char path[UPGRADE_PATH_MAX];
    pid_t pid;
    int pidfd, out_fd; // owned
    uv_poll_t watch;
    uv_timer_t timer;
    unsigned handles; // that are not closed yet
    bool late;
};

static int ask(struct upgrade *u, struct err *err);
static void on_end(uv_poll_t *h, int status, int events);
static void on_late(uv_timer_t *h);
static void on_handle_closed(uv_handle_t *h);
static int judge(struct upgrade *u, int status, char version[UPGRADE_ANSWER_MAX], struct err *err);
static void become(struct supervisor *s, const char *path, const char *version);
static int write_table(struct supervisor *s, struct buf *out, struct err *err);
static void collect(struct supervisor *s, struct table *t, struct arena *a);

int upgrade_begin(struct supervisor *s, const char *path, struct err *err)
{
    if (s->upgrade)
        return err_set(err, -409, "an upgrade to '%s' is under way", s->upgrade->path);
    path = *path ? path : s->exe;
    if (path[0] != '/' || strlen(path) >= UPGRADE_PATH_MAX)
        return err_set(err, SV_E_INVALID,
                       "the path of the new executable must be absolute and shorter than %d bytes",
                       UPGRADE_PATH_MAX);
    struct upgrade *u = xcalloc(1, sizeof *u);
    u->s = s;
    snprintf(u->path, sizeof u->path, "%s", path);
    int rc = ask(u, err);
    if (rc < 0) {
        xfree(u);
        return rc;
    }
    s->upgrade = u;
    uv_timer_init(&s->loop, &u->timer);
    uv_timer_start(&u->timer, on_late, UPGRADE_CHECK_MS, 0);
    CHECK(uv_poll_init(&s->loop, &u->watch, u->pidfd) == 0);
    CHECK(uv_poll_start(&u->watch, UV_READABLE, on_end) == 0);
    u->handles = 2;
    return 0;
}

void upgrade_answer(struct supervisor *s, int code, const char *text)
{
    if (code < 0)
        LOGE("no upgrade: %s", text);
    if (!s->control)
        return;
    wire_put_upgraded(&s->control->link.out, 0, 0,
                      &(struct wire_upgraded){.code = code, .text = text});
    link_kick(&s->control->link);
}

static void close_upgrade(struct upgrade *u)
{
    u->s->upgrade = NULL;
    uv_close((uv_handle_t *)&u->watch, on_handle_closed);
    uv_close((uv_handle_t *)&u->timer, on_handle_closed);
}

void upgrade_close(struct supervisor *s)
{
    if (!s->upgrade)
        return;
    os_pidfd_kill(s->upgrade->pidfd, s->upgrade->pid, SIGKILL, true);
    close_upgrade(s->upgrade);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct upgrade *u = h->type == UV_TIMER ? CONTAINER_OF((uv_timer_t *)h, struct upgrade, timer)
                                            : CONTAINER_OF((uv_poll_t *)h, struct upgrade, watch);
    if (--u->handles > 0)
        return;
    close(u->pidfd);
    close(u->out_fd);
    xfree(u);
}

// Starts `PATH supervisor --check 3` with our table.
static int ask(struct upgrade *u, struct err *err)
{
    struct buf text = {0};
    int pipe_fds[2], rc = write_table(u->s, &text, err);
    if (rc < 0)
        return rc;
    int table = os_sealed("table", buf_head(&text), buf_len(&text), err);
    buf_finish(&text);
    if (table < 0)
        return table;
    if ((rc = os_pipe(pipe_fds, err)) < 0) {
        close(table);
        return rc;
    }
    char self[] = "salver", role[] = "supervisor", what[] = "--check", fd[8];
    snprintf(fd, sizeof fd, "%d", CHECK_FD);
    char *argv[] = {self, role, what, fd, NULL};
    const struct os_fdmap fds[] = {
        {pipe_fds[1], STDOUT_FILENO}, {pipe_fds[1], STDERR_FILENO}, {table, CHECK_FD}};
    rc = os_spawn(u->path, argv, NULL, fds, ARRAY_LEN(fds), &u->pid, err);
    close(table);
    close(pipe_fds[1]);
    u->out_fd = pipe_fds[0];
    if (rc == 0 && (u->pidfd = os_pidfd_open(u->pid, err)) < 0) {
        rc = u->pidfd;
        kill(u->pid, SIGKILL);
        waitpid(u->pid, NULL, 0); // it has just been killed: this does not take long
    }
    if (rc < 0)
        close(u->out_fd);
    return rc;
}

static void on_late(uv_timer_t *h)
{
    struct upgrade *u = CONTAINER_OF(h, struct upgrade, timer);
    u->late = true;
    os_pidfd_kill(u->pidfd, u->pid, SIGKILL, true);
}

static void on_end(uv_poll_t *h, int status, int events)
{
    struct upgrade *u = CONTAINER_OF(h, struct upgrade, watch);
    struct supervisor *s = u->s;
    struct err err;
    char version[UPGRADE_ANSWER_MAX], path[UPGRADE_PATH_MAX];
    (void)status, (void)events;
    int ended = 0;
    if (waitpid(u->pid, &ended, WNOHANG) == 0)
        return;
    int rc = judge(u, ended, version, &err);
    snprintf(path, sizeof path, "%s", u->path);
    close_upgrade(u);
    if (rc < 0)
        upgrade_answer(s, rc, err.msg);
    else if (s->phase == SP_RUN)
        become(s, path, version);
}

// `version`: what it says it is. Of what it complains about the first line counts.
static int judge(struct upgrade *u, int status, char version[UPGRADE_ANSWER_MAX], struct err *err)
{
    static const char hello[] = RESUME_HELLO;
    ssize_t n = read(u->out_fd, version, UPGRADE_ANSWER_MAX - 1);
    version[n > 0 ? n : 0] = '\0';
    version[strcspn(version, "\n")] = '\0';
    if (u->late)
        return err_set(err, SV_E_TIMEOUT, "'%s' did not say within %d ms what it is", u->path,
                       UPGRADE_CHECK_MS);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
        strncmp(version, hello, sizeof hello - 1) == 0)
        return 0;
    return err_set(err, SV_E_INVALID, "'%s' is no salver that can go on from here%s%.300s", u->path,
                   *version ? ": " : "", version);
}

/* ---- the change ---- */

static void keep_open(void *ctx, int fd)
{
    (void)ctx;
    fcntl(fd, F_SETFD, 0);
}

static void close_on_exec(void *ctx, int fd)
{
    (void)ctx;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

// Signals that come meanwhile wait for the new one.
static void block_signals(int how)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(how, &set, NULL);
}

static void become(struct supervisor *s, const char *path, const char *version)
{
    struct arena a;
    struct table t = {.n_kept = 0};
    struct buf text = {0};
    struct err err;
    char fd[16], self[] = "salver", role[] = "supervisor", what[] = "--resume";
    char *argv[] = {self, role, what, fd, NULL};
    LOGI("becoming '%s' (%s)", path, version);
    arena_init(&a, 0);
    list_for_each (n, &s->children)
        link_flush(&CONTAINER_OF(n, struct child, node)->link);
    collect(s, &t, &a);
    table_put(&t, &text);
    int table = os_sealed("table", buf_head(&text), buf_len(&text), &err);
    if (table >= 0) {
        snprintf(fd, sizeof fd, "%d", table);
        keep_open(NULL, table);
        table_each_fd(&t, keep_open, NULL);
        block_signals(SIG_BLOCK);
        execv(path, argv);
        err_set(&err, SV_E_INTERNAL, "executing '%s': %s", path, err_errno(errno));
        block_signals(SIG_UNBLOCK);
        table_each_fd(&t, close_on_exec, NULL);
        close(table);
    }
    upgrade_answer(s, err.code, err.msg);
    buf_finish(&text);
    table_finish(&t);
    arena_finish(&a);
}

static int write_table(struct supervisor *s, struct buf *out, struct err *err)
{
    struct arena a;
    struct table t = {.n_kept = 0}, back;
    arena_init(&a, 0);
    collect(s, &t, &a);
    table_put(&t, out);
    table_finish(&t);
    arena_finish(&a);
    int rc = table_parse((struct bytes){buf_head(out), buf_len(out)}, &back, err);
    if (rc < 0)
        buf_finish(out);
    else
        table_finish(&back);
    return rc;
}

/* ---- what we are ---- */

static struct bytes copy(struct arena *a, const void *p, size_t n)
{
    if (n == 0)
        return (struct bytes){"", 0};
    char *to = arena_alloc(a, n);
    memcpy(to, p, n);
    return (struct bytes){to, n};
}

static struct bytes bytes_of(struct buf *b)
{
    return (struct bytes){buf_len(b) ? buf_head(b) : "", buf_len(b)};
}

static void collect_head(struct supervisor *s, struct table *t, struct arena *a)
{
    t->head =
        (struct wire_resume){.version = TABLE_VERSION,
                             .page_version = PAGE_VERSION,
                             .state_dir = s->state_dir,
                             .host = s->host,
                             .want_port = s->want_port,
                             .port = s->listeners.port,
                             .grace_ms = s->grace_ms,
                             .next_child_id = s->next_child_id,
                             .control = s->control ? s->control->id : 0,
                             .control_listed = s->control_listed,
                             .ready_said = s->ready_said,
                             .lock_fd = s->lock_fd,
                             .kin_fd = s->kin_fd,
                             .fold_fd = s->fold_fd,
                             .listeners = copy(a, s->listeners.fds, s->listeners.n * sizeof(int))};
}

static void collect_spec(struct spec *spec, struct table *t, struct arena *a)
{
    const struct restart *r = &spec->ends;
    uint64_t ends[RESTART_BURST];
    for (uint32_t i = 0; i < r->n; i++)
        ends[i] = r->ends_ns[(r->next + RESTART_BURST - r->n + i) % RESTART_BURST];
    bool due = uv_is_active((uv_handle_t *)&spec->timer);
    *table_add_kept(t) =
        (struct wire_kept){.name = spec->name,
                           .role = spec->role,
                           .place = spec->place,
                           .restart = spec->restart,
                           .generation = spec->generation,
                           .child = spec->child ? spec->child->id : 0,
                           .start_in_ms = due ? (int64_t)uv_timer_get_due_in(&spec->timer) : -1,
                           .wait_ns = r->wait_ns,
                           .ends = copy(a, ends, r->n * sizeof ends[0]),
                           .orders = bytes_of(&spec->orders)};
}

static void collect_channel(struct child *c, struct table *t, struct arena *a)
{
    struct link_piece p = {.at = 0};
    while (link_unsent(&c->link, &p))
        *table_add_unsent(t) =
            (struct wire_unsent){.child_id = c->id,
                                 .fds = copy(a, p.fds, (size_t)p.n_fds * sizeof(int)),
                                 .bytes = p.bytes};
    struct bytes in = bytes_of(&c->link.in);
    while (in.n) {
        size_t n = in.n < RESUME_PIECE_MAX ? in.n : RESUME_PIECE_MAX;
        *table_add_unread(t) = (struct wire_unread){.child_id = c->id, .bytes = {in.p, n}};
        in.p += n;
        in.n -= n;
    }
}

static void collect_child(struct child *c, struct table *t, struct arena *a)
{
    *table_add_living(t) = (struct wire_living){.child_id = c->id,
                                                .name = c->name,
                                                .role = c->role,
                                                .place = c->place,
                                                .generation = c->generation,
                                                .started_ns = c->started_ns,
                                                .pid = (uint64_t)c->pid,
                                                .adopted = c->adopted,
                                                .retired = c->retired,
                                                .greeted = c->link.greeted,
                                                .channel_fd = c->link.fd,
                                                .pidfd = c->pidfd,
                                                .page_fd = c->page_fd,
                                                .output_fd = c->output_fd,
                                                .peers = bytes_of(&c->peers)};
    collect_channel(c, t, a);
}

static void collect_grave(struct grave *g, struct table *t)
{
    *table_add_grave(t) = (struct wire_grave){.name = g->name,
                                              .child_id = g->child_id,
                                              .role = g->role,
                                              .generation = g->generation,
                                              .status = g->status,
                                              .signal = g->signal,
                                              .restart_in_ms = g->restart_in_ms,
                                              .former = g->former,
                                              .page_fd = g->page_fd,
                                              .output = bytes_of(&g->output)};
}

// Texts and bytes are borrowed from s, or lie in `a`.
static void collect(struct supervisor *s, struct table *t, struct arena *a)
{
    collect_head(s, t, a);
    list_for_each (n, &s->specs)
        collect_spec(CONTAINER_OF(n, struct spec, node), t, a);
    list_for_each (n, &s->children)
        collect_child(CONTAINER_OF(n, struct child, node), t, a);
    list_for_each (n, &s->graves)
        collect_grave(CONTAINER_OF(n, struct grave, node), t);
    list_for_each (n, &s->jobs) {
        const struct job *j = CONTAINER_OF(n, struct job, node);
        *table_add_job(t) = (struct wire_job){.what = j->kind, .to = j->to, .about = j->about};
    }
}
