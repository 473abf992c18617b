// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * map - a hash table from 64-bit keys to pointers (request ids, child ids). Open addressing.
 *
 * Owner   the values stay their owner's. Keys are unique; 0 is a legal key.
 * Thread  one at a time. Not to be changed while it is walked.
 */
#include <stddef.h>
#include <stdint.h>

struct map_slot;
struct map {
    struct map_slot *slots; // owned
    size_t len, cap, gone;
};

void map_finish(struct map *m);                          // `= {0}` is an empty map
void *map_get(const struct map *m, uint64_t key);        // NULL: absent
void *map_put(struct map *m, uint64_t key, void *value); // returns the old value or NULL
void *map_take(struct map *m, uint64_t key);             // removes; NULL: absent
// Walks in no order. *pos starts at 0; NULL at the end.
void *map_next(const struct map *m, size_t *pos, uint64_t *key);

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);
