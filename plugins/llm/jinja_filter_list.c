// SPDX-License-Identifier: Apache-2.0
// The filters of what has items: those that Python makes generators are generators here.
#include "llm/jinja_call.h"
#include "llm/jinja_case.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_eval.h"
#include "llm/jinja_filter.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_number.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_sort.h"
#include "llm/jinja_string.h"
#include "llm/jinja_test.h"

#include <ctype.h>

static void no_args(struct jinja *j, const char *what, const struct jargs *a)
{
    jcall_bind(j, what, a, NULL, 0, 0, NULL);
}

/* "a.b.0": the way from an item to what counts of it. */

struct path {
    struct jv parts;    // list of names and indexes
    struct jv fallback; // for what is undefined on the way; JV_MISSING: none
    bool ignore_case;
};

static void add_parts(struct jinja *j, struct jv list, const struct jstr *s, size_t from, size_t to)
{
    while (from <= to) {
        const char *dot = memchr(s->p + from, '.', to - from);
        size_t end = dot ? (size_t)(dot - s->p) : to, digits = from;
        int64_t i;
        while (digits < end && isdigit((unsigned char)s->p[digits]))
            digits++;
        if (digits == end && end > from && jnumber_parse_int(s->p + from, end - from, 10, &i))
            jv_push(j, list, jv_int(i));
        else
            jv_push(j, list, jstr_sub(j, s, from, end - from));
        from = end + 1;
    }
}

static struct path path_of(struct jinja *j, struct jv attribute, bool ignore_case)
{
    struct path p = {.parts = jv_list(j, 0), .ignore_case = ignore_case};
    if (attribute.kind == JV_STRING)
        add_parts(j, p.parts, attribute.s, 0, attribute.s->n);
    else if (attribute.kind != JV_MISSING && attribute.kind != JV_NONE)
        jv_push(j, p.parts, attribute);
    return p;
}

static struct jv path_follow(struct jinja *j, const struct path *p, struct jv item)
{
    for (size_t i = 0; i < p->parts.l->n; i++) {
        item = jeval_item(j, item, p->parts.l->v[i]);
        if (item.kind == JV_UNDEFINED && p->fallback.kind != JV_MISSING &&
            p->fallback.kind != JV_NONE)
            item = p->fallback;
    }
    if (p->ignore_case && item.kind == JV_STRING)
        item = jcase_map(j, item.s, JCASE_LOWER);
    return item;
}

static struct jv f_batch(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"linecount", "fill_with"};
    struct jv o[2], one, rows = jv_list(j, 0), row = jv_list(j, 0);
    jcall_bind(j, "batch", a, names, 2, 1, o);
    int64_t n = jv_is_num(o[0]) ? (int64_t)jv_as_double(o[0]) : joperator_index(j, o[0]);
    struct jiter *it = jiter_open(j, v);
    while (jiter_next(j, it, &one)) {
        if ((int64_t)row.l->n == n) {
            jv_push(j, rows, row);
            row = jv_list(j, 0);
        }
        jv_push(j, row, one);
    }
    bool fill = o[1].kind != JV_MISSING && o[1].kind != JV_NONE;
    while (fill && row.l->n && (int64_t)row.l->n < n) {
        jinja_step(j, 1);
        jv_push(j, row, o[1]);
    }
    if (row.l->n)
        jv_push(j, rows, row);
    return jiter_value(jiter_open(j, rows));
}

static struct jv f_slice(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"slices", "fill_with"};
    struct jv o[2], rows = jv_list(j, 0), items = jiter_list(j, v);
    jcall_bind(j, "slice", a, names, 2, 1, o);
    int64_t slices = joperator_index(j, o[0]);
    if (!slices)
        jinja_fail(j, "integer division or modulo by zero");
    size_t n = slices > 0 ? (size_t)slices : 0;
    for (size_t i = 0, from = 0; i < n; i++) {
        size_t len = items.l->n / n + (i < items.l->n % n);
        struct jv row = jv_list(j, len + 1);
        jinja_step(j, len + 1);
        for (size_t k = 0; k < len; k++)
            jv_push(j, row, items.l->v[from + k]);
        from += len;
        if (o[1].kind != JV_MISSING && o[1].kind != JV_NONE && i >= items.l->n % n)
            jv_push(j, row, o[1]);
        jv_push(j, rows, row);
    }
    return jiter_value(jiter_open(j, rows));
}

static struct jv f_length(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "length", a);
    return jv_int((int64_t)jv_len(j, v));
}

static struct jv f_dictsort(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"case_sensitive", "by", "reverse"};
    struct jv o[3];
    jcall_bind(j, "dictsort", a, names, 3, 0, o);
    bool by_value = o[1].kind == JV_STRING && jstr_is(o[1].s, "value");
    if (o[1].kind != JV_MISSING && !by_value && !(o[1].kind == JV_STRING && jstr_is(o[1].s, "key")))
        jinja_fail(j, "You can only sort by either \"key\" or \"value\"");
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (v.kind != JV_DICT)
        jinja_fail(j, "'%s' object has no attribute 'items'", jv_type(v));
    size_t n = jdict_len(v.d);
    struct jv items = jv_list(j, n), keys = jv_list(j, n);
    for (size_t i = 0; i < n; i++) {
        const struct jentry *e = jdict_at(v.d, i);
        struct jv key = by_value ? e->value : e->key;
        if (!jv_truth(j, o[0]) && key.kind == JV_STRING)
            key = jcase_map(j, key.s, JCASE_LOWER);
        jv_push(j, keys, key);
        jv_push(j, items, jv_pair(j, e->key, e->value));
    }
    return jsort(j, items, keys, jv_truth(j, o[2]));
}

static struct jv f_first(struct jinja *j, struct jv v, const struct jargs *a)
{
    struct jv first;
    no_args(j, "first", a);
    return jiter_next(j, jiter_open(j, v), &first)
               ? first
               : jv_undefined(j, "No first item, sequence was empty.");
}

static struct jv f_last(struct jinja *j, struct jv v, const struct jargs *a)
{
    struct jv last;
    no_args(j, "last", a);
    struct jiter *it = jiter_reversed(j, v);
    if (!it && v.kind != JV_UNDEFINED)
        jinja_fail(j, "'%s' object is not reversible", jv_type(v));
    return it && jiter_next(j, it, &last) ? last
                                          : jv_undefined(j, "No last item, sequence was empty.");
}

static struct jv f_reverse(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "reverse", a);
    if (v.kind == JV_STRING)
        return joperator_slice(j, v, jv_none(), jv_none(), jv_int(-1));
    struct jiter *it = jiter_reversed(j, v);
    if (it)
        return jiter_value(it);
    if (v.kind == JV_UNDEFINED)
        return jiter_value(jiter_open(j, jv_list(j, 0)));
    struct jv list = jiter_list(j, v);
    return joperator_slice(j, list, jv_none(), jv_none(), jv_int(-1));
}

static struct jv sort_by(struct jinja *j, struct jv items, const struct path *p, bool reverse)
{
    struct jv keys = jv_list(j, items.l->n);
    for (size_t i = 0; i < items.l->n; i++)
        jv_push(j, keys, path_follow(j, p, items.l->v[i]));
    return jsort(j, items, keys, reverse);
}

static struct jv f_groupby(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"attribute", "default", "case_sensitive"};
    struct jv o[3], groups = jv_list(j, 0), last = {.kind = JV_MISSING};
    jcall_bind(j, "groupby", a, names, 3, 1, o);
    struct path key = path_of(j, o[0], !jv_truth(j, o[2])), shown = key;
    key.fallback = shown.fallback = o[1];
    shown.ignore_case = false;
    struct jv sorted = sort_by(j, jiter_list(j, v), &key, false);
    for (size_t i = 0; i < sorted.l->n; i++) {
        struct jv item = sorted.l->v[i], k = path_follow(j, &key, item);
        if (last.kind == JV_MISSING || !joperator_equal(j, k, last)) {
            struct jv group = jv_pair(j, path_follow(j, &shown, item), jv_list(j, 0));
            group.l->group = true;
            jv_push(j, groups, group);
        }
        last = k;
        jv_push(j, groups.l->v[groups.l->n - 1].l->v[1], item);
    }
    return groups;
}

static struct jv f_join(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"d", "attribute"};
    struct jv o[2], one;
    jcall_bind(j, "join", a, names, 2, 0, o);
    struct path p = path_of(j, o[1], false);
    struct jiter *it = jiter_open(j, v);
    const struct jstr *separator = o[0].kind == JV_MISSING ? NULL : jrepr_str(j, o[0]);
    struct jbuild b = jbuild_new(j, 0);
    for (size_t i = 0; jiter_next(j, it, &one); i++) {
        if (i && separator)
            jbuild_str(&b, separator);
        jrepr_put_str(&b, path_follow(j, &p, one));
    }
    return jbuild_end(&b);
}

static struct jv f_list(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "list", a);
    return jiter_list(j, v);
}

static struct jv f_items(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "items", a);
    if (v.kind == JV_UNDEFINED)
        return jiter_value(jiter_open(j, jv_list(j, 0)));
    if (v.kind != JV_DICT)
        jinja_fail(j, "Can only get item pairs from a mapping.");
    struct jview *view = jinja_alloc(j, sizeof *view);
    *view = (struct jview){v.d, JVIEW_ITEMS};
    return jiter_value(jiter_open(j, (struct jv){.kind = JV_VIEW, .v = view}));
}

static struct jv extreme(struct jinja *j, struct jv v, const struct jargs *a, enum jinja_op better,
                         const char *what)
{
    static const char *const names[] = {"case_sensitive", "attribute"};
    struct jv o[2], one, best, best_key;
    jcall_bind(j, what, a, names, 2, 0, o);
    struct path p = path_of(j, o[1], !jv_truth(j, o[0]));
    struct jiter *it = jiter_open(j, v);
    if (!jiter_next(j, it, &best))
        return jv_undefined(j, "No aggregated item, sequence was empty.");
    best_key = path_follow(j, &p, best);
    while (jiter_next(j, it, &one)) {
        struct jv key = path_follow(j, &p, one);
        if (!joperator_compare(j, better, key, best_key))
            continue;
        best = one;
        best_key = key;
    }
    return best;
}

static struct jv f_min(struct jinja *j, struct jv v, const struct jargs *a)
{
    return extreme(j, v, a, JOP_LT, "min");
}

static struct jv f_max(struct jinja *j, struct jv v, const struct jargs *a)
{
    return extreme(j, v, a, JOP_GT, "max");
}

static struct jv f_sort(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"reverse", "case_sensitive", "attribute"};
    struct jv o[3];
    jcall_bind(j, "sort", a, names, 3, 0, o);
    struct jv items = jiter_list(j, v), keys = jv_list(j, items.l->n), paths = jv_list(j, 0);
    bool ignore_case = !jv_truth(j, o[1]);
    if (o[2].kind != JV_STRING || !memchr(o[2].s->p, ',', o[2].s->n)) {
        struct path p = path_of(j, o[2], ignore_case);
        return sort_by(j, items, &p, jv_truth(j, o[0]));
    }
    for (size_t from = 0; from <= o[2].s->n;) { // "a,b": by a, then by b
        const char *comma = memchr(o[2].s->p + from, ',', o[2].s->n - from);
        size_t end = comma ? (size_t)(comma - o[2].s->p) : o[2].s->n;
        jv_push(j, paths, jstr_sub(j, o[2].s, from, end - from));
        from = end + 1;
    }
    for (size_t i = 0; i < items.l->n; i++) {
        struct jv key = jv_list(j, paths.l->n);
        for (size_t k = 0; k < paths.l->n; k++) {
            struct path p = path_of(j, paths.l->v[k], ignore_case);
            jv_push(j, key, path_follow(j, &p, items.l->v[i]));
        }
        jv_push(j, keys, key);
    }
    return jsort(j, items, keys, jv_truth(j, o[0]));
}

static struct jv f_sum(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"attribute", "start"};
    struct jv o[2], one;
    jcall_bind(j, "sum", a, names, 2, 0, o);
    struct path p = path_of(j, o[0], false);
    struct jv sum = o[1].kind == JV_MISSING ? jv_int(0) : o[1];
    if (sum.kind == JV_STRING)
        jinja_fail(j, "sum() can't sum strings [use ''.join(seq) instead]");
    struct jiter *it = jiter_open(j, v);
    while (jiter_next(j, it, &one))
        sum = joperator_binary(j, JOP_ADD, sum, path_follow(j, &p, one));
    return sum;
}

struct unique {
    struct path p;
    struct jdict *seen;
};

static bool next_unique(struct jinja *j, struct jiter *it, struct jv *ret)
{
    struct unique *u = it->more;
    while (jiter_next(j, it->from, ret)) {
        struct jv key = path_follow(j, &u->p, *ret);
        if (jdict_get(j, u->seen, key).kind != JV_MISSING)
            continue;
        jdict_set(j, u->seen, key, jv_none());
        return true;
    }
    return false;
}

static struct jv f_unique(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"case_sensitive", "attribute"};
    struct jv o[2];
    jcall_bind(j, "unique", a, names, 2, 0, o);
    struct unique *u = jinja_alloc(j, sizeof *u);
    u->p = path_of(j, o[1], !jv_truth(j, o[0]));
    u->seen = jdict_new(j, 0);
    return jiter_value(jiter_new(j, jiter_open(j, v), u, next_unique));
}

struct mapping {                  // of map
    const struct jfilter *filter; // NULL: by path
    struct jargs args;
    struct path p;
};

static bool next_mapped(struct jinja *j, struct jiter *it, struct jv *ret)
{
    const struct mapping *m = it->more;
    struct jv one;
    if (!jiter_next(j, it->from, &one))
        return false;
    *ret = m->filter ? jfilter_apply(j, m->filter, one, &m->args) : path_follow(j, &m->p, one);
    return true;
}

static void map_by_path(struct jinja *j, struct mapping *m, const struct jargs *a)
{
    static const char *const names[] = {"attribute", "default"};
    struct jv o[2];
    jcall_bind(j, "map", a, names, 2, 1, o);
    m->p = path_of(j, o[0], false);
    m->p.fallback = o[1];
}

static struct jargs rest_of(const struct jargs *a, size_t from)
{
    return (struct jargs){
        .v = a->n > from ? a->v + from : NULL, .n = a->n > from ? a->n - from : 0, .kw = a->kw};
}

static struct jv nothing(struct jinja *j)
{
    return jiter_value(jiter_open(j, jv_list(j, 0)));
}

static struct jv f_map(struct jinja *j, struct jv v, const struct jargs *a)
{
    if (!jv_truth(j, v))
        return nothing(j);
    struct mapping *m = jinja_alloc(j, sizeof *m);
    if (!a->n && a->kw && jdict_get_name(j, a->kw, "attribute").kind != JV_MISSING) {
        map_by_path(j, m, a);
    } else {
        if (!a->n)
            jinja_fail(j, "map requires a filter argument");
        if (a->v[0].kind == JV_STRING)
            m->filter = jfilter_find(a->v[0].s->p, a->v[0].s->n);
        if (!m->filter)
            jinja_fail(j, "map: there is no filter of that name");
        m->args = rest_of(a, 1);
    }
    return jiter_value(jiter_new(j, jiter_open(j, v), m, next_mapped));
}

struct selection {            // of select, reject, selectattr, rejectattr
    const struct jtest *test; // NULL: truth
    struct jargs args;
    struct path p;
    bool want;
};

static bool next_selected(struct jinja *j, struct jiter *it, struct jv *ret)
{
    const struct selection *s = it->more;
    while (jiter_next(j, it->from, ret)) {
        struct jv v = path_follow(j, &s->p, *ret);
        bool is = s->test ? jtest_apply(j, s->test, v, &s->args) : jv_truth(j, v);
        if (is == s->want)
            return true;
    }
    return false;
}

static struct jv select_items(struct jinja *j, struct jv v, const struct jargs *a, bool by_path,
                              bool want)
{
    if (!jv_truth(j, v))
        return nothing(j);
    struct selection *s = jinja_alloc(j, sizeof *s);
    s->want = want;
    if (by_path && !a->n)
        jinja_fail(j, "Missing parameter for attribute name");
    s->p = path_of(j, by_path ? a->v[0] : jv_none(), false);
    if (a->n > by_path) {
        struct jv name = a->v[by_path];
        if (name.kind == JV_STRING)
            s->test = jtest_find(name.s->p, name.s->n);
        if (!s->test)
            jinja_fail(j, "select: there is no test of that name");
        s->args = rest_of(a, 1 + (size_t)by_path);
    }
    return jiter_value(jiter_new(j, jiter_open(j, v), s, next_selected));
}

static struct jv f_select(struct jinja *j, struct jv v, const struct jargs *a)
{
    return select_items(j, v, a, false, true);
}

static struct jv f_reject(struct jinja *j, struct jv v, const struct jargs *a)
{
    return select_items(j, v, a, false, false);
}

static struct jv f_selectattr(struct jinja *j, struct jv v, const struct jargs *a)
{
    return select_items(j, v, a, true, true);
}

static struct jv f_rejectattr(struct jinja *j, struct jv v, const struct jargs *a)
{
    return select_items(j, v, a, true, false);
}

const struct jfilter jfilter_lists[] = {{"batch", f_batch},
                                        {"count", f_length},
                                        {"dictsort", f_dictsort},
                                        {"first", f_first},
                                        {"groupby", f_groupby},
                                        {"items", f_items},
                                        {"join", f_join},
                                        {"last", f_last},
                                        {"length", f_length},
                                        {"list", f_list},
                                        {"map", f_map},
                                        {"max", f_max},
                                        {"min", f_min},
                                        {"reject", f_reject},
                                        {"rejectattr", f_rejectattr},
                                        {"reverse", f_reverse},
                                        {"select", f_select},
                                        {"selectattr", f_selectattr},
                                        {"slice", f_slice},
                                        {"sort", f_sort},
                                        {"sum", f_sum},
                                        {"unique", f_unique},
                                        {NULL, NULL}};
