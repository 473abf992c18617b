// SPDX-License-Identifier: Apache-2.0
#include "llm/regex_set.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <ctype.h>
#include <string.h>

void regex_set_finish(struct regex_set *s)
{
    buf_finish(&s->items);
    buf_finish(&s->outer);
    buf_finish(&s->both);
}

static void put_category(struct buf *out, const char *g, size_t len)
{
    size_t n;
    const struct unicode_range *r = unicode_new_ranges(&n);
    buf_printf(out, "\\p{%.*s}", (int)len, g);
    for (size_t i = 0; i < n; i++)
        if (memcmp(r[i].category, g, len) == 0)
            buf_printf(out, "\\x{%x}-\\x{%x}", r[i].lo, r[i].hi);
}

static void put_named(struct buf *out, const struct regex_class *c)
{
    for (const char *g = c->of; *g;) {
        size_t len = strcspn(g, " ");
        put_category(out, g, len);
        g += len;
        g += *g == ' ';
    }
    buf_puts(out, c->more);
}

static void add_items(struct regex_set *s, const char *items, size_t n, bool negated)
{
    if (!negated) {
        buf_put(&s->items, items, n);
        return;
    }
    s->nested |= buf_len(&s->outer) > 0;
    buf_puts(&s->outer, "|[^");
    buf_put(&s->outer, items, n);
    buf_puts(&s->outer, "]");
}

static bool is_category(const char *name)
{
    static const char all[] = "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm "
                              "Sc Sk So Z Zs Zl Zp Cc Cf Co";
    size_t n = strlen(name);
    for (const char *g = all; *g; g += strcspn(g, " "), g += *g == ' ')
        if (strcspn(g, " ") == n && strncasecmp(g, name, n) == 0)
            return true;
    return false;
}

// The class called name[0, n) of \p{...} or [[:...:]]; case, space, '-' and '_' don't count.
static int put_class(struct buf *out, const char *name, size_t n, struct err *err)
{
    char key[32];
    size_t len = 0;
    for (size_t i = 0; i < n && len < sizeof key - 1; i++)
        if (name[i] != ' ' && name[i] != '-' && name[i] != '_')
            key[len++] = (char)tolower((unsigned char)name[i]);
    key[len] = 0;
    if (is_category(key)) {
        key[0] = (char)toupper((unsigned char)key[0]);
        put_category(out, key, len);
        return 0;
    }
    const struct regex_class *class = regex_class_find(key);
    if (class) {
        put_named(out, class);
        return 0;
    }
    return err_set(err, SV_E_UNSUPPORTED,
                   "the class '%.*s' is not known; general categories, POSIX names and common "
                   "scripts are",
                   (int)(n < 60 ? n : 60), name);
}

static int add_class(struct regex_set *s, const char *name, size_t n, bool negated, struct err *err)
{
    struct buf items = {0};
    int rc = put_class(&items, name, n, err);
    if (rc == 0)
        add_items(s, buf_head(&items), buf_len(&items), negated);
    buf_finish(&items);
    return rc;
}

// \p{X} \P{X} \p{^X}
static int read_property(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err)
{
    bool negated = p[*at + 1] == 'P';
    size_t begin = *at + 3;
    const char *end = begin < n ? memchr(p + begin, '}', n - begin) : NULL;
    if (!end || p[*at + 2] != '{')
        return err_set(err, SV_E_INVALID, "\\p at byte %zu has no {name}", *at);
    if (p[begin] == '^') {
        negated = !negated;
        begin++;
    }
    *at = (size_t)(end - p) + 1;
    return add_class(s, p + begin, (size_t)(end - p) - begin, negated, err);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// \xHH \x{H...} \uHHHH
static int read_hex(const char *p, size_t n, size_t *at, uint32_t *c, struct err *err)
{
    size_t i = *at + 2;
    bool braces = i < n && p[i] == '{' && p[*at + 1] == 'x';
    size_t most = braces ? 8 : p[*at + 1] == 'u' ? 4 : 2, digits = 0;
    *c = 0;
    for (i += braces; i < n && digits < most && hex(p[i]) >= 0; i++, digits++)
        *c = *c << 4 | (uint32_t)hex(p[i]);
    if (digits == 0 || (braces && (i >= n || p[i] != '}')) || *c > 0x10ffff ||
        (*c >= 0xd800 && *c < 0xe000))
        return err_set(err, SV_E_INVALID, "no character by this number at byte %zu", *at);
    *at = i + braces;
    return 0;
}

// The one character that the escape at p[*at] stands for; 1: it stands for a class.
static int read_char(const char *p, size_t n, size_t *at, uint32_t *c, struct err *err)
{
    static const char from[] = "tnrfvae", to[] = "\t\n\r\f\v\a\x1b";
    if (*at + 1 >= n)
        return err_set(err, SV_E_INVALID, "the pattern ends in a backslash");
    char e = p[*at + 1];
    if (strchr("pPsSdDwWhH", e))
        return 1;
    if (e == 'x' || e == 'u')
        return read_hex(p, n, at, c, err);
    const char *control = e ? strchr(from, e) : NULL;
    size_t len = 1;
    if (control)
        *c = (unsigned char)to[control - from];
    else if ((unsigned char)e < 0x80 && isalnum((unsigned char)e))
        return err_set(err, SV_E_UNSUPPORTED, "\\%c at byte %zu is not supported", e, *at);
    else
        *c = unicode_get(p + *at + 1, n - *at - 1, &len);
    *at += 1 + len;
    return 0;
}

static int read_shorthand(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err)
{
    char e = p[*at + 1];
    if (e == 'p' || e == 'P')
        return read_property(s, p, n, at, err);
    bool negated = isupper((unsigned char)e);
    const char *name = e == 's' || e == 'S'   ? "space"
                       : e == 'd' || e == 'D' ? "digit"
                       : e == 'w' || e == 'W' ? "word"
                                              : "xdigit";
    *at += 2;
    return add_class(s, name, strlen(name), negated, err);
}

int regex_set_escape_alone(struct regex_set *s, const char *p, size_t n, size_t *at,
                           struct err *err)
{
    struct buf items = {0};
    char e = *at + 1 < n ? p[*at + 1] : 0;
    if (e != 'w' && e != 'W')
        return regex_set_escape(s, p, n, at, err);
    put_named(&items, regex_class_find("word"));
    buf_puts(&items, REGEX_WORD_EXTRA);
    add_items(s, buf_head(&items), buf_len(&items), e == 'W');
    buf_finish(&items);
    *at += 2;
    return 0;
}

void regex_set_put_word(struct buf *out)
{
    buf_puts(out, "[");
    put_named(out, regex_class_find("word"));
    buf_puts(out, REGEX_WORD_EXTRA "]");
}

static void add_range(struct regex_set *s, uint32_t lo, uint32_t hi)
{
    buf_printf(&s->items, lo == hi ? "\\x{%x}" : "\\x{%x}-\\x{%x}", lo, hi);
}

int regex_set_escape(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err)
{
    uint32_t c = 0;
    int rc = read_char(p, n, at, &c, err);
    if (rc == 1)
        return read_shorthand(s, p, n, at, err);
    if (rc == 0)
        add_range(s, c, c);
    return rc;
}

// [:name:] at p[*at]; 1: it is none.
static int read_posix(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err)
{
    size_t begin = *at + 2, end;
    if (begin >= n || p[*at + 1] != ':')
        return 1;
    bool negated = p[begin] == '^';
    begin += negated;
    for (end = begin; end < n && isalpha((unsigned char)p[end]);)
        end++;
    if (end + 1 >= n || p[end] != ':' || p[end + 1] != ']')
        return 1;
    *at = end + 2;
    return add_class(s, p + begin, end - begin, negated, err);
}

// What was read so far becomes a look-ahead, and the set begins anew: the operand before &&.
static void begin_operand(struct regex_set *s)
{
    struct regex_set left = {.items = s->items, .outer = s->outer, .nested = s->nested};
    buf_puts(&s->both, "(?=");
    regex_set_put(&left, &s->both);
    buf_puts(&s->both, ")");
    buf_clear(&s->items);
    buf_clear(&s->outer);
    s->nested = false;
}

static int read_nested(struct regex_set *s, const char *p, size_t n, size_t *at, unsigned depth,
                       struct err *err)
{
    int rc = read_posix(s, p, n, at, err);
    if (rc <= 0)
        return rc;
    struct regex_set inner = {0};
    rc = regex_set_read(&inner, p, n, at, depth + 1, err);
    if (rc == 0) {
        s->nested = true;
        buf_puts(&s->outer, "|");
        regex_set_put(&inner, &s->outer);
    }
    regex_set_finish(&inner);
    return rc;
}

// A character or a range of two.
static int read_range(struct regex_set *s, const char *p, size_t n, size_t *at, struct err *err)
{
    uint32_t c[2] = {0};
    for (int i = 0; i < 2; i++) {
        size_t len = 0;
        int rc = 0;
        if (p[*at] == '\\')
            rc = read_char(p, n, at, &c[i], err);
        else
            c[i] = unicode_get(p + *at, n - *at, &len);
        if (rc < 0)
            return rc;
        if (rc == 1 && i == 0)
            return read_shorthand(s, p, n, at, err);
        if (rc == 1)
            return err_set(err, SV_E_INVALID, "a range ends in a class at byte %zu", *at);
        *at += len;
        bool range = i == 0 && *at + 1 < n && p[*at] == '-' && p[*at + 1] != ']';
        if (i == 0 && !range) {
            add_range(s, c[0], c[0]);
            return 0;
        }
        *at += i == 0;
    }
    if (c[0] > c[1])
        return err_set(err, SV_E_INVALID, "an empty range before byte %zu", *at);
    add_range(s, c[0], c[1]);
    return 0;
}

int regex_set_read(struct regex_set *s, const char *p, size_t n, size_t *at, unsigned depth,
                   struct err *err)
{
    if (depth >= REGEX_SET_DEPTH)
        return err_set(err, SV_E_UNSUPPORTED, "sets nested more than %d deep", REGEX_SET_DEPTH);
    ++*at;
    s->negated = *at < n && p[*at] == '^';
    *at += s->negated;
    for (bool first = true; *at < n; first = false) {
        int rc;
        if (p[*at] == ']' && !first) {
            ++*at;
            return 0;
        }
        if (p[*at] == '[') {
            rc = read_nested(s, p, n, at, depth, err);
        } else if (p[*at] == '&' && *at + 1 < n && p[*at + 1] == '&') {
            begin_operand(s);
            *at += 2;
            rc = 0;
        } else {
            rc = read_range(s, p, n, at, err);
        }
        if (rc < 0)
            return rc;
    }
    return err_set(err, SV_E_INVALID, "a set has no ']'");
}

// The union of items and outer alternatives.
static void put_union(const struct regex_set *s, struct buf *out)
{
    size_t items = buf_len(&s->items), outer = buf_len(&s->outer);
    if (items && outer)
        buf_puts(out, "(?:");
    if (items) {
        buf_puts(out, "[");
        buf_put(out, buf_head(&s->items), items);
        buf_puts(out, "]");
        buf_put(out, buf_head(&s->outer), outer);
    } else if (outer) {
        buf_puts(out, "(?:");
        buf_put(out, buf_head(&s->outer) + 1, outer - 1);
    }
    if (outer)
        buf_puts(out, ")");
    if (!items && !outer)
        buf_puts(out, "(?!)");
}

// One pair of brackets, which PCRE2 repeats without a copy and matches fastest; false: it takes
// more.
static bool put_brackets(const struct regex_set *s, struct buf *out)
{
    size_t items = buf_len(&s->items), outer = buf_len(&s->outer);
    if (buf_len(&s->both) || s->nested || (items > 0) == (outer > 0))
        return false;
    if (items > 0) {
        buf_puts(out, s->negated ? "[^" : "[");
        buf_put(out, buf_head(&s->items), items);
        buf_puts(out, "]");
    } else { // "|[^...]"
        buf_puts(out, s->negated ? "[" : "[^");
        buf_put(out, buf_head(&s->outer) + 3, outer - 3);
    }
    return true;
}

void regex_set_put(const struct regex_set *s, struct buf *out)
{
    if (put_brackets(s, out))
        return;
    buf_puts(out, s->negated ? "(?:(?!" : "(?:");
    buf_put(out, buf_head(&s->both), buf_len(&s->both));
    put_union(s, out);
    buf_puts(out, s->negated ? ")(?s:.))" : ")");
}
