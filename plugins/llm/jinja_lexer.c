// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_lexer.h"

#include "llm/jinja_number.h"
#include "llm/jinja_string.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { BRACKETS_MAX = 1000 };

struct lexer {
    struct jinja *j;
    struct jtokens *out;
    const char *p; // the source, with \n only
    size_t n, at;
    bool line_starting; // the last match ended with a newline
    char closing[BRACKETS_MAX];
    size_t n_closing;
};

static void lex_expression(struct lexer *x, bool block);

static struct jtoken *add(struct lexer *x, enum jinja_token kind)
{
    struct jtokens *out = x->out;
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 64;
        struct jtoken *v = jinja_array(x->j, cap, sizeof *v);
        if (out->n)
            memcpy(v, out->v, out->n * sizeof *v);
        out->v = v;
        out->cap = cap;
    }
    struct jtoken *t = &out->v[out->n++];
    *t = (struct jtoken){.kind = kind, .line = x->j->line};
    return t;
}

// Moves on to `end`, counting lines.
static void move(struct lexer *x, size_t end)
{
    for (; x->at < end; x->at++)
        x->j->line += x->p[x->at] == '\n';
    x->line_starting = end > 0 && x->p[end - 1] == '\n';
}

static struct jstr whole(const struct lexer *x)
{
    return (struct jstr){.p = x->p, .n = x->n};
}

static size_t skip_space(const struct lexer *x, size_t at)
{
    struct jstr s = whole(x);
    size_t end = x->n;
    jstr_strip(&s, &at, &end);
    return at;
}

static bool starts(const struct lexer *x, size_t at, const char *what)
{
    size_t n = strlen(what);
    return at <= x->n && x->n - at >= n && memcmp(x->p + at, what, n) == 0;
}

// The end of a tag that closes with `close` at `at`: behind "-%}" and white space, "+%}" (where
// plus), or "%}" and (where trim) a newline. 0: no such end here.
static size_t tag_end(const struct lexer *x, size_t at, const char *close, bool plus, bool trim)
{
    if (starts(x, at, "-") && starts(x, at + 1, close))
        return skip_space(x, at + 3);
    if (plus && starts(x, at, "+") && starts(x, at + 1, close))
        return at + 3;
    if (!starts(x, at, close))
        return 0;
    return at + 2 + (trim && starts(x, at + 2, "\n"));
}

// Text before a tag: what white space control leaves of [begin, end).
static void put_data(struct lexer *x, size_t begin, size_t end, char sign, bool lstrip)
{
    struct jstr s = whole(x);
    size_t stop = end;
    if (sign == '-') {
        size_t from = begin;
        jstr_strip(&s, &from, &stop);
        stop = from < stop ? stop : begin;
    } else if (lstrip && sign != '+') {
        const char *newline = memrchr(x->p + begin, '\n', end - begin);
        size_t line = newline ? (size_t)(newline - x->p) + 1 : begin;
        if ((newline || x->line_starting) && line < end) {
            size_t from = line;
            size_t to = end;
            jstr_strip(&s, &from, &to);
            stop = from == end ? line : end;
        }
    }
    if (stop <= begin)
        return;
    struct jv text = jstr_new(x->j, x->p + begin, stop - begin, true);
    jstr_freeze(x->j, text.s);
    add(x, JTOK_DATA)->value = text;
}

static void lex_comment(struct lexer *x)
{
    for (size_t at = x->at; at < x->n; at++) {
        const char *hash = memchr(x->p + at, '#', x->n - at);
        if (!hash)
            break;
        size_t close = (size_t)(hash - x->p);
        bool signed_end = close > at && (x->p[close - 1] == '-' || x->p[close - 1] == '+');
        at = close - (signed_end && close > x->at);
        size_t end = tag_end(x, at, "#}", true, true);
        if (end) {
            move(x, end);
            return;
        }
        at = close;
    }
    if (x->at < x->n) // jinja2 lets a comment begin at the very end
        jinja_fail(x->j, "Missing end of comment tag");
}

// The end of "{%- raw -%}" or of "{%- endraw %}" at `at`; 0: it is something else.
static size_t raw_tag(const struct lexer *x, size_t at, const char *word, bool ending)
{
    if (!starts(x, at, "{%"))
        return 0;
    at += 2;
    at += starts(x, at, "-") || starts(x, at, "+");
    at = skip_space(x, at);
    if (!starts(x, at, word))
        return 0;
    at = skip_space(x, at + strlen(word));
    return tag_end(x, at, "%}", ending, ending);
}

static void lex_raw(struct lexer *x)
{
    for (size_t at = x->at; at < x->n; at++) {
        const char *brace = memchr(x->p + at, '{', x->n - at);
        if (!brace)
            break;
        at = (size_t)(brace - x->p);
        size_t end = raw_tag(x, at, "endraw", true);
        if (!end)
            continue;
        put_data(x, x->at, at, x->p[at + 2], true);
        move(x, end);
        return;
    }
    if (x->at < x->n)
        jinja_fail(x->j, "Missing end of raw directive");
}

// Text up to the next tag, and the tag.
static void lex_root(struct lexer *x)
{
    size_t open = x->at;
    for (;; open++) {
        const char *brace = memchr(x->p + open, '{', x->n - open);
        if (!brace) {
            put_data(x, x->at, x->n, '+', false);
            move(x, x->n);
            return;
        }
        open = (size_t)(brace - x->p);
        char next = open + 1 < x->n ? x->p[open + 1] : 0;
        if (next == '{' || next == '%' || next == '#')
            break;
    }
    char kind = x->p[open + 1], sign = open + 2 < x->n ? x->p[open + 2] : 0;
    size_t raw = raw_tag(x, open, "raw", false);
    put_data(x, x->at, open, sign, kind != '{');
    if (raw) {
        move(x, raw);
        lex_raw(x);
        return;
    }
    move(x, open + 2 + (sign == '-' || sign == '+'));
    if (kind == '#') {
        lex_comment(x);
        return;
    }
    add(x, kind == '{' ? JTOK_VARIABLE_BEGIN : JTOK_BLOCK_BEGIN);
    lex_expression(x, kind == '%');
}

static bool name_char(uint32_t c, bool first)
{
    if (c < 0x80)
        return c == '_' || isalpha((int)c) || (!first && isdigit((int)c));
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
        return true;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
        return !first;
    default:
        return false;
    }
}

static bool lex_name(struct lexer *x)
{
    struct jstr s = whole(x);
    size_t end = x->at;
    while (end < x->n) {
        size_t next = end;
        if (!name_char(jstr_next(&s, &next), end == x->at))
            break;
        end = next;
    }
    if (end == x->at)
        return false;
    struct jv name = jstr_new(x->j, x->p + x->at, end - x->at, true);
    jstr_freeze(x->j, name.s);
    add(x, JTOK_NAME)->value = name;
    move(x, end);
    return true;
}

// Digits with single '_' between them.
static size_t digits(const struct lexer *x, size_t at, const char *allowed)
{
    size_t begin = at;
    while (at < x->n) {
        if (x->p[at] == '_' && at > begin && at + 1 < x->n && x->p[at - 1] != '_' &&
            strchr(allowed, x->p[at + 1]))
            at++;
        if (!x->p[at] || !strchr(allowed, x->p[at]))
            break;
        at++;
    }
    return at;
}

static size_t float_end(const struct lexer *x)
{
    static const char ten[] = "0123456789";
    if (x->at && x->p[x->at - 1] == '.')
        return 0;
    size_t at = digits(x, x->at, ten), end = 0;
    if (starts(x, at, ".") && digits(x, at + 1, ten) > at + 1)
        end = at = digits(x, at + 1, ten);
    if (starts(x, at, "e") || starts(x, at, "E")) {
        size_t power = at + 1;
        power += starts(x, power, "+") || starts(x, power, "-");
        if (digits(x, power, ten) > power)
            end = digits(x, power, ten);
    }
    return end;
}

static size_t int_end(const struct lexer *x, int *base)
{
    static const struct {
        const char *prefix, *upper, *digits;
        int base;
    } kinds[] = {{"0b", "0B", "01", 2},
                 {"0o", "0O", "01234567", 8},
                 {"0x", "0X", "0123456789abcdefABCDEF", 16}};
    for (size_t i = 0; i < 3; i++) {
        if (!starts(x, x->at, kinds[i].prefix) && !starts(x, x->at, kinds[i].upper))
            continue;
        size_t from = x->at + 2;
        from += starts(x, from, "_");
        size_t end = digits(x, from, kinds[i].digits);
        *base = kinds[i].base;
        if (end > from)
            return end;
    }
    *base = 10;
    return digits(x, x->at, x->p[x->at] == '0' ? "0" : "0123456789");
}

static void lex_number(struct lexer *x)
{
    size_t end = float_end(x);
    struct jtoken *t = add(x, JTOK_NUMBER);
    if (end) {
        double d;
        if (!jnumber_parse_float(x->p + x->at, end - x->at, &d))
            jinja_fail(x->j, "a number of %zu digits is too long", end - x->at);
        t->value = jv_float(d);
    } else {
        int base;
        int64_t i;
        end = int_end(x, &base);
        if (jnumber_parse_int(x->p + x->at, end - x->at, base, &i)) {
            t->value = jv_int(i);
        } else {
            if (base != 10)
                jinja_fail(x->j, "a number is beyond 64 bits");
            t->value = jstr_new(x->j, x->p + x->at, end - x->at, false);
            t->value.kind = JV_BIG;
        }
    }
    move(x, end);
}

static uint32_t hex_escape(struct lexer *x, const struct jstr *s, size_t *at, size_t n)
{
    uint32_t c = 0;
    for (size_t i = 0; i < n; i++, ++*at) {
        if (*at >= s->n || !isxdigit((unsigned char)s->p[*at]))
            jinja_fail(x->j, "a string has a truncated \\%c escape",
                       n == 2   ? 'x'
                       : n == 4 ? 'u'
                                : 'U');
        char one[2] = {s->p[*at], 0};
        c = c << 4 | (uint32_t)strtoul(one, NULL, 16);
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        jinja_fail(x->j, "a string has an escape that is no character");
    return c;
}

// What a backslash stands for; *at is behind it.
static void unescape(struct lexer *x, struct jbuild *b, const struct jstr *s, size_t *at)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    char c = s->p[*at];
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        jbuild_put(b, &to[known - from], 1, true);
        ++*at;
    } else if (c == '\n') {
        ++*at;
    } else if (c == 'x' || c == 'u' || c == 'U') {
        ++*at;
        jbuild_char(b, hex_escape(x, s, at, c == 'x' ? 2 : c == 'u' ? 4 : 8), true);
    } else if (c >= '0' && c <= '7') {
        uint32_t octal = 0;
        for (int i = 0; i < 3 && *at < s->n && s->p[*at] >= '0' && s->p[*at] <= '7'; i++)
            octal = octal * 8 + (uint32_t)(s->p[(*at)++] - '0');
        jbuild_char(b, octal, true);
    } else if (c == 'N') {
        jinja_fail(x->j, "\\N{...} escapes are not supported; write the character");
    } else if ((unsigned char)c >= 0x80) { // as Python's way through ASCII does it
        char text[16];
        uint32_t wide = jstr_next(s, at);
        snprintf(text, sizeof text,
                 wide < 0x100     ? "\\x%02x"
                 : wide < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                 wide);
        jbuild_put(b, text, strlen(text), true);
    } else {
        jbuild_put(b, "\\", 1, true);
    }
}

static void lex_string(struct lexer *x)
{
    char quote = x->p[x->at];
    size_t end = x->at + 1;
    bool escapes = false;
    for (; end < x->n && x->p[end] != quote; end++) {
        escapes |= x->p[end] == '\\';
        end += x->p[end] == '\\';
    }
    if (end >= x->n)
        jinja_fail(x->j, "a string that begins with %c has no end", quote);
    struct jtoken *t = add(x, JTOK_STRING);
    struct jv raw = jstr_new(x->j, x->p + x->at + 1, end - x->at - 1, true);
    t->value = raw;
    if (escapes) {
        struct jbuild b = jbuild_new(x->j, raw.s->n);
        for (size_t at = 0; at < raw.s->n;) {
            const char *slash = memchr(raw.s->p + at, '\\', raw.s->n - at);
            size_t stop = slash ? (size_t)(slash - raw.s->p) : raw.s->n;
            jbuild_sub(&b, raw.s, at, stop - at);
            at = stop + 1;
            if (slash)
                unescape(x, &b, raw.s, &at);
        }
        t->value = jbuild_end(&b);
    }
    jstr_freeze(x->j, t->value.s);
    move(x, end + 1);
}

static void balance(struct lexer *x, char c)
{
    const char *open = strchr("([{", c);
    if (open) {
        if (x->n_closing == BRACKETS_MAX)
            jinja_fail(x->j, "more than %d brackets in each other", BRACKETS_MAX);
        x->closing[x->n_closing++] = ")]}"[open - "([{"];
        return;
    }
    if (!strchr(")]}", c))
        return;
    if (!x->n_closing)
        jinja_fail(x->j, "unexpected '%c'", c);
    char expected = x->closing[--x->n_closing];
    if (expected != c)
        jinja_fail(x->j, "unexpected '%c', expected '%c'", c, expected);
}

static void lex_operator(struct lexer *x)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two && !n; i++)
        n = starts(x, x->at, two[i]) ? 2 : 0;
    char c = x->p[x->at];
    if (!n && (!c || !strchr("+-/*%~[](){}><=.:|,;", c))) {
        struct jstr s = whole(x);
        size_t end = x->at;
        jstr_next(&s, &end);
        jinja_fail(x->j, "unexpected char '%.*s'", (int)(end - x->at), x->p + x->at);
    }
    n = n ? n : 1;
    if (n == 1)
        balance(x, c);
    memcpy(add(x, JTOK_OPERATOR)->op, x->p + x->at, n);
    move(x, x->at + n);
}

static void lex_expression(struct lexer *x, bool block)
{
    x->n_closing = 0;
    while (x->at < x->n) {
        size_t end = 0;
        if (!x->n_closing)
            end =
                block ? tag_end(x, x->at, "%}", true, true) : tag_end(x, x->at, "}}", false, false);
        if (end) {
            add(x, block ? JTOK_BLOCK_END : JTOK_VARIABLE_END);
            move(x, end);
            return;
        }
        size_t space = skip_space(x, x->at);
        char c = x->p[x->at];
        if (space > x->at)
            move(x, space);
        else if (isdigit((unsigned char)c))
            lex_number(x);
        else if (c == '\'' || c == '"')
            lex_string(x);
        else if (!lex_name(x))
            lex_operator(x);
    }
}

// Newlines become \n; the last one goes.
static void normalise(struct lexer *x, const char *source, size_t n)
{
    char *copy = jinja_alloc(x->j, n + 1);
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
            continue;
        copy[out++] = source[i] == '\r' ? '\n' : source[i];
    }
    x->p = copy;
    x->n = out - (out && copy[out - 1] == '\n');
}

void jlexer_run(struct jinja *j, const char *source, size_t n, struct jtokens *ret)
{
    struct lexer x = {.j = j, .out = ret, .line_starting = true};
    *ret = (struct jtokens){0};
    j->line = 1;
    normalise(&x, source, n);
    while (x.at < x.n)
        lex_root(&x);
    add(&x, JTOK_EOF);
}
