// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * store_mark - how many changes a store has acknowledged, beside it in a file of its own.
 *
 * Why     SQLite takes a write-ahead log up to its first bad frame and drops the rest in silence: a
 *         flipped byte there would undo acknowledged changes. It can't be written before a change
 *         is durable and so never says too much; it is not synced, and after a loss of power it may
 *         say too little, which costs nothing but the check.
 * File    MARK_BYTES, written in place: magic, the store's id, the number of changes, a checksum.
 *         A mark that is not whole says nothing.
 * Thread  any; blocks on the disk.
 */
#include <stdbool.h>
#include <stdint.h>

struct err;

struct store_mark {
    uint64_t id, changes;
};

// false: there is none that could be read; *ret_exists says if there is a file.
bool store_mark_read(const char *path, struct store_mark *ret, bool *ret_exists);
// Opens for writing, creates it where it is missing: the descriptor or SV_E_*.
int store_mark_open(const char *path, struct err *err);
void store_mark_write(int fd, const struct store_mark *m); // a failure leaves what was there
