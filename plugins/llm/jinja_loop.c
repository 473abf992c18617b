// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_loop.h"

#include "llm/jinja_call.h"
#include "llm/jinja_exec.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_string.h"

struct jloop *jloop_new(struct jinja *j, struct jv items, const struct node *n,
                        struct jframe *frame, int64_t depth)
{
    struct jloop *l = jinja_alloc(j, sizeof *l);
    *l = (struct jloop){.items = items,
                        .it = jiter_open(j, items),
                        .index0 = -1,
                        .depth0 = depth,
                        .length = SIZE_MAX,
                        .n = n,
                        .frame = frame};
    return l;
}

bool jloop_next(struct jinja *j, struct jloop *l, struct jv *ret)
{
    if (l->after.kind != JV_MISSING) {
        *ret = l->after;
        l->after.kind = JV_MISSING;
    } else if (!jiter_next(j, l->it, ret)) {
        return false;
    }
    l->index0++;
    l->before = l->current;
    l->current = *ret;
    return true;
}

size_t jloop_length(struct jinja *j, struct jloop *l)
{
    if (l->length != SIZE_MAX)
        return l->length;
    if (jv_has_len(l->items)) {
        l->length = jv_len(j, l->items);
        return l->length;
    }
    struct jv rest = jiter_list(j, jiter_value(l->it));
    l->it = jiter_open(j, rest);
    l->length = rest.l->n + (size_t)(l->index0 + 1) + (l->after.kind != JV_MISSING);
    return l->length;
}

static bool peek(struct jinja *j, struct jloop *l)
{
    if (l->after.kind == JV_MISSING && !jiter_next(j, l->it, &l->after))
        l->after.kind = JV_MISSING;
    return l->after.kind != JV_MISSING;
}

static struct jv cycle(struct jinja *j, struct jv self, const struct jargs *a)
{
    if (!a->n)
        jinja_fail(j, "no items for cycling given");
    return a->v[(size_t)self.loop->index0 % a->n];
}

static struct jv changed(struct jinja *j, struct jv self, const struct jargs *a)
{
    struct jv now = jv_tuple(j, a->n);
    for (size_t i = 0; i < a->n; i++)
        jv_push(j, now, a->v[i]);
    bool same =
        self.loop->changed.kind != JV_MISSING && joperator_equal(j, self.loop->changed, now);
    self.loop->changed = now;
    return jv_bool(!same);
}

bool jloop_attribute(struct jinja *j, struct jloop *l, const struct jstr *name, struct jv *ret)
{
    struct jv self = {.kind = JV_LOOP, .loop = l};
    if (jstr_is(name, "index"))
        *ret = jv_int(l->index0 + 1);
    else if (jstr_is(name, "index0"))
        *ret = jv_int(l->index0);
    else if (jstr_is(name, "first"))
        *ret = jv_bool(l->index0 == 0);
    else if (jstr_is(name, "last"))
        *ret = jv_bool(!peek(j, l));
    else if (jstr_is(name, "length"))
        *ret = jv_int((int64_t)jloop_length(j, l));
    else if (jstr_is(name, "revindex"))
        *ret = jv_int((int64_t)jloop_length(j, l) - l->index0);
    else if (jstr_is(name, "revindex0"))
        *ret = jv_int((int64_t)jloop_length(j, l) - l->index0 - 1);
    else if (jstr_is(name, "depth"))
        *ret = jv_int(l->depth0 + 1);
    else if (jstr_is(name, "depth0"))
        *ret = jv_int(l->depth0);
    else if (jstr_is(name, "previtem"))
        *ret = l->index0 == 0 ? jv_undefined(j, "there is no previous item") : l->before;
    else if (jstr_is(name, "nextitem"))
        *ret = peek(j, l) ? l->after : jv_undefined(j, "there is no next item");
    else if (jstr_is(name, "cycle"))
        *ret = jcall_method(j, self, "cycle", cycle);
    else if (jstr_is(name, "changed"))
        *ret = jcall_method(j, self, "changed", changed);
    else
        return false;
    return true;
}

struct jv jloop_call(struct jinja *j, struct jloop *l, const struct jargs *a)
{
    static const char *const names[] = {"iterable"};
    struct jv items;
    if (!l->n->recursive)
        jinja_fail(j, "The loop must have the 'recursive' marker to be called recursively.");
    jcall_bind(j, "loop", a, names, 1, 1, &items);
    return jexec_loop_text(j, l->frame, l->n, items, l->depth0 + 1);
}
