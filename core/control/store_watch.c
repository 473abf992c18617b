// SPDX-License-Identifier: Apache-2.0
// The parts of store.h that have to do with time: leases, watches, the tick.
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/store_own.h"

#include <inttypes.h>
#include <string.h>

struct store_watch {
    struct store *s; // borrowed: closes us before it goes
    char *prefix;    // owned
    size_t prefix_n;
    uint64_t revision; // told up to this
    store_watch_fn *fn;
    void *ctx;
    bool over;    // told why; waits to be closed
    bool telling; // within its callback: the end of that frees it
    bool closed;
};

static int check_from(const struct store_meta *m, uint64_t from_revision, struct err *err)
{
    if (from_revision < m->oldest)
        return err_set(err, STORE_E_COMPACTED,
                       "the history begins after revision %" PRIu64 ", not %" PRIu64
                       "; list again and watch from there",
                       m->oldest, from_revision);
    if (from_revision > m->revision)
        return err_set(err, STORE_E_COMPACTED,
                       "the store is at revision %" PRIu64 ", not yet %" PRIu64
                       "; list again and watch from there",
                       m->revision, from_revision);
    return 0;
}

int store_watch(struct store *s, const char *prefix, uint64_t from_revision, store_watch_fn *fn,
                void *ctx, struct store_watch **ret, struct err *err)
{
    int i = 0, rc = check_from(&s->meta, from_revision, err);
    if (rc < 0)
        return rc;
    while (i < STORE_WATCHES_MAX && s->watches[i])
        i++;
    if (i == STORE_WATCHES_MAX)
        return err_set(err, SV_E_OVERLOADED, "more than %d watches", STORE_WATCHES_MAX);
    struct store_watch *w = s->watches[i] = xcalloc(1, sizeof *w);
    *w = (struct store_watch){.s = s,
                              .prefix = xstrdup(prefix),
                              .prefix_n = strlen(prefix),
                              .revision = from_revision,
                              .fn = fn,
                              .ctx = ctx};
    *ret = w;
    return 0;
}

static void destroy(struct store_watch *w)
{
    xfree(w->prefix);
    xfree(w);
}

void store_watch_close(struct store_watch *w)
{
    if (!w)
        return;
    for (int i = 0; i < STORE_WATCHES_MAX; i++)
        if (w->s->watches[i] == w)
            w->s->watches[i] = NULL;
    w->closed = true;
    if (!w->telling)
        destroy(w);
}

// Changes of one watch, one after the other: this head, key with its NUL, value.
struct told {
    size_t key_n, value_n;
    uint64_t revision;
    bool removed;
};

struct telling {
    const struct store_watch *w;
    struct buf out;
};

static void collect(void *ctx, const struct store_change *c)
{
    struct telling *t = ctx;
    if (c->key.n < t->w->prefix_n || memcmp(c->key.p, t->w->prefix, t->w->prefix_n) != 0)
        return;
    struct told head = {c->key.n, c->value.n, c->revision, c->removed};
    buf_put(&t->out, &head, sizeof head);
    buf_put(&t->out, c->key.p, c->key.n);
    buf_put(&t->out, "", 1);
    buf_put(&t->out, c->value.p, c->value.n);
}

static void emit(struct store_watch *w, struct buf *out)
{
    while (!w->closed && buf_len(out) > 0) {
        struct told head;
        memcpy(&head, buf_head(out), sizeof head);
        buf_consume(out, sizeof head);
        const char *key = buf_head(out);
        struct store_event event = {
            key, {key + head.key_n + 1, head.value_n}, head.revision, head.removed};
        w->fn(w->ctx, &event, NULL);
        buf_consume(out, head.key_n + 1 + head.value_n);
    }
}

static int tell(struct store_watch *w, struct err *err)
{
    struct store *s = w->s;
    struct telling t = {w, {0}};
    struct err why = {0};
    if (w->over || w->revision == s->meta.revision)
        return 0;
    w->telling = true;
    int rc = check_from(&s->meta, w->revision, &why);
    if (rc == 0)
        rc = store_rows_changes(&s->q, &s->meta, w->revision, collect, &t, &why);
    w->over = rc < 0;
    w->revision = s->meta.revision;
    if (rc == 0)
        emit(w, &t.out);
    else
        w->fn(w->ctx, NULL, &why);
    buf_finish(&t.out);
    w->telling = false;
    if (w->closed)
        destroy(w);
    return rc < 0 && rc != STORE_E_COMPACTED ? err_set(err, rc, "%s", why.msg) : 0;
}

static struct store_lease *find(struct store *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->n_leases; i++)
        if (s->leases[i].id == id)
            return &s->leases[i];
    return NULL;
}

int store_lease_grant(struct store *s, uint64_t ttl_ns, uint64_t now_ns, uint64_t *ret_lease,
                      struct err *err)
{
    struct store_txn t;
    if (ttl_ns == 0 || ttl_ns > INT64_MAX)
        return err_set(err, SV_E_INVALID, "a lease of %" PRIu64 " ns", ttl_ns);
    if (s->n_leases == STORE_LEASES_MAX)
        return err_set(err, STORE_E_FULL, "more than %d leases", STORE_LEASES_MAX);
    int rc = store_txn_begin(&t, s, err);
    if (rc < 0)
        return rc;
    uint64_t id = t.m.next_lease++;
    rc = store_rows_put_lease(&s->q, &t.m, id, ttl_ns, err);
    if ((rc = store_txn_end(&t, rc, err)) < 0)
        return rc;
    s->leases[s->n_leases++] = (struct store_lease){id, ttl_ns, now_ns + ttl_ns};
    *ret_lease = id;
    return 0;
}

int store_lease_keep(struct store *s, uint64_t lease, uint64_t now_ns, struct err *err)
{
    struct store_lease *l = find(s, lease);
    if (!l)
        return err_set(err, SV_E_NOT_FOUND, "lease %" PRIu64 " is not there", lease);
    l->end_ns = now_ns + l->ttl_ns;
    return 0;
}

// The keys of a lease, with their NULs.
struct leased {
    uint64_t id;
    struct buf keys;
    uint32_t n;
};

static void collect_leased(void *ctx, const struct store_row *row)
{
    struct leased *l = ctx;
    if (row->lease != l->id)
        return;
    buf_put(&l->keys, row->key.p, row->key.n);
    buf_put(&l->keys, "", 1);
    l->n++;
}

static int remove_leased(struct store_txn *t, struct leased *l, struct err *err)
{
    int rc = 1;
    t->of = l->n;
    for (uint32_t i = 0; rc > 0 && i < l->n; i++) {
        struct store_row old;
        const char *key = buf_head(&l->keys);
        rc = store_rows_get(&t->s->q, key, &old, NULL, err);
        if (rc == 0)
            return store_sqlite_damaged(&t->s->q, err, "key '%.64s' is lost", key);
        int removed = rc > 0 ? store_txn_remove(t, key, &old, err) : 0;
        rc = removed < 0 ? removed : rc;
        buf_consume(&l->keys, strlen(key) + 1);
    }
    return rc < 0 ? rc : 0;
}

int store_lease_revoke(struct store *s, uint64_t lease, uint64_t *ret_revision, struct err *err)
{
    struct store_txn t;
    struct leased l = {.id = lease};
    struct store_lease *at = find(s, lease);
    if (!at)
        return err_set(err, SV_E_NOT_FOUND, "lease %" PRIu64 " is not there", lease);
    int rc = store_txn_begin(&t, s, err);
    if (rc < 0)
        return rc;
    rc = store_rows_scan(&s->q, &t.m, collect_leased, &l, err);
    if (rc == 0)
        rc = remove_leased(&t, &l, err);
    if (rc == 0)
        rc = store_rows_remove_lease(&s->q, &t.m, lease, at->ttl_ns, err);
    rc = store_txn_end(&t, rc, err);
    buf_finish(&l.keys);
    if (rc < 0)
        return rc;
    *at = s->leases[--s->n_leases];
    if (ret_revision)
        *ret_revision = s->meta.revision;
    return 0;
}

static int expire(struct store *s, uint64_t now_ns, struct err *err)
{
    int first = 0;
    for (uint32_t i = s->n_leases; i-- > 0;) { // a revoked one is replaced by a later one
        struct store_lease *l = &s->leases[i];
        if (l->end_ns == 0)
            l->end_ns = now_ns + l->ttl_ns;
        if (l->end_ns > now_ns)
            continue;
        int rc = store_lease_revoke(s, l->id, NULL, first ? NULL : err);
        first = first ? first : rc;
    }
    return first;
}

int store_tick(struct store *s, uint64_t now_ns, struct err *err)
{
    int first = expire(s, now_ns, err);
    for (int i = 0; i < STORE_WATCHES_MAX; i++) {
        int rc = s->watches[i] ? tell(s->watches[i], first ? NULL : err) : 0;
        first = first ? first : rc;
    }
    return first;
}
