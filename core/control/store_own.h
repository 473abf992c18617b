// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * store_own - the inside of an embedded store, for store.c and store_watch.c alone.
 */
#include "control/store.h"
#include "control/store_rows.h"
#include "control/store_sqlite.h"

struct store_lease {
    uint64_t id, ttl_ns;
    uint64_t end_ns; // 0: counts from the next tick
};

struct store {
    struct store_sqlite q;
    struct store_meta meta;                      // as committed
    int mark_fd;                                 // of store.db-mark
    struct store_lease leases[STORE_LEASES_MAX]; // [0, n_leases), in no order
    uint32_t n_leases;
    struct store_watch *watches[STORE_WATCHES_MAX]; // owned; NULL where none is
};

// A transaction on its way: what `meta` will be.
struct store_txn {
    struct store *s;
    struct store_meta m;
    uint32_t n, of; // changes made, and to be made
};

// begin; then any of the others; then end, whatever came of it: 0 commits, an error rolls back.
int store_txn_begin(struct store_txn *t, struct store *s, struct err *err);
int store_txn_put(struct store_txn *t, const struct store_op *op, const struct store_row *old,
                  struct err *err);
int store_txn_remove(struct store_txn *t, const char *key, const struct store_row *old,
                     struct err *err);
int store_txn_end(struct store_txn *t, int rc, struct err *err);
