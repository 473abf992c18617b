// SPDX-License-Identifier: Apache-2.0
#include "control/store_rows.h"

#include "base/check.h"
#include "base/err.h"
#include "base/map.h"
#include "control/store.h"
#include "control/store_sqlite.h"

#include <stdlib.h>
#include <string.h>

enum { META_COLUMNS = 10 };
_Static_assert(sizeof(struct store_meta) == META_COLUMNS * sizeof(uint64_t), "one a column");

// What a checksum is of: no row passes for one of another table.
enum { SUM_META = 1, SUM_KV, SUM_LOG, SUM_LEASE };

static uint64_t column(sqlite3_stmt *sql, int i)
{
    return (uint64_t)sqlite3_column_int64(sql, i);
}

static void bind(sqlite3_stmt *sql, int i, uint64_t v)
{
    CHECK(sqlite3_bind_int64(sql, i, (sqlite3_int64)v) == SQLITE_OK);
}

static void bind_bytes(sqlite3_stmt *sql, int i, struct bytes b)
{
    // Borrowed until the statement is run, which is before the caller's call ends.
    CHECK(sqlite3_bind_blob64(sql, i, b.n ? b.p : "", b.n, SQLITE_STATIC) == SQLITE_OK);
}

static struct bytes column_bytes(sqlite3_stmt *sql, int i)
{
    const char *p = sqlite3_column_blob(sql, i); // before its length: it may convert
    return (struct bytes){p, (size_t)sqlite3_column_bytes(sql, i)};
}

// Steps to the end of a statement, or to where it went wrong; `rc` is its last word.
static int finish(struct store_sqlite *q, sqlite3_stmt *sql, int rc, int failed, struct err *err)
{
    if (!failed && rc != SQLITE_ROW && rc != SQLITE_DONE)
        failed = store_sqlite_err(q, rc, err);
    sqlite3_reset(sql);
    sqlite3_clear_bindings(sql);
    return failed;
}

static uint64_t meta_sum(const struct store_meta *m)
{
    return hash_bytes(m, sizeof *m, SUM_META);
}

int store_rows_meta(struct store_sqlite *q, struct store_meta *ret, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_META];
    uint64_t v[META_COLUMNS], sum = 0;
    struct store_meta m;
    int failed = 0, rc = sqlite3_step(sql);
    if (rc == SQLITE_ROW) {
        for (int i = 0; i < META_COLUMNS; i++)
            v[i] = column(sql, i);
        sum = column(sql, META_COLUMNS);
        memcpy(&m, v, sizeof m);
        rc = sqlite3_step(sql);
        if (rc == SQLITE_ROW || sum != meta_sum(&m) || m.oldest > m.revision)
            failed = store_sqlite_damaged(q, err, "the checksum of its table 'meta' is wrong");
    } else if (rc == SQLITE_DONE) {
        failed = store_sqlite_damaged(q, err, "its table 'meta' is empty");
    }
    failed = finish(q, sql, rc, failed, err);
    if (!failed)
        *ret = m;
    return failed;
}

int store_rows_put_meta(struct store_sqlite *q, const struct store_meta *m, struct err *err)
{
    uint64_t v[META_COLUMNS];
    memcpy(v, m, sizeof v);
    for (int i = 0; i < META_COLUMNS; i++)
        bind(q->sql[SQL_META_PUT], i + 1, v[i]);
    bind(q->sql[SQL_META_PUT], META_COLUMNS + 1, meta_sum(m));
    return store_sqlite_run(q, SQL_META_PUT, err);
}

static uint64_t row_sum(const struct store_row *r)
{
    uint64_t numbers[] = {r->revision, r->lease, r->value.n};
    uint64_t h = hash_bytes(r->key.p, r->key.n, SUM_KV);
    h = hash_bytes(numbers, sizeof numbers, h);
    return hash_bytes(r->value.p, r->value.n, h);
}

static bool is_key(struct bytes key)
{
    return key.n > 0 && key.n <= STORE_KEY_MAX && !memchr(key.p, 0, key.n);
}

static int read_row(struct store_sqlite *q, sqlite3_stmt *sql, struct store_row *ret,
                    struct err *err)
{
    *ret = (struct store_row){column_bytes(sql, 0), column_bytes(sql, 1), column(sql, 2),
                              column(sql, 3), column(sql, 4)};
    if (!is_key(ret->key))
        return store_sqlite_damaged(q, err, "a key of %zu bytes", ret->key.n);
    if (ret->value.n > STORE_VALUE_MAX || ret->sum != row_sum(ret))
        return store_sqlite_damaged(q, err, "the checksum of key '%.*s' is wrong",
                                    (int)(ret->key.n < 64 ? ret->key.n : 64), ret->key.p);
    return 0;
}

int store_rows_get(struct store_sqlite *q, const char *key, struct store_row *ret,
                   struct buf *ret_value, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_GET];
    bind_bytes(sql, 1, (struct bytes){key, strlen(key)});
    int failed = 0, rc = sqlite3_step(sql);
    if (rc == SQLITE_ROW)
        failed = read_row(q, sql, ret, err);
    if (rc == SQLITE_ROW && !failed && ret_value) {
        buf_clear(ret_value);
        buf_put(ret_value, ret->value.p, ret->value.n);
    }
    failed = finish(q, sql, rc, failed, err);
    return failed ? failed : rc == SQLITE_ROW;
}

// The order of keys: of their bytes.
static int compare(struct bytes a, struct bytes b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

int store_rows_scan(struct store_sqlite *q, const struct store_meta *m, store_row_fn *each,
                    void *ctx, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_SCAN];
    struct store_row row;
    struct store_meta found = {0};
    char last[STORE_KEY_MAX];
    size_t last_n = 0;
    int failed = 0, rc;
    while ((rc = sqlite3_step(sql)) == SQLITE_ROW && !(failed = read_row(q, sql, &row, err))) {
        if (compare((struct bytes){last, last_n}, row.key) >= 0)
            failed = store_sqlite_damaged(q, err, "its keys are out of order");
        if (failed)
            break;
        last_n = row.key.n;
        memcpy(last, row.key.p, last_n);
        found.keys++;
        found.bytes += row.key.n + row.value.n;
        found.digest += row.sum;
        if (each)
            each(ctx, &row);
    }
    if ((failed = finish(q, sql, rc, failed, err)) < 0)
        return failed;
    if (found.keys != m->keys || found.bytes != m->bytes || found.digest != m->digest)
        return store_sqlite_damaged(q, err, "it has %llu keys where %llu were written",
                                    (unsigned long long)found.keys, (unsigned long long)m->keys);
    return 0;
}

static void take_out(struct store_meta *m, const struct store_row *old)
{
    m->keys--;
    m->bytes -= old->key.n + old->value.n;
    m->digest -= old->sum;
}

int store_rows_put(struct store_sqlite *q, struct store_meta *m, const struct store_row *row,
                   const struct store_row *old, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_PUT];
    uint64_t sum = row_sum(row);
    if (old)
        take_out(m, old);
    m->keys++;
    m->bytes += row->key.n + row->value.n;
    m->digest += sum;
    bind_bytes(sql, 1, row->key);
    bind_bytes(sql, 2, row->value);
    bind(sql, 3, row->revision);
    bind(sql, 4, row->lease);
    bind(sql, 5, sum);
    return store_sqlite_run(q, SQL_PUT, err);
}

int store_rows_remove(struct store_sqlite *q, struct store_meta *m, const char *key,
                      const struct store_row *old, struct err *err)
{
    take_out(m, old);
    bind_bytes(q->sql[SQL_REMOVE], 1, (struct bytes){key, strlen(key)});
    return store_sqlite_run(q, SQL_REMOVE, err);
}

static uint64_t change_sum(const struct store_change *c)
{
    uint64_t numbers[] = {c->revision, c->n, c->of, c->removed, c->value.n};
    uint64_t h = hash_bytes(c->key.p, c->key.n, SUM_LOG);
    h = hash_bytes(numbers, sizeof numbers, h);
    return hash_bytes(c->value.p, c->value.n, h);
}

int store_rows_log(struct store_sqlite *q, struct store_meta *m, const struct store_change *c,
                   struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_LOG_PUT];
    m->log_bytes += c->key.n + c->value.n;
    bind_bytes(sql, 1, c->key);
    bind_bytes(sql, 2, c->value);
    bind(sql, 3, c->revision);
    bind(sql, 4, c->n);
    bind(sql, 5, c->of);
    bind(sql, 6, c->removed);
    bind(sql, 7, change_sum(c));
    return store_sqlite_run(q, SQL_LOG_PUT, err);
}

static int drop_oldest(struct store_sqlite *q, struct store_meta *m, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_LOG_BYTES];
    uint64_t bytes = 0, revision = m->oldest + 1;
    bind(sql, 1, revision);
    int failed = 0, rc = sqlite3_step(sql);
    if (rc == SQLITE_ROW)
        bytes = column(sql, 0);
    if (rc == SQLITE_ROW && (bytes == 0 || bytes > m->log_bytes))
        failed = store_sqlite_damaged(q, err, "revision %llu of its history is missing",
                                      (unsigned long long)revision);
    failed = finish(q, sql, rc, failed, err);
    if (failed)
        return failed;
    bind(q->sql[SQL_LOG_DROP], 1, revision);
    m->oldest = revision;
    m->log_bytes -= bytes;
    return store_sqlite_run(q, SQL_LOG_DROP, err);
}

int store_rows_trim(struct store_sqlite *q, struct store_meta *m, struct err *err)
{
    int rc = 0;
    while (rc == 0 && m->oldest < m->revision &&
           (m->revision - m->oldest > STORE_HISTORY || m->log_bytes > STORE_HISTORY_BYTES))
        rc = drop_oldest(q, m, err);
    return rc;
}

static int read_change(struct store_sqlite *q, sqlite3_stmt *sql, struct store_change *ret,
                       struct err *err)
{
    *ret = (struct store_change){column_bytes(sql, 0),     column_bytes(sql, 1),
                                 column(sql, 2),           (uint32_t)column(sql, 3),
                                 (uint32_t)column(sql, 4), column(sql, 5) != 0};
    if (!is_key(ret->key) || ret->value.n > STORE_VALUE_MAX || column(sql, 6) != change_sum(ret))
        return store_sqlite_damaged(q, err, "a checksum of its history is wrong");
    return 0;
}

int store_rows_changes(struct store_sqlite *q, const struct store_meta *m, uint64_t after,
                       store_change_fn *each, void *ctx, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_LOG_AFTER];
    struct store_change c;
    uint64_t revision = after, bytes = 0;
    uint32_t n = 0, of = 0; // of `revision`: the next, and how many
    int failed = 0, rc;
    CHECK(after >= m->oldest);
    bind(sql, 1, after);
    while ((rc = sqlite3_step(sql)) == SQLITE_ROW && !(failed = read_change(q, sql, &c, err))) {
        if (n == of) {
            revision++;
            of = c.of;
            n = 0;
        }
        if (c.revision != revision || c.n != n++ || c.of != of)
            failed = store_sqlite_damaged(q, err, "revision %llu of its history is not whole",
                                          (unsigned long long)revision);
        if (failed)
            break;
        bytes += c.key.n + c.value.n;
        if (each)
            each(ctx, &c);
    }
    if ((failed = finish(q, sql, rc, failed, err)) < 0)
        return failed;
    if (n != of || revision != m->revision || (after == m->oldest && bytes != m->log_bytes))
        return store_sqlite_damaged(q, err, "the end of its history is missing");
    return 0;
}

static uint64_t lease_sum(uint64_t id, uint64_t ttl_ns)
{
    uint64_t numbers[] = {id, ttl_ns};
    return hash_bytes(numbers, sizeof numbers, SUM_LEASE);
}

int store_rows_put_lease(struct store_sqlite *q, struct store_meta *m, uint64_t id, uint64_t ttl_ns,
                         struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_LEASE_PUT];
    m->lease_digest += lease_sum(id, ttl_ns);
    bind(sql, 1, id);
    bind(sql, 2, ttl_ns);
    bind(sql, 3, lease_sum(id, ttl_ns));
    return store_sqlite_run(q, SQL_LEASE_PUT, err);
}

int store_rows_remove_lease(struct store_sqlite *q, struct store_meta *m, uint64_t id,
                            uint64_t ttl_ns, struct err *err)
{
    m->lease_digest -= lease_sum(id, ttl_ns);
    bind(q->sql[SQL_LEASE_REMOVE], 1, id);
    return store_sqlite_run(q, SQL_LEASE_REMOVE, err);
}

int store_rows_leases(struct store_sqlite *q, const struct store_meta *m, store_lease_fn *each,
                      void *ctx, struct err *err)
{
    sqlite3_stmt *sql = q->sql[SQL_LEASES];
    uint64_t digest = 0;
    int failed = 0, rc;
    while (!failed && (rc = sqlite3_step(sql)) == SQLITE_ROW) {
        uint64_t id = column(sql, 0), ttl_ns = column(sql, 1);
        digest += column(sql, 2);
        if (column(sql, 2) != lease_sum(id, ttl_ns))
            failed = store_sqlite_damaged(q, err, "the checksum of a lease is wrong");
        else
            failed = each(ctx, id, ttl_ns, err);
    }
    if ((failed = finish(q, sql, rc, failed, err)) < 0)
        return failed;
    return digest == m->lease_digest ? 0 : store_sqlite_damaged(q, err, "a lease is missing");
}
