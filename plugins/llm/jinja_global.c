// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_global.h"

#include "llm/jinja_call.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"

#include <time.h>

enum { RANGE_MAX = 100000, DATE_FORMAT_MAX = 256, DATE_TEXT_MAX = 4096 }; // jinja2's MAX_RANGE
#define RANGE_BOUND ((int64_t)1 << 44)

static int64_t range_arg(struct jinja *j, struct jv v)
{
    int64_t i = joperator_index(j, v);
    if (i > RANGE_BOUND || i < -RANGE_BOUND)
        jinja_fail(j, "range() with %lld, which is beyond 2^44", (long long)i);
    return i;
}

static struct jv g_range(struct jinja *j, const struct jargs *a)
{
    jcall_no_keywords(j, "range", a);
    if (a->n < 1 || a->n > 3)
        jinja_fail(j, "range expected 1 to 3 arguments, got %zu", a->n);
    struct jrange *r = jinja_alloc(j, sizeof *r);
    r->start = a->n > 1 ? range_arg(j, a->v[0]) : 0;
    r->stop = range_arg(j, a->v[a->n > 1]);
    r->step = a->n > 2 ? range_arg(j, a->v[2]) : 1;
    if (!r->step)
        jinja_fail(j, "range() arg 3 must not be zero");
    int64_t distance = r->step > 0 ? r->stop - r->start : r->start - r->stop;
    int64_t by = r->step > 0 ? r->step : -r->step;
    r->n = distance > 0 ? (size_t)((distance + by - 1) / by) : 0;
    if (r->n > RANGE_MAX)
        jinja_fail(j, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                   RANGE_MAX);
    return (struct jv){.kind = JV_RANGE, .r = r};
}

// dict(pairs or mapping, name=value, ...)
static struct jdict *make_dict(struct jinja *j, const char *what, const struct jargs *a)
{
    struct jdict *d = jdict_new(j, 4);
    if (a->n > 1)
        jinja_fail(j, "%s expected at most 1 argument, got %zu", what, a->n);
    if (a->n && a->v[0].kind == JV_DICT) {
        for (size_t i = 0; i < jdict_len(a->v[0].d); i++)
            jdict_set(j, d, jdict_at(a->v[0].d, i)->key, jdict_at(a->v[0].d, i)->value);
    } else if (a->n) {
        struct jiter *it = jiter_open(j, a->v[0]);
        struct jv one;
        while (jiter_next(j, it, &one)) {
            struct jv pair = jiter_list(j, one);
            if (pair.l->n != 2)
                jinja_fail(j, "dictionary update sequence element has length %zu; 2 is required",
                           pair.l->n);
            jdict_set(j, d, pair.l->v[0], pair.l->v[1]);
        }
    }
    for (size_t i = 0; a->kw && i < jdict_len(a->kw); i++)
        jdict_set(j, d, jdict_at(a->kw, i)->key, jdict_at(a->kw, i)->value);
    return d;
}

static struct jv g_dict(struct jinja *j, const struct jargs *a)
{
    return jv_dict(make_dict(j, "dict", a));
}

static struct jv g_namespace(struct jinja *j, const struct jargs *a)
{
    struct jdict *d = make_dict(j, "namespace", a);
    for (size_t i = 0; i < jdict_len(d); i++) {
        struct jv key = jdict_at(d, i)->key;
        if (key.kind == JV_STRING && key.s->n && key.s->p[0] == '_')
            jinja_fail(j, "chat templates cannot store underscore-prefixed attributes on a "
                          "namespace");
    }
    return (struct jv){.kind = JV_NAMESPACE, .d = d};
}

static struct jv g_cycler(struct jinja *j, const struct jargs *a)
{
    jcall_no_keywords(j, "cycler", a);
    if (!a->n)
        jinja_fail(j, "at least one item has to be provided");
    struct jcycler *c = jinja_alloc(j, sizeof *c);
    *c = (struct jcycler){.v = a->v, .n = a->n};
    return (struct jv){.kind = JV_CYCLER, .cycler = c};
}

static struct jv g_joiner(struct jinja *j, const struct jargs *a)
{
    static const char *const names[] = {"sep"};
    struct jcycler *c = jinja_alloc(j, sizeof *c);
    c->v = jinja_array(j, 2, sizeof *c->v);
    c->n = 2;
    jcall_bind(j, "joiner", a, names, 1, 0, c->v);
    if (c->v[0].kind == JV_MISSING)
        c->v[0] = jstr_of(j, ", ");
    c->v[1] = jstr_of(j, "");
    return (struct jv){.kind = JV_JOINER, .cycler = c};
}

static struct jv g_raise(struct jinja *j, const struct jargs *a)
{
    static const char *const names[] = {"message"};
    struct jv message;
    jcall_bind(j, "raise_exception", a, names, 1, 1, &message);
    const struct jstr *s = jrepr_str(j, message);
    jinja_raise(j, s->p, s->n);
}

static struct jv g_strftime(struct jinja *j, const struct jargs *a)
{
    static const char *const names[] = {"format"};
    char format[DATE_FORMAT_MAX * 3 + 2], text[DATE_TEXT_MAX];
    struct jv v;
    struct tm tm;
    time_t now = (time_t)j->now;
    jcall_bind(j, "strftime_now", a, names, 1, 1, &v);
    if (v.kind != JV_STRING || memchr(v.s->p, 0, v.s->n) || v.s->n > DATE_FORMAT_MAX)
        jinja_fail(j, "strftime_now takes a string of at most %d bytes", DATE_FORMAT_MAX);
    size_t n = 0;
    for (size_t i = 0; i < v.s->n; i++) {
        bool percent = v.s->p[i] == '%' && i + 1 < v.s->n;
        if (percent && v.s->p[i + 1] == 'f') { // microseconds, which we don't have
            memcpy(format + n, "000000", 6);
            n += 6;
            i++;
        } else if (percent && (v.s->p[i + 1] == 'z' || v.s->p[i + 1] == 'Z')) {
            i++; // datetime.now() has no time zone
        } else {
            format[n++] = v.s->p[i];
            if (percent)
                format[n++] = v.s->p[++i];
        }
    }
    format[n++] = ' '; // so that no result is empty
    format[n] = 0;
    if (!localtime_r(&now, &tm))
        jinja_fail(j, "the time %lld is no date", (long long)j->now);
    // The format is the template's: a pointer keeps the compiler from asking for a literal.
    size_t (*const write)(char *, size_t, const char *, const struct tm *) = strftime;
    size_t len = write(text, sizeof text, format, &tm);
    if (!len)
        jinja_fail(j, "strftime_now gives more than %d bytes", DATE_TEXT_MAX);
    struct jbuild b = jbuild_new(j, len);
    jbuild_put(&b, text, len - 1, false);
    return jbuild_end(&b);
}

static const struct jfunction functions[] = {
    {"range", g_range},          {"dict", g_dict},     {"namespace", g_namespace},
    {"cycler", g_cycler},        {"joiner", g_joiner}, {"raise_exception", g_raise},
    {"strftime_now", g_strftime}};

void jglobal_add(struct jinja *j, struct jdict *context)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        jdict_set_name(j, context, functions[i].name,
                       (struct jv){.kind = JV_FUNCTION, .fn = &functions[i]});
}
