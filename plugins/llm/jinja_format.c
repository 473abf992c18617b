// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_format.h"

#include "llm/jinja_dict.h"
#include "llm/jinja_eval.h"
#include "llm/jinja_number.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"
#include "llm/jinja_string.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct jv jformat_escape(struct jinja *j, struct jv v)
{
    struct jstr *s = jrepr_str(j, v);
    if (v.kind == JV_STRING && s->markup)
        return v;
    struct jbuild b = jbuild_new(j, s->n);
    size_t plain = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *as = s->p[i] == '&'    ? "&amp;"
                         : s->p[i] == '<'  ? "&lt;"
                         : s->p[i] == '>'  ? "&gt;"
                         : s->p[i] == '\'' ? "&#39;"
                         : s->p[i] == '"'  ? "&#34;"
                                           : NULL;
        if (!as)
            continue;
        jbuild_sub(&b, s, plain, i - plain);
        jbuild_puts(&b, as);
        plain = i + 1;
    }
    jbuild_sub(&b, s, plain, s->n - plain);
    struct jv r = jbuild_end(&b);
    r.s->markup = true;
    return r;
}

void jformat_pad(struct jbuild *b, const struct jstr *s, const struct jformat_spec *spec,
                 char align)
{
    struct jstr copy = *s;
    int64_t n = (int64_t)jstr_chars(b->j, &copy);
    size_t pad = spec->width > n ? (size_t)(spec->width - n) : 0;
    uint32_t fill = spec->fill ? spec->fill : ' ';
    size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
    jbuild_fill(b, fill, left, false);
    jbuild_str(b, s);
    jbuild_fill(b, fill, pad - left, false);
}

// Digits of |i| in that base, most significant first.
static void int_digits(int64_t i, unsigned base, bool upper, char out[72])
{
    const char *letters = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    char text[72];
    size_t n = 0;
    do {
        text[n++] = letters[u % base];
        u /= base;
    } while (u);
    for (size_t k = 0; k < n; k++)
        out[k] = text[n - 1 - k];
    out[n] = 0;
}

// Digits of |d| as the type asks; the caller frees it. NULL: out of memory.
static char *float_digits(struct jinja *j, double d, const struct jformat_spec *spec)
{
    char *text = NULL;
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    char type = spec->type, lower = (char)tolower((unsigned char)type);
    d = fabs(d);
    if (!isfinite(d)) {
        text = jinja_alloc(j, 4);
        memcpy(text, isnan(d) ? "nan" : "inf", 4);
        for (char *p = text; *p && isupper((unsigned char)type); p++)
            *p = (char)toupper((unsigned char)*p);
        return text;
    }
    size_t cap = (size_t)precision + 340;
    text = jinja_alloc(j, cap);
    if (!type && spec->precision < 0) {
        jnumber_repr(d, text);
    } else if (type == '%') {
        snprintf(text, cap, "%.*f%%", precision, d * 100);
    } else if (lower == 'f') {
        snprintf(text, cap, "%.*f", precision, d);
    } else if (lower == 'e') {
        snprintf(text, cap, type == 'e' ? "%.*e" : "%.*E", precision, d);
    } else {
        if (spec->alternate)
            snprintf(text, cap, type == 'G' ? "%#.*G" : "%#.*g", precision, d);
        else
            snprintf(text, cap, type == 'G' ? "%.*G" : "%.*g", precision, d);
        if (!type && strspn(text, "0123456789") == strlen(text))
            memcpy(text + strlen(text), ".0", 3); // Python: a digit past the point at least
    }
    jinja_step(j, cap / 16);
    return text;
}

// Puts a separator between groups of digits before the point.
static void group(const char *digits, char separator, unsigned every, char *out)
{
    size_t whole = strspn(digits, "0123456789abcdefABCDEF"), n = 0;
    for (size_t i = 0; digits[i]; i++) {
        if (i && i < whole && (whole - i) % every == 0)
            out[n++] = separator;
        out[n++] = digits[i];
    }
    out[n] = 0;
}

// sign, prefix and digits, padded: zeros go between sign and digits.
static void put_number(struct jbuild *b, bool minus, const char *prefix, const char *digits,
                       const struct jformat_spec *spec)
{
    char head[8];
    const char *sign = minus ? "-" : spec->sign == '+' ? "+" : spec->sign == ' ' ? " " : "";
    snprintf(head, sizeof head, "%s%s", sign, prefix);
    char align = spec->align ? spec->align : spec->zero ? '=' : '>';
    uint32_t fill = spec->fill ? spec->fill : spec->zero ? '0' : ' ';
    int64_t n = (int64_t)(strlen(head) + strlen(digits));
    size_t pad = spec->width > n ? (size_t)(spec->width - n) : 0;
    size_t left = align == '<' || align == '=' ? 0 : align == '^' ? pad / 2 : pad;
    jbuild_fill(b, fill, left, false);
    jbuild_puts(b, head);
    if (align == '=')
        jbuild_fill(b, fill, pad, false);
    jbuild_puts(b, digits);
    jbuild_fill(b, fill, align == '=' ? 0 : pad - left, false);
}

void jformat_number(struct jbuild *b, struct jv v, const struct jformat_spec *spec)
{
    bool integer = jv_is_int(v) && (!spec->type || strchr("bcdoxXn", spec->type));
    char type = (char)tolower((unsigned char)spec->type);
    const char *prefix = "";
    char *digits;
    unsigned every = 3;
    bool minus;
    if (integer) {
        unsigned base = type == 'x' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
        int64_t i = jv_as_int(v);
        digits = jinja_alloc(b->j, 72);
        int_digits(i, base, spec->type == 'X', digits);
        minus = i < 0;
        every = base == 10 ? 3 : 4;
        if (spec->alternate)
            prefix = spec->type == 'X' ? "0X"
                     : type == 'x'     ? "0x"
                     : type == 'o'     ? "0o"
                     : type == 'b'     ? "0b"
                                       : "";
    } else {
        double d = jv_as_double(v);
        digits = float_digits(b->j, d, spec);
        minus = signbit(d) && !isnan(d);
    }
    if (spec->grouping) {
        char *grouped = jinja_alloc(b->j, strlen(digits) * 2 + 1);
        if (integer)
            group(digits, spec->grouping, every, grouped);
        else { // an exponent's e is no digit here
            size_t whole = strspn(digits, "0123456789");
            char rest = digits[whole];
            digits[whole] = 0;
            group(digits, spec->grouping, 3, grouped);
            digits[whole] = rest;
            memcpy(grouped + strlen(grouped), digits + whole, strlen(digits + whole) + 1);
        }
        digits = grouped;
    }
    put_number(b, minus, prefix, digits, spec);
}

/* The % operator. */

struct percent {
    struct jinja *j;
    const struct jstr *pattern;
    size_t at;
    struct jv values; // a tuple, or one value
    size_t next;
    bool mapped;
};

static struct jv next_value(struct percent *p)
{
    if (p->values.kind != JV_TUPLE) {
        if (p->next++)
            jinja_fail(p->j, "not enough arguments for format string");
        return p->values;
    }
    if (p->next >= p->values.l->n)
        jinja_fail(p->j, "not enough arguments for format string");
    return p->values.l->v[p->next++];
}

static char look(const struct percent *p)
{
    if (p->at >= p->pattern->n)
        jinja_fail(p->j, "incomplete format");
    return p->pattern->p[p->at];
}

// "(name)": the value of that name.
static struct jv named_value(struct percent *p)
{
    size_t begin = ++p->at, depth = 1;
    while (depth) {
        char c = look(p);
        depth += c == '(';
        depth -= c == ')';
        p->at++;
    }
    if (p->values.kind != JV_DICT)
        jinja_fail(p->j, "format requires a mapping");
    struct jv name = jstr_sub(p->j, p->pattern, begin, p->at - 1 - begin);
    struct jv v = jdict_get(p->j, p->values.d, name);
    if (v.kind == JV_MISSING)
        jinja_fail(p->j, "a format string names '%.*s', which is not in its mapping",
                   (int)(name.s->n < 100 ? name.s->n : 100), name.s->p);
    p->mapped = true;
    return v;
}

static int64_t spec_number(struct percent *p)
{
    int64_t n = 0;
    if (look(p) == '*') {
        p->at++;
        struct jv v = next_value(p);
        if (!jv_is_int(v))
            jinja_fail(p->j, "* wants int");
        n = jv_as_int(v);
    } else {
        while (isdigit((unsigned char)look(p)) && n <= JFORMAT_WIDTH)
            n = n * 10 + (p->pattern->p[p->at++] - '0');
    }
    if (n > JFORMAT_WIDTH || n < -JFORMAT_WIDTH)
        jinja_fail(p->j, "a width or precision of more than %d", JFORMAT_WIDTH);
    return n;
}

static struct jformat_spec percent_spec(struct percent *p)
{
    struct jformat_spec spec = {.precision = -1};
    for (char c; (c = look(p)) && strchr("-+ #0", c); p->at++) {
        spec.align = c == '-' ? '<' : spec.align;
        spec.sign = c == '+' || (c == ' ' && spec.sign != '+') ? c : spec.sign;
        spec.alternate |= c == '#';
        spec.zero |= c == '0';
    }
    spec.width = spec_number(p);
    if (spec.width < 0) {
        spec.align = '<';
        spec.width = -spec.width;
    }
    if (look(p) == '.') {
        p->at++;
        spec.precision = spec_number(p);
        spec.precision = spec.precision < 0 ? 0 : spec.precision;
    }
    while (look(p) && strchr("hlL", look(p)))
        p->at++;
    if (spec.align == '<')
        spec.zero = false;
    return spec;
}

static void percent_int(struct percent *p, struct jbuild *b, struct jv v, struct jformat_spec *spec)
{
    bool hex = strchr("xXo", spec->type);
    if (v.kind == JV_UNDEFINED)
        jv_fail_undefined(p->j, v);
    if (v.kind == JV_FLOAT && !hex) {
        if (!(fabs(v.f) < 0x1p63))
            jinja_fail(p->j, "cannot convert float %s to integer", isnan(v.f) ? "NaN" : "infinity");
        v = jv_int((int64_t)v.f);
    }
    if (!jv_is_int(v))
        jinja_fail(p->j, "%%%c format: %s is required, not %s", spec->type,
                   hex ? "an integer" : "a real number", jv_type(v));
    spec->type = strchr("diu", spec->type) ? 'd' : spec->type;
    if (spec->precision < 0) {
        jformat_number(b, v, spec);
        return;
    }
    // A precision is a number of digits at least.
    struct jformat_spec digits = {
        .type = spec->type, .width = spec->precision, .zero = true, .precision = -1};
    struct jbuild text = jbuild_new(p->j, 0);
    int64_t i = jv_as_int(v);
    digits.width += i < 0;
    jformat_number(&text, v, &digits);
    jformat_pad(b, jbuild_end(&text).s, spec, spec->align ? spec->align : '>');
}

static void percent_char(struct percent *p, struct jbuild *b, struct jv v,
                         const struct jformat_spec *spec)
{
    if (v.kind == JV_STRING && jstr_chars(p->j, v.s) == 1) {
        jformat_pad(b, v.s, spec, spec->align ? spec->align : '>');
        return;
    }
    int64_t c = jv_is_int(v) ? jv_as_int(v) : -1;
    if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        jinja_fail(p->j, "%%c requires int or char");
    struct jbuild text = jbuild_new(p->j, 4);
    jbuild_char(&text, (uint32_t)c, false);
    jformat_pad(b, jbuild_end(&text).s, spec, spec->align ? spec->align : '>');
}

static void percent_one(struct percent *p, struct jbuild *b)
{
    bool named = look(p) == '(';
    struct jv v = {.kind = JV_MISSING};
    if (named)
        v = named_value(p);
    struct jformat_spec spec = percent_spec(p);
    spec.type = look(p);
    p->at++;
    if (spec.type == '%') {
        jbuild_sub(b, p->pattern, p->at - 1, 1);
        return;
    }
    if (!spec.type || !strchr("diuxXoeEfFgGcrsa", spec.type))
        jinja_fail(p->j, "unsupported format character '%c' (0x%x)",
                   isprint((unsigned char)spec.type) ? spec.type : '?', (unsigned char)spec.type);
    if (!named)
        v = next_value(p);
    if (spec.type == 's' || spec.type == 'r' || spec.type == 'a') {
        struct jbuild text = jbuild_new(p->j, 0);
        if (spec.type == 's')
            jrepr_put_str(&text, v);
        else if (spec.type == 'r')
            jrepr_put(&text, v);
        else
            jrepr_put_ascii(&text, v);
        struct jstr *s = jbuild_end(&text).s;
        if (spec.precision >= 0 && (size_t)spec.precision < jstr_chars(p->j, s))
            s = jstr_sub(p->j, s, 0, jstr_offset(p->j, s, (size_t)spec.precision)).s;
        jformat_pad(b, s, &spec, spec.align ? spec.align : '>');
    } else if (spec.type == 'c') {
        percent_char(p, b, v, &spec);
    } else if (strchr("eEfFgG", spec.type)) {
        if (v.kind == JV_UNDEFINED)
            jv_fail_undefined(p->j, v);
        if (!jv_is_num(v))
            jinja_fail(p->j, "must be real number, not %s", jv_type(v));
        jformat_number(b, jv_is_int(v) ? jv_float((double)jv_as_int(v)) : v, &spec);
    } else {
        percent_int(p, b, v, &spec);
    }
}

static struct jv escape_each(struct jinja *j, struct jv values)
{
    if (values.kind == JV_STRING || values.kind == JV_UNDEFINED)
        return jformat_escape(j, values);
    if (values.kind != JV_TUPLE)
        return values;
    struct jv out = jv_tuple(j, values.l->n);
    for (size_t i = 0; i < values.l->n; i++)
        jv_push(j, out,
                values.l->v[i].kind == JV_STRING ? jformat_escape(j, values.l->v[i])
                                                 : values.l->v[i]);
    return out;
}

struct jv jformat_percent(struct jinja *j, struct jstr *pattern, struct jv values)
{
    struct percent p = {.j = j, .pattern = pattern, .values = values};
    struct jbuild b = jbuild_new(j, pattern->n);
    if (pattern->markup)
        p.values = escape_each(j, values);
    while (p.at < pattern->n) {
        const char *hit = memchr(pattern->p + p.at, '%', pattern->n - p.at);
        size_t stop = hit ? (size_t)(hit - pattern->p) : pattern->n;
        jbuild_sub(&b, pattern, p.at, stop - p.at);
        p.at = stop + 1;
        if (!hit)
            break;
        jinja_step(j, 1);
        percent_one(&p, &b);
    }
    size_t given = values.kind == JV_TUPLE ? values.l->n : 1;
    bool mapping = values.kind == JV_DICT || jv_is_seq(values) || values.kind == JV_RANGE ||
                   values.kind == JV_UNDEFINED;
    if (values.kind == JV_TUPLE ? p.next < given : !p.next && !p.mapped && !mapping)
        jinja_fail(j, "not all arguments converted during string formatting");
    struct jv r = jbuild_end(&b);
    r.s->markup = pattern->markup;
    return r;
}

/* str.format */

struct braces {
    struct jinja *j;
    const struct jargs *args;
    int64_t next; // automatic numbering; -1: the pattern numbers by hand
    bool automatic;
};

static struct jv braces_put(struct braces *f, struct jstr *pattern, int depth);

static bool all_digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)p[i]))
            return false;
    return n > 0 && n < 10;
}

static struct jv field_first(struct braces *f, const struct jstr *name, size_t n)
{
    int64_t i = -1;
    if (!n) {
        if (f->next < 0)
            jinja_fail(f->j, "cannot switch from manual field specification to automatic field "
                             "numbering");
        f->automatic = true;
        i = f->next++;
    } else if (all_digits(name->p, n)) {
        if (f->automatic)
            jinja_fail(f->j, "cannot switch from automatic field numbering to manual field "
                             "specification");
        f->next = -1;
        jnumber_parse_int(name->p, n, 10, &i);
    }
    if (i >= 0) {
        if ((uint64_t)i >= f->args->n)
            jinja_fail(f->j, "Replacement index %lld out of range for positional args tuple",
                       (long long)i);
        return f->args->v[i];
    }
    struct jv key = jstr_sub(f->j, name, 0, n);
    struct jv v = {.kind = JV_MISSING};
    if (f->args->kw)
        v = jdict_get(f->j, f->args->kw, key);
    if (v.kind == JV_MISSING)
        jinja_fail(f->j, "a format string names '%.*s', which was not given",
                   (int)(n < 100 ? n : 100), name->p);
    return v;
}

// "name.attribute[item]..."
static struct jv field_value(struct braces *f, const struct jstr *name)
{
    size_t at = 0;
    while (at < name->n && name->p[at] != '.' && name->p[at] != '[')
        at++;
    struct jv v = field_first(f, name, at);
    while (at < name->n) {
        bool item = name->p[at] == '[';
        if (!item && name->p[at] != '.')
            jinja_fail(f->j, "Only '.' or '[' may follow ']' in format field specifier");
        size_t begin = ++at;
        while (at < name->n && (item ? name->p[at] != ']' : !strchr(".[", name->p[at])))
            at++;
        if (at == begin || (item && at == name->n))
            jinja_fail(f->j, "Empty attribute in format string");
        struct jv key = jstr_sub(f->j, name, begin, at - begin);
        int64_t i;
        if (item && all_digits(key.s->p, key.s->n) && jnumber_parse_int(key.s->p, key.s->n, 10, &i))
            v = jeval_item(f->j, v, jv_int(i));
        else
            v = item ? jeval_item(f->j, v, key) : jeval_attribute(f->j, v, key);
        at += item;
    }
    return v;
}

static int64_t braces_number(struct jinja *j, const struct jstr *s, size_t *at)
{
    int64_t n = 0;
    while (*at < s->n && isdigit((unsigned char)s->p[*at]) && n <= JFORMAT_WIDTH)
        n = n * 10 + (s->p[(*at)++] - '0');
    if (n > JFORMAT_WIDTH)
        jinja_fail(j, "a width or precision of more than %d", JFORMAT_WIDTH);
    return n;
}

// [[fill]align][sign][#][0][width][grouping][.precision][type]
static struct jformat_spec braces_spec(struct jinja *j, const struct jstr *s)
{
    struct jformat_spec spec = {.precision = -1};
    size_t at = 0, second = 0;
    uint32_t first = s->n ? jstr_next(s, &second) : 0;
    if (second < s->n && strchr("<>=^", s->p[second])) {
        spec.fill = first;
        spec.align = s->p[second];
        at = second + 1;
    } else if (s->n && strchr("<>=^", s->p[0])) {
        spec.align = s->p[0];
        at = 1;
    }
    if (at < s->n && strchr("+- ", s->p[at]))
        spec.sign = s->p[at++];
    if (at < s->n && s->p[at] == '#') {
        spec.alternate = true;
        at++;
    }
    if (at < s->n && s->p[at] == '0') {
        spec.zero = true;
        at++;
    }
    spec.width = braces_number(j, s, &at);
    if (at < s->n && (s->p[at] == ',' || s->p[at] == '_'))
        spec.grouping = s->p[at++];
    if (at < s->n && s->p[at] == '.') {
        size_t dot = ++at;
        spec.precision = braces_number(j, s, &at);
        if (at == dot)
            jinja_fail(j, "Format specifier missing precision");
    }
    if (at < s->n)
        spec.type = s->p[at++];
    if (at < s->n)
        jinja_fail(j, "Invalid format specifier");
    return spec;
}

static void format_string(struct jbuild *b, struct jstr *s, struct jformat_spec *spec)
{
    if ((spec->type && spec->type != 's') || spec->sign || spec->align == '=' || spec->grouping ||
        spec->alternate)
        jinja_fail(b->j, "a format specifier that strings don't know");
    if (spec->precision >= 0 && (size_t)spec->precision < jstr_chars(b->j, s))
        s = jstr_sub(b->j, s, 0, jstr_offset(b->j, s, (size_t)spec->precision)).s;
    if (spec->zero && !spec->fill)
        spec->fill = '0';
    jformat_pad(b, s, spec, spec->align ? spec->align : '<');
}

static void format_value(struct jbuild *b, struct jv v, const struct jstr *text)
{
    if (v.kind == JV_STRING || !text->n) {
        struct jformat_spec spec = braces_spec(b->j, text);
        format_string(b, jrepr_str(b->j, v), &spec);
        return;
    }
    if (!jv_is_num(v))
        jinja_fail(b->j, "unsupported format string passed to %s.__format__", jv_type(v));
    struct jformat_spec spec = braces_spec(b->j, text);
    const char *types = v.kind == JV_FLOAT ? "eEfFgGn%" : "bcdeEfFgGnoxX%";
    if ((spec.type && !strchr(types, spec.type)) || spec.type == 'c')
        jinja_fail(b->j, "Unknown format code '%c' for object of type '%s'",
                   isprint((unsigned char)spec.type) ? spec.type : '?', jv_type(v));
    if (jv_is_int(v) && spec.precision >= 0 && (!spec.type || strchr("bdoxXn", spec.type)))
        jinja_fail(b->j, "Precision not allowed in integer format specifier");
    jformat_number(b, v, &spec);
}

// What is between the braces: name[!conversion][:spec].
static void put_field(struct braces *f, struct jbuild *b, struct jstr *field, int depth)
{
    size_t end = 0, bracket = 0;
    while (end < field->n && (bracket || (field->p[end] != '!' && field->p[end] != ':'))) {
        bracket += field->p[end] == '[';
        bracket -= bracket && field->p[end] == ']';
        end++;
    }
    struct jv v = field_value(f, jstr_sub(f->j, field, 0, end).s);
    if (end < field->n && field->p[end] == '!') {
        char how = end + 1 < field->n ? field->p[end + 1] : 0;
        struct jbuild text = jbuild_new(f->j, 0);
        if (how == 'r')
            jrepr_put(&text, v);
        else if (how == 'a')
            jrepr_put_ascii(&text, v);
        else if (how == 's')
            jrepr_put_str(&text, v);
        else
            jinja_fail(f->j, "Unknown conversion specifier in a format string");
        v = jbuild_end(&text);
        end += 2;
        if (end < field->n && field->p[end] != ':')
            jinja_fail(f->j, "expected ':' after conversion specifier");
    }
    size_t begin = end < field->n ? end + 1 : end;
    struct jstr *spec = jstr_sub(f->j, field, begin, field->n - begin).s;
    format_value(b, v, braces_put(f, spec, depth + 1).s);
}

static struct jv braces_put(struct braces *f, struct jstr *pattern, int depth)
{
    struct jbuild b = jbuild_new(f->j, pattern->n);
    if (depth > 2)
        jinja_fail(f->j, "Max string recursion exceeded");
    for (size_t at = 0; at < pattern->n;) {
        char c = pattern->p[at];
        jinja_step(f->j, 1);
        if (c != '{' && c != '}') {
            size_t n = 0;
            while (at + n < pattern->n && pattern->p[at + n] != '{' && pattern->p[at + n] != '}')
                n++;
            jbuild_sub(&b, pattern, at, n);
            at += n;
            continue;
        }
        if (depth == 0 && at + 1 < pattern->n && pattern->p[at + 1] == c) {
            jbuild_sub(&b, pattern, at, 1);
            at += 2;
            continue;
        }
        if (c == '}')
            jinja_fail(f->j, "Single '}' encountered in format string");
        size_t begin = ++at, open = 1;
        for (; at < pattern->n && open; at++) {
            open += pattern->p[at] == '{';
            open -= pattern->p[at] == '}';
        }
        if (open)
            jinja_fail(f->j, "expected '}' before end of string");
        put_field(f, &b, jstr_sub(f->j, pattern, begin, at - 1 - begin).s, depth);
    }
    return jbuild_end(&b);
}

struct jv jformat_braces(struct jinja *j, struct jstr *pattern, const struct jargs *a)
{
    struct braces f = {.j = j, .args = a};
    return braces_put(&f, pattern, 0);
}
