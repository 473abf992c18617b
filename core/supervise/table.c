// SPDX-License-Identifier: Apache-2.0
#include "supervise/table.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "supervise/keep.h"
#include "supervise/listener.h"
#include "supervise/mesh.h"
#include "wire/page.h"

#include <limits.h>
#include <string.h>

enum { FD_MIN = 3, ROOM_MIN = 16 };

static int check(const struct table *t, struct err *err);
static int check_head(const struct wire_resume *h, struct err *err);
static int check_living(const struct table *t, struct map *ids, struct err *err);
static int check_kept(const struct table *t, const struct map *ids, struct err *err);
static int check_pieces(const struct table *t, const struct map *ids, struct err *err);
static int check_rest(const struct table *t, struct err *err);
static int check_fds(const struct table *t, struct err *err);

#define ADD(row, most)                                                                             \
    struct wire_##row *table_add_##row(struct table *t)                                            \
    {                                                                                              \
        size_t n = t->n_##row;                                                                     \
        if (n == 0 || (n >= ROOM_MIN && (n & (n - 1)) == 0)) /* room is a power of two */          \
            t->row = xrealloc(t->row, (n ? 2 * n : ROOM_MIN) * sizeof *t->row);                    \
        t->row[n] = (struct wire_##row){0};                                                        \
        t->n_##row++;                                                                              \
        return &t->row[n];                                                                         \
    }
TABLE_ROWS(ADD)
#undef ADD

void table_put(const struct table *t, struct buf *out)
{
    uint32_t frames = 1;
    wire_put_resume(out, 0, 0, &t->head);
#define PUT(row, most)                                                                             \
    for (size_t i = 0; i < t->n_##row; i++, frames++)                                              \
        wire_put_##row(out, 0, 0, &t->row[i]);
    TABLE_ROWS(PUT)
#undef PUT
    wire_put_resumed(out, 0, 0, &(struct wire_resumed){.frames = frames});
}

void table_finish(struct table *t)
{
#define FREE(row, most) xfree(t->row);
    TABLE_ROWS(FREE)
#undef FREE
    *t = (struct table){.n_kept = 0};
}

static int take_row(struct table *t, const struct wire_frame *f, struct err *err)
{
    switch (f->head.kind) {
    case WIRE_resume:
        return err_set(err, SV_E_INVALID, "it begins twice");
#define TAKE(row, most)                                                                            \
    case WIRE_##row:                                                                               \
        if (t->n_##row >= (most))                                                                  \
            return err_set(err, SV_E_INVALID, "more than %d rows of '%s'", (int)(most), #row);     \
        return wire_get_##row(f, table_add_##row(t), err);
        TABLE_ROWS(TAKE)
#undef TAKE
    default:
        return 0;
    }
}

static int parse(struct bytes text, struct table *t, struct err *err)
{
    struct wire_frame f;
    struct wire_resumed end = {0};
    for (uint32_t frames = 0;; frames++) {
        int64_t n = wire_next(text.p, text.n, &f, err);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return err_set(err, SV_E_INVALID, "it has no end");
        text.p += n;
        text.n -= (size_t)n;
        int rc = frames == 0 ? wire_get_resume(&f, &t->head, err) : 0;
        if (rc == 0 && frames > 0 && f.head.kind == WIRE_resumed) {
            rc = wire_get_resumed(&f, &end, err);
            if (rc < 0 || (end.frames == frames && text.n == 0))
                return rc;
            return err_set(err, SV_E_INVALID, "%u frames and %zu bytes where %u frames end it",
                           frames, text.n, end.frames);
        }
        if (rc == 0 && frames == 0)
            rc = check_head(&t->head, err);
        else if (rc == 0)
            rc = take_row(t, &f, err);
        if (rc < 0)
            return rc;
    }
}

int table_parse(struct bytes text, struct table *ret, struct err *err)
{
    struct table t = {.n_kept = 0};
    int rc = text.n > TABLE_MAX
                 ? err_set(err, SV_E_INVALID, "%zu bytes (at most %d)", text.n, TABLE_MAX)
                 : parse(text, &t, err);
    if (rc == 0)
        rc = check(&t, err);
    if (rc < 0) {
        table_finish(&t);
        return err_ctx(err, "the supervisor's table");
    }
    *ret = t;
    return 0;
}

int table_fd(struct bytes fds, size_t i)
{
    int32_t fd;
    CHECK((i + 1) * sizeof fd <= fds.n);
    memcpy(&fd, fds.p + i * sizeof fd, sizeof fd);
    return fd;
}

static void each_of(struct bytes fds, void (*each)(void *ctx, int fd), void *ctx)
{
    for (size_t i = 0; i < fds.n / sizeof(int32_t); i++)
        each(ctx, table_fd(fds, i));
}

void table_each_fd(const struct table *t, void (*each)(void *ctx, int fd), void *ctx)
{
    each(ctx, t->head.lock_fd);
    each(ctx, t->head.kin_fd);
    each(ctx, t->head.fold_fd);
    each_of(t->head.listeners, each, ctx);
    for (size_t i = 0; i < t->n_living; i++) {
        each(ctx, t->living[i].channel_fd);
        each(ctx, t->living[i].pidfd);
        each(ctx, t->living[i].page_fd);
        if (t->living[i].output_fd != -1)
            each(ctx, t->living[i].output_fd);
    }
    for (size_t i = 0; i < t->n_unsent; i++)
        each_of(t->unsent[i].fds, each, ctx);
    for (size_t i = 0; i < t->n_grave; i++)
        each(ctx, t->grave[i].page_fd);
}

/* ---- what must hold ---- */

static int check(const struct table *t, struct err *err)
{
    struct map ids = {0};
    int rc = check_living(t, &ids, err);
    if (rc == 0)
        rc = check_kept(t, &ids, err);
    if (rc == 0)
        rc = check_pieces(t, &ids, err);
    if (rc == 0)
        rc = check_rest(t, err);
    if (rc == 0)
        rc = check_fds(t, err);
    map_finish(&ids);
    return rc;
}

static int check_head(const struct wire_resume *h, struct err *err)
{
    if (h->version != TABLE_VERSION && (h->version + 1 != TABLE_VERSION || h->version == 0))
        return err_set(err, SV_E_UNSUPPORTED,
                       "version %u; this program reads version %d and the one "
                       "before it",
                       h->version, TABLE_VERSION);
    if (h->page_version != PAGE_VERSION)
        return err_set(err, SV_E_UNSUPPORTED,
                       "shared pages of version %u (this program reads version %d)",
                       h->page_version, PAGE_VERSION);
    size_t n = h->listeners.n / sizeof(int32_t);
    if (h->listeners.n % sizeof(int32_t) || n < 1 || n > LISTENER_MAX)
        return err_set(err, SV_E_INVALID, "%zu bytes of listeners", h->listeners.n);
    if (!*h->state_dir || !*h->host || h->port == 0 || h->port > UINT16_MAX ||
        h->want_port > UINT16_MAX || h->grace_ms > UINT32_MAX / 2 || h->next_child_id == 0)
        return err_set(err, SV_E_INVALID, "state '%s', host '%s', port %u, grace %u ms",
                       h->state_dir, h->host, h->port, h->grace_ms);
    return 0;
}

static bool is_name(const char *name)
{
    return *name && strlen(name) < CHILD_NAME_MAX;
}

static bool is_role(uint32_t role)
{
    return role == ROLE_CONTROL || role == ROLE_INGRESS || role == ROLE_WORKER;
}

static bool is_place(const struct table *t, uint32_t role, uint32_t place)
{
    return role != ROLE_INGRESS || place < t->head.listeners.n / sizeof(int32_t);
}

// `ids` gets each of them.
static int check_living(const struct table *t, struct map *ids, struct err *err)
{
    for (size_t i = 0; i < t->n_living; i++) {
        struct wire_living *c = &t->living[i];
        if (!is_name(c->name) || !is_role(c->role) || c->child_id == 0 ||
            c->child_id >= t->head.next_child_id || c->pid <= 1 || c->pid > INT32_MAX ||
            c->peers.n % sizeof(uint64_t))
            return err_set(err, SV_E_INVALID, "child %zu, '%s', pid %llu, role %u", i, c->name,
                           (unsigned long long)c->pid, c->role);
        if (map_put(ids, c->child_id, c))
            return err_set(err, SV_E_INVALID, "two children %llu", (unsigned long long)c->child_id);
    }
    const struct wire_living *control = map_get(ids, t->head.control);
    if (t->head.control != 0 && (!control || control->role != ROLE_CONTROL))
        return err_set(err, SV_E_INVALID, "child %llu is not control",
                       (unsigned long long)t->head.control);
    return 0;
}

static int check_kept(const struct table *t, const struct map *ids, struct err *err)
{
    struct map names = {0};
    size_t orders = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->n_kept; i++) {
        struct wire_kept *k = &t->kept[i];
        const struct wire_living *c = map_get(ids, k->child);
        const struct wire_kept *same = map_put(&names, hash_bytes(k->name, strlen(k->name), 0), k);
        orders += k->orders.n;
        if (!is_name(k->name) || !is_role(k->role) || !is_place(t, k->role, k->place) ||
            k->ends.n % sizeof(uint64_t) || k->ends.n > RESTART_BURST * sizeof(uint64_t) ||
            k->start_in_ms < -1 || (same && strcmp(same->name, k->name) == 0) ||
            orders > KEEP_ORDERS_MAX)
            rc = err_set(err, SV_E_INVALID, "spec %zu, '%s', role %u, place %u", i, k->name,
                         k->role, k->place);
        else if (k->child && (!c || c->role != k->role || strcmp(c->name, k->name) != 0))
            rc = err_set(err, SV_E_INVALID, "spec '%s' has no child %llu", k->name,
                         (unsigned long long)k->child);
    }
    map_finish(&names);
    return rc;
}

static int check_pieces(const struct table *t, const struct map *ids, struct err *err)
{
    for (size_t i = 0; i < t->n_unsent; i++) {
        const struct wire_unsent *u = &t->unsent[i];
        if (!map_get(ids, u->child_id) || u->bytes.n == 0 || u->fds.n % sizeof(int32_t) ||
            u->fds.n > WIRE_FDS_MAX * sizeof(int32_t) || (u->fds.n && u->bytes.n < WIRE_HEAD))
            return err_set(err, SV_E_INVALID, "%zu bytes unsent to child %llu, %zu of descriptors",
                           u->bytes.n, (unsigned long long)u->child_id, u->fds.n);
    }
    for (size_t i = 0; i < t->n_unread; i++)
        if (!map_get(ids, t->unread[i].child_id))
            return err_set(err, SV_E_INVALID, "bytes of child %llu, which is not there",
                           (unsigned long long)t->unread[i].child_id);
    return 0;
}

static int check_rest(const struct table *t, struct err *err)
{
    for (size_t i = 0; i < t->n_grave; i++) {
        const struct wire_grave *g = &t->grave[i];
        if (!is_name(g->name) || !is_role(g->role) || g->output.n > CHILD_OUTPUT_MAX)
            return err_set(err, SV_E_INVALID, "grave %zu, '%s', role %u", i, g->name, g->role);
    }
    for (size_t i = 0; i < t->n_job; i++)
        if (t->job[i].what >= JOB_KINDS)
            return err_set(err, SV_E_INVALID, "job %zu of kind %u", i, t->job[i].what);
    return 0;
}

struct fds {
    struct map seen;
    int bad; // a descriptor that cannot be, or is there twice
    bool any;
};

static void see_fd(void *ctx, int fd)
{
    struct fds *f = ctx;
    bool twice = fd >= FD_MIN && map_put(&f->seen, (uint64_t)fd, f);
    if (fd >= FD_MIN && !twice)
        return;
    f->bad = fd;
    f->any = true;
}

static int check_fds(const struct table *t, struct err *err)
{
    struct fds f = {.any = false};
    table_each_fd(t, see_fd, &f);
    map_finish(&f.seen);
    if (f.any)
        return err_set(err, SV_E_INVALID, "descriptor %d cannot be, or is there twice", f.bad);
    return 0;
}
