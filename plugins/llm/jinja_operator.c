// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_operator.h"

#include "base/check.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_format.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_string.h"

#include <math.h>

static const char *const op_names[] = {
    "+", "-", "*", "/", "//", "%", "** or pow()", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

__attribute__((noreturn)) static void fail_types(struct jinja *j, enum jinja_op op, struct jv a,
                                                 struct jv b)
{
    if (a.kind == JV_UNDEFINED)
        jv_fail_undefined(j, a);
    if (b.kind == JV_UNDEFINED)
        jv_fail_undefined(j, b);
    if (a.kind == JV_BIG || b.kind == JV_BIG)
        jinja_fail(j, "integers beyond 64 bits can't be calculated with");
    if (op == JOP_ADD && a.kind == JV_STRING)
        jinja_fail(j, "can only concatenate str (not \"%s\") to str", jv_type(b));
    if (op >= JOP_EQ)
        jinja_fail(j, "'%s' not supported between instances of '%s' and '%s'", op_names[op],
                   jv_type(a), jv_type(b));
    jinja_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", op_names[op], jv_type(a),
               jv_type(b));
}

__attribute__((noreturn)) static void fail_range(struct jinja *j)
{
    jinja_fail(j, "the result of a calculation is beyond 64 bits");
}

__attribute__((noreturn)) static void fail_zero(struct jinja *j)
{
    jinja_fail(j, "division by zero");
}

static struct jv int_pow(struct jinja *j, int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        if (!base)
            jinja_fail(j, "0.0 cannot be raised to a negative power");
        return jv_float(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    if (base == 0 || base == 1)
        return jv_int(exponent ? base : 1);
    if (base == -1)
        return jv_int(exponent & 1 ? -1 : 1);
    for (; exponent; exponent--) // at most 63 rounds before it overflows
        if (__builtin_mul_overflow(result, base, &result))
            fail_range(j);
    return jv_int(result);
}

static int64_t floor_div(struct jinja *j, int64_t a, int64_t b)
{
    if (!b)
        fail_zero(j);
    if (b == -1) {
        if (__builtin_sub_overflow((int64_t)0, a, &a))
            fail_range(j);
        return a;
    }
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static struct jv int_binary(struct jinja *j, enum jinja_op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    if (op == JOP_ADD)
        over = __builtin_add_overflow(a, b, &r);
    else if (op == JOP_SUB)
        over = __builtin_sub_overflow(a, b, &r);
    else if (op == JOP_MUL)
        over = __builtin_mul_overflow(a, b, &r);
    else if (op == JOP_FLOORDIV)
        r = floor_div(j, a, b);
    else if (op == JOP_MOD && (b == -1 || b == 1))
        r = 0;
    else if (op == JOP_MOD)
        r = a - floor_div(j, a, b) * b;
    else
        return int_pow(j, a, b);
    if (over)
        fail_range(j);
    return jv_int(r);
}

static double float_mod(struct jinja *j, double a, double b)
{
    if (b == 0)
        fail_zero(j);
    double r = fmod(a, b);
    if (r == 0)
        return copysign(0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}

static double float_floor_div(struct jinja *j, double a, double b)
{
    if (b == 0)
        fail_zero(j);
    double r = fmod(a, b), q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0))
        q -= 1;
    if (q == 0)
        return copysign(0, a / b);
    double whole = floor(q);
    return q - whole > 0.5 ? whole + 1 : whole;
}

static double float_pow(struct jinja *j, double a, double b)
{
    if (a == 0 && b < 0)
        jinja_fail(j, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        jinja_fail(j, "a negative number can't be raised to a fractional power");
    double r = pow(a, b);
    if (isinf(r) && isfinite(a) && isfinite(b))
        jinja_fail(j, "the result of ** is too large");
    return r;
}

static struct jv number_binary(struct jinja *j, enum jinja_op op, struct jv x, struct jv y)
{
    if (jv_is_int(x) && jv_is_int(y) && op != JOP_DIV)
        return int_binary(j, op, jv_as_int(x), jv_as_int(y));
    double a = jv_as_double(x), b = jv_as_double(y);
    if (op == JOP_ADD)
        return jv_float(a + b);
    if (op == JOP_SUB)
        return jv_float(a - b);
    if (op == JOP_MUL)
        return jv_float(a * b);
    if (op == JOP_MOD)
        return jv_float(float_mod(j, a, b));
    if (op == JOP_FLOORDIV)
        return jv_float(float_floor_div(j, a, b));
    if (op == JOP_POW)
        return jv_float(float_pow(j, a, b));
    if (b == 0)
        fail_zero(j);
    return jv_float(a / b);
}

static struct jv repeat(struct jinja *j, struct jv v, int64_t times)
{
    size_t n = times > 0 ? (size_t)times : 0;
    size_t size = v.kind == JV_STRING ? v.s->n : v.l->n;
    if (n && size > j->arena.limit / n)
        jinja_fail(j, "a repetition of %zu times is too long", n);
    jinja_step(j, n / 8);
    if (v.kind == JV_STRING) {
        struct jbuild b = jbuild_new(j, size * n);
        for (size_t i = 0; size && i < n; i++)
            jbuild_str(&b, v.s);
        struct jv r = jbuild_end(&b);
        r.s->markup = v.s->markup;
        return r;
    }
    struct jv list = v.kind == JV_LIST ? jv_list(j, size * n) : jv_tuple(j, size * n);
    for (size_t i = 0; i < size * n; i++)
        jv_push(j, list, v.l->v[i % size]);
    return list;
}

static struct jv add_strings(struct jinja *j, struct jv a, struct jv b)
{
    if (a.s->markup == b.s->markup && !a.s->markup)
        return jstr_concat(j, a.s, b.s);
    struct jv left = a.s->markup ? a : jformat_escape(j, a);
    struct jv right = b.s->markup ? b : jformat_escape(j, b);
    struct jv sum = jstr_concat(j, left.s, right.s);
    sum = jstr_sub(j, sum.s, 0, sum.s->n); // may be one of the two
    sum.s->markup = true;
    return sum;
}

struct jv joperator_binary(struct jinja *j, enum jinja_op op, struct jv a, struct jv b)
{
    if (jv_is_num(a) && jv_is_num(b))
        return number_binary(j, op, a, b);
    if (op == JOP_ADD && a.kind == JV_STRING && b.kind == JV_STRING)
        return add_strings(j, a, b);
    if (op == JOP_ADD && jv_is_seq(a) && a.kind == b.kind)
        return jv_concat(j, a, b);
    if (op == JOP_MUL && (a.kind == JV_STRING || jv_is_seq(a)) && jv_is_int(b))
        return repeat(j, a, jv_as_int(b));
    if (op == JOP_MUL && (b.kind == JV_STRING || jv_is_seq(b)) && jv_is_int(a))
        return repeat(j, b, jv_as_int(a));
    if (op == JOP_MOD && a.kind == JV_STRING)
        return jformat_percent(j, a.s, b);
    fail_types(j, op, a, b);
}

struct jv joperator_negate(struct jinja *j, struct jv v)
{
    if (v.kind == JV_FLOAT)
        return jv_float(-v.f);
    if (jv_is_int(v))
        return int_binary(j, JOP_SUB, 0, jv_as_int(v));
    if (v.kind == JV_BIG && jstr_is(v.s, "9223372036854775808"))
        return jv_int(INT64_MIN);
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    jinja_fail(j, "bad operand type for unary -: '%s'", jv_type(v));
}

struct jv joperator_plus(struct jinja *j, struct jv v)
{
    if (v.kind == JV_FLOAT)
        return v;
    if (jv_is_int(v))
        return jv_int(jv_as_int(v));
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    jinja_fail(j, "bad operand type for unary +: '%s'", jv_type(v));
}

// -1, 0, 1; 2: one of them is no number. 64-bit integers fit the long double of the targets.
static int number_order(struct jv a, struct jv b)
{
    long double x = a.kind == JV_FLOAT ? (long double)a.f : (long double)jv_as_int(a);
    long double y = b.kind == JV_FLOAT ? (long double)b.f : (long double)jv_as_int(b);
    if (x != x || y != y)
        return 2;
    return (x > y) - (x < y);
}

static bool equal_dicts(struct jinja *j, const struct jdict *a, const struct jdict *b)
{
    if (jdict_len(a) != jdict_len(b))
        return false;
    for (size_t i = 0; i < jdict_len(a); i++) {
        struct jv other = jdict_get(j, b, jdict_at(a, i)->key);
        if (other.kind == JV_MISSING || !joperator_equal(j, jdict_at(a, i)->value, other))
            return false;
    }
    return true;
}

static bool equal_lists(struct jinja *j, const struct jlist *a, const struct jlist *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!joperator_equal(j, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool equal_ranges(const struct jrange *a, const struct jrange *b)
{
    if (a->n != b->n || !a->n)
        return a->n == b->n;
    return a->start == b->start && (a->n == 1 || a->step == b->step);
}

static bool equal_same_kind(struct jinja *j, struct jv a, struct jv b)
{
    switch (a.kind) {
    case JV_MISSING:
    case JV_NONE:
    case JV_UNDEFINED:
        return true;
    case JV_BIG:
    case JV_STRING:
        return jstr_equal(j, a.s, b.s);
    case JV_LIST:
    case JV_TUPLE:
        return equal_lists(j, a.l, b.l);
    case JV_DICT:
        return equal_dicts(j, a.d, b.d);
    case JV_RANGE:
        return equal_ranges(a.r, b.r);
    case JV_FUNCTION:
        return a.fn == b.fn;
    case JV_BOOL:
    case JV_INT:
    case JV_FLOAT:
        return number_order(a, b) == 0;
    case JV_VIEW:
    case JV_ITER:
    case JV_NAMESPACE:
    case JV_MACRO:
    case JV_METHOD:
    case JV_LOOP:
    case JV_CYCLER:
    case JV_JOINER:
        return a.d == b.d; // any of the pointers: the same object
    }
    BUG("a value of kind %d", (int)a.kind);
}

bool joperator_equal(struct jinja *j, struct jv a, struct jv b)
{
    jinja_step(j, 1);
    if (jv_is_num(a) && jv_is_num(b))
        return number_order(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    jinja_enter(j);
    bool same = equal_same_kind(j, a, b);
    jinja_leave(j);
    return same;
}

static bool less(struct jinja *j, enum jinja_op op, struct jv a, struct jv b);

// Of lists and tuples: the first difference decides.
static bool less_lists(struct jinja *j, enum jinja_op op, struct jv a, struct jv b)
{
    size_t n = a.l->n < b.l->n ? a.l->n : b.l->n;
    for (size_t i = 0; i < n; i++)
        if (!joperator_equal(j, a.l->v[i], b.l->v[i]))
            return less(j, op, a.l->v[i], b.l->v[i]);
    if (op == JOP_LT)
        return a.l->n < b.l->n;
    if (op == JOP_LE)
        return a.l->n <= b.l->n;
    return op == JOP_GT ? a.l->n > b.l->n : a.l->n >= b.l->n;
}

static bool less(struct jinja *j, enum jinja_op op, struct jv a, struct jv b)
{
    int order;
    jinja_step(j, 1);
    if (jv_is_num(a) && jv_is_num(b)) {
        order = number_order(a, b);
        if (order == 2)
            return false;
    } else if (a.kind == JV_STRING && b.kind == JV_STRING) {
        order = jstr_compare(j, a.s, b.s);
    } else if (jv_is_seq(a) && a.kind == b.kind) {
        jinja_enter(j);
        bool is = less_lists(j, op, a, b);
        jinja_leave(j);
        return is;
    } else {
        fail_types(j, op, a, b);
    }
    if (op == JOP_LT)
        return order < 0;
    if (op == JOP_LE)
        return order <= 0;
    return op == JOP_GT ? order > 0 : order >= 0;
}

bool joperator_less(struct jinja *j, struct jv a, struct jv b)
{
    return less(j, JOP_LT, a, b);
}

bool joperator_compare(struct jinja *j, enum jinja_op op, struct jv a, struct jv b)
{
    if (op == JOP_EQ || op == JOP_NE)
        return joperator_equal(j, a, b) == (op == JOP_EQ);
    if (op == JOP_IN || op == JOP_NOT_IN)
        return joperator_contains(j, b, a) == (op == JOP_IN);
    return less(j, op, a, b);
}

static bool range_contains(struct jinja *j, const struct jrange *r, struct jv item)
{
    for (size_t i = 0; i < r->n; i++)
        if (joperator_equal(j, jv_int(r->start + r->step * (int64_t)i), item))
            return true;
    return false;
}

bool joperator_contains(struct jinja *j, struct jv container, struct jv item)
{
    if (container.kind == JV_STRING) {
        if (item.kind != JV_STRING)
            jinja_fail(j, "'in <string>' requires string as left operand, not %s", jv_type(item));
        return jstr_find(j, container.s, 0, item.s) != SIZE_MAX;
    }
    if (container.kind == JV_DICT)
        return jdict_get(j, container.d, item).kind != JV_MISSING;
    if (container.kind == JV_VIEW && container.v->what == JVIEW_KEYS)
        return jdict_get(j, container.v->d, item).kind != JV_MISSING;
    if (container.kind == JV_RANGE)
        return range_contains(j, container.r, item);
    if (!jiter_can(container))
        jinja_fail(j, "argument of type '%s' is not iterable", jv_type(container));
    struct jiter *it = jiter_open(j, container);
    struct jv one;
    while (jiter_next(j, it, &one))
        if (joperator_equal(j, one, item))
            return true;
    return false;
}

static bool place(int64_t i, size_t n, size_t *at)
{
    if (i < 0)
        i += (int64_t)n;
    *at = (size_t)i;
    return i >= 0 && (size_t)i < n;
}

struct jv joperator_item(struct jinja *j, struct jv v, struct jv key)
{
    size_t at;
    struct jv missing = {.kind = JV_MISSING};
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (v.kind == JV_DICT)
        return jdict_hashable(key) ? jdict_get(j, v.d, key) : missing;
    if (!jv_is_int(key))
        return missing;
    int64_t i = jv_as_int(key);
    if (jv_is_seq(v))
        return place(i, v.l->n, &at) ? v.l->v[at] : missing;
    if (v.kind == JV_RANGE)
        return place(i, v.r->n, &at) ? jv_int(v.r->start + v.r->step * (int64_t)at) : missing;
    if (v.kind != JV_STRING || !place(i, jstr_chars(j, v.s), &at))
        return missing;
    size_t begin = jstr_offset(j, v.s, at), end = begin;
    jstr_next(v.s, &end);
    return jstr_sub(j, v.s, begin, end - begin);
}

int64_t joperator_index(struct jinja *j, struct jv v)
{
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (!jv_is_int(v))
        jinja_fail(j, "'%s' object cannot be interpreted as an integer", jv_type(v));
    return jv_as_int(v);
}

static int64_t bound(struct jinja *j, struct jv v, int64_t fallback, int64_t n, int64_t low,
                     int64_t high)
{
    if (v.kind == JV_NONE)
        return fallback;
    if (!jv_is_int(v))
        jinja_fail(j, "slice indices must be integers or None or have an __index__ method");
    int64_t i = jv_as_int(v);
    if (i < 0)
        i = i < -n ? low : i + n;
    return i < low ? low : i > high ? high : i;
}

static struct jv slice_string(struct jinja *j, struct jstr *s, int64_t start, int64_t step,
                              size_t n)
{
    if (step == 1) {
        size_t from = jstr_offset(j, s, (size_t)start);
        return jstr_sub(j, s, from, jstr_offset(j, s, (size_t)start + n) - from);
    }
    struct jbuild b = jbuild_new(j, n);
    size_t at = n ? jstr_offset(j, s, (size_t)start) : 0;
    for (size_t i = 0; i < n; i++) {
        size_t end = at;
        jstr_next(s, &end);
        jbuild_sub(&b, s, at, end - at);
        jinja_step(j, 1);
        if (i + 1 == n)
            break;
        int64_t steps = step < 0 ? -step : step;
        jinja_step_bytes(j, (size_t)steps);
        for (; steps; steps--) {
            if (step < 0)
                jstr_prev(s, &at);
            else
                jstr_next(s, &at);
        }
    }
    return jbuild_end(&b);
}

static struct jv slice_list(struct jinja *j, struct jv v, int64_t start, int64_t step, size_t n)
{
    if (step == 1)
        return jv_part(j, v, n ? (size_t)start : 0, n);
    struct jv part = v.kind == JV_LIST ? jv_list(j, n) : jv_tuple(j, n);
    jinja_step(j, n);
    for (size_t i = 0; i < n; i++)
        jv_push(j, part, v.l->v[start + step * (int64_t)i]);
    return part;
}

struct jv joperator_slice(struct jinja *j, struct jv v, struct jv start, struct jv stop,
                          struct jv step)
{
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (v.kind != JV_STRING && !jv_is_seq(v) && v.kind != JV_RANGE)
        jinja_fail(j, "'%s' object is not subscriptable", jv_type(v));
    int64_t by = step.kind == JV_NONE ? 1 : joperator_index(j, step);
    if (!by)
        jinja_fail(j, "slice step cannot be zero");
    int64_t n = (int64_t)jv_len(j, v), low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    int64_t from = bound(j, start, by < 0 ? high : low, n, low, high);
    int64_t to = bound(j, stop, by < 0 ? low : high, n, low, high);
    by = by < -n - 1 ? -n - 1 : by > n + 1 ? n + 1 : by; // the same items, and no overflow
    int64_t stride = by < 0 ? -by : by, distance = by < 0 ? from - to : to - from;
    CHECK(stride > 0);
    int64_t count = (distance + stride - 1) / stride;
    size_t items = count > 0 ? (size_t)count : 0;
    if (v.kind == JV_STRING)
        return slice_string(j, v.s, from, by, items);
    if (jv_is_seq(v))
        return slice_list(j, v, from, by, items);
    struct jrange *r = jinja_alloc(j, sizeof *r);
    int64_t first = v.r->start + v.r->step * from;
    int64_t apart = items > 1 ? v.r->step * by : v.r->step; // no overflow where it doesn't matter
    *r = (struct jrange){first, first + apart * (int64_t)items, apart, items};
    return (struct jv){.kind = JV_RANGE, .r = r};
}
