// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_dict - a dict: keys and values in the order in which the keys came first, found by hash.
 *
 * Keys    None, numbers, strings and tuples of them; 1, 1.0 and True are one key, as in Python.
 *         Another key is refused.
 * Bounds  every look at an entry is a step, so that keys made to collide cost their sender only.
 */
#include "llm/jinja_value.h"

struct jentry {
    struct jv key, value;
    uint64_t hash;
};
struct jdict {
    struct jentry *v;
    size_t n, cap;
    uint32_t *index; // open addressing: place in v plus 1; NULL while there are few
    size_t n_index;
};

struct jdict *jdict_new(struct jinja *j, size_t cap);
void jdict_set(struct jinja *j, struct jdict *d, struct jv key, struct jv value);
void jdict_set_name(struct jinja *j, struct jdict *d, const char *name, struct jv value);
// JV_MISSING: absent. The key must be hashable: else it fails.
struct jv jdict_get(struct jinja *j, const struct jdict *d, struct jv key);
struct jv jdict_get_name(struct jinja *j, const struct jdict *d, const char *name);
bool jdict_hashable(struct jv key);

static inline size_t jdict_len(const struct jdict *d)
{
    return d->n;
}
static inline const struct jentry *jdict_at(const struct jdict *d, size_t i)
{
    return &d->v[i];
}
