// SPDX-License-Identifier: Apache-2.0
#include "control/store.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "control/store_mark.h"
#include "control/store_own.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static int fill(struct store_sqlite *q, struct err *err)
{
    return store_rows_put_meta(
        q, &(struct store_meta){.id = os_random(), .revision = 1, .oldest = 1, .next_lease = 1},
        err);
}

static int check_mark(struct store *s, struct err *err)
{
    struct store_mark m;
    bool exists;
    if (!store_mark_read(s->q.mark_path, &m, &exists))
        return 0;
    if (m.id != s->meta.id)
        return store_sqlite_damaged(&s->q, err, "store.db-mark is of another store");
    if (m.changes > s->meta.changes)
        return store_sqlite_damaged(
            &s->q, err, "it has %" PRIu64 " changes of %" PRIu64 " acknowledged (store.db-wal?)",
            s->meta.changes, m.changes);
    return 0;
}

static void write_mark(struct store *s)
{
    store_mark_write(s->mark_fd, &(struct store_mark){s->meta.id, s->meta.changes});
}

static int take_lease(void *ctx, uint64_t id, uint64_t ttl_ns, struct err *err)
{
    struct store *s = ctx;
    if (s->n_leases == STORE_LEASES_MAX)
        return store_sqlite_damaged(&s->q, err, "more than %d leases", STORE_LEASES_MAX);
    s->leases[s->n_leases++] = (struct store_lease){id, ttl_ns, 0};
    return 0;
}

static int check_rows(struct store *s, struct err *err)
{
    int rc = store_rows_meta(&s->q, &s->meta, err);
    if (rc == 0)
        rc = check_mark(s, err);
    if (rc == 0)
        rc = store_rows_scan(&s->q, &s->meta, NULL, NULL, err);
    if (rc == 0)
        rc = store_rows_changes(&s->q, &s->meta, s->meta.oldest, NULL, NULL, err);
    if (rc == 0)
        rc = store_rows_leases(&s->q, &s->meta, take_lease, s, err);
    return rc;
}

int store_open(const char *state_dir, struct store **ret, struct err *err)
{
    struct store *s = xcalloc(1, sizeof *s);
    s->mark_fd = -1;
    int rc = store_sqlite_open(state_dir, fill, &s->q, err);
    if (rc < 0) {
        xfree(s);
        return rc;
    }
    rc = check_rows(s, err);
    if (rc == 0)
        rc = store_sqlite_trust(&s->q, err);
    if (rc == 0)
        rc = s->mark_fd = store_mark_open(s->q.mark_path, err);
    if (rc < 0) {
        store_close(s);
        return rc;
    }
    write_mark(s);
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    for (int i = 0; i < STORE_WATCHES_MAX; i++)
        store_watch_close(s->watches[i]);
    store_sqlite_close(&s->q);
    if (s->mark_fd >= 0)
        close(s->mark_fd);
    xfree(s);
}

static int check_key(const char *key, struct err *err)
{
    size_t n = strnlen(key, STORE_KEY_MAX + 1);
    if (n == 0)
        return err_set(err, SV_E_INVALID, "an empty key");
    if (n > STORE_KEY_MAX)
        return err_set(err, SV_E_TOO_LARGE, "key '%.64s...' has more than %d bytes", key,
                       STORE_KEY_MAX);
    return 0;
}

int store_get(struct store *s, const char *key, struct buf *ret_value, uint64_t *ret_revision,
              struct err *err)
{
    struct store_row row = {0};
    int rc = check_key(key, err);
    if (rc == 0)
        rc = store_rows_get(&s->q, key, &row, ret_value, err);
    if (rc < 0)
        return rc;
    if (rc == 0) { // a damaged tree may lose a key: it must be missing in the whole too
        rc = store_rows_scan(&s->q, &s->meta, NULL, NULL, err);
        return rc < 0 ? rc : err_set(err, SV_E_NOT_FOUND, "key '%.64s' is not there", key);
    }
    if (ret_revision)
        *ret_revision = row.revision;
    return 0;
}

// Rows that begin with a prefix, one after the other: lengths, revision, key with its NUL, value.
struct listing {
    const char *prefix;
    size_t prefix_n;
    struct buf out;
};

struct listed {
    size_t key_n, value_n;
    uint64_t revision;
};

static void collect(void *ctx, const struct store_row *row)
{
    struct listing *l = ctx;
    if (row->key.n < l->prefix_n || memcmp(row->key.p, l->prefix, l->prefix_n) != 0)
        return;
    struct listed head = {row->key.n, row->value.n, row->revision};
    buf_put(&l->out, &head, sizeof head);
    buf_put(&l->out, row->key.p, row->key.n);
    buf_put(&l->out, "", 1);
    buf_put(&l->out, row->value.p, row->value.n);
}

int store_list(struct store *s, const char *prefix,
               int (*each)(void *ctx, const struct store_kv *kv), void *ctx, uint64_t *ret_revision,
               struct err *err)
{
    struct listing l = {prefix, strlen(prefix), {0}};
    uint64_t revision = s->meta.revision;
    int rc = store_rows_scan(&s->q, &s->meta, collect, &l, err);
    while (rc == 0 && buf_len(&l.out) > 0) { // the store may change while `each` looks at this
        struct listed head;
        memcpy(&head, buf_head(&l.out), sizeof head);
        buf_consume(&l.out, sizeof head);
        const char *key = buf_head(&l.out);
        rc =
            each(ctx, &(struct store_kv){key, {key + head.key_n + 1, head.value_n}, head.revision});
        buf_consume(&l.out, head.key_n + 1 + head.value_n);
    }
    buf_finish(&l.out);
    if (rc == 0 && ret_revision)
        *ret_revision = revision;
    return rc;
}

static int check_op(const struct store_op *op, struct err *err)
{
    int rc = check_key(op->key, err);
    if (rc < 0)
        return rc;
    if (op->if_revision < STORE_ANY || (op->remove && op->compare))
        return err_set(err, SV_E_INVALID, "key '%.64s': a bad operation", op->key);
    if (op->value.n > STORE_VALUE_MAX)
        return err_set(err, SV_E_TOO_LARGE, "the value of '%.64s' has %zu bytes; at most %d",
                       op->key, op->value.n, STORE_VALUE_MAX);
    return 0;
}

static int check_ops(const struct store_op *ops, uint32_t n, struct err *err)
{
    size_t bytes = 0;
    if (n > STORE_OPS_MAX)
        return err_set(err, SV_E_TOO_LARGE, "%u operations in a transaction; at most %d", n,
                       STORE_OPS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        int rc = check_op(&ops[i], err);
        if (rc < 0)
            return rc;
        bytes += strlen(ops[i].key) + ops[i].value.n;
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(ops[i].key, ops[j].key) == 0)
                return err_set(err, SV_E_INVALID, "key '%.64s' is named twice in a transaction",
                               ops[i].key);
    }
    if (bytes > STORE_TXN_BYTES)
        return err_set(err, SV_E_TOO_LARGE, "a transaction of %zu bytes; at most %d", bytes,
                       STORE_TXN_BYTES);
    return 0;
}

static int compare(const struct store_op *op, bool found, uint64_t revision, struct err *err)
{
    if (op->if_revision == STORE_ANY || (uint64_t)op->if_revision == (found ? revision : 0))
        return 0;
    if (!found)
        return err_set(err, STORE_E_CONFLICT,
                       "key '%.64s' is not there; it was to have revision %" PRId64, op->key,
                       op->if_revision);
    if (op->if_revision == 0)
        return err_set(err, STORE_E_CONFLICT,
                       "key '%.64s' is there with revision %" PRIu64 "; it was not to be", op->key,
                       revision);
    return err_set(err, STORE_E_CONFLICT,
                   "key '%.64s' has revision %" PRIu64 "; it was to have %" PRId64, op->key,
                   revision, op->if_revision);
}

static int check_lease(const struct store *s, const struct store_op *op, struct err *err)
{
    for (uint32_t i = 0; i < s->n_leases; i++)
        if (s->leases[i].id == op->lease)
            return 0;
    return op->lease == 0
               ? 0
               : err_set(err, SV_E_NOT_FOUND, "key '%.64s': lease %" PRIu64 " is not there",
                         op->key, op->lease);
}

// Reads what the operations meet and compares. revision 0 in old[]: the key is not there.
static int look(struct store_txn *t, const struct store_op *ops, uint32_t n, struct store_row *old,
                struct err *err)
{
    bool scanned = false;
    for (uint32_t i = 0; i < n; i++) {
        int rc = store_rows_get(&t->s->q, ops[i].key, &old[i], NULL, err), found = rc;
        if (rc == 0 && !scanned) {
            rc = store_rows_scan(&t->s->q, &t->m, NULL, NULL, err);
            scanned = true;
        }
        if (rc >= 0 && !found)
            old[i].revision = 0;
        if (rc >= 0)
            rc = compare(&ops[i], found, old[i].revision, err);
        if (rc >= 0)
            rc = check_lease(t->s, &ops[i], err);
        if (rc < 0)
            return rc;
        t->of += !ops[i].compare && (found || !ops[i].remove);
    }
    return 0;
}

static int change(struct store_txn *t, const struct store_op *op, const struct store_row *old,
                  struct err *err)
{
    old = old->revision ? old : NULL;
    if (op->compare || (op->remove && !old))
        return 0;
    return op->remove ? store_txn_remove(t, op->key, old, err) : store_txn_put(t, op, old, err);
}

int store_txn(struct store *s, const struct store_op *ops, uint32_t n, uint64_t *ret_revision,
              struct err *err)
{
    struct store_row old[STORE_OPS_MAX] = {0};
    struct store_txn t;
    int rc = check_ops(ops, n, err);
    if (rc < 0 || (rc = store_txn_begin(&t, s, err)) < 0)
        return rc;
    rc = look(&t, ops, n, old, err);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = change(&t, &ops[i], &old[i], err);
    rc = store_txn_end(&t, rc, err);
    if (rc == 0 && ret_revision)
        *ret_revision = s->meta.revision;
    return rc;
}

int store_txn_begin(struct store_txn *t, struct store *s, struct err *err)
{
    *t = (struct store_txn){.s = s, .m = s->meta};
    return store_sqlite_begin(&s->q, err);
}

static int log_change(struct store_txn *t, const char *key, struct bytes value, bool removed,
                      struct err *err)
{
    struct store_change c = {.key = {key, strlen(key)},
                             .value = value,
                             .revision = t->s->meta.revision + 1,
                             .n = t->n++,
                             .of = t->of,
                             .removed = removed};
    t->m.revision = c.revision;
    return store_rows_log(&t->s->q, &t->m, &c, err);
}

int store_txn_put(struct store_txn *t, const struct store_op *op, const struct store_row *old,
                  struct err *err)
{
    struct store_row row = {.key = {op->key, strlen(op->key)},
                            .value = op->value,
                            .revision = t->s->meta.revision + 1,
                            .lease = op->lease};
    int rc = store_rows_put(&t->s->q, &t->m, &row, old, err);
    return rc < 0 ? rc : log_change(t, op->key, op->value, false, err);
}

int store_txn_remove(struct store_txn *t, const char *key, const struct store_row *old,
                     struct err *err)
{
    int rc = store_rows_remove(&t->s->q, &t->m, key, old, err);
    return rc < 0 ? rc : log_change(t, key, (struct bytes){0}, true, err);
}

static int check_room(const struct store_txn *t, struct err *err)
{
    if (t->m.keys > STORE_KEYS_MAX)
        return err_set(err, STORE_E_FULL, "the store would have %" PRIu64 " keys; at most %d",
                       t->m.keys, STORE_KEYS_MAX);
    if (t->m.bytes > STORE_BYTES_MAX)
        return err_set(err, STORE_E_FULL, "the store would have %" PRIu64 " bytes; at most %d",
                       t->m.bytes, STORE_BYTES_MAX);
    return 0;
}

int store_txn_end(struct store_txn *t, int rc, struct err *err)
{
    struct store *s = t->s;
    bool changed = memcmp(&t->m, &s->meta, sizeof t->m) != 0;
    if (rc == 0)
        rc = check_room(t, err);
    if (rc == 0 && changed) {
        CHECK(t->n == t->of);
        t->m.changes++;
        rc = store_rows_trim(&s->q, &t->m, err);
    }
    if (rc == 0 && changed)
        rc = store_rows_put_meta(&s->q, &t->m, err);
    if (rc == 0 && changed)
        rc = store_sqlite_commit(&s->q, err);
    else
        store_sqlite_rollback(&s->q);
    if (rc < 0 || !changed)
        return rc;
    s->meta = t->m;
    write_mark(s);
    return 0;
}
