// SPDX-License-Identifier: Apache-2.0
#include "base/map.h"

#include "base/check.h"
#include "base/mem.h"

#include <string.h>

enum { MAP_MIN = 16 }; // slots

// value NULL: never used (key 0) or given up (key 1), over which a search must go on.
struct map_slot {
    uint64_t key;
    void *value;
};

static uint64_t mix(uint64_t x) // the finaliser of splitmix64
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void map_finish(struct map *m)
{
    xfree(m->slots);
    *m = (struct map){0};
}

static struct map_slot *find(const struct map *m, uint64_t key)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = mix(key) & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->slots[i];
        if (s->value && s->key == key)
            return s;
        if (!s->value && s->key == 0)
            return NULL;
    }
}

static void insert(struct map *m, uint64_t key, void *value)
{
    size_t i = mix(key) & (m->cap - 1);
    while (m->slots[i].value)
        i = (i + 1) & (m->cap - 1);
    m->gone -= m->slots[i].key == 1 ? 1 : 0;
    m->slots[i] = (struct map_slot){key, value};
    m->len++;
}

// Keeps a quarter of the slots unused, so that every search ends.
static void make_room(struct map *m)
{
    if ((m->len + m->gone + 1) * 4 <= m->cap * 3)
        return;
    struct map old = *m;
    m->cap = !old.cap ? MAP_MIN : old.len * 2 >= old.cap ? old.cap * 2 : old.cap;
    m->slots = xcalloc(m->cap, sizeof *m->slots);
    m->len = m->gone = 0;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].value)
            insert(m, old.slots[i].key, old.slots[i].value);
    xfree(old.slots);
}

void *map_get(const struct map *m, uint64_t key)
{
    struct map_slot *s = find(m, key);
    return s ? s->value : NULL;
}

void *map_put(struct map *m, uint64_t key, void *value)
{
    CHECK(value);
    struct map_slot *s = find(m, key);
    if (s) {
        void *old = s->value;
        s->value = value;
        return old;
    }
    make_room(m);
    insert(m, key, value);
    return NULL;
}

void *map_take(struct map *m, uint64_t key)
{
    struct map_slot *s = find(m, key);
    if (!s)
        return NULL;
    void *value = s->value;
    *s = (struct map_slot){.key = 1};
    m->len--;
    m->gone++;
    return value;
}

void *map_next(const struct map *m, size_t *pos, uint64_t *key)
{
    while (*pos < m->cap) {
        const struct map_slot *s = &m->slots[(*pos)++];
        if (!s->value)
            continue;
        if (key)
            *key = s->key;
        return s->value;
    }
    return NULL;
}

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *c = p;
    uint64_t h = mix(seed ^ (n * 0x9e3779b97f4a7c15u));
    for (; n >= 8; c += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, c, 8);
        h = mix(h ^ word) + 0x9e3779b97f4a7c15u;
    }
    uint64_t rest = 0;
    if (n)
        memcpy(&rest, c, n);
    return mix(h ^ rest);
}
