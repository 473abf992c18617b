// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_method.h"

#include "base/check.h"
#include "llm/jinja_call.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_loop.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_string.h"

#include <math.h>

static void positional(struct jinja *j, const char *what, const struct jargs *a, size_t least,
                       size_t most)
{
    jcall_no_keywords(j, what, a);
    if (a->n < least || a->n > most)
        jinja_fail(j, "%s() takes %zu to %zu arguments, %zu given", what, least, most, a->n);
}

static struct jv view(struct jinja *j, struct jv self, enum jinja_view what)
{
    struct jview *v = jinja_alloc(j, sizeof *v);
    *v = (struct jview){self.d, what};
    return (struct jv){.kind = JV_VIEW, .v = v};
}

static struct jv m_items(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "items", a, 0, 0);
    return view(j, self, JVIEW_ITEMS);
}

static struct jv m_keys(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "keys", a, 0, 0);
    return view(j, self, JVIEW_KEYS);
}

static struct jv m_values(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "values", a, 0, 0);
    return view(j, self, JVIEW_VALUES);
}

static struct jv m_get(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "get", a, 1, 2);
    struct jv v = jdict_get(j, self.d, a->v[0]);
    if (v.kind != JV_MISSING)
        return v;
    return a->n > 1 ? a->v[1] : jv_none();
}

static struct jv m_copy(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "copy", a, 0, 0);
    return self; // it can't change
}

static struct jv m_fromkeys(struct jinja *j, struct jv self, const struct jargs *a)
{
    (void)self;
    positional(j, "fromkeys", a, 1, 2);
    struct jdict *d = jdict_new(j, 0);
    struct jiter *it = jiter_open(j, a->v[0]);
    struct jv key;
    while (jiter_next(j, it, &key))
        jdict_set(j, d, key, a->n > 1 ? a->v[1] : jv_none());
    return jv_dict(d);
}

static struct jv m_count(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "count", a, 1, 1);
    int64_t n = 0;
    for (size_t i = 0; i < self.l->n; i++)
        n += joperator_equal(j, self.l->v[i], a->v[0]);
    return jv_int(n);
}

static struct jv m_index(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "index", a, 1, 3);
    int64_t n = (int64_t)self.l->n, from = a->n > 1 ? joperator_index(j, a->v[1]) : 0;
    int64_t to = a->n > 2 ? joperator_index(j, a->v[2]) : n;
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++)
        if (joperator_equal(j, self.l->v[i], a->v[0]))
            return jv_int(i);
    jinja_fail(j, "the value is not in the %s", jv_type(self));
}

static struct jv m_is_integer(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "is_integer", a, 0, 0);
    return jv_bool(isfinite(self.f) && self.f == floor(self.f));
}

static struct jv m_bit_length(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "bit_length", a, 0, 0);
    int64_t i = jv_as_int(self), n = 0;
    for (uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i; u; u >>= 1)
        n++;
    return jv_int(n);
}

static struct jv m_next(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "next", a, 0, 0);
    struct jcycler *c = self.cycler;
    struct jv v = c->v[c->pos];
    c->pos = (c->pos + 1) % c->n;
    return v;
}

static struct jv m_reset(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "reset", a, 0, 0);
    self.cycler->pos = 0;
    return jv_none();
}

static const struct jmethod_entry of_dict[] = {
    {"items", m_items}, {"keys", m_keys},         {"values", m_values}, {"get", m_get},
    {"copy", m_copy},   {"fromkeys", m_fromkeys}, {"clear", NULL},      {"pop", NULL},
    {"popitem", NULL},  {"setdefault", NULL},     {"update", NULL},     {NULL, NULL}};

static const struct jmethod_entry of_list[] = {
    {"count", m_count}, {"index", m_index}, {"copy", m_copy},  {"append", NULL},
    {"clear", NULL},    {"pop", NULL},      {"reverse", NULL}, {"insert", NULL},
    {"sort", NULL},     {"extend", NULL},   {"remove", NULL},  {NULL, NULL}};

static const struct jmethod_entry of_tuple[] = {
    {"count", m_count}, {"index", m_index}, {NULL, NULL}};
static const struct jmethod_entry of_float[] = {{"is_integer", m_is_integer}, {NULL, NULL}};
static const struct jmethod_entry of_int[] = {{"bit_length", m_bit_length}, {NULL, NULL}};
static const struct jmethod_entry of_cycler[] = {
    {"next", m_next}, {"reset", m_reset}, {NULL, NULL}};

static const struct jmethod_entry *find(const struct jmethod_entry *v, const struct jstr *name)
{
    for (; v && v->name; v++)
        if (jstr_is(name, v->name))
            return v;
    return NULL;
}

static const struct jmethod_entry *table(struct jv v)
{
    switch (v.kind) {
    case JV_STRING:
        return jmethod_str;
    case JV_DICT:
        return of_dict;
    case JV_LIST:
        return of_list;
    case JV_TUPLE:
        return of_tuple;
    case JV_FLOAT:
        return of_float;
    case JV_INT:
    case JV_BOOL:
        return of_int;
    case JV_CYCLER:
        return of_cycler;
    default:
        return NULL;
    }
}

static bool find_field(struct jinja *j, struct jv v, const struct jstr *name, struct jv *ret)
{
    if (v.kind == JV_NAMESPACE) {
        struct jstr key = *name;
        *ret = jdict_get(j, v.d, jv_string(&key));
        return ret->kind != JV_MISSING;
    }
    if (v.kind == JV_LOOP)
        return jloop_attribute(j, v.loop, name, ret);
    if (v.kind == JV_MACRO)
        return jcall_macro_attribute(j, v.m, name, ret);
    if (v.kind == JV_CYCLER && jstr_is(name, "current")) {
        *ret = v.cycler->v[v.cycler->pos];
        return true;
    }
    bool grouper = v.kind == JV_TUPLE && v.l->group && jstr_is(name, "grouper");
    if (grouper || (v.kind == JV_TUPLE && v.l->group && jstr_is(name, "list"))) {
        *ret = v.l->v[grouper ? 0 : 1];
        return true;
    }
    return false;
}

bool jmethod_find(struct jinja *j, struct jv v, const struct jstr *name, struct jv *ret)
{
    const struct jmethod_entry *e = find(table(v), name);
    if (!e && v.kind == JV_STRING)
        e = find(jmethod_str_is, name);
    if (!e)
        return find_field(j, v, name, ret);
    if (e->call)
        *ret = jcall_method(j, v, e->name, e->call);
    else
        *ret =
            jv_undefined(j, "access to a method that changes its object is unsafe: chat templates "
                            "can't change lists and dicts, only build new ones");
    return true;
}

struct jv jmethod_text(struct jinja *j, struct jstr *s, const char *name, const struct jargs *a)
{
    struct jstr key = {.p = name, .n = strlen(name)};
    const struct jmethod_entry *e = find(jmethod_str, &key);
    CHECK(e);
    return e->call(j, jv_string(s), a);
}
