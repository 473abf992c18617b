// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * route - which deployment answers a path: the longest prefix that ends at a path segment.
 *
 * Match   `/echo` matches `/echo` and `/echo/x`, not `/echoes`; `/` matches everything.
 * Bounds  SNAPSHOT_APPS prefixes, looked at one by one, longest first.
 * Owner   prefixes are borrowed from whoever calls route_add, until route_finish.
 * Pure    no clock, no I/O.
 */
#include <stddef.h>
#include <stdint.h>

struct route_entry {
    const char *prefix; // borrowed
    size_t len;         // 0 for "/", so that what follows the prefix is always the rest
    void *to;
};

struct route_table {
    struct route_entry *entries; // owned, longest first
    uint32_t n;
};

void route_add(struct route_table *t, const char *prefix, void *to);
void route_finish(struct route_table *t); // `= {0}` is an empty table

// NULL: nobody. *ret_rest: the path below the prefix, "/" at least.
const struct route_entry *route_find(const struct route_table *t, const char *path,
                                     const char **ret_rest);

// What is below `root` (as a prefix; "" is everything), or NULL when the path is elsewhere.
const char *route_below(const char *root, const char *path);
