// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_repr.h"

#include "base/check.h"
#include "llm/jinja_call.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_number.h"
#include "llm/jinja_string.h"

#include <stdio.h>
#include <utf8proc.h>

static void put(struct jbuild *b, struct jv v, bool ascii);

bool jrepr_printable(uint32_t c)
{
    if (c < 0x7f)
        return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void put_escape(struct jbuild *b, uint32_t c)
{
    char text[16];
    if (c == '\n' || c == '\r' || c == '\t')
        snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (c < 0x100)
        snprintf(text, sizeof text, "\\x%02x", c);
    else
        snprintf(text, sizeof text, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    jbuild_puts(b, text);
}

static void put_quoted(struct jbuild *b, const struct jstr *s, bool ascii)
{
    bool single = memchr(s->p, '\'', s->n), twice = memchr(s->p, '"', s->n);
    char quote = single && !twice ? '"' : '\'';
    jinja_step_bytes(b->j, s->n);
    jbuild_put(b, &quote, 1, false);
    size_t plain = 0, at = 0;
    while (at < s->n) {
        size_t begin = at;
        uint32_t c = jstr_next(s, &at);
        bool slash = c == '\\' || c == (uint32_t)quote;
        if (!slash && jrepr_printable(c) && (!ascii || c < 0x7f))
            continue;
        jbuild_sub(b, s, plain, begin - plain);
        if (slash) {
            jbuild_puts(b, "\\");
            jbuild_sub(b, s, begin, at - begin);
        } else {
            put_escape(b, c);
        }
        plain = at;
    }
    jbuild_sub(b, s, plain, s->n - plain);
    jbuild_put(b, &quote, 1, false);
}

static void put_sequence(struct jbuild *b, struct jv v, bool ascii)
{
    jbuild_puts(b, v.kind == JV_LIST ? "[" : "(");
    for (size_t i = 0; i < v.l->n; i++) {
        if (i)
            jbuild_puts(b, ", ");
        put(b, v.l->v[i], ascii);
    }
    jbuild_puts(b, v.kind == JV_LIST ? "]" : v.l->n == 1 ? ",)" : ")");
}

static void put_dict(struct jbuild *b, const struct jdict *d, bool ascii)
{
    jbuild_puts(b, "{");
    for (size_t i = 0; i < jdict_len(d); i++) {
        if (i)
            jbuild_puts(b, ", ");
        put(b, jdict_at(d, i)->key, ascii);
        jbuild_puts(b, ": ");
        put(b, jdict_at(d, i)->value, ascii);
    }
    jbuild_puts(b, "}");
}

static void put_view(struct jbuild *b, const struct jview *v, bool ascii)
{
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    jbuild_puts(b, names[v->what]);
    for (size_t i = 0; i < jdict_len(v->d); i++) {
        if (i)
            jbuild_puts(b, ", ");
        put(b, jv_view_at(b->j, v, i), ascii);
    }
    jbuild_puts(b, "])");
}

static void put_range(struct jbuild *b, const struct jrange *r)
{
    char text[JNUMBER_TEXT * 4];
    long long start = r->start, step = r->step;
    long long stop = r->stop;
    if (step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", start, stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", start, stop, step);
    jbuild_puts(b, text);
}

static void put_macro(struct jbuild *b, struct jv v, bool ascii)
{
    jbuild_puts(b, "<Macro ");
    struct jv name = jcall_macro_name(b->j, v.m);
    if (name.kind == JV_NONE)
        jbuild_puts(b, "anonymous");
    else
        put(b, name, ascii);
    jbuild_puts(b, ">");
}

static void put_number(struct jbuild *b, struct jv v)
{
    char text[JNUMBER_TEXT];
    if (v.kind == JV_INT)
        jnumber_int(v.i, text);
    else
        jnumber_repr(v.f, text);
    jbuild_puts(b, text);
}

static void put(struct jbuild *b, struct jv v, bool ascii)
{
    jinja_enter(b->j);
    jinja_step(b->j, 1);
    switch (v.kind) {
    case JV_MISSING:
    case JV_UNDEFINED:
        jbuild_puts(b, "Undefined");
        break;
    case JV_NONE:
        jbuild_puts(b, "None");
        break;
    case JV_BOOL:
        jbuild_puts(b, v.b ? "True" : "False");
        break;
    case JV_INT:
    case JV_FLOAT:
        put_number(b, v);
        break;
    case JV_BIG:
        jbuild_str(b, v.s);
        break;
    case JV_STRING:
        if (v.s->markup)
            jbuild_puts(b, "Markup(");
        put_quoted(b, v.s, ascii);
        jbuild_puts(b, v.s->markup ? ")" : "");
        break;
    case JV_LIST:
    case JV_TUPLE:
        put_sequence(b, v, ascii);
        break;
    case JV_DICT:
        put_dict(b, v.d, ascii);
        break;
    case JV_RANGE:
        put_range(b, v.r);
        break;
    case JV_VIEW:
        put_view(b, v.v, ascii);
        break;
    case JV_NAMESPACE:
        jbuild_puts(b, "<Namespace ");
        put_dict(b, v.d, ascii);
        jbuild_puts(b, ">");
        break;
    case JV_MACRO:
        put_macro(b, v, ascii);
        break;
    case JV_ITER:
    case JV_FUNCTION:
    case JV_METHOD:
    case JV_LOOP:
    case JV_CYCLER:
    case JV_JOINER: // Python prints an address here
        jbuild_puts(b, "<");
        jbuild_puts(b, jv_type(v));
        jbuild_puts(b, " object>");
        break;
    }
    jinja_leave(b->j);
}

void jrepr_put(struct jbuild *b, struct jv v)
{
    put(b, v, false);
}

void jrepr_put_ascii(struct jbuild *b, struct jv v)
{
    put(b, v, true);
}

void jrepr_put_str(struct jbuild *b, struct jv v)
{
    if (v.kind == JV_STRING)
        jbuild_str(b, v.s);
    else if (v.kind != JV_UNDEFINED)
        put(b, v, false);
}

struct jstr *jrepr_str(struct jinja *j, struct jv v)
{
    if (v.kind == JV_STRING)
        return v.s;
    struct jbuild b = jbuild_new(j, 0);
    jrepr_put_str(&b, v);
    return jbuild_end(&b).s;
}

struct jv jrepr_repr(struct jinja *j, struct jv v)
{
    struct jbuild b = jbuild_new(j, 0);
    put(&b, v, false);
    return jbuild_end(&b);
}

void jrepr_short(struct jinja *j, struct jv v, char *out, size_t cap)
{
    if (v.kind == JV_STRING || jv_is_num(v) || v.kind == JV_NONE) {
        if (v.kind == JV_STRING && v.s->n > cap) // what is cut anyway is not escaped first
            v = jstr_sub(j, v.s, 0, jstr_offset(j, v.s, cap / 4));
        struct jstr *s = jrepr_repr(j, v).s;
        snprintf(out, cap, "%.*s", (int)(s->n < cap ? s->n : cap), s->p);
        return;
    }
    snprintf(out, cap, "a %s", jv_type(v));
}
