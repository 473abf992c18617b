// SPDX-License-Identifier: Apache-2.0
/*
 * Oniguruma's Ruby syntax (its doc/RE and doc/SYNTAX.md) in PCRE2's (pcre2pattern(3)). One pass; an
 * atom's start is kept so that {n,m}+ can be wrapped.
 */
#include "llm/regex.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "llm/regex_set.h"

#include <string.h>

struct reader {
    const char *p;
    size_t n, at;
    struct buf *out;
    size_t atom;                // where in out the last atom begins; NO_ATOM: nothing to repeat
    size_t groups[REGEX_DEPTH]; // where in out the open groups begin
    uint32_t depth;
    bool group_start; // nothing of the group or pattern was read yet
    struct err *err;
};

static const size_t NO_ATOM = (size_t)-1;

static int read_one(struct reader *r);

int regex_translate(const char *pattern, size_t n, struct buf *out, struct err *err)
{
    if (n > REGEX_MAX)
        return err_set(err, SV_E_TOO_LARGE, "%zu bytes; at most %d", n, REGEX_MAX);
    struct reader r = {pattern, n, 0, out, NO_ATOM, {0}, 0, true, err};
    while (r.at < n) {
        int rc = read_one(&r);
        if (rc < 0)
            return rc;
    }
    if (r.depth > 0)
        return err_set(err, SV_E_INVALID, "a group is not closed");
    return 0;
}

static int refuse(struct reader *r, const char *what)
{
    return err_set(r->err, SV_E_UNSUPPORTED, "%s at byte %zu is not supported", what, r->at);
}

static bool next_is(const struct reader *r, const char *text)
{
    size_t n = strlen(text);
    return r->n - r->at >= n && memcmp(r->p + r->at, text, n) == 0;
}

static void begin_atom(struct reader *r)
{
    r->atom = buf_len(r->out);
}

// Inline options: only where Oniguruma and PCRE2 agree on how far they reach.
static int read_options(struct reader *r)
{
    size_t at = r->at + 2;
    char text[16];
    size_t n = 0;
    while (at < r->n && n < sizeof text && strchr("imx-", r->p[at]))
        text[n++] = r->p[at] == 'm' ? 's' : r->p[at], at++; // Ruby's m is "dot matches newline"
    if (at >= r->n || n == 0 || n >= sizeof text || (r->p[at] != ':' && r->p[at] != ')'))
        return refuse(r, "this kind of group");
    bool alone = r->p[at] == ')';
    if (alone && !r->group_start)
        return refuse(r, "an option in the middle of a group");
    if (!alone) {
        if (r->depth == REGEX_DEPTH)
            return refuse(r, "nesting this deep");
        r->groups[r->depth++] = buf_len(r->out);
    }
    buf_puts(r->out, "(?");
    buf_put(r->out, text, n);
    buf_put(r->out, &r->p[at], 1);
    r->at = at + 1;
    r->atom = NO_ATOM;
    r->group_start = true;
    return 0;
}

static int open_group(struct reader *r)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (next_is(r, "(?#")) {
        const char *end = memchr(r->p + r->at, ')', r->n - r->at);
        if (!end)
            return refuse(r, "a comment without an end");
        r->at = (size_t)(end - r->p) + 1;
        return 0;
    }
    const char *kind = next_is(r, "(?") ? NULL : "(?:";
    size_t skip = kind ? 1 : 0;
    for (size_t i = 0; !kind && i < sizeof kinds / sizeof *kinds; i++)
        if (next_is(r, kinds[i])) {
            kind = kinds[i];
            skip = strlen(kind);
        }
    if (!kind)
        return read_options(r);
    if (r->depth == REGEX_DEPTH)
        return refuse(r, "nesting this deep");
    r->groups[r->depth++] = buf_len(r->out);
    buf_puts(r->out, kind);
    r->at += skip;
    r->atom = NO_ATOM;
    r->group_start = true;
    return 0;
}

static int close_group(struct reader *r)
{
    if (r->depth == 0)
        return err_set(r->err, SV_E_INVALID, "')' at byte %zu closes nothing", r->at);
    r->atom = r->groups[--r->depth];
    buf_puts(r->out, ")");
    r->at++;
    return 0;
}

// Puts `head` before the last atom.
static void wrap_atom(struct reader *r, const char *head)
{
    size_t n = strlen(head), len = buf_len(r->out) - r->atom;
    buf_reserve(r->out, n);
    buf_commit(r->out, n);
    char *at = buf_head(r->out) + r->atom;
    memmove(at + n, at, len);
    memcpy(at, head, n);
}

// {n} {n,} {,m} {n,m}; false: a brace that stands for itself.
static bool parse_braces(const struct reader *r, unsigned *lo, unsigned *hi, bool *open,
                         size_t *end)
{
    size_t i = r->at + 1;
    bool low = false, high = false, comma = false;
    for (*lo = 0; i < r->n && r->p[i] >= '0' && r->p[i] <= '9' && *lo < 100000; i++, low = true)
        *lo = *lo * 10 + (unsigned)(r->p[i] - '0');
    *hi = *lo;
    if (i < r->n && r->p[i] == ',') {
        comma = true;
        for (i++, *hi = 0; i < r->n && r->p[i] >= '0' && r->p[i] <= '9' && *hi < 100000;
             i++, high = true)
            *hi = *hi * 10 + (unsigned)(r->p[i] - '0');
    }
    *open = comma && !high;
    *end = i + 1;
    return i < r->n && r->p[i] == '}' && (low || high) && (*open || *lo <= *hi);
}

static int read_braces(struct reader *r)
{
    unsigned lo, hi;
    bool open;
    size_t end;
    if (!parse_braces(r, &lo, &hi, &open, &end)) {
        begin_atom(r);
        buf_puts(r->out, "\\{");
        r->at++;
        return 0;
    }
    if (r->atom == NO_ATOM)
        return refuse(r, "a repetition of nothing");
    char after = end < r->n ? r->p[end] : 0;
    if (after == '?' && lo == hi && !open)
        return refuse(r, "{n}?");
    if (after == '+')
        wrap_atom(r, "(?:");
    if (open)
        buf_printf(r->out, "{%u,}", lo);
    else
        buf_printf(r->out, "{%u,%u}", lo, hi);
    if (after == '+')
        buf_puts(r->out, ")+");
    else if (after == '?')
        buf_puts(r->out, "?");
    r->at = end + (after == '+' || after == '?');
    r->atom = NO_ATOM;
    return 0;
}

static int read_repeat(struct reader *r)
{
    if (r->atom == NO_ATOM)
        return refuse(r, "a repetition of nothing or of a repetition");
    buf_put(r->out, r->p + r->at++, 1);
    if (r->at < r->n && (r->p[r->at] == '?' || r->p[r->at] == '+'))
        buf_put(r->out, r->p + r->at++, 1);
    r->atom = NO_ATOM;
    return 0;
}

// Between a word's character and none (\b), or between two of a kind (\B).
static void put_boundary(struct buf *out, bool negated)
{
    buf_puts(out, "(?:(?<=");
    regex_set_put_word(out);
    buf_puts(out, negated ? ")(?=" : ")(?!");
    regex_set_put_word(out);
    buf_puts(out, ")|(?<!");
    regex_set_put_word(out);
    buf_puts(out, negated ? ")(?!" : ")(?=");
    regex_set_put_word(out);
    buf_puts(out, "))");
}

static int read_escape(struct reader *r)
{
    char c = r->at + 1 < r->n ? r->p[r->at + 1] : 0;
    begin_atom(r);
    switch (c) {
    case 'A':
    case 'z':
    case 'Z':
        buf_printf(r->out, "\\%c", c);
        break;
    case 'b':
    case 'B':
        put_boundary(r->out, c == 'B');
        break;
    case 'R':
        buf_puts(r->out, "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])");
        break;
    default: {
        struct regex_set set = {0};
        int rc = regex_set_escape_alone(&set, r->p, r->n, &r->at, r->err);
        if (rc == 0)
            regex_set_put(&set, r->out);
        regex_set_finish(&set);
        return rc;
    }
    }
    r->at += 2;
    return 0;
}

static int read_set(struct reader *r)
{
    struct regex_set set = {0};
    begin_atom(r);
    int rc = regex_set_read(&set, r->p, r->n, &r->at, 0, r->err);
    if (rc == 0)
        regex_set_put(&set, r->out);
    regex_set_finish(&set);
    return rc;
}

static int read_one(struct reader *r)
{
    char c = r->p[r->at];
    if (c == '(')
        return open_group(r);
    r->group_start = false;
    switch (c) {
    case ')':
        return close_group(r);
    case '[':
        return read_set(r);
    case '\\':
        return read_escape(r);
    case '{':
        return read_braces(r);
    case '*':
    case '+':
    case '?':
        return read_repeat(r);
    case '|':
    case '^':
    case '$':
        r->atom = NO_ATOM;
        break;
    case '.':
        begin_atom(r);
        break;
    default: {
        size_t len;
        unicode_get(r->p + r->at, r->n - r->at, &len);
        begin_atom(r);
        if (c == '}' || c == ']' || c == '#')
            buf_puts(r->out, "\\"); // literal in both, but not under (?x)
        buf_put(r->out, r->p + r->at, len);
        r->at += len;
        return 0;
    }
    }
    buf_put(r->out, &c, 1);
    r->at++;
    return 0;
}
