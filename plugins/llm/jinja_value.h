// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_value - what an expression of a template gives: Python's values, as far as templates see.
 *
 * Same     strings, lists and dicts never change once an expression has given them (the reference
 *          is the *immutable* sandbox), so they are shared freely. Namespaces change.
 * Text     UTF-8; lengths and indexes that a template sees count characters, as in Python.
 * Trust    every byte of a string knows whether it is the template's own: see jinja_string.h.
 * Numbers  integers of 64 bits; beyond, an error. Larger ones of the input are kept as JV_BIG:
 *          they print and compare, but don't calculate.
 * Owner    the arena of the rendering (or of the compiled template, for constants).
 */
#include "llm/jinja.h"

#include <stdbool.h>

enum jinja_kind {
    JV_MISSING, // no value at all: an argument left out, a variable not set
    JV_UNDEFINED,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_BIG, // its digits are in s
    JV_FLOAT,
    JV_STRING,
    JV_LIST,
    JV_TUPLE,
    JV_DICT,
    JV_RANGE,
    JV_VIEW, // of a dict's keys, values or items
    JV_ITER, // gives its items once
    JV_NAMESPACE,
    JV_MACRO,
    JV_FUNCTION, // one of ours
    JV_METHOD,   // one of ours, bound to a value
    JV_LOOP,
    JV_CYCLER,
    JV_JOINER
};

struct jv {
    enum jinja_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        struct jstr *s;
        struct jlist *l;
        struct jdict *d; // of a namespace as well
        struct jrange *r;
        struct jview *v;
        struct jiter *it;
        struct jmacro *m;
        const struct jfunction *fn;
        struct jmethod *bound;
        struct jloop *loop;
        struct jcycler *cycler;
        struct jundefined *u;
    };
};

struct jlist { // of a tuple as well
    struct jv *v;
    size_t n;
    struct jitems *items; // where v lies, with room to grow; NULL: it doesn't
    bool group;           // a tuple of groupby: .grouper and .list
};
struct jitems {
    struct jv *v;
    size_t used, cap;
};

struct jrange {
    int64_t start, stop, step;
    size_t n;
};

enum jinja_view { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS };
struct jview {
    struct jdict *d;
    enum jinja_view what;
};

struct jundefined { // why it is: hint, or owner and name, or name alone
    const char *hint, *owner;
    struct jv name;
};

struct jcycler { // of a joiner as well: v[0] is the separator
    struct jv *v;
    size_t n, pos;
};

struct jargs { // of a call
    struct jv *v;
    size_t n;
    struct jdict *kw; // NULL: none
};

struct jfunction {
    const char *name;
    struct jv (*call)(struct jinja *j, const struct jargs *a);
};

struct jmethod {
    struct jv self;
    const char *name;
    struct jv (*call)(struct jinja *j, struct jv self, const struct jargs *a);
};

static inline struct jv jv_bool(bool b)
{
    return (struct jv){.kind = JV_BOOL, .b = b};
}
static inline struct jv jv_int(int64_t i)
{
    return (struct jv){.kind = JV_INT, .i = i};
}
static inline struct jv jv_float(double f)
{
    return (struct jv){.kind = JV_FLOAT, .f = f};
}
static inline struct jv jv_string(struct jstr *s)
{
    return (struct jv){.kind = JV_STRING, .s = s};
}
static inline struct jv jv_dict(struct jdict *d)
{
    return (struct jv){.kind = JV_DICT, .d = d};
}
static inline struct jv jv_none(void)
{
    return (struct jv){.kind = JV_NONE};
}
static inline bool jv_is_str(struct jv v)
{
    return v.kind == JV_STRING;
}
static inline bool jv_is_seq(struct jv v)
{
    return v.kind == JV_LIST || v.kind == JV_TUPLE;
}
static inline bool jv_is_int(struct jv v) // bool is an int, as in Python
{
    return v.kind == JV_INT || v.kind == JV_BOOL;
}
static inline bool jv_is_num(struct jv v)
{
    return jv_is_int(v) || v.kind == JV_FLOAT;
}
static inline int64_t jv_as_int(struct jv v) // of jv_is_int
{
    return v.kind == JV_BOOL ? v.b : v.i;
}
static inline double jv_as_double(struct jv v) // of jv_is_num
{
    return v.kind == JV_FLOAT ? v.f : (double)jv_as_int(v);
}

struct jv jv_list(struct jinja *j, size_t cap); // empty, with room
struct jv jv_tuple(struct jinja *j, size_t cap);
struct jv jv_pair(struct jinja *j, struct jv a, struct jv b); // a tuple
// To a list that only its maker has seen.
void jv_push(struct jinja *j, struct jv list, struct jv item);
struct jv jv_concat(struct jinja *j, struct jv a, struct jv b); // of two lists or two tuples
struct jv jv_part(struct jinja *j, struct jv list, size_t from, size_t n);

struct jv jv_undefined(struct jinja *j, const char *hint);                      // static text
struct jv jv_undefined_name(struct jinja *j, const char *name);                 // NUL-ended
struct jv jv_undefined_of(struct jinja *j, struct jv owner, struct jv name);    // owner has no name
__attribute__((noreturn)) void jv_fail_undefined(struct jinja *j, struct jv v); // with the reason

const char *jv_type(struct jv v); // as Python calls it
bool jv_truth(struct jinja *j, struct jv v);
size_t jv_len(struct jinja *j, struct jv v); // fails where Python's len does
bool jv_has_len(struct jv v);
struct jv jv_view_at(struct jinja *j, const struct jview *v, size_t i);
