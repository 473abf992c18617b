// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * store - what must be agreed on and survive: keys with values, changed by transactions.
 *
 * Meaning   etcd's v3: one revision for the whole store counts up by one with each transaction that
 *           changes something; each key carries the revision of its last change. Nothing here
 *           assumes that this process is the only one that changes the store.
 * Backend   embedded: <state>/store.db, SQLite (WAL, full sync), with store.db-wal while it is open
 *           and store.db-mark, which says how many changes were acknowledged. They belong together.
 * Promises  a change that was acknowledged (0 was returned) is there after kill -9 and after a loss
 *           of power; one that was not is there whole or not at all. Every row has a checksum, and
 * so has the set of them: what is read is what was written, or a refusal (STORE_E_DAMAGED). Errors
 * SV_E_INVALID and SV_E_TOO_LARGE: the caller's; STORE_E_FULL: no room, nothing changed, try again
 * later; SV_E_UNAVAILABLE: another process has the file; SV_E_INTERNAL: the disk. Bounds    below.
 * Calls block for milliseconds (docs/design/008-store.md), open for at most STORE_BUSY_MS more
 * while another process has the file. Thread    one at a time. Callbacks may call every function
 * but store_close. Time      never read here; whoever needs `now` (CLOCK_MONOTONIC, ns) passes it
 * in.
 */
#include "base/buf.h"

#include <stdbool.h>

struct err;
struct store;
struct store_watch;

enum {
    STORE_ANY = -1, // if_revision: whatever it is

    STORE_E_CONFLICT = -409,  // a comparison of a transaction failed
    STORE_E_COMPACTED = -410, // the history does not reach back so far: list again
    STORE_E_FULL = -507,      // no room on the disk or in the store
    STORE_E_DAMAGED = -500,   // SV_E_INTERNAL: the files are not what was written

    STORE_KEY_MAX = 512,           // bytes of a key; at least 1, none of them NUL
    STORE_VALUE_MAX = 1 << 20,     // bytes of a value
    STORE_OPS_MAX = 128,           // operations of a transaction
    STORE_TXN_BYTES = 4 << 20,     // keys and values of a transaction
    STORE_KEYS_MAX = 16384,        // keys in the store
    STORE_BYTES_MAX = 64 << 20,    // keys and values in the store
    STORE_HISTORY = 1024,          // revisions a watch can look back, and at most
    STORE_HISTORY_BYTES = 8 << 20, // of keys and values in them
    STORE_LEASES_MAX = 256,
    STORE_WATCHES_MAX = 16,
    STORE_BUSY_MS = 2000, // wait for another process to let go of the file
};

// Creates the store where none of its files exists. A damaged, incomplete or newer file is refused:
// err names it, says what is wrong and what to do; nothing of it is changed.
int store_open(const char *state_dir, struct store **ret, struct err *err);
void store_close(struct store *s); // ends its watches; NULL is fine

// ret_value is replaced; it and ret_revision (of the key) may be NULL. SV_E_NOT_FOUND.
int store_get(struct store *s, const char *key, struct buf *ret_value, uint64_t *ret_revision,
              struct err *err);

struct store_kv {
    const char *key; // borrowed for the call
    struct bytes value;
    uint64_t revision; // of the key
};
// Calls `each` for every key that begins with `prefix` (may be ""), by the order of their bytes:
// one consistent view, of ret_revision (of the store; may be NULL). What `each` returns other than
// 0 ends the walk and is returned.
int store_list(struct store *s, const char *prefix,
               int (*each)(void *ctx, const struct store_kv *kv), void *ctx, uint64_t *ret_revision,
               struct err *err);

struct store_op {
    const char *key;
    struct bytes value;
    bool remove;         // of a key that is not there: nothing happens
    bool compare;        // compares alone; changes nothing
    int64_t if_revision; // STORE_ANY; 0: must not exist; else the key's revision must be this
    uint64_t lease;      // the key goes with this lease; 0: none
};
// All or none; durable when it returns 0. A key may be named once. STORE_E_CONFLICT names the key
// and both revisions. ret_revision: of the store afterwards; may be NULL.
int store_txn(struct store *s, const struct store_op *ops, uint32_t n, uint64_t *ret_revision,
              struct err *err);

struct store_event {
    const char *key; // borrowed for the call
    struct bytes value;
    uint64_t revision;
    bool removed;
};
// Every change after from_revision of keys with this prefix, in order; those of one transaction
// come together. Events come from store_tick alone, never from within another call. A watch that
// can't go on is told so once with `event` NULL and `why` (STORE_E_COMPACTED: list again): then it
// is over, and still to be closed.
typedef void store_watch_fn(void *ctx, const struct store_event *event, const struct err *why);
int store_watch(struct store *s, const char *prefix, uint64_t from_revision, store_watch_fn *fn,
                void *ctx, struct store_watch **ret, struct err *err);
void store_watch_close(struct store_watch *w); // also within its callback; NULL is fine

// A lease lives ttl_ns from its grant and from each keep. When it ends, its keys go in one
// transaction. After store_open each lease found has its whole ttl again, from the first tick.
int store_lease_grant(struct store *s, uint64_t ttl_ns, uint64_t now_ns, uint64_t *ret_lease,
                      struct err *err);
int store_lease_keep(struct store *s, uint64_t lease, uint64_t now_ns, struct err *err);
int store_lease_revoke(struct store *s, uint64_t lease, uint64_t *ret_revision, struct err *err);

// Ends leases whose time is over, then tells watches what is new. To be called after changes and
// every 100 ms or so. An error (the first) leaves the rest to be done by the next tick.
int store_tick(struct store *s, uint64_t now_ns, struct err *err);
