// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_test.h"

#include "llm/jinja_call.h"
#include "llm/jinja_case.h"
#include "llm/jinja_filter.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"

static struct jv mod(struct jinja *j, struct jv v, struct jv by)
{
    return joperator_binary(j, JOP_MOD, v, by);
}

static bool is_odd(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)arg;
    return joperator_equal(j, mod(j, v, jv_int(2)), jv_int(1));
}

static bool is_even(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)arg;
    return joperator_equal(j, mod(j, v, jv_int(2)), jv_int(0));
}

static bool is_divisibleby(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_equal(j, mod(j, v, arg[0]), jv_int(0));
}

static bool is_defined(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind != JV_UNDEFINED;
}

static bool is_undefined(struct jinja *j, struct jv v, const struct jv *arg)
{
    return !is_defined(j, v, arg);
}

static bool is_filter(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_STRING && jfilter_find(v.s->p, v.s->n);
}

static bool is_test(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_STRING && jtest_find(v.s->p, v.s->n);
}

static bool is_none(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_NONE;
}

static bool is_boolean(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_BOOL;
}

static bool is_true(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_BOOL && v.b;
}

static bool is_false(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_BOOL && !v.b;
}

static bool is_integer(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_INT || v.kind == JV_BIG;
}

static bool is_float(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_FLOAT;
}

static bool is_lower(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)arg;
    const struct jstr *s = jrepr_str(j, v);
    jinja_step_bytes(j, s->n * 8);
    return jcase_is_lower(s);
}

static bool is_upper(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)arg;
    const struct jstr *s = jrepr_str(j, v);
    jinja_step_bytes(j, s->n * 8);
    return jcase_is_upper(s);
}

static bool is_string(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_STRING;
}

static bool is_mapping(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_DICT;
}

static bool is_number(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return jv_is_num(v) || v.kind == JV_BIG;
}

static bool is_sequence(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_STRING || jv_is_seq(v) || v.kind == JV_DICT || v.kind == JV_RANGE ||
           v.kind == JV_UNDEFINED;
}

static bool is_sameas(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    if (v.kind != arg->kind)
        return false;
    if (v.kind == JV_NONE || v.kind == JV_MISSING)
        return true;
    if (v.kind == JV_BOOL)
        return v.b == arg->b;
    if (v.kind == JV_INT) // CPython keeps one object of each small number
        return v.i == arg->i && v.i >= -5 && v.i <= 256;
    return v.kind != JV_FLOAT && v.d == arg->d;
}

static bool is_iterable(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return jiter_can(v) || v.kind == JV_LOOP;
}

static bool is_callable(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return jcall_can(v);
}

static bool is_escaped(struct jinja *j, struct jv v, const struct jv *arg)
{
    (void)j;
    (void)arg;
    return v.kind == JV_STRING && v.s->markup;
}

static bool is_in(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_contains(j, arg[0], v);
}

static bool is_eq(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_equal(j, v, arg[0]);
}

static bool is_ne(struct jinja *j, struct jv v, const struct jv *arg)
{
    return !joperator_equal(j, v, arg[0]);
}

static bool is_gt(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_compare(j, JOP_GT, v, arg[0]);
}

static bool is_ge(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_compare(j, JOP_GE, v, arg[0]);
}

static bool is_lt(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_compare(j, JOP_LT, v, arg[0]);
}

static bool is_le(struct jinja *j, struct jv v, const struct jv *arg)
{
    return joperator_compare(j, JOP_LE, v, arg[0]);
}

static const struct jtest tests[] = {{"odd", is_odd, 0},
                                     {"even", is_even, 0},
                                     {"divisibleby", is_divisibleby, 1},
                                     {"defined", is_defined, 0},
                                     {"undefined", is_undefined, 0},
                                     {"filter", is_filter, 0},
                                     {"test", is_test, 0},
                                     {"none", is_none, 0},
                                     {"boolean", is_boolean, 0},
                                     {"false", is_false, 0},
                                     {"true", is_true, 0},
                                     {"integer", is_integer, 0},
                                     {"float", is_float, 0},
                                     {"lower", is_lower, 0},
                                     {"upper", is_upper, 0},
                                     {"string", is_string, 0},
                                     {"mapping", is_mapping, 0},
                                     {"number", is_number, 0},
                                     {"sequence", is_sequence, 0},
                                     {"iterable", is_iterable, 0},
                                     {"callable", is_callable, 0},
                                     {"sameas", is_sameas, 1},
                                     {"escaped", is_escaped, 0},
                                     {"in", is_in, 1},
                                     {"==", is_eq, 1},
                                     {"eq", is_eq, 1},
                                     {"equalto", is_eq, 1},
                                     {"!=", is_ne, 1},
                                     {"ne", is_ne, 1},
                                     {">", is_gt, 1},
                                     {"gt", is_gt, 1},
                                     {"greaterthan", is_gt, 1},
                                     {">=", is_ge, 1},
                                     {"ge", is_ge, 1},
                                     {"<", is_lt, 1},
                                     {"lt", is_lt, 1},
                                     {"lessthan", is_lt, 1},
                                     {"<=", is_le, 1},
                                     {"le", is_le, 1}};

const struct jtest *jtest_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strlen(tests[i].name) == n && memcmp(tests[i].name, name, n) == 0)
            return &tests[i];
    return NULL;
}

bool jtest_apply(struct jinja *j, const struct jtest *t, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"other"};
    struct jv arg = {.kind = JV_MISSING};
    if (a->kw && t->n_args) { // divisibleby(num=), sameas(other=), in(seq=)
        static const char *const num[] = {"num"}, *const seq[] = {"seq"};
        jcall_bind(j, t->name, a,
                   t->call == is_divisibleby ? num
                   : t->call == is_in        ? seq
                                             : names,
                   1, 1, &arg);
    } else {
        jcall_bind(j, t->name, a, names, t->n_args, t->n_args, &arg);
    }
    return t->call(j, v, &arg);
}
