// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_call.h"

#include "llm/jinja_dict.h"
#include "llm/jinja_exec.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_loop.h"

struct jv jcall_new_macro(struct jinja *j, const struct node *n, struct jframe *f)
{
    struct jmacro *m = jinja_alloc(j, sizeof *m);
    m->n = n;
    m->frame = f;
    return (struct jv){.kind = JV_MACRO, .m = m};
}

struct jv jcall_macro_name(struct jinja *j, const struct jmacro *m)
{
    (void)j;
    return m->n->kind == NODE_MACRO ? jv_string(m->n->name) : jv_none();
}

bool jcall_macro_attribute(struct jinja *j, const struct jmacro *m, const struct jstr *name,
                           struct jv *ret)
{
    if (jstr_is(name, "name")) {
        *ret = jcall_macro_name(j, m);
    } else if (jstr_is(name, "arguments")) {
        *ret = jv_tuple(j, m->n->params.n);
        for (size_t i = 0; i < m->n->params.n; i++)
            jv_push(j, *ret, jv_string(m->n->params.v[i]->name));
    } else if (jstr_is(name, "catch_kwargs")) {
        *ret = jv_bool(m->n->takes_kwargs);
    } else if (jstr_is(name, "catch_varargs")) {
        *ret = jv_bool(m->n->takes_varargs);
    } else if (jstr_is(name, "caller")) {
        *ret = jv_bool(m->n->takes_caller);
    } else {
        return false;
    }
    return true;
}

struct jv jcall_method(struct jinja *j, struct jv self, const char *name,
                       struct jv (*call)(struct jinja *, struct jv, const struct jargs *))
{
    struct jmethod *m = jinja_alloc(j, sizeof *m);
    *m = (struct jmethod){.self = self, .name = name, .call = call};
    return (struct jv){.kind = JV_METHOD, .bound = m};
}

static void add_rest(struct jinja *j, struct jargs *a, struct jv rest)
{
    struct jv list = jv_list(j, a->n + 4), one;
    for (size_t i = 0; i < a->n; i++)
        jv_push(j, list, a->v[i]);
    struct jiter *it = jiter_open(j, rest);
    while (jiter_next(j, it, &one))
        jv_push(j, list, one);
    a->v = list.l->v;
    a->n = list.l->n;
}

static void add_keywords(struct jinja *j, struct jargs *a, struct jv more)
{
    if (more.kind != JV_DICT)
        jinja_fail(j, "argument after ** must be a mapping, not %s", jv_type(more));
    for (size_t i = 0; i < jdict_len(more.d); i++) {
        const struct jentry *e = jdict_at(more.d, i);
        if (e->key.kind != JV_STRING)
            jinja_fail(j, "keywords must be strings");
        if (!a->kw)
            a->kw = jdict_new(j, 4);
        if (jdict_get(j, a->kw, e->key).kind != JV_MISSING)
            jinja_fail(j, "got multiple values for keyword argument '%.*s'",
                       (int)(e->key.s->n & 127), e->key.s->p);
        jdict_set(j, a->kw, e->key, e->value);
    }
}

struct jargs jcall_args(struct jinja *j, struct jframe *f, const struct node_call *c)
{
    struct jargs a = {.n = c->args.n};
    if (a.n)
        a.v = jinja_array(j, a.n, sizeof *a.v);
    for (size_t i = 0; i < a.n; i++)
        a.v[i] = jeval(j, f, c->args.v[i]);
    if (c->values.n)
        a.kw = jdict_new(j, c->values.n);
    for (size_t i = 0; i < c->values.n; i++)
        jdict_set(j, a.kw, jv_string(c->names[i]), jeval(j, f, c->values.v[i]));
    if (c->rest)
        add_rest(j, &a, jeval(j, f, c->rest));
    if (c->keywords)
        add_keywords(j, &a, jeval(j, f, c->keywords));
    return a;
}

void jcall_keyword(struct jinja *j, struct jargs *a, const char *name, struct jv value)
{
    struct jdict *kw = jdict_new(j, 4);
    for (size_t i = 0; a->kw && i < jdict_len(a->kw); i++)
        jdict_set(j, kw, jdict_at(a->kw, i)->key, jdict_at(a->kw, i)->value);
    if (jdict_get_name(j, kw, name).kind != JV_MISSING)
        jinja_fail(j, "keyword argument repeated: %s", name);
    jdict_set_name(j, kw, name, value);
    a->kw = kw;
}

static bool is_param(const struct node *n, const struct jstr *name, size_t from)
{
    for (size_t i = from; i < n->params.n; i++)
        if (n->params.v[i]->name->n == name->n &&
            memcmp(n->params.v[i]->name->p, name->p, name->n) == 0)
            return true;
    return false;
}

// What is left of the keywords once parameters [from, n) have taken theirs.
static struct jdict *left_keywords(struct jinja *j, const struct node *n, const struct jargs *a,
                                   size_t from)
{
    struct jdict *left = jdict_new(j, 0);
    for (size_t i = 0; a->kw && i < jdict_len(a->kw); i++) {
        const struct jentry *e = jdict_at(a->kw, i);
        if (is_param(n, e->key.s, from) || (n->takes_caller && jstr_is(e->key.s, "caller")))
            continue;
        jdict_set(j, left, e->key, e->value);
    }
    return left;
}

static void bind_special(struct jinja *j, const struct node *n, const struct jargs *a,
                         struct jframe *f)
{
    size_t taken = a->n < n->params.n ? a->n : n->params.n;
    struct jdict *left = left_keywords(j, n, a, taken);
    if (n->takes_caller) {
        struct jv caller = {.kind = JV_MISSING};
        if (a->kw)
            caller = jdict_get_name(j, a->kw, "caller");
        if (caller.kind == JV_MISSING || caller.kind == JV_NONE)
            caller = jv_undefined(j, "No caller defined");
        *jframe_at(f, n->caller_place) = caller;
    }
    if (n->takes_kwargs)
        *jframe_at(f, n->kwargs_place) = jv_dict(left);
    else if (jdict_len(left))
        jinja_fail(j, "the macro takes no keyword argument '%.*s'",
                   (int)(jdict_at(left, 0)->key.s->n & 127), jdict_at(left, 0)->key.s->p);
    if (n->takes_varargs) {
        struct jv rest = jv_tuple(j, a->n - taken);
        for (size_t i = taken; i < a->n; i++)
            jv_push(j, rest, a->v[i]);
        *jframe_at(f, n->varargs_place) = rest;
    } else if (a->n > n->params.n) {
        jinja_fail(j, "the macro takes not more than %zu argument(s)", n->params.n);
    }
}

static struct jv call_macro(struct jinja *j, const struct jmacro *m, const struct jargs *a)
{
    const struct node *n = m->n;
    struct jframe *f = jframe_new(j, n->scope, m->frame);
    jframe_begin(j, n->scope, f);
    for (size_t i = 0; i < n->params.n; i++) {
        struct jv *v = jframe_at(f, n->params.v[i]->place);
        struct jstr name = *n->params.v[i]->name;
        if (i < a->n)
            *v = a->v[i];
        else if (a->kw)
            *v = jdict_get(j, a->kw, jv_string(&name));
    }
    bind_special(j, n, a, f);
    size_t plain = n->params.n - n->defaults.n;
    for (size_t i = 0; i < n->params.n; i++) {
        struct jv *v = jframe_at(f, n->params.v[i]->place);
        if (v->kind != JV_MISSING)
            continue;
        if (i >= plain) {
            *v = jeval(j, f, n->defaults.v[i - plain]);
        } else {
            *v = jv_undefined(j, "a parameter of the macro was not provided");
        }
    }
    struct jsink sink = {.build = jbuild_new(j, 0)};
    jexec(j, f, &n->body, &sink);
    return jbuild_end(&sink.build);
}

static struct jv call_joiner(struct jv v)
{
    return v.cycler->v[v.cycler->pos++ ? 0 : 1];
}

// What a method of Markup gives is Markup.
static struct jv call_method(struct jinja *j, const struct jmethod *m, const struct jargs *a)
{
    struct jv v = m->call(j, m->self, a);
    if (v.kind == JV_STRING && m->self.kind == JV_STRING && m->self.s->markup && !v.s->markup) {
        v = jstr_sub(j, v.s, 0, v.s->n);
        v.s->markup = true;
    }
    return v;
}

bool jcall_can(struct jv v)
{
    return v.kind == JV_MACRO || v.kind == JV_FUNCTION || v.kind == JV_METHOD ||
           v.kind == JV_LOOP || v.kind == JV_JOINER || v.kind == JV_UNDEFINED;
}

struct jv jcall_value(struct jinja *j, struct jv callee, const struct jargs *a)
{
    if (callee.kind == JV_UNDEFINED)
        jv_fail_undefined(j, callee);
    if (!jcall_can(callee))
        jinja_fail(j, "'%s' object is not callable", jv_type(callee));
    jinja_enter(j);
    struct jv v;
    if (callee.kind == JV_MACRO)
        v = call_macro(j, callee.m, a);
    else if (callee.kind == JV_FUNCTION)
        v = callee.fn->call(j, a);
    else if (callee.kind == JV_METHOD)
        v = call_method(j, callee.bound, a);
    else if (callee.kind == JV_LOOP)
        v = jloop_call(j, callee.loop, a);
    else
        v = call_joiner(callee);
    jinja_leave(j);
    return v;
}

void jcall_no_keywords(struct jinja *j, const char *what, const struct jargs *a)
{
    if (a->kw && jdict_len(a->kw))
        jinja_fail(j, "%s() takes no keyword arguments", what);
}

void jcall_bind(struct jinja *j, const char *what, const struct jargs *a, const char *const *names,
                size_t n, size_t required, struct jv *out)
{
    if (a->n > n)
        jinja_fail(j, "%s takes at most %zu arguments, %zu given", what, n, a->n);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        struct jv named = {.kind = JV_MISSING};
        if (a->kw)
            named = jdict_get_name(j, a->kw, names[i]);
        if (i < a->n && named.kind != JV_MISSING)
            jinja_fail(j, "%s got multiple values for argument '%s'", what, names[i]);
        out[i] = i < a->n ? a->v[i] : named;
        used += named.kind != JV_MISSING;
        if (i < required && out[i].kind == JV_MISSING)
            jinja_fail(j, "%s misses its argument '%s'", what, names[i]);
    }
    if (a->kw && used < jdict_len(a->kw))
        jinja_fail(j, "%s got an unexpected keyword argument", what);
}
