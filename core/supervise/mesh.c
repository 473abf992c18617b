// SPDX-License-Identifier: Apache-2.0
#include "supervise/mesh.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "obs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { MESH_RETRY_MS = 1, MESH_FDS_WAITING_MAX = 12 }; // frames with descriptors in one channel

static void on_timer(uv_timer_t *h);
static bool work(struct supervisor *s, const struct job *j); // false: later
static bool has_room(struct child *c);
static bool pair(struct child *a, struct child *b);
static bool hand_any_page(struct supervisor *s, struct child *to, uint64_t child_id);
static bool hand_grave(struct child *to, const struct grave *g);

// An adopted process has kept its links.
static bool has_link(const struct child *c, uint64_t child_id)
{
    for (size_t at = 0; at + sizeof child_id <= buf_len(&c->peers); at += sizeof child_id)
        if (memcmp(buf_head(&c->peers) + at, &child_id, sizeof child_id) == 0)
            return true;
    return false;
}

static bool wants_link(const struct child *a, const struct child *b)
{
    return a->role != b->role // ingress-worker, control-ingress, control-worker
           && !has_link(a, b->id) && !has_link(b, a->id);
}

// Whose numbers nobody has folded yet, the others know from before; to a new one they must be said.
static void tell_graves(struct supervisor *s, const struct child *c)
{
    list_for_each (n, &s->graves) {
        const struct grave *g = CONTAINER_OF(n, struct grave, node);
        if (g->role != ROLE_CONTROL)
            mesh_add(s, JOB_PAGE, c->id, g->child_id);
    }
}

static bool sums_pages(const struct child *c)
{
    return c->role == ROLE_INGRESS || c->role == ROLE_CONTROL;
}

void mesh_join(struct supervisor *s, struct child *c)
{
    list_for_each (n, &s->children) {
        struct child *other = CONTAINER_OF(n, struct child, node);
        if (other == c || other->ended)
            continue;
        if (wants_link(c, other))
            mesh_add(s, JOB_PAIR, c->id, other->id);
        if (other->role == ROLE_INGRESS && sums_pages(c))
            mesh_add(s, JOB_PAGE, c->id, other->id);
        if (c->role == ROLE_INGRESS && sums_pages(other))
            mesh_add(s, JOB_PAGE, other->id, c->id);
    }
    if (c->role == ROLE_INGRESS)
        tell_graves(s, c);
    mesh_go_on(s);
}

void mesh_say_died(struct supervisor *s, const struct grave *g)
{
    if (!s->control || !s->control_listed)
        return;
    mesh_add(s, JOB_DIED, s->control->id, g->child_id);
    mesh_go_on(s);
}

void mesh_close(struct supervisor *s)
{
    list_for_each_safe (n, &s->jobs) {
        list_remove(n);
        xfree(CONTAINER_OF(n, struct job, node));
    }
    uv_close((uv_handle_t *)&s->mesh_timer, NULL);
}

void mesh_add(struct supervisor *s, enum job_kind kind, uint64_t to, uint64_t about)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->kind = kind;
    j->to = to;
    j->about = about;
    list_push(&s->jobs, &j->node);
}

void mesh_go_on(struct supervisor *s)
{
    list_for_each_safe (n, &s->jobs) {
        struct job *j = CONTAINER_OF(n, struct job, node);
        if (!work(s, j))
            continue;
        list_remove(n);
        xfree(j);
    }
    if (!list_empty(&s->jobs))
        uv_timer_start(&s->mesh_timer, on_timer, MESH_RETRY_MS, 0);
}

static void on_timer(uv_timer_t *h)
{
    mesh_go_on(CONTAINER_OF(h, struct supervisor, mesh_timer));
}

static bool work(struct supervisor *s, const struct job *j)
{
    struct child *to = keep_find(s, j->to);
    if (!to || to->ended)
        return true;
    if (j->kind == JOB_DIED) {
        const struct grave *g = keep_find_grave(s, j->about);
        return !g || hand_grave(to, g);
    }
    if (j->kind == JOB_PAGE)
        return hand_any_page(s, to, j->about);
    struct child *about = keep_find(s, j->about);
    return !about || about->ended || pair(to, about);
}

static bool has_room(struct child *c)
{
    if (c->link.n_out_fds >= MESH_FDS_WAITING_MAX)
        link_flush(&c->link);
    return c->link.n_out_fds < MESH_FDS_WAITING_MAX;
}

static int copy_fd(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        LOGE("copying a descriptor: %s; trying again", err_errno(errno));
    return copy;
}

static void attach(struct child *to, const struct child *peer, int own_socket, int own_page)
{
    const int fds[] = {own_socket, own_page};
    link_put_fds(&to->link, fds, 2);
    wire_put_attach(&to->link.out, 0, 0,
                    &(struct wire_attach){.child_id = peer->id,
                                          .role = peer->role,
                                          .generation = peer->generation,
                                          .name = peer->name});
    link_kick(&to->link);
}

static bool pair(struct child *a, struct child *b)
{
    if (!has_room(a) || !has_room(b))
        return false;
    struct err err;
    int ends[2];
    if (os_socketpair(ends, &err) < 0) {
        LOGE("connecting %s with %s: %s; trying again", a->name, b->name, err.msg);
        return false;
    }
    int page_a = copy_fd(a->page_fd), page_b = copy_fd(b->page_fd);
    if (page_a < 0 || page_b < 0) {
        const int all[] = {ends[0], ends[1], page_a, page_b};
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
            if (all[i] >= 0)
                close(all[i]);
        return false;
    }
    attach(a, b, ends[0], page_b);
    attach(b, a, ends[1], page_a);
    return true;
}

static bool hand_page(struct child *to, const struct wire_page *about, int page_fd)
{
    int page = has_room(to) ? copy_fd(page_fd) : -1;
    if (page < 0)
        return false;
    link_put_fds(&to->link, &page, 1);
    wire_put_page(&to->link.out, 0, 0, about);
    link_kick(&to->link);
    return true;
}

// Of a child, or of one that has ended; it is gone once it is buried.
static bool hand_any_page(struct supervisor *s, struct child *to, uint64_t child_id)
{
    const struct child *c = keep_find(s, child_id);
    const struct grave *g = keep_find_grave(s, child_id);
    if (c && !c->ended)
        return hand_page(to,
                         &(struct wire_page){.child_id = c->id, .role = c->role, .name = c->name},
                         c->page_fd);
    return !g ||
           hand_page(to,
                     &(struct wire_page){.child_id = child_id, .role = g->role, .name = g->name},
                     g->page_fd);
}

static bool hand_grave(struct child *to, const struct grave *g)
{
    int page = has_room(to) ? copy_fd(g->page_fd) : -1;
    if (page < 0)
        return false;
    link_put_fds(&to->link, &page, 1);
    wire_put_died(&to->link.out, 0, 0,
                  &(struct wire_died){.name = g->name,
                                      .child_id = g->child_id,
                                      .role = g->role,
                                      .generation = g->generation,
                                      .status = g->status,
                                      .signal = g->signal,
                                      .restart_in_ms = g->restart_in_ms,
                                      .output = {buf_len(&g->output) ? buf_head(&g->output) : "",
                                                 buf_len(&g->output)}});
    link_kick(&to->link);
    return true;
}
