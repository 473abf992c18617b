// SPDX-License-Identifier: Apache-2.0
// The filters of texts, numbers and single values.
#include "llm/jinja_filter.h"

#include "llm/jinja_call.h"
#include "llm/jinja_case.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_eval.h"
#include "llm/jinja_format.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_json.h"
#include "llm/jinja_method.h"
#include "llm/jinja_number.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

static void no_args(struct jinja *j, const char *what, const struct jargs *a)
{
    jcall_bind(j, what, a, NULL, 0, 0, NULL);
}

static bool given(struct jv v)
{
    return v.kind != JV_MISSING && v.kind != JV_NONE;
}

// One of ours gives plain text; Markup stays Markup.
static struct jv marked(struct jinja *j, struct jv v, const struct jstr *like)
{
    if (!like->markup || v.s->markup)
        return v;
    v = jstr_sub(j, v.s, 0, v.s->n);
    v.s->markup = true;
    return v;
}

static struct jv f_abs(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "abs", a);
    if (v.kind == JV_FLOAT)
        return jv_float(fabs(v.f));
    if (v.kind == JV_UNDEFINED || !jv_is_int(v))
        jinja_fail(j, "bad operand type for abs(): '%s'", jv_type(v));
    return jv_as_int(v) < 0 ? joperator_negate(j, v) : jv_int(jv_as_int(v));
}

static struct jv f_attr(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"name"};
    struct jv name, found;
    jcall_bind(j, "attr", a, names, 1, 1, &name);
    if (name.kind != JV_STRING)
        jinja_fail(j, "attribute name must be string, not '%s'", jv_type(name));
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    return jmethod_find(j, v, name.s, &found) ? found : jv_undefined_of(j, v, name);
}

static struct jv f_capitalize(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "capitalize", a);
    struct jstr *s = jrepr_str(j, v);
    return marked(j, jcase_map(j, s, JCASE_CAPITALIZE), s);
}

static struct jv f_upper(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "upper", a);
    struct jstr *s = jrepr_str(j, v);
    return marked(j, jcase_map(j, s, JCASE_UPPER), s);
}

static struct jv f_lower(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "lower", a);
    struct jstr *s = jrepr_str(j, v);
    return marked(j, jcase_map(j, s, JCASE_LOWER), s);
}

static struct jv f_title(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "title", a);
    return jcase_title_filter(j, jrepr_str(j, v));
}

static struct jv f_center(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"width"};
    struct jv width;
    jcall_bind(j, "center", a, names, 1, 0, &width);
    struct jargs args = {.v = &width, .n = 1};
    if (width.kind == JV_MISSING)
        width = jv_int(80);
    return jmethod_text(j, jrepr_str(j, v), "center", &args);
}

static struct jv f_default(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"default_value", "boolean"};
    struct jv o[2];
    jcall_bind(j, "default", a, names, 2, 0, o);
    if (v.kind != JV_UNDEFINED && !(jv_truth(j, o[1]) && !jv_truth(j, v)))
        return v;
    return o[0].kind == JV_MISSING ? jstr_of(j, "") : o[0];
}

static struct jv f_escape(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "escape", a);
    return jformat_escape(j, v);
}

static struct jv f_forceescape(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "forceescape", a);
    struct jstr *s = jrepr_str(j, v);
    struct jv plain = jstr_sub(j, s, 0, s->n);
    plain.s->markup = false;
    return jformat_escape(j, plain);
}

static struct jv f_safe(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "safe", a);
    struct jstr *s = jrepr_str(j, v);
    struct jv safe = jstr_sub(j, s, 0, s->n);
    safe.s->markup = true;
    return safe;
}

static struct jv f_float(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"default"};
    struct jv fallback;
    double d;
    jcall_bind(j, "float", a, names, 1, 0, &fallback);
    if (jv_is_num(v))
        return jv_float(jv_as_double(v));
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if ((v.kind == JV_STRING || v.kind == JV_BIG) && jnumber_parse_float(v.s->p, v.s->n, &d))
        return jv_float(d);
    return fallback.kind == JV_MISSING ? jv_float(0) : fallback;
}

// int(float): false where Python raises OverflowError or ValueError.
static bool whole(struct jinja *j, double d, int64_t *ret)
{
    if (!isfinite(d))
        return false;
    if (!(fabs(d) < 0x1p63))
        jinja_fail(j, "an integer is beyond 64 bits");
    *ret = (int64_t)d;
    return true;
}

static struct jv f_int(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"default", "base"};
    struct jv o[2];
    double d;
    int64_t i;
    jcall_bind(j, "int", a, names, 2, 0, o);
    int64_t base = o[1].kind == JV_MISSING ? 10 : joperator_index(j, o[1]);
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (v.kind == JV_BIG)
        return v;
    if (jv_is_int(v))
        return jv_int(jv_as_int(v));
    if (v.kind == JV_FLOAT && isinf(v.f))
        jinja_fail(j, "cannot convert float infinity to integer");
    if (v.kind == JV_FLOAT && whole(j, v.f, &i))
        return jv_int(i);
    if (v.kind == JV_STRING && (base == 0 || (base >= 2 && base <= 36)) &&
        jnumber_parse_int(v.s->p, v.s->n, (int)base, &i))
        return jv_int(i);
    if (v.kind == JV_STRING && jnumber_parse_float(v.s->p, v.s->n, &d) && whole(j, d, &i))
        return jv_int(i);
    return o[0].kind == JV_MISSING ? jv_int(0) : o[0];
}

static struct jv f_format(struct jinja *j, struct jv v, const struct jargs *a)
{
    bool named = a->kw && jdict_len(a->kw);
    if (named && a->n)
        jinja_fail(j, "can't handle positional and keyword arguments at the same time");
    struct jv values = named ? jv_dict(a->kw) : jv_tuple(j, a->n);
    for (size_t i = 0; !named && i < a->n; i++)
        jv_push(j, values, a->v[i]);
    return jformat_percent(j, jrepr_str(j, v), values);
}

static struct jv f_filesizeformat(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"binary"};
    static const char *const units[] = {"kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB",
                                        "PB", "PiB", "EB", "EiB", "ZB", "ZiB", "YB", "YiB"};
    struct jv binary;
    char text[400];
    jcall_bind(j, "filesizeformat", a, names, 1, 0, &binary);
    double base = jv_truth(j, binary) ? 1024 : 1000, bytes = 0, unit = base;
    if (v.kind == JV_STRING ? !jnumber_parse_float(v.s->p, v.s->n, &bytes) : !jv_is_num(v))
        jinja_fail(j, "filesizeformat takes a number, not %s", jv_type(v));
    bytes = v.kind == JV_STRING ? bytes : jv_as_double(v);
    if (bytes == 1) {
        return jstr_of(j, "1 Byte");
    }
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    } else {
        size_t i = 0;
        for (unit *= base; i < 7 && bytes >= unit; i++)
            unit *= base;
        snprintf(text, sizeof text, "%.1f %s", base * bytes / unit, units[i * 2 + (base > 1000)]);
    }
    struct jbuild b = jbuild_new(j, 0);
    jbuild_puts(&b, text);
    return jbuild_end(&b);
}

static struct jv f_indent(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"width", "first", "blank"};
    struct jv o[3];
    jcall_bind(j, "indent", a, names, 3, 0, o);
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (v.kind != JV_STRING)
        jinja_fail(j, "indent takes a string, not %s", jv_type(v));
    struct jv by = o[0];
    if (by.kind != JV_STRING)
        by = joperator_binary(j, JOP_MUL, jstr_of(j, " "),
                              by.kind == JV_MISSING ? jv_int(4) : jv_int(joperator_index(j, by)));
    bool first = jv_truth(j, o[1]), blank = jv_truth(j, o[2]);
    struct jv lines = jmethod_lines(j, jstr_concat(j, v.s, jstr_of(j, "\n").s).s, false);
    struct jbuild b = jbuild_new(j, v.s->n);
    for (size_t i = 0; i < lines.l->n; i++) {
        const struct jstr *line = lines.l->v[i].s;
        if (i)
            jbuild_puts(&b, "\n");
        if (i ? blank || line->n : first)
            jbuild_str(&b, by.s);
        jbuild_str(&b, line);
    }
    return marked(j, jbuild_end(&b), v.s);
}

static struct jv f_replace(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"old", "new", "count"};
    struct jv o[3];
    jcall_bind(j, "replace", a, names, 3, 2, o);
    int64_t count = given(o[2]) ? joperator_index(j, o[2]) : -1;
    return jmethod_replace(j, jrepr_str(j, v), jrepr_str(j, o[0]), jrepr_str(j, o[1]), count);
}

// Python's round of a float: to the nearest decimal, ties by its exact binary value.
static double round_float(struct jinja *j, double d, int64_t digits)
{
    char text[800];
    if (!isfinite(d) || digits > 320)
        return d;
    if (digits < -320)
        return copysign(0, d);
    if (digits < 0) {
        double power = pow(10, (double)-digits), scaled = d / power;
        double r = nearbyint(scaled);
        return r * power;
    }
    jinja_step(j, 10);
    double r = 0;
    snprintf(text, sizeof text, "%.*f", (int)digits, d);
    jnumber_parse_float(text, strlen(text), &r);
    return r;
}

static struct jv round_int(struct jinja *j, struct jv v, int64_t digits)
{
    int64_t i = jv_as_int(v), power = 1;
    if (digits >= 0)
        return jv_int(i);
    for (; digits; digits++)
        if (__builtin_mul_overflow(power, 10, &power))
            return jv_int(0);
    int64_t rest = i % power, down = i - rest;
    rest = rest < 0 ? -rest : rest;
    bool up = rest > power / 2 || (rest == power / 2 && (down / power) % 2 != 0);
    return up ? joperator_binary(j, JOP_ADD, jv_int(down), jv_int(i < 0 ? -power : power))
              : jv_int(down);
}

static struct jv f_round(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"precision", "method"};
    struct jv o[2];
    jcall_bind(j, "round", a, names, 2, 0, o);
    bool ceiling = o[1].kind == JV_STRING && jstr_is(o[1].s, "ceil");
    bool floors = o[1].kind == JV_STRING && jstr_is(o[1].s, "floor");
    bool common = o[1].kind == JV_MISSING || (o[1].kind == JV_STRING && jstr_is(o[1].s, "common"));
    if (!ceiling && !floors && !common)
        jinja_fail(j, "method must be common, ceil or floor");
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(j, v);
    if (!jv_is_num(v))
        jinja_fail(j, "type %s doesn't define __round__ method", jv_type(v));
    if (common && o[0].kind == JV_NONE) {
        int64_t i = 0;
        if (!whole(j, nearbyint(jv_as_double(v)), &i))
            jinja_fail(j, "cannot convert float to integer");
        return jv_is_int(v) ? v : jv_int(i);
    }
    int64_t digits = o[0].kind == JV_MISSING ? 0 : joperator_index(j, o[0]);
    if (common)
        return jv_is_int(v) ? round_int(j, v, digits) : jv_float(round_float(j, v.f, digits));
    struct jv power = joperator_binary(j, JOP_POW, jv_int(10), jv_int(digits));
    double scaled = jv_as_double(joperator_binary(j, JOP_MUL, v, power));
    if (!isfinite(scaled))
        jinja_fail(j, "cannot convert float to integer");
    // Python's ceil and floor give integers, so there is no negative zero.
    return jv_float(((ceiling ? ceil(scaled) : floor(scaled)) + 0.0) / jv_as_double(power));
}

static struct jv f_string(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "string", a);
    return jv_string(jrepr_str(j, v));
}

static struct jv f_trim(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"chars"};
    struct jv chars;
    jcall_bind(j, "trim", a, names, 1, 0, &chars);
    struct jargs args = {.v = &chars, .n = chars.kind != JV_MISSING};
    return jmethod_text(j, jrepr_str(j, v), "strip", &args);
}

static struct jv f_truncate(struct jinja *j, struct jv v, const struct jargs *a)
{
    static const char *const names[] = {"length", "killwords", "end", "leeway"};
    struct jv o[4];
    jcall_bind(j, "truncate", a, names, 4, 0, o);
    int64_t length = o[0].kind == JV_MISSING ? 255 : joperator_index(j, o[0]);
    int64_t leeway = given(o[3]) ? joperator_index(j, o[3]) : 5;
    struct jv end = o[2].kind == JV_MISSING ? jstr_of(j, "...") : o[2];
    if (end.kind != JV_STRING || length < (int64_t)jstr_chars(j, end.s) || leeway < 0)
        jinja_fail(j, "truncate's length is shorter than its end, or its leeway negative");
    if (v.kind != JV_STRING) {
        if (!jv_has_len(v) || (int64_t)jv_len(j, v) > length)
            jinja_fail(j, "truncate takes a string, not %s", jv_type(v));
        return v;
    }
    int64_t chars = (int64_t)jstr_chars(j, v.s);
    if (chars <= length || chars - leeway <= length)
        return v;
    size_t cut = jstr_offset(j, v.s, (size_t)length - jstr_chars(j, end.s));
    if (!jv_truth(j, o[1])) {
        const char *space = memrchr(v.s->p, ' ', cut);
        cut = space ? (size_t)(space - v.s->p) : cut;
    }
    return joperator_binary(j, JOP_ADD, jstr_sub(j, v.s, 0, cut), end);
}

static void put_url(struct jbuild *b, const struct jstr *s, bool query)
{
    for (size_t i = 0; i < s->n; i++) {
        char c = s->p[i], text[4];
        if (isalnum((unsigned char)c) || (c && strchr(query ? "_.-~" : "_.-~/", c))) {
            jbuild_sub(b, s, i, 1);
        } else if (query && c == ' ') {
            jbuild_puts(b, "+");
        } else {
            snprintf(text, sizeof text, "%%%02X", (unsigned char)c);
            jbuild_puts(b, text);
        }
    }
}

static struct jv f_urlencode(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "urlencode", a);
    struct jbuild b = jbuild_new(j, 0);
    if (v.kind == JV_STRING || !jiter_can(v)) {
        put_url(&b, jrepr_str(j, v), false);
        return jbuild_end(&b);
    }
    struct jview items = {v.d, JVIEW_ITEMS};
    struct jv one, of = v.kind == JV_DICT ? (struct jv){.kind = JV_VIEW, .v = &items} : v;
    struct jiter *it = jiter_open(j, of);
    for (size_t i = 0; jiter_next(j, it, &one); i++) {
        struct jv pair = jiter_list(j, one);
        if (pair.l->n != 2)
            jinja_fail(j, "urlencode takes pairs, not %zu values", pair.l->n);
        jbuild_puts(&b, i ? "&" : "");
        put_url(&b, jrepr_str(j, pair.l->v[0]), true);
        jbuild_puts(&b, "=");
        put_url(&b, jrepr_str(j, pair.l->v[1]), true);
    }
    return jbuild_end(&b);
}

static struct jv f_wordcount(struct jinja *j, struct jv v, const struct jargs *a)
{
    no_args(j, "wordcount", a);
    const struct jstr *s = jrepr_str(j, v);
    int64_t words = 0;
    bool in_word = false;
    jinja_step(j, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t c = jstr_next(s, &at);
        bool is = jcase_alnum(c) || c == '_';
        words += is && !in_word;
        in_word = is;
    }
    return jv_int(words);
}

static const struct jfilter texts[] = {{"abs", f_abs},
                                       {"attr", f_attr},
                                       {"capitalize", f_capitalize},
                                       {"center", f_center},
                                       {"d", f_default},
                                       {"default", f_default},
                                       {"e", f_escape},
                                       {"escape", f_escape},
                                       {"filesizeformat", f_filesizeformat},
                                       {"float", f_float},
                                       {"forceescape", f_forceescape},
                                       {"format", f_format},
                                       {"indent", f_indent},
                                       {"int", f_int},
                                       {"lower", f_lower},
                                       {"replace", f_replace},
                                       {"round", f_round},
                                       {"safe", f_safe},
                                       {"string", f_string},
                                       {"title", f_title},
                                       {"tojson", jjson_filter},
                                       {"trim", f_trim},
                                       {"truncate", f_truncate},
                                       {"upper", f_upper},
                                       {"urlencode", f_urlencode},
                                       {"wordcount", f_wordcount},
                                       {NULL, NULL}};

static const struct jfilter *find(const struct jfilter *v, const char *name, size_t n)
{
    for (; v->name; v++)
        if (strlen(v->name) == n && memcmp(v->name, name, n) == 0)
            return v;
    return NULL;
}

const struct jfilter *jfilter_find(const char *name, size_t n)
{
    const struct jfilter *f = find(texts, name, n);
    return f ? f : find(jfilter_lists, name, n);
}

struct jv jfilter_apply(struct jinja *j, const struct jfilter *f, struct jv v,
                        const struct jargs *a)
{
    jinja_enter(j);
    struct jv r = f->call(j, v, a);
    jinja_leave(j);
    return r;
}
