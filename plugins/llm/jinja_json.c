// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_json.h"

#include "llm/jinja_call.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_number.h"
#include "llm/jinja_sort.h"
#include "llm/jinja_string.h"

#include <math.h>
#include <stdio.h>

enum { INDENT_MAX = 1000 };

struct dump {
    struct jbuild b;
    bool ascii, sort;
    struct jstr *indent; // NULL: all in one line
    struct jstr *comma, *colon;
};

static void dump(struct dump *d, struct jv v, size_t level);

static void put_escape(struct dump *d, uint32_t c)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char text[24];
    const char *known = c && c < 0x80 ? strchr(from, (int)c) : NULL;
    if (known)
        snprintf(text, sizeof text, "\\%c", to[known - from]);
    else if (c < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                 0xdc00 + ((c - 0x10000) & 0x3ff));
    jbuild_puts(&d->b, text);
}

static void put_string(struct dump *d, const struct jstr *s)
{
    size_t plain = 0;
    jbuild_puts(&d->b, "\"");
    for (size_t at = 0; at < s->n;) {
        size_t begin = at;
        uint32_t c = jstr_next(s, &at);
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !d->ascii || c == 0x7f))
            continue;
        jbuild_sub(&d->b, s, plain, begin - plain);
        put_escape(d, c);
        plain = at;
    }
    jbuild_sub(&d->b, s, plain, s->n - plain);
    jbuild_puts(&d->b, "\"");
    jinja_step(d->b.j, s->n / 16);
}

static void put_float(struct dump *d, double f)
{
    char text[JNUMBER_TEXT];
    if (isnan(f) || isinf(f)) {
        jbuild_puts(&d->b, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
        return;
    }
    jnumber_repr(f, text);
    jbuild_puts(&d->b, text);
}

static void put_int(struct dump *d, int64_t i)
{
    char text[JNUMBER_TEXT];
    jnumber_int(i, text);
    jbuild_puts(&d->b, text);
}

static void newline(struct dump *d, size_t level)
{
    if (!d->indent)
        return;
    jbuild_puts(&d->b, "\n");
    while (level--)
        jbuild_str(&d->b, d->indent);
}

static void put_key(struct dump *d, struct jv key)
{
    if (key.kind == JV_STRING) {
        put_string(d, key.s);
        return;
    }
    if (!jv_is_num(key) && key.kind != JV_NONE && key.kind != JV_BIG)
        jinja_fail(d->b.j, "keys must be str, int, float, bool or None, not %s", jv_type(key));
    jbuild_puts(&d->b, "\"");
    dump(d, key, 0);
    jbuild_puts(&d->b, "\"");
}

static struct jv sorted_items(struct jinja *j, const struct jdict *dict)
{
    struct jv items = jv_list(j, jdict_len(dict)), keys = jv_list(j, jdict_len(dict));
    for (size_t i = 0; i < jdict_len(dict); i++) {
        const struct jentry *e = jdict_at(dict, i);
        jv_push(j, items, jv_pair(j, e->key, e->value));
        jv_push(j, keys, e->key);
    }
    return jsort(j, items, keys, false);
}

static void put_dict(struct dump *d, const struct jdict *dict, size_t level)
{
    size_t n = jdict_len(dict);
    struct jv items = jv_none();
    if (d->sort)
        items = sorted_items(d->b.j, dict);
    jbuild_puts(&d->b, "{");
    for (size_t i = 0; i < n; i++) {
        struct jv key = jdict_at(dict, i)->key, value = jdict_at(dict, i)->value;
        if (d->sort) {
            key = items.l->v[i].l->v[0];
            value = items.l->v[i].l->v[1];
        }
        if (i)
            jbuild_str(&d->b, d->comma);
        newline(d, level + 1);
        put_key(d, key);
        jbuild_str(&d->b, d->colon);
        dump(d, value, level + 1);
    }
    if (n)
        newline(d, level);
    jbuild_puts(&d->b, "}");
}

static void put_list(struct dump *d, const struct jlist *l, size_t level)
{
    jbuild_puts(&d->b, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jbuild_str(&d->b, d->comma);
        newline(d, level + 1);
        dump(d, l->v[i], level + 1);
    }
    if (l->n)
        newline(d, level);
    jbuild_puts(&d->b, "]");
}

static void dump(struct dump *d, struct jv v, size_t level)
{
    jinja_step(d->b.j, 1);
    jinja_enter(d->b.j);
    switch (v.kind) {
    case JV_NONE:
        jbuild_puts(&d->b, "null");
        break;
    case JV_BOOL:
        jbuild_puts(&d->b, v.b ? "true" : "false");
        break;
    case JV_INT:
        put_int(d, v.i);
        break;
    case JV_BIG:
        jbuild_str(&d->b, v.s);
        break;
    case JV_FLOAT:
        put_float(d, v.f);
        break;
    case JV_STRING:
        put_string(d, v.s);
        break;
    case JV_LIST:
    case JV_TUPLE:
        put_list(d, v.l, level);
        break;
    case JV_DICT:
        put_dict(d, v.d, level);
        break;
    default:
        jinja_fail(d->b.j, "Object of type %s is not JSON serializable", jv_type(v));
    }
    jinja_leave(d->b.j);
}

static struct jstr *indent_of(struct jinja *j, struct jv v)
{
    if (v.kind == JV_MISSING || v.kind == JV_NONE)
        return NULL;
    if (v.kind == JV_STRING)
        return v.s;
    if (!jv_is_int(v))
        jinja_fail(j, "tojson's indent must be a number or a string, not %s", jv_type(v));
    int64_t n = jv_as_int(v);
    if (n > INDENT_MAX)
        jinja_fail(j, "tojson's indent of %lld is more than %d", (long long)n, INDENT_MAX);
    struct jbuild b = jbuild_new(j, 8);
    jbuild_fill(&b, ' ', n > 0 ? (size_t)n : 0, false);
    return jbuild_end(&b).s;
}

static void separators_of(struct jinja *j, struct jv v, struct dump *d)
{
    d->comma = jstr_of(j, d->indent ? "," : ", ").s;
    d->colon = jstr_of(j, ": ").s;
    if (v.kind == JV_MISSING || v.kind == JV_NONE)
        return;
    struct jv two = jiter_list(j, v);
    if (two.l->n != 2 || two.l->v[0].kind != JV_STRING || two.l->v[1].kind != JV_STRING)
        jinja_fail(j, "tojson's separators must be two strings");
    d->comma = two.l->v[0].s;
    d->colon = two.l->v[1].s;
}

struct jv jjson_filter(struct jinja *j, struct jv value, const struct jargs *a)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
    struct jv v[4];
    jcall_bind(j, "tojson", a, names, 4, 0, v);
    struct dump d = {.b = jbuild_new(j, 64), .ascii = jv_truth(j, v[0]), .sort = jv_truth(j, v[3])};
    d.indent = indent_of(j, v[1]);
    separators_of(j, v[2], &d);
    dump(&d, value, 0);
    return jbuild_end(&d.b);
}
