// SPDX-License-Identifier: Apache-2.0
#include "supervise/resume.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "obs/log.h"
#include "supervise/keep.h"
#include "supervise/mesh.h"
#include "supervise/table.h"
#include "supervise/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_table(int fd, struct table *ret, struct err *err);
static void take_fd(void *ctx, int fd);
static int take_children(struct supervisor *s, const struct table *t, struct err *err);
static int take_channels(struct supervisor *s, const struct table *t, struct err *err);
static void replace_control(struct supervisor *s);
static void unblock_signals(void);

// The table and the bytes that it borrows live as long as the process: names point into them.
static struct buf text;
static struct table table;

int resume_check(int fd)
{
    struct err err;
    if (read_table(fd, &table, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return EXIT_FAILURE;
    }
    printf(RESUME_HELLO "%s\n", SALVER_VERSION);
    return EXIT_SUCCESS;
}

int resume_open(struct supervisor *s, int fd, struct err *err)
{
    int bad = -1, rc = read_table(fd, &table, err);
    if (rc < 0)
        return rc;
    close(fd);
    table_each_fd(&table, take_fd, &bad);
    if (bad >= 0)
        return err_set(err, SV_E_INVALID, "the supervisor's table: descriptor %d is not open", bad);
    const struct wire_resume *h = &table.head;
    s->state_dir = h->state_dir;
    s->host = h->host;
    s->want_port = (uint16_t)h->want_port;
    s->grace_ms = h->grace_ms;
    s->next_child_id = h->next_child_id;
    s->control_listed = h->control_listed != 0;
    s->ready_said = h->ready_said != 0;
    s->lock_fd = h->lock_fd;
    s->kin_fd = h->kin_fd;
    s->fold_fd = h->fold_fd;
    s->want_ingress = s->listeners.n = (uint32_t)(h->listeners.n / sizeof(int32_t));
    s->listeners.port = (uint16_t)h->port;
    for (uint32_t i = 0; i < s->listeners.n; i++)
        s->listeners.fds[i] = table_fd(h->listeners, i);
    return 0;
}

int resume_go_on(struct supervisor *s, struct err *err)
{
    s->phase = SP_RUN;
    int rc = take_children(s, &table, err);
    for (size_t i = 0; rc == 0 && i < table.n_kept; i++)
        keep_resume_spec(s, &table.kept[i]);
    for (size_t i = 0; rc == 0 && i < table.n_grave; i++)
        keep_resume_grave(s, &table.grave[i]);
    if (rc == 0)
        rc = take_channels(s, &table, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < table.n_job; i++)
        mesh_add(s, (enum job_kind)table.job[i].what, table.job[i].to, table.job[i].about);
    LOGI("gone on as salver %s with %zu processes", SALVER_VERSION, table.n_living);
    replace_control(s);
    mesh_go_on(s);
    unblock_signals();
    return 0;
}

static int read_table(int fd, struct table *ret, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > TABLE_MAX)
        return err_set(err, SV_E_INVALID, "descriptor %d is no supervisor's table", fd);
    size_t size = (size_t)st.st_size;
    while (buf_len(&text) < size) {
        size_t done = buf_len(&text);
        ssize_t n = pread(fd, buf_reserve(&text, size - done), size - done, (off_t)done);
        if (n <= 0)
            return err_set(err, SV_E_INTERNAL, "reading the supervisor's table: %s",
                           n < 0 ? err_errno(errno) : "it became shorter");
        buf_commit(&text, (size_t)n);
    }
    return table_parse((struct bytes){size ? buf_head(&text) : "", size}, ret, err);
}

static void take_fd(void *ctx, int fd)
{
    int *bad = ctx;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        *bad = fd;
}

static int take_children(struct supervisor *s, const struct table *t, struct err *err)
{
    for (size_t i = 0; i < t->n_living; i++) {
        struct child *c;
        int rc = keep_resume_child(s, &t->living[i], &c, err);
        if (rc < 0)
            return rc;
        if (c->id == t->head.control)
            s->control = c;
    }
    return 0;
}

static int take_channels(struct supervisor *s, const struct table *t, struct err *err)
{
    for (size_t i = 0; i < t->n_unsent; i++) {
        const struct wire_unsent *u = &t->unsent[i];
        struct link *l = &keep_find(s, u->child_id)->link;
        int fds[WIRE_FDS_MAX], n = (int)(u->fds.n / sizeof(int32_t));
        for (int k = 0; k < n; k++)
            fds[k] = table_fd(u->fds, (size_t)k);
        if (n)
            link_put_fds(l, fds, n);
        buf_put(&l->out, u->bytes.p, u->bytes.n);
        link_kick(l);
    }
    for (size_t i = 0; i < t->n_unread; i++) {
        struct link *l = &keep_find(s, t->unread[i].child_id)->link;
        if (buf_len(&l->in) + t->unread[i].bytes.n > WIRE_HEAD + WIRE_FRAME_MAX)
            return err_set(err, SV_E_INVALID, "more than a frame is unread of child %llu",
                           (unsigned long long)t->unread[i].child_id);
        buf_put(&l->in, t->unread[i].bytes.p, t->unread[i].bytes.n);
    }
    return 0;
}

static void on_control_late(uv_timer_t *h)
{
    struct supervisor *s = CONTAINER_OF(h, struct supervisor, control_timer);
    if (!s->control || s->control->id != table.head.control)
        return;
    LOGW("control has not stopped within %d ms; killing it", RESUME_CONTROL_MS);
    child_kill(s->control, SIGKILL);
}

static void replace_control(struct supervisor *s)
{
    if (!s->control)
        return; // it is started again as it is
    upgrade_answer(s, 0, SALVER_VERSION);
    wire_put_stop(&s->control->link.out, 0, 0, &(struct wire_stop){.grace_ms = RESUME_CONTROL_MS});
    link_kick(&s->control->link);
    uv_timer_start(&s->control_timer, on_control_late, RESUME_CONTROL_MS, 0);
}

static void unblock_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
