// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_eval.h"

#include "base/check.h"
#include "llm/jinja_call.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_filter.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_method.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"
#include "llm/jinja_test.h"

struct jframe *jframe_new(struct jinja *j, const struct scope *s, struct jframe *up)
{
    struct jframe *f = jinja_alloc(j, sizeof *f + s->n * sizeof *f->v);
    f->up = up;
    return f;
}

struct jv jeval_context(struct jinja *j, const struct jstr *name)
{
    const struct scope *s = j->root->scope;
    jinja_step(j, j->toplevel ? s->n : 0);
    for (size_t i = 0; j->toplevel && i < s->n; i++)
        if (s->v[i].stored && j->toplevel->v[i].kind != JV_MISSING && s->v[i].name->n == name->n &&
            memcmp(s->v[i].name->p, name->p, name->n) == 0)
            return j->toplevel->v[i];
    struct jstr key = *name;
    return jdict_get(j, j->context, jv_string(&key));
}

void jframe_begin(struct jinja *j, const struct scope *s, struct jframe *f)
{
    jinja_step(j, s->n);
    for (size_t i = 0; i < s->n; i++) {
        const struct scope_name *n = &s->v[i];
        f->v[i] = (struct jv){.kind = JV_MISSING};
        if (n->load == LOAD_RESOLVE)
            f->v[i] = jeval_context(j, n->name);
        else if (n->load == LOAD_ALIAS)
            f->v[i] = *jframe_at(f->up, n->outer);
    }
}

struct jv *jframe_at(struct jframe *f, struct node_place place)
{
    for (uint32_t up = place.up; up; up--)
        f = f->up;
    return &f->v[place.slot];
}

static void assign_attribute(struct jinja *j, struct jframe *f, const struct node *n,
                             struct jv value)
{
    struct jv space = *jframe_at(f, n->place);
    if (space.kind != JV_NAMESPACE)
        jinja_fail(j, "cannot assign attribute on non-namespace object");
    if (n->attr->n && n->attr->p[0] == '_')
        jinja_fail(j, "chat templates cannot store underscore-prefixed attributes on a namespace");
    struct jstr *key = jinja_alloc(j, sizeof *key);
    *key = *n->attr;
    jdict_set(j, space.d, jv_string(key), value);
}

static void unpack(struct jinja *j, struct jframe *f, const struct node *n, struct jv value)
{
    struct jv one;
    size_t want = n->items.n, i = 0;
    if (!jiter_can(value))
        jinja_fail(j, "cannot unpack non-iterable %s object", jv_type(value));
    struct jiter *it = jiter_open(j, value);
    struct jv *parts = jinja_array(j, want + 1, sizeof *parts);
    while (jiter_next(j, it, &one)) {
        if (i == want)
            jinja_fail(j, "too many values to unpack (expected %zu)", want);
        parts[i++] = one;
    }
    if (i < want)
        jinja_fail(j, "not enough values to unpack (expected %zu, got %zu)", want, i);
    for (i = 0; i < want; i++)
        jeval_assign(j, f, n->items.v[i], parts[i]);
}

void jeval_assign(struct jinja *j, struct jframe *f, const struct node *target, struct jv value)
{
    if (target->kind == NODE_TUPLE)
        unpack(j, f, target, value);
    else if (target->kind == NODE_NSREF)
        assign_attribute(j, f, target, value);
    else
        *jframe_at(f, target->place) = value;
}

struct jv jeval_attribute(struct jinja *j, struct jv v, struct jv name)
{
    struct jv found;
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (jmethod_find(j, v, name.s, &found))
        return found;
    found = joperator_item(j, v, name);
    return found.kind == JV_MISSING ? jv_undefined_of(j, v, name) : found;
}

struct jv jeval_item(struct jinja *j, struct jv v, struct jv key)
{
    struct jv found = joperator_item(j, v, key);
    if (found.kind != JV_MISSING)
        return found;
    if (key.kind == JV_STRING && jmethod_find(j, v, key.s, &found))
        return found;
    return jv_undefined_of(j, v, key);
}

static struct jv eval_name(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv v = *jframe_at(f, n->place);
    if (v.kind != JV_MISSING)
        return v;
    v = jv_undefined(j, NULL);
    v.u->name = jv_string(n->name);
    return v;
}

static struct jv eval_sequence(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv list = n->kind == NODE_LIST ? jv_list(j, n->items.n) : jv_tuple(j, n->items.n);
    for (size_t i = 0; i < n->items.n; i++)
        jv_push(j, list, jeval(j, f, n->items.v[i]));
    return list;
}

static struct jv eval_dict(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jdict *d = jdict_new(j, n->items.n / 2);
    for (size_t i = 0; i < n->items.n; i += 2) {
        struct jv key = jeval(j, f, n->items.v[i]);
        jdict_set(j, d, key, jeval(j, f, n->items.v[i + 1]));
    }
    return jv_dict(d);
}

static struct jv eval_compare(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv left = jeval(j, f, n->a);
    for (size_t i = 0; i < n->items.n; i++) {
        struct jv right = jeval(j, f, n->items.v[i]);
        j->line = n->line;
        if (!joperator_compare(j, n->ops[i], left, right))
            return jv_bool(false);
        left = right;
    }
    return jv_bool(true);
}

static struct jv eval_concat(struct jinja *j, struct jframe *f, const struct node *n)
{
    // Two at a time, so that adding to a string is cheap here too.
    struct jv sum = jv_string(jrepr_str(j, jeval(j, f, n->items.v[0])));
    for (size_t i = 1; i < n->items.n; i++)
        sum = jstr_concat(j, sum.s, jrepr_str(j, jeval(j, f, n->items.v[i])));
    if (sum.s->markup) { // str_join gives a plain string
        sum = jstr_sub(j, sum.s, 0, sum.s->n);
        sum.s->markup = false;
    }
    return sum;
}

static struct jv eval_slice(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv of = jeval(j, f, n->a), part[3];
    for (size_t i = 0; i < 3; i++)
        part[i] = n->items.v[i] ? jeval(j, f, n->items.v[i]) : jv_none();
    j->line = n->line;
    return joperator_slice(j, of, part[0], part[1], part[2]);
}

static struct jv eval_filter(struct jinja *j, struct jframe *f, const struct node *n)
{
    if (!n->filter)
        jinja_fail(j, "No filter named '%.*s' found.", (int)(n->name->n & 127), n->name->p);
    struct jv value = n->a ? jeval(j, f, n->a) : jv_string(j->block_text);
    struct jargs args = jcall_args(j, f, n->call);
    j->line = n->line;
    return jfilter_apply(j, n->filter, value, &args);
}

static struct jv eval_test(struct jinja *j, struct jframe *f, const struct node *n)
{
    if (!n->test)
        jinja_fail(j, "No test named '%.*s' found.", (int)(n->name->n & 127), n->name->p);
    struct jv value = jeval(j, f, n->a);
    struct jargs args = jcall_args(j, f, n->call);
    j->line = n->line;
    return jv_bool(jtest_apply(j, n->test, value, &args) != n->negated);
}

static struct jv eval_call(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv callee = jeval(j, f, n->a);
    struct jargs args = jcall_args(j, f, n->call);
    j->line = n->line;
    return jcall_value(j, callee, &args);
}

static struct jv eval_cond(struct jinja *j, struct jframe *f, const struct node *n)
{
    if (jv_truth(j, jeval(j, f, n->a)))
        return jeval(j, f, n->b);
    if (n->c)
        return jeval(j, f, n->c);
    return jv_undefined(j, "the inline if-expression evaluated to false and no else section was "
                           "defined.");
}

static struct jv eval_binary(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv a = jeval(j, f, n->a), b = jeval(j, f, n->b);
    j->line = n->line;
    return joperator_binary(j, n->op, a, b);
}

static struct jv eval_logic(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv a = jeval(j, f, n->a);
    return jv_truth(j, a) == (n->kind == NODE_AND) ? jeval(j, f, n->b) : a;
}

static struct jv eval_item(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jv of = jeval(j, f, n->a);
    struct jv key = n->kind == NODE_ATTR ? jv_string(n->attr) : jeval(j, f, n->b);
    j->line = n->line;
    return n->kind == NODE_ATTR ? jeval_attribute(j, of, key) : jeval_item(j, of, key);
}

static struct jv eval(struct jinja *j, struct jframe *f, const struct node *n)
{
    switch (n->kind) {
    case NODE_CONST:
        return n->value;
    case NODE_NAME:
        return eval_name(j, f, n);
    case NODE_TUPLE:
    case NODE_LIST:
        return eval_sequence(j, f, n);
    case NODE_DICT:
        return eval_dict(j, f, n);
    case NODE_COND:
        return eval_cond(j, f, n);
    case NODE_BINARY:
        return eval_binary(j, f, n);
    case NODE_COMPARE:
        return eval_compare(j, f, n);
    case NODE_CONCAT:
        return eval_concat(j, f, n);
    case NODE_AND:
    case NODE_OR:
        return eval_logic(j, f, n);
    case NODE_NOT:
        return jv_bool(!jv_truth(j, jeval(j, f, n->a)));
    case NODE_NEG:
        return joperator_negate(j, jeval(j, f, n->a));
    case NODE_POS:
        return joperator_plus(j, jeval(j, f, n->a));
    case NODE_ATTR:
    case NODE_ITEM:
        return eval_item(j, f, n);
    case NODE_SLICE:
        return eval_slice(j, f, n);
    case NODE_CALL:
        return eval_call(j, f, n);
    case NODE_FILTER:
        return eval_filter(j, f, n);
    case NODE_TEST:
        return eval_test(j, f, n);
    case NODE_OUTPUT:
    case NODE_SET:
    case NODE_SET_BLOCK:
    case NODE_IF:
    case NODE_FOR:
    case NODE_MACRO:
    case NODE_CALL_BLOCK:
    case NODE_FILTER_BLOCK:
    case NODE_WITH:
    case NODE_GENERATION:
    case NODE_BLOCK:
    case NODE_BREAK:
    case NODE_CONTINUE:
    case NODE_NSREF:
        break;
    }
    BUG("a node of kind %d as an expression", (int)n->kind);
}

struct jv jeval(struct jinja *j, struct jframe *f, const struct node *n)
{
    jinja_step(j, 1);
    jinja_enter(j);
    j->line = n->line;
    struct jv v = eval(j, f, n);
    jinja_leave(j);
    return v;
}
