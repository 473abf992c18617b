// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * store_rows - what lies in the tables of store.db, each row with a checksum.
 *
 * kv      one row a key. `meta` has the sum of their checksums, so one that is lost, doubled or old
 * is found by a walk over all. log     one row a change, `n` of `of` in its revision; every
 * revision in (oldest, revision] is there. lease   one row a lease; their sum is in `meta` too.
 * meta    one row.
 * Errors  STORE_E_DAMAGED for what no writer of ours leaves; else store_sqlite_err's.
 * Owner   rows are borrowed for the call that shows them.
 * Thread  one at a time.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct err;
struct store_sqlite;

// The columns of `meta`, in order.
struct store_meta {
    uint64_t id;       // random, of this store
    uint64_t revision; // of the last change; 1: none yet
    uint64_t oldest;   // up to this revision the log is gone
    uint64_t changes;  // commits, those without a revision included
    uint64_t keys, bytes;
    uint64_t log_bytes;
    uint64_t digest; // sum of the checksums in kv
    uint64_t next_lease;
    uint64_t lease_digest;
};

struct store_row {
    struct bytes key, value;
    uint64_t revision, lease, sum;
};

struct store_change {
    struct bytes key, value;
    uint64_t revision;
    uint32_t n, of;
    bool removed;
};

int store_rows_meta(struct store_sqlite *q, struct store_meta *ret, struct err *err);
int store_rows_put_meta(struct store_sqlite *q, const struct store_meta *m, struct err *err);

// 1: there; 0: not there; < 0. ret_value (may be NULL) gets a copy; the bytes of *ret have lengths
// alone.
int store_rows_get(struct store_sqlite *q, const char *key, struct store_row *ret,
                   struct buf *ret_value, struct err *err);
// Every key in order, then the whole against m. `each` may be NULL.
typedef void store_row_fn(void *ctx, const struct store_row *row);
int store_rows_scan(struct store_sqlite *q, const struct store_meta *m, store_row_fn *each,
                    void *ctx, struct err *err);
// Both keep *m in step. old: what store_rows_get gave, or NULL.
int store_rows_put(struct store_sqlite *q, struct store_meta *m, const struct store_row *row,
                   const struct store_row *old, struct err *err);
int store_rows_remove(struct store_sqlite *q, struct store_meta *m, const char *key,
                      const struct store_row *old, struct err *err);

int store_rows_log(struct store_sqlite *q, struct store_meta *m, const struct store_change *c,
                   struct err *err);
int store_rows_trim(struct store_sqlite *q, struct store_meta *m, struct err *err);
typedef void store_change_fn(void *ctx, const struct store_change *change);
// Every change after `after` (at least m->oldest), all there.
int store_rows_changes(struct store_sqlite *q, const struct store_meta *m, uint64_t after,
                       store_change_fn *each, void *ctx, struct err *err);

int store_rows_put_lease(struct store_sqlite *q, struct store_meta *m, uint64_t id, uint64_t ttl_ns,
                         struct err *err);
int store_rows_remove_lease(struct store_sqlite *q, struct store_meta *m, uint64_t id,
                            uint64_t ttl_ns, struct err *err);
typedef int store_lease_fn(void *ctx, uint64_t id, uint64_t ttl_ns, struct err *err);
int store_rows_leases(struct store_sqlite *q, const struct store_meta *m, store_lease_fn *each,
                      void *ctx, struct err *err);
