// SPDX-License-Identifier: Apache-2.0
#include "control/store_sqlite.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "control/store.h"
#include "control/store_mark.h"

#include "abi/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Values come last: what walks over keys doesn't read them.
#define KV_TABLE                                                                                   \
    "CREATE TABLE kv(key BLOB NOT NULL PRIMARY KEY, revision INTEGER NOT NULL,"                    \
    " lease INTEGER NOT NULL, sum INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
#define LOG_TABLE                                                                                  \
    "CREATE TABLE log(revision INTEGER NOT NULL, n INTEGER NOT NULL, of INTEGER NOT NULL,"         \
    " removed INTEGER NOT NULL, sum INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,"     \
    " PRIMARY KEY(revision, n)) WITHOUT ROWID"
#define LEASE_TABLE                                                                                \
    "CREATE TABLE lease(id INTEGER NOT NULL PRIMARY KEY, ttl_ns INTEGER NOT NULL,"                 \
    " sum INTEGER NOT NULL) WITHOUT ROWID"
#define META_TABLE                                                                                 \
    "CREATE TABLE meta(one INTEGER NOT NULL PRIMARY KEY, id INTEGER NOT NULL,"                     \
    " revision INTEGER NOT NULL, oldest INTEGER NOT NULL, changes INTEGER NOT NULL,"               \
    " keys INTEGER NOT NULL, bytes INTEGER NOT NULL, log_bytes INTEGER NOT NULL,"                  \
    " digest INTEGER NOT NULL, next_lease INTEGER NOT NULL, lease_digest INTEGER NOT NULL,"        \
    " sum INTEGER NOT NULL) WITHOUT ROWID"

// By name, as they are read to be compared.
static const char *const tables[] = {KV_TABLE, LEASE_TABLE, LOG_TABLE, META_TABLE};

static const char *const statements[SQL_N] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_META] = "SELECT id, revision, oldest, changes, keys, bytes, log_bytes, digest,"
                 " next_lease, lease_digest, sum FROM meta",
    [SQL_META_PUT] = "INSERT OR REPLACE INTO meta VALUES(1,?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
    [SQL_GET] = "SELECT key, value, revision, lease, sum FROM kv WHERE key = ?1",
    [SQL_SCAN] = "SELECT key, value, revision, lease, sum FROM kv ORDER BY key",
    [SQL_PUT] = "INSERT OR REPLACE INTO kv(key, value, revision, lease, sum)"
                " VALUES(?1,?2,?3,?4,?5)",
    [SQL_REMOVE] = "DELETE FROM kv WHERE key = ?1",
    [SQL_LOG_AFTER] = "SELECT key, value, revision, n, of, removed, sum FROM log"
                      " WHERE revision > ?1 ORDER BY revision, n",
    [SQL_LOG_PUT] = "INSERT INTO log(key, value, revision, n, of, removed, sum)"
                    " VALUES(?1,?2,?3,?4,?5,?6,?7)",
    [SQL_LOG_BYTES] = "SELECT sum(length(key) + length(value)) FROM log WHERE revision = ?1",
    [SQL_LOG_DROP] = "DELETE FROM log WHERE revision = ?1",
    [SQL_LEASES] = "SELECT id, ttl_ns, sum FROM lease ORDER BY id",
    [SQL_LEASE_PUT] = "INSERT INTO lease(id, ttl_ns, sum) VALUES(?1,?2,?3)",
    [SQL_LEASE_REMOVE] = "DELETE FROM lease WHERE id = ?1",
};

int store_sqlite_damaged(struct store_sqlite *q, struct err *err, const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(err, STORE_E_DAMAGED,
                   "'%.128s' is damaged: %s. What runs goes on. Put back a copy of store.db, "
                   "store.db-wal and store.db-mark, or move these away and deploy again",
                   q->path, what);
}

static bool is_full(int os_error)
{
    return os_error == ENOSPC || os_error == EDQUOT || os_error == EFBIG;
}

// Why the file or its log could not be written; 0: SQLite doesn't know.
static int os_error_of(struct store_sqlite *q)
{
    sqlite3_file *log = NULL;
    int error = 0;
    sqlite3_file_control(q->db, NULL, SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log && log->pMethods)
        log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &error);
    if (!error)
        sqlite3_file_control(q->db, NULL, SQLITE_FCNTL_LAST_ERRNO, &error);
    return error ? error : sqlite3_system_errno(q->db);
}

int store_sqlite_err(struct store_sqlite *q, int rc, struct err *err)
{
    int os_error = os_error_of(q);
    CHECK(rc != SQLITE_MISUSE);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return err_set(err, STORE_E_FULL, "no room to write '%s'; nothing was changed", q->path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, SV_E_UNAVAILABLE, "'%s' is in use by another process; waited %d ms",
                       q->path, STORE_BUSY_MS);
    case SQLITE_NOMEM:
        return err_set(err, SV_E_INTERNAL, "no memory to read '%s'", q->path);
    case SQLITE_READONLY:
        return err_set(err, SV_E_INTERNAL,
                       "'%s' can't be written: its permissions, a read-only file system, or bytes "
                       "18 and 19 of it, which are 2",
                       q->path);
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        if (is_full(os_error))
            return err_set(err, STORE_E_FULL, "no room to write '%s' (%s); nothing was changed",
                           q->path, err_errno(os_error));
        return err_set(err, SV_E_INTERNAL, "'%s': %s (%s)", q->path, sqlite3_errmsg(q->db),
                       err_errno(os_error));
    }
    return store_sqlite_damaged(q, err, "SQLite: %s", sqlite3_errmsg(q->db));
}

static int exec(struct store_sqlite *q, const char *text, struct err *err)
{
    int rc = sqlite3_exec(q->db, text, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_sqlite_err(q, rc, err);
}

int store_sqlite_run(struct store_sqlite *q, enum store_sql which, struct err *err)
{
    sqlite3_stmt *sql = q->sql[which];
    int rc = sqlite3_step(sql);
    int failed = rc == SQLITE_DONE ? 0 : store_sqlite_err(q, rc, err);
    sqlite3_reset(sql);
    sqlite3_clear_bindings(sql);
    return failed;
}

static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct store_sqlite *q = arg;
    (void)db;
    (void)name;
    q->wal_pages = pages;
    return SQLITE_OK;
}

// Writes the log back. A failure (a full disk) leaves it to the next time, up to a bound.
static int write_back(struct store_sqlite *q, struct err *err)
{
    if (q->wal_pages < STORE_WAL_PAGES)
        return 0;
    int rc = sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc == SQLITE_OK)
        q->wal_pages = 0;
    return q->wal_pages < STORE_WAL_PAGES_MAX ? 0 : store_sqlite_err(q, rc, err);
}

int store_sqlite_begin(struct store_sqlite *q, struct err *err)
{
    int rc = write_back(q, err);
    return rc < 0 ? rc : store_sqlite_run(q, SQL_BEGIN, err);
}

int store_sqlite_commit(struct store_sqlite *q, struct err *err)
{
    int rc = store_sqlite_run(q, SQL_COMMIT, err);
    if (rc < 0)
        store_sqlite_rollback(q);
    else
        write_back(q, NULL);
    return rc;
}

void store_sqlite_rollback(struct store_sqlite *q)
{
    if (!sqlite3_get_autocommit(q->db)) // some errors have rolled it back themselves
        store_sqlite_run(q, SQL_ROLLBACK, NULL);
}

static int open_file(struct store_sqlite *q, const char *path, int flags, struct err *err)
{
    int rc =
        sqlite3_open_v2(path, &q->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK)
        return q->db ? store_sqlite_err(q, rc, err)
                     : err_set(err, SV_E_INTERNAL, "no memory to open '%s'", path);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_limit(q->db, SQLITE_LIMIT_LENGTH, STORE_VALUE_MAX + (64 << 10));
    sqlite3_busy_timeout(q->db, STORE_BUSY_MS);
    sqlite3_wal_hook(q->db, on_wal, q);
    return exec(q,
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;"
                "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;"
                "PRAGMA journal_size_limit = 4194304; PRAGMA max_page_count = 65536",
                err);
}

_Static_assert(65536LL * STORE_PAGE_BYTES == STORE_FILE_MAX, "max_page_count above");

static void close_file(struct store_sqlite *q)
{
    for (int i = 0; i < SQL_N; i++)
        sqlite3_finalize(q->sql[i]);
    memset(q->sql, 0, sizeof q->sql);
    CHECK(sqlite3_close(q->db) == SQLITE_OK);
    q->db = NULL;
}

void store_sqlite_close(struct store_sqlite *q)
{
    if (q->db && q->sql[SQL_ROLLBACK])
        store_sqlite_rollback(q);
    close_file(q);
    xfree(q->path);
    xfree(q->mark_path);
    *q = (struct store_sqlite){0};
}

// The first column of the first row as a number.
static int ask_number(struct store_sqlite *q, const char *text, int64_t *ret, struct err *err)
{
    sqlite3_stmt *sql = NULL;
    int rc = sqlite3_prepare_v2(q->db, text, -1, &sql, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(sql);
    if (rc == SQLITE_ROW)
        *ret = sqlite3_column_int64(sql, 0);
    int failed = rc == SQLITE_ROW ? 0 : store_sqlite_err(q, rc, err);
    sqlite3_finalize(sql);
    return failed;
}

static int check_format(struct store_sqlite *q, struct err *err)
{
    int64_t id = 0, format = 0;
    int rc = ask_number(q, "PRAGMA application_id", &id, err);
    if (rc == 0)
        rc = ask_number(q, "PRAGMA user_version", &format, err);
    if (rc < 0)
        return rc;
    if (id != STORE_APPLICATION_ID)
        return store_sqlite_damaged(q, err, "a database of another program (application id %lld)",
                                    (long long)id);
    if (format > STORE_FORMAT && format < STORE_FORMAT + 1000)
        return err_set(err, SV_E_UNSUPPORTED,
                       "'%s' has format %lld, of a newer Salver; this one reads up to %d. Run that "
                       "one, or move store.db, store.db-wal and store.db-mark away",
                       q->path, (long long)format, STORE_FORMAT);
    if (format != STORE_FORMAT)
        return store_sqlite_damaged(q, err, "format %lld is none", (long long)format);
    return 0;
}

// Each text column of `text` against want[0, n), in order.
static int check_texts(struct store_sqlite *q, const char *text, const char *const *want, size_t n,
                       const char *what, struct err *err)
{
    sqlite3_stmt *sql = NULL;
    size_t i = 0;
    int failed = 0, rc = sqlite3_prepare_v2(q->db, text, -1, &sql, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(sql)) == SQLITE_ROW) {
        const char *found = (const char *)sqlite3_column_text(sql, 0);
        if (i == n || !found || strcmp(found, want[i++]) != 0) {
            failed = store_sqlite_damaged(q, err, "%s: %.150s", what, found ? found : "(nothing)");
            break;
        }
        rc = SQLITE_OK;
    }
    if (!failed && rc != SQLITE_DONE)
        failed = store_sqlite_err(q, rc, err);
    if (!failed && i < n)
        failed = store_sqlite_damaged(q, err, "%s: %.150s is missing", what, want[i]);
    sqlite3_finalize(sql);
    return failed;
}

static int check_file(struct store_sqlite *q, struct err *err)
{
    static const char *const ok = "ok";
    int rc = check_format(q, err);
    if (rc == 0)
        rc = check_texts(q, "SELECT sql FROM sqlite_schema ORDER BY name", tables,
                         ARRAY_LEN(tables), "another table", err);
    if (rc == 0)
        rc = check_texts(q, "PRAGMA quick_check(1)", &ok, 1, "SQLite", err);
    return rc;
}

static int prepare_all(struct store_sqlite *q, struct err *err)
{
    for (int i = 0; i < SQL_N; i++) {
        int rc = sqlite3_prepare_v3(q->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &q->sql[i],
                                    NULL);
        if (rc != SQLITE_OK)
            return store_sqlite_err(q, rc, err);
    }
    return 0;
}

static int sync_path(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_set(err, is_full(errno) ? STORE_E_FULL : SV_E_INTERNAL,
                                               "syncing '%s': %s", path, err_errno(errno))
                                     : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int create_tables(struct store_sqlite *q, struct err *err)
{
    char numbers[128];
    snprintf(numbers, sizeof numbers,
             "PRAGMA page_size = %d; PRAGMA application_id = %d; PRAGMA user_version = %d",
             STORE_PAGE_BYTES, STORE_APPLICATION_ID, STORE_FORMAT);
    // What syncs it is sync_path, once, when it is whole.
    int rc = exec(q, "PRAGMA synchronous = OFF", err);
    if (rc == 0)
        rc = exec(q, numbers, err);
    if (rc == 0)
        rc = exec(q, "PRAGMA journal_mode = WAL; BEGIN IMMEDIATE", err);
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(tables); i++)
        rc = exec(q, tables[i], err);
    if (rc == 0)
        rc = prepare_all(q, err);
    return rc;
}

// Under another name first, so that store.db is whole or not there.
static int create(struct store_sqlite *q, const char *dir, store_fill_fn *fill, struct err *err)
{
    char *temp = xasprintf("%s-new", q->path), *log = xasprintf("%s-wal", temp);
    unlink(temp); // of a life that ended here
    unlink(log);
    int failed, rc = open_file(q, temp, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
    if (rc == 0)
        rc = create_tables(q, err);
    if (rc == 0)
        rc = fill(q, err);
    if (rc == 0)
        rc = store_sqlite_run(q, SQL_COMMIT, err);
    if (rc == 0 && (failed = sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE,
                                                       NULL, NULL)) != SQLITE_OK)
        rc = store_sqlite_err(q, failed, err);
    close_file(q);
    unlink(log);
    if (rc == 0)
        rc = sync_path(temp, err);
    if (rc == 0 && (chmod(temp, 0600) < 0 || rename(temp, q->path) < 0))
        rc = err_set(err, SV_E_INTERNAL, "creating '%s': %s", q->path, err_errno(errno));
    if (rc < 0)
        unlink(temp);
    else
        rc = sync_path(dir, err);
    xfree(temp);
    xfree(log);
    return rc;
}

// 1: there is a store, 0: there is none, < 0: there is a part of one.
static int look(struct store_sqlite *q, struct err *err)
{
    char *log = xasprintf("%s-wal", q->path);
    struct stat db, wal;
    bool has_db = stat(q->path, &db) == 0, has_wal = stat(log, &wal) == 0 && wal.st_size > 0,
         has_mark = access(q->mark_path, F_OK) == 0;
    xfree(log);
    if (!has_db && (has_wal || has_mark))
        return store_sqlite_damaged(q, err, "it is missing, and store.db-%s is there",
                                    has_wal ? "wal" : "mark");
    if (has_db && db.st_size == 0)
        return store_sqlite_damaged(q, err, "it is empty");
    if ((has_db && db.st_size > STORE_FILE_MAX) || (has_wal && wal.st_size > STORE_FILE_MAX))
        return store_sqlite_damaged(q, err, "it or store.db-wal has more than %d bytes",
                                    STORE_FILE_MAX);
    return has_db;
}

static int open_checked(struct store_sqlite *q, struct err *err)
{
    int rc = open_file(q, q->path, SQLITE_OPEN_READWRITE, err);
    if (rc == 0)
        rc = check_file(q, err);
    if (rc == 0)
        rc = prepare_all(q, err);
    if (rc == 0) // says also if the file can be written
        rc = store_sqlite_run(q, SQL_BEGIN, err);
    return rc;
}

int store_sqlite_open(const char *state_dir, store_fill_fn *fill, struct store_sqlite *ret,
                      struct err *err)
{
    struct store_sqlite *q = ret;
    *q = (struct store_sqlite){.path = xasprintf("%s/store.db", state_dir),
                               .mark_path = xasprintf("%s/store.db-mark", state_dir)};
    int rc = look(q, err);
    if (rc == 0)
        rc = create(q, state_dir, fill, err);
    if (rc >= 0)
        rc = open_checked(q, err);
    if (rc < 0)
        store_sqlite_close(q);
    return rc;
}

int store_sqlite_trust(struct store_sqlite *q, struct err *err)
{
    store_sqlite_rollback(q);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return exec(q, "PRAGMA journal_mode = WAL", err);
}
