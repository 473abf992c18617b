// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_value.h"

#include "base/check.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_loop.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"

static struct jv new_list(struct jinja *j, enum jinja_kind kind, size_t cap)
{
    struct jlist *l = jinja_alloc(j, sizeof *l);
    l->items = jinja_alloc(j, sizeof *l->items);
    l->items->v = cap ? jinja_array(j, cap, sizeof(struct jv)) : NULL;
    l->items->cap = cap;
    l->v = l->items->v;
    return (struct jv){.kind = kind, .l = l};
}

struct jv jv_list(struct jinja *j, size_t cap)
{
    return new_list(j, JV_LIST, cap);
}

struct jv jv_tuple(struct jinja *j, size_t cap)
{
    return new_list(j, JV_TUPLE, cap);
}

struct jv jv_pair(struct jinja *j, struct jv a, struct jv b)
{
    struct jv pair = jv_tuple(j, 2);
    jv_push(j, pair, a);
    jv_push(j, pair, b);
    return pair;
}

void jv_push(struct jinja *j, struct jv list, struct jv item)
{
    struct jlist *l = list.l;
    struct jitems *items = l->items;
    CHECK(items && l->n == items->used && l->v == items->v);
    if (items->used == items->cap) {
        size_t cap = items->cap ? items->cap * 2 : 4;
        struct jv *v = jinja_array(j, cap, sizeof *v);
        if (items->used)
            memcpy(v, items->v, items->used * sizeof *v);
        items->v = l->v = v;
        items->cap = cap;
    }
    items->v[items->used++] = item;
    l->n++;
}

struct jv jv_concat(struct jinja *j, struct jv a, struct jv b)
{
    struct jlist *l = a.l, *r = b.l;
    struct jlist *sum = jinja_alloc(j, sizeof *sum);
    struct jitems *items = l->items;
    jinja_step(j, r->n);
    if (items && l->v && l->v + l->n == items->v + items->used &&
        items->cap - items->used >= r->n) {
        *sum = (struct jlist){.v = l->v, .n = l->n + r->n, .items = items};
    } else {
        jinja_step(j, l->n);
        items = jinja_alloc(j, sizeof *items);
        items->cap = (l->n + r->n) * 2;
        items->v = jinja_array(j, items->cap + 1, sizeof *items->v);
        if (l->v)
            memcpy(items->v, l->v, l->n * sizeof *items->v);
        items->used = l->n;
        *sum = (struct jlist){.v = items->v, .n = l->n + r->n, .items = items};
    }
    if (r->n)
        memmove(items->v + items->used, r->v, r->n * sizeof *items->v);
    items->used += r->n;
    return (struct jv){.kind = a.kind, .l = sum};
}

struct jv jv_part(struct jinja *j, struct jv list, size_t from, size_t n)
{
    CHECK(from <= list.l->n && n <= list.l->n - from);
    struct jlist *l = jinja_alloc(j, sizeof *l);
    *l = (struct jlist){.v = n ? list.l->v + from : NULL, .n = n};
    return (struct jv){.kind = list.kind, .l = l};
}

struct jv jv_undefined(struct jinja *j, const char *hint)
{
    struct jundefined *u = jinja_alloc(j, sizeof *u);
    u->hint = hint;
    return (struct jv){.kind = JV_UNDEFINED, .u = u};
}

struct jv jv_undefined_name(struct jinja *j, const char *name)
{
    struct jv v = jv_undefined(j, NULL);
    v.u->name = jstr_of(j, name);
    return v;
}

struct jv jv_undefined_of(struct jinja *j, struct jv owner, struct jv name)
{
    struct jv v = jv_undefined(j, NULL);
    v.u->owner = owner.kind == JV_NONE ? "None" : jv_type(owner);
    v.u->name = name;
    return v;
}

void jv_fail_undefined(struct jinja *j, struct jv v)
{
    const struct jundefined *u = v.u;
    if (u->hint)
        jinja_fail(j, "%s", u->hint);
    char name[128];
    jrepr_short(j, u->name, name, sizeof name);
    if (!u->owner)
        jinja_fail(j, "%s is undefined", name);
    const char *object = strcmp(u->owner, "None") == 0 ? "" : " object";
    if (jv_is_str(u->name))
        jinja_fail(j, "'%s%s' has no attribute %s", u->owner, object, name);
    jinja_fail(j, "%s%s has no element %s", u->owner, object, name);
}

const char *jv_type(struct jv v)
{
    static const char *const names[] = {[JV_MISSING] = "missing",
                                        [JV_UNDEFINED] = "Undefined",
                                        [JV_NONE] = "NoneType",
                                        [JV_BOOL] = "bool",
                                        [JV_INT] = "int",
                                        [JV_BIG] = "int",
                                        [JV_FLOAT] = "float",
                                        [JV_STRING] = "str",
                                        [JV_LIST] = "list",
                                        [JV_TUPLE] = "tuple",
                                        [JV_DICT] = "dict",
                                        [JV_RANGE] = "range",
                                        [JV_VIEW] = "dict view",
                                        [JV_ITER] = "generator",
                                        [JV_NAMESPACE] = "Namespace",
                                        [JV_MACRO] = "Macro",
                                        [JV_FUNCTION] = "function",
                                        [JV_METHOD] = "method",
                                        [JV_LOOP] = "LoopContext",
                                        [JV_CYCLER] = "Cycler",
                                        [JV_JOINER] = "Joiner"};
    return names[v.kind];
}

bool jv_truth(struct jinja *j, struct jv v)
{
    switch (v.kind) {
    case JV_MISSING:
    case JV_UNDEFINED:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return v.b;
    case JV_INT:
        return v.i != 0;
    case JV_FLOAT:
        return v.f != 0;
    case JV_STRING:
        return v.s->n > 0;
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
    case JV_RANGE:
    case JV_VIEW:
    case JV_LOOP:
        return jv_len(j, v) > 0;
    case JV_BIG:
    case JV_ITER:
    case JV_NAMESPACE:
    case JV_MACRO:
    case JV_FUNCTION:
    case JV_METHOD:
    case JV_CYCLER:
    case JV_JOINER:
        return true;
    }
    BUG("a value of kind %d", (int)v.kind);
}

bool jv_has_len(struct jv v)
{
    return v.kind == JV_UNDEFINED || v.kind == JV_STRING || jv_is_seq(v) || v.kind == JV_DICT ||
           v.kind == JV_RANGE || v.kind == JV_VIEW || v.kind == JV_LOOP;
}

size_t jv_len(struct jinja *j, struct jv v)
{
    if (!jv_has_len(v))
        jinja_fail(j, "object of type '%s' has no len()", jv_type(v));
    if (v.kind == JV_STRING)
        return jstr_chars(j, v.s);
    if (jv_is_seq(v))
        return v.l->n;
    if (v.kind == JV_DICT)
        return jdict_len(v.d);
    if (v.kind == JV_RANGE)
        return v.r->n;
    if (v.kind == JV_VIEW)
        return jdict_len(v.v->d);
    return v.kind == JV_LOOP ? jloop_length(j, v.loop) : 0;
}

struct jv jv_view_at(struct jinja *j, const struct jview *v, size_t i)
{
    const struct jentry *e = jdict_at(v->d, i);
    if (v->what == JVIEW_ITEMS)
        return jv_pair(j, e->key, e->value);
    return v->what == JVIEW_KEYS ? e->key : e->value;
}
