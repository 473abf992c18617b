// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_dict.h"

#include "base/map.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_string.h"

enum { FEW = 8, ENTRIES_MAX = 1 << 30 };

struct jdict *jdict_new(struct jinja *j, size_t cap)
{
    struct jdict *d = jinja_alloc(j, sizeof *d);
    d->cap = cap;
    d->v = cap ? jinja_array(j, cap, sizeof *d->v) : NULL;
    return d;
}

bool jdict_hashable(struct jv key)
{
    if (key.kind == JV_TUPLE) {
        for (size_t i = 0; i < key.l->n; i++)
            if (key.l->v[i].kind == JV_TUPLE || !jdict_hashable(key.l->v[i]))
                return false; // tuples in tuples: no template has such keys
        return true;
    }
    return key.kind != JV_LIST && key.kind != JV_DICT && key.kind != JV_MISSING &&
           key.kind != JV_NAMESPACE;
}

static uint64_t hash(struct jinja *j, struct jv key)
{
    if (!jdict_hashable(key))
        jinja_fail(j, "unhashable type: '%s'", jv_type(key));
    if (key.kind == JV_STRING || key.kind == JV_BIG) {
        jinja_step_bytes(j, key.s->n);
        return hash_bytes(key.s->p, key.s->n, 1);
    }
    if (jv_is_num(key)) {
        double d = jv_as_double(key) + 0.0; // -0 is 0
        return hash_bytes(&d, sizeof d, 2);
    }
    uint64_t h = (uint64_t)key.kind;
    for (size_t i = 0; key.kind == JV_TUPLE && i < key.l->n; i++) {
        uint64_t one = hash(j, key.l->v[i]);
        h = hash_bytes(&one, sizeof one, h);
    }
    return h;
}

// The place of the key in v; SIZE_MAX: absent.
static size_t find(struct jinja *j, const struct jdict *d, struct jv key, uint64_t h)
{
    if (!d->index) {
        jinja_step(j, 1);
        for (size_t i = 0; i < d->n; i++)
            if (d->v[i].hash == h && joperator_equal(j, d->v[i].key, key))
                return i;
        return SIZE_MAX;
    }
    for (size_t at = h & (d->n_index - 1); d->index[at]; at = (at + 1) & (d->n_index - 1)) {
        size_t i = d->index[at] - 1;
        jinja_step(j, 1);
        if (d->v[i].hash == h && joperator_equal(j, d->v[i].key, key))
            return i;
    }
    return SIZE_MAX;
}

static void index_put(struct jinja *j, struct jdict *d, size_t i)
{
    size_t at = d->v[i].hash & (d->n_index - 1);
    while (d->index[at]) {
        jinja_step(j, 1);
        at = (at + 1) & (d->n_index - 1);
    }
    d->index[at] = (uint32_t)i + 1;
}

static void grow(struct jinja *j, struct jdict *d)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jentry *v = jinja_array(j, cap, sizeof *v);
        if (d->n)
            memcpy(v, d->v, d->n * sizeof *v);
        d->v = v;
        d->cap = cap;
    }
    if (d->n < FEW || (d->index && (d->n + 1) * 2 <= d->n_index))
        return;
    if (d->n >= ENTRIES_MAX)
        jinja_fail(j, "a dict of more than %d keys", ENTRIES_MAX);
    d->n_index = d->index ? d->n_index * 2 : (size_t)FEW * 4;
    d->index = jinja_array(j, d->n_index, sizeof *d->index);
    for (size_t i = 0; i < d->n; i++)
        index_put(j, d, i);
}

void jdict_set(struct jinja *j, struct jdict *d, struct jv key, struct jv value)
{
    uint64_t h = hash(j, key);
    size_t i = find(j, d, key, h);
    if (i != SIZE_MAX) {
        d->v[i].value = value;
        return;
    }
    grow(j, d);
    d->v[d->n] = (struct jentry){.key = key, .value = value, .hash = h};
    if (d->index)
        index_put(j, d, d->n);
    d->n++;
}

void jdict_set_name(struct jinja *j, struct jdict *d, const char *name, struct jv value)
{
    jdict_set(j, d, jstr_of(j, name), value);
}

struct jv jdict_get(struct jinja *j, const struct jdict *d, struct jv key)
{
    uint64_t h = hash(j, key);
    size_t i = find(j, d, key, h);
    return i == SIZE_MAX ? (struct jv){.kind = JV_MISSING} : d->v[i].value;
}

struct jv jdict_get_name(struct jinja *j, const struct jdict *d, const char *name)
{
    struct jstr key = {.p = name, .n = strlen(name)};
    return jdict_get(j, d, (struct jv){.kind = JV_STRING, .s = &key});
}
