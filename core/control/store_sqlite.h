// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * store_sqlite - the file under the embedded store: found or created, looked over, its statements.
 *
 * Files   store.db, store.db-wal (SQLite's), store.db-mark (store_mark.h). A new store.db is made
 *         under another name and renamed, so one that is there is whole; with none of the three
 *         there a store is new, and with some of them missing it is refused.
 * Lock    SQLite's exclusive locking mode: one process at a time, no shared memory beside the file.
 * Trust   a file that is refused is left as it was, its log too, until store_sqlite_trust.
 * Bounds  STORE_FILE_MAX bytes of store.db and of its log; the log is written back at
 *         STORE_WAL_PAGES, and nothing is written any more at STORE_WAL_PAGES_MAX.
 * Thread  one at a time.
 */
#include <sqlite3.h>
#include <stdint.h>

struct err;

enum {
    STORE_FILE_MAX = 256 << 20,
    STORE_PAGE_BYTES = 4096,
    STORE_WAL_PAGES = 256,
    STORE_WAL_PAGES_MAX = 8192,
    STORE_APPLICATION_ID = 0x53615672, // "SaVr"
    STORE_FORMAT = 1,                  // user_version
};

enum store_sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_META,
    SQL_META_PUT,
    SQL_GET,
    SQL_SCAN,
    SQL_PUT,
    SQL_REMOVE,
    SQL_LOG_AFTER,
    SQL_LOG_PUT,
    SQL_LOG_BYTES,
    SQL_LOG_DROP,
    SQL_LEASES,
    SQL_LEASE_PUT,
    SQL_LEASE_REMOVE,
    SQL_N
};

struct store_sqlite {
    sqlite3 *db;
    sqlite3_stmt *sql[SQL_N]; // owned
    char *path;               // owned; of store.db
    char *mark_path;          // owned
    int wal_pages;            // in the log
};

// Writes the first rows of a new store.
typedef int store_fill_fn(struct store_sqlite *q, struct err *err);
// Leaves a transaction open, in which the caller looks at the rows before it trusts them.
int store_sqlite_open(const char *state_dir, store_fill_fn *fill, struct store_sqlite *ret,
                      struct err *err);
// Ends that transaction; from now on the log is written back.
int store_sqlite_trust(struct store_sqlite *q, struct err *err);
void store_sqlite_close(struct store_sqlite *q);

int store_sqlite_begin(struct store_sqlite *q, struct err *err); // for writing
int store_sqlite_commit(struct store_sqlite *q, struct err *err);
void store_sqlite_rollback(struct store_sqlite *q);

// Runs a statement without rows, whose parameters are bound; clears them.
int store_sqlite_run(struct store_sqlite *q, enum store_sql which, struct err *err);
// SQLite's word `rc` about this file as an err.
int store_sqlite_err(struct store_sqlite *q, int rc, struct err *err);
// A refusal: what is wrong with the files, and what to do.
__attribute__((format(printf, 3, 4))) int
store_sqlite_damaged(struct store_sqlite *q, struct err *err, const char *fmt, ...);
