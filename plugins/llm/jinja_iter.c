// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_iter.h"

#include "llm/jinja_dict.h"
#include "llm/jinja_string.h"

bool jiter_can(struct jv v)
{
    return v.kind == JV_STRING || jv_is_seq(v) || v.kind == JV_DICT || v.kind == JV_RANGE ||
           v.kind == JV_VIEW || v.kind == JV_ITER || v.kind == JV_UNDEFINED;
}

static size_t count(const struct jiter *it)
{
    switch (it->of.kind) {
    case JV_LIST:
    case JV_TUPLE:
        return it->of.l->n;
    case JV_DICT:
        return jdict_len(it->of.d);
    case JV_VIEW:
        return jdict_len(it->of.v->d);
    case JV_RANGE:
        return it->of.r->n;
    case JV_STRING:
        return it->of.s->n;
    default:
        return 0;
    }
}

static struct jv item(struct jinja *j, const struct jiter *it, size_t i)
{
    if (jv_is_seq(it->of))
        return it->of.l->v[i];
    if (it->of.kind == JV_DICT)
        return jdict_at(it->of.d, i)->key;
    if (it->of.kind == JV_VIEW)
        return jv_view_at(j, it->of.v, i);
    return jv_int(it->of.r->start + it->of.r->step * (int64_t)i);
}

static bool next_char(struct jinja *j, struct jiter *it, struct jv *ret)
{
    if (it->at >= it->of.s->n)
        return false;
    size_t begin = it->at;
    jstr_next(it->of.s, &it->at);
    *ret = jstr_sub(j, it->of.s, begin, it->at - begin);
    ret->s->markup = false; // a character of Markup is a plain string
    return true;
}

static bool next_item(struct jinja *j, struct jiter *it, struct jv *ret)
{
    if (it->of.kind == JV_STRING)
        return next_char(j, it, ret);
    if (it->at >= count(it))
        return false;
    *ret = item(j, it, it->at++);
    return true;
}

static bool next_before(struct jinja *j, struct jiter *it, struct jv *ret)
{
    if (!it->at)
        return false;
    if (it->of.kind == JV_STRING) {
        size_t end = it->at;
        jstr_prev(it->of.s, &it->at);
        *ret = jstr_sub(j, it->of.s, it->at, end - it->at);
        return true;
    }
    *ret = item(j, it, --it->at);
    return true;
}

struct jiter *jiter_new(struct jinja *j, struct jiter *from, void *more,
                        bool (*next)(struct jinja *, struct jiter *, struct jv *))
{
    struct jiter *it = jinja_alloc(j, sizeof *it);
    *it = (struct jiter){.next = next, .from = from, .more = more};
    return it;
}

struct jiter *jiter_open(struct jinja *j, struct jv v)
{
    if (!jiter_can(v))
        jinja_fail(j, "'%s' object is not iterable", jv_type(v));
    if (v.kind == JV_ITER)
        return v.it;
    struct jiter *it = jiter_new(j, NULL, NULL, next_item);
    it->of = v;
    return it;
}

struct jiter *jiter_reversed(struct jinja *j, struct jv v)
{
    if (v.kind == JV_ITER || v.kind == JV_UNDEFINED || !jiter_can(v))
        return NULL;
    struct jiter *it = jiter_new(j, NULL, NULL, next_before);
    it->of = v;
    it->at = count(it);
    return it;
}

bool jiter_next(struct jinja *j, struct jiter *it, struct jv *ret)
{
    jinja_step(j, 1);
    jinja_enter(j);
    bool more = it->next(j, it, ret);
    jinja_leave(j);
    return more;
}

struct jv jiter_value(struct jiter *it)
{
    return (struct jv){.kind = JV_ITER, .it = it};
}

struct jv jiter_list(struct jinja *j, struct jv v)
{
    struct jiter *it = jiter_open(j, v);
    struct jv list = jv_list(j, jv_has_len(v) && v.kind != JV_STRING ? jv_len(j, v) : 0), one;
    while (jiter_next(j, it, &one))
        jv_push(j, list, one);
    return list;
}
