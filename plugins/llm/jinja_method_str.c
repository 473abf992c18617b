// SPDX-License-Identifier: Apache-2.0
// The methods of str.
#include "llm/jinja_method.h"

#include "llm/jinja_call.h"
#include "llm/jinja_case.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_format.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_operator.h"
#include "llm/jinja_repr.h"

#include "llm/jinja_string.h"

enum { WIDTH_MAX = 1 << 20 };

static void positional(struct jinja *j, const char *what, const struct jargs *a, size_t least,
                       size_t most)
{
    jcall_no_keywords(j, what, a);
    if (a->n < least || a->n > most)
        jinja_fail(j, "%s() takes %zu to %zu arguments, %zu given", what, least, most, a->n);
}

static struct jstr *string_arg(struct jinja *j, const char *what, struct jv v)
{
    if (v.kind == JV_UNDEFINED)
        jinja_fail(j, "%s() wants a string, not Undefined", what);
    if (v.kind != JV_STRING)
        jinja_fail(j, "%s() wants a string, not %s", what, jv_type(v));
    return v.s;
}

static bool contains_char(const struct jstr *set, uint32_t c)
{
    for (size_t at = 0; at < set->n;)
        if (jstr_next(set, &at) == c)
            return true;
    return false;
}

static struct jv strip(struct jinja *j, struct jstr *s, const struct jargs *a, const char *what,
                       bool left, bool right)
{
    size_t from = 0, to = s->n;
    positional(j, what, a, 0, 1);
    const struct jstr *set = NULL;
    if (a->n && a->v[0].kind != JV_NONE)
        set = string_arg(j, what, a->v[0]);
    for (size_t at = 0; left && at < to;) {
        uint32_t c = jstr_next(s, &at);
        if (set ? !contains_char(set, c) : !jstr_space(c))
            break;
        from = at;
        jinja_step_bytes(j, set ? set->n + 8 : 8);
    }
    for (size_t at = to; right && at > from;) {
        uint32_t c = jstr_prev(s, &at);
        if (set ? !contains_char(set, c) : !jstr_space(c))
            break;
        to = at;
        jinja_step_bytes(j, set ? set->n + 8 : 8);
    }
    return jstr_sub(j, s, from, to - from);
}

static struct jv m_strip(struct jinja *j, struct jv self, const struct jargs *a)
{
    return strip(j, self.s, a, "strip", true, true);
}

static struct jv m_lstrip(struct jinja *j, struct jv self, const struct jargs *a)
{
    return strip(j, self.s, a, "lstrip", true, false);
}

static struct jv m_rstrip(struct jinja *j, struct jv self, const struct jargs *a)
{
    return strip(j, self.s, a, "rstrip", false, true);
}

static struct jv mapped(struct jinja *j, struct jv self, const struct jargs *a, const char *what,
                        enum jcase how)
{
    positional(j, what, a, 0, 0);
    return jcase_map(j, self.s, how);
}

static struct jv m_upper(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "upper", JCASE_UPPER);
}

static struct jv m_lower(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "lower", JCASE_LOWER);
}

static struct jv m_title(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "title", JCASE_TITLE);
}

static struct jv m_capitalize(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "capitalize", JCASE_CAPITALIZE);
}

static struct jv m_casefold(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "casefold", JCASE_FOLD);
}

static struct jv m_swapcase(struct jinja *j, struct jv self, const struct jargs *a)
{
    return mapped(j, self, a, "swapcase", JCASE_SWAP);
}

// Arguments i and i+1 as a slice of s, in bytes. False: it begins behind the end.
static bool range_args(struct jinja *j, struct jstr *s, const struct jargs *a, size_t i,
                       size_t *from, size_t *to)
{
    int64_t n = (int64_t)jstr_chars(j, s), begin = 0, end = n;
    if (a->n > i && a->v[i].kind != JV_NONE)
        begin = joperator_index(j, a->v[i]);
    if (a->n > i + 1 && a->v[i + 1].kind != JV_NONE)
        end = joperator_index(j, a->v[i + 1]);
    begin = begin < -n ? 0 : begin < 0 ? begin + n : begin;
    end = end < -n ? 0 : end < 0 ? end + n : end > n ? n : end;
    if (begin > end || begin > n)
        return false;
    *from = jstr_offset(j, s, (size_t)begin);
    *to = jstr_offset(j, s, (size_t)end);
    return true;
}

static bool affix(const struct jstr *part, const struct jstr *what, bool at_end)
{
    return at_end ? jstr_ends(part, what) : jstr_starts(part, what);
}

static struct jv has_affix(struct jinja *j, struct jv self, const struct jargs *a, const char *name,
                           bool at_end)
{
    size_t from, to;
    positional(j, name, a, 1, 3);
    bool within = range_args(j, self.s, a, 1, &from, &to);
    struct jstr part = {.p = within ? self.s->p + from : "", .n = within ? to - from : 0};
    if (a->v[0].kind != JV_TUPLE) {
        const struct jstr *what = string_arg(j, name, a->v[0]);
        jinja_step_bytes(j, what->n);
        return jv_bool(within && affix(&part, what, at_end));
    }
    for (size_t i = 0; i < a->v[0].l->n; i++) {
        const struct jstr *what = string_arg(j, name, a->v[0].l->v[i]);
        jinja_step_bytes(j, what->n + JINJA_STEP_BYTES);
        if (within && affix(&part, what, at_end))
            return jv_bool(true);
    }
    return jv_bool(false);
}

static struct jv m_startswith(struct jinja *j, struct jv self, const struct jargs *a)
{
    return has_affix(j, self, a, "startswith", false);
}

static struct jv m_endswith(struct jinja *j, struct jv self, const struct jargs *a)
{
    return has_affix(j, self, a, "endswith", true);
}

// Characters before byte `at`.
static int64_t chars_before(struct jinja *j, const struct jstr *s, size_t at)
{
    struct jv head = jstr_sub(j, s, 0, at);
    return (int64_t)jstr_chars(j, head.s);
}

static int64_t search(struct jinja *j, struct jv self, const struct jargs *a, const char *name,
                      bool last)
{
    size_t from, to;
    positional(j, name, a, 1, 3);
    const struct jstr *what = string_arg(j, name, a->v[0]);
    if (!range_args(j, self.s, a, 1, &from, &to))
        return -1;
    struct jstr head = {.p = self.s->p, .n = to};
    size_t at = last ? jstr_rfind(j, self.s, to, what) : jstr_find(j, &head, from, what);
    return at == SIZE_MAX || at < from ? -1 : chars_before(j, self.s, at);
}

static struct jv m_find(struct jinja *j, struct jv self, const struct jargs *a)
{
    return jv_int(search(j, self, a, "find", false));
}

static struct jv m_rfind(struct jinja *j, struct jv self, const struct jargs *a)
{
    return jv_int(search(j, self, a, "rfind", true));
}

static struct jv m_index(struct jinja *j, struct jv self, const struct jargs *a)
{
    int64_t at = search(j, self, a, "index", false);
    if (at < 0)
        jinja_fail(j, "substring not found");
    return jv_int(at);
}

static struct jv m_rindex(struct jinja *j, struct jv self, const struct jargs *a)
{
    int64_t at = search(j, self, a, "rindex", true);
    if (at < 0)
        jinja_fail(j, "substring not found");
    return jv_int(at);
}

static struct jv m_count(struct jinja *j, struct jv self, const struct jargs *a)
{
    size_t from, to;
    int64_t n = 0;
    positional(j, "count", a, 1, 3);
    const struct jstr *what = string_arg(j, "count", a->v[0]);
    if (!range_args(j, self.s, a, 1, &from, &to))
        return jv_int(0);
    struct jstr head = {.p = self.s->p, .n = to};
    if (!what->n)
        return jv_int(chars_before(j, self.s, to) - chars_before(j, self.s, from) + 1);
    for (size_t at = from; (at = jstr_find(j, &head, at, what)) != SIZE_MAX; at += what->n) {
        jinja_step(j, 1);
        n++;
    }
    return jv_int(n);
}

// Empty text to replace: before every character and at the end.
static struct jv replace_between(struct jinja *j, struct jstr *s, const struct jstr *to,
                                 int64_t count)
{
    struct jbuild b = jbuild_new(j, s->n);
    size_t at = 0;
    while (count) {
        jinja_step(j, 1);
        jbuild_str(&b, to);
        count -= count > 0;
        if (at >= s->n)
            break;
        size_t begin = at;
        jstr_next(s, &at);
        jbuild_sub(&b, s, begin, at - begin);
    }
    jbuild_sub(&b, s, at, s->n - at);
    return jbuild_end(&b);
}

struct jv jmethod_replace(struct jinja *j, struct jstr *s, struct jstr *from, struct jstr *to,
                          int64_t count)
{
    if (!from->n)
        return replace_between(j, s, to, count);
    size_t hit = count ? jstr_find(j, s, 0, from) : SIZE_MAX, at = 0;
    if (hit == SIZE_MAX)
        return jstr_sub(j, s, 0, s->n);
    struct jbuild b = jbuild_new(j, s->n);
    while (hit != SIZE_MAX) {
        jinja_step(j, 1);
        jbuild_sub(&b, s, at, hit - at);
        jbuild_str(&b, to);
        at = hit + from->n;
        count -= count > 0;
        hit = count ? jstr_find(j, s, at, from) : SIZE_MAX;
    }
    jbuild_sub(&b, s, at, s->n - at);
    return jbuild_end(&b);
}

static struct jv m_replace(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "replace", a, 2, 3);
    int64_t count = a->n > 2 ? joperator_index(j, a->v[2]) : -1;
    struct jv r = jmethod_replace(j, self.s, string_arg(j, "replace", a->v[0]),
                                  string_arg(j, "replace", a->v[1]), count);
    r.s->markup = self.s->markup;
    return r;
}

/* split */

static size_t skip_space(const struct jstr *s, size_t at)
{
    for (size_t next = at; next < s->n && jstr_space(jstr_next(s, &next));)
        at = next;
    return at;
}

static size_t skip_word(const struct jstr *s, size_t at)
{
    for (size_t next = at; next < s->n && !jstr_space(jstr_next(s, &next));)
        at = next;
    return at;
}

static void split_space(struct jinja *j, struct jstr *s, int64_t most, struct jv list)
{
    jinja_step(j, s->n / 8);
    for (size_t at = skip_space(s, 0); at < s->n; at = skip_space(s, at)) {
        size_t end = most-- ? skip_word(s, at) : s->n;
        jv_push(j, list, jstr_sub(j, s, at, end - at));
        jinja_step(j, 1);
        at = end;
    }
}

static struct jv reversed_list(struct jinja *j, struct jv list)
{
    return joperator_slice(j, list, jv_none(), jv_none(), jv_int(-1));
}

// The end of s[0, end) without what is (or isn't) white space there.
static size_t back(const struct jstr *s, size_t end, bool space)
{
    for (size_t at = end; at && jstr_space(jstr_prev(s, &at)) == space;)
        end = at;
    return end;
}

static struct jv rsplit_space(struct jinja *j, struct jstr *s, int64_t most)
{
    struct jv list = jv_list(j, 0);
    jinja_step(j, s->n / 8);
    for (size_t end = back(s, s->n, true); end; end = back(s, end, true)) {
        size_t begin = most-- ? back(s, end, false) : 0;
        jv_push(j, list, jstr_sub(j, s, begin, end - begin));
        jinja_step(j, 1);
        end = begin;
    }
    return reversed_list(j, list);
}

static void split_args(struct jinja *j, const char *what, const struct jargs *a,
                       const struct jstr **separator, int64_t *most)
{
    static const char *const names[] = {"sep", "maxsplit"};
    struct jv o[2];
    jcall_bind(j, what, a, names, 2, 0, o);
    bool none = o[0].kind == JV_MISSING || o[0].kind == JV_NONE;
    *separator = none ? NULL : string_arg(j, what, o[0]);
    if (*separator && !(*separator)->n)
        jinja_fail(j, "empty separator");
    *most = o[1].kind == JV_MISSING ? -1 : joperator_index(j, o[1]);
    *most = *most < 0 ? INT64_MAX : *most;
}

static struct jv m_split(struct jinja *j, struct jv self, const struct jargs *a)
{
    const struct jstr *separator;
    int64_t most;
    split_args(j, "split", a, &separator, &most);
    struct jv list = jv_list(j, 0);
    if (!separator) {
        split_space(j, self.s, most, list);
        return list;
    }
    size_t at = 0;
    while (most--) {
        size_t hit = jstr_find(j, self.s, at, separator);
        if (hit == SIZE_MAX)
            break;
        jv_push(j, list, jstr_sub(j, self.s, at, hit - at));
        jinja_step(j, 1);
        at = hit + separator->n;
    }
    jv_push(j, list, jstr_sub(j, self.s, at, self.s->n - at));
    return list;
}

static struct jv m_rsplit(struct jinja *j, struct jv self, const struct jargs *a)
{
    const struct jstr *separator;
    int64_t most;
    split_args(j, "rsplit", a, &separator, &most);
    if (!separator)
        return rsplit_space(j, self.s, most);
    struct jv list = jv_list(j, 0);
    size_t end = self.s->n;
    while (most--) {
        size_t hit = jstr_rfind(j, self.s, end, separator);
        if (hit == SIZE_MAX)
            break;
        jv_push(j, list, jstr_sub(j, self.s, hit + separator->n, end - hit - separator->n));
        jinja_step(j, 1);
        end = hit;
    }
    jv_push(j, list, jstr_sub(j, self.s, 0, end));
    return reversed_list(j, list);
}

static struct jv three(struct jinja *j, struct jv a, struct jv b, struct jv c)
{
    struct jv t = jv_tuple(j, 3);
    jv_push(j, t, a);
    jv_push(j, t, b);
    jv_push(j, t, c);
    return t;
}

static struct jv partition(struct jinja *j, struct jv self, const struct jargs *a, bool last)
{
    const char *name = last ? "rpartition" : "partition";
    positional(j, name, a, 1, 1);
    const struct jstr *what = string_arg(j, name, a->v[0]);
    struct jv empty = jstr_of(j, "");
    if (!what->n)
        jinja_fail(j, "empty separator");
    size_t hit = last ? jstr_rfind(j, self.s, self.s->n, what) : jstr_find(j, self.s, 0, what);
    if (hit == SIZE_MAX)
        return last ? three(j, empty, empty, self) : three(j, self, empty, empty);
    size_t end = hit + what->n;
    return three(j, jstr_sub(j, self.s, 0, hit), a->v[0],
                 jstr_sub(j, self.s, end, self.s->n - end));
}

static struct jv m_partition(struct jinja *j, struct jv self, const struct jargs *a)
{
    return partition(j, self, a, false);
}

static struct jv m_rpartition(struct jinja *j, struct jv self, const struct jargs *a)
{
    return partition(j, self, a, true);
}

static bool line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct jv jmethod_lines(struct jinja *j, struct jstr *s, bool keep_ends)
{
    struct jv list = jv_list(j, 0);
    jinja_step(j, s->n / 8);
    for (size_t at = 0, begin = 0; at < s->n;) {
        size_t stop = at;
        uint32_t c = jstr_next(s, &at);
        bool ends = line_end(c);
        if (c == '\r' && at < s->n && s->p[at] == '\n')
            at++;
        if (!ends && at < s->n)
            continue;
        size_t end = ends && !keep_ends ? stop : at;
        jv_push(j, list, jstr_sub(j, s, begin, end - begin));
        begin = at;
    }
    return list;
}

static struct jv m_splitlines(struct jinja *j, struct jv self, const struct jargs *a)
{
    static const char *const names[] = {"keepends"};
    struct jv keep;
    jcall_bind(j, "splitlines", a, names, 1, 0, &keep);
    return jmethod_lines(j, self.s, jv_truth(j, keep));
}

static struct jv m_join(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "join", a, 1, 1);
    struct jiter *it = jiter_open(j, a->v[0]);
    struct jbuild b = jbuild_new(j, 0);
    struct jv one;
    for (size_t i = 0; jiter_next(j, it, &one); i++) {
        if (i)
            jbuild_str(&b, self.s);
        if (one.kind != JV_STRING)
            jinja_fail(j, "sequence item %zu: expected str instance, %s found", i, jv_type(one));
        jbuild_str(&b, one.s);
    }
    return jbuild_end(&b);
}

/* Padding */

static struct jv padded(struct jinja *j, struct jv self, const struct jargs *a, const char *what,
                        char align)
{
    positional(j, what, a, 1, 2);
    int64_t width = joperator_index(j, a->v[0]), n = (int64_t)jstr_chars(j, self.s);
    uint32_t fill = ' ';
    bool trusted = false;
    if (a->n > 1) {
        struct jstr *s = string_arg(j, what, a->v[1]);
        if (jstr_chars(j, s) != 1)
            jinja_fail(j, "The fill character must be exactly one character long");
        fill = jstr_next(s, &(size_t){0});
        jstr_run(s, 0, &trusted);
    }
    if (width > WIDTH_MAX)
        jinja_fail(j, "a width of more than %d", WIDTH_MAX);
    size_t pad = width > n ? (size_t)(width - n) : 0;
    size_t left = align == '<' ? 0 : align == '>' ? pad : pad / 2 + (pad & (size_t)width & 1);
    struct jbuild b = jbuild_new(j, self.s->n + pad);
    jbuild_fill(&b, fill, left, trusted);
    jbuild_str(&b, self.s);
    jbuild_fill(&b, fill, pad - left, trusted);
    return jbuild_end(&b);
}

static struct jv m_center(struct jinja *j, struct jv self, const struct jargs *a)
{
    return padded(j, self, a, "center", '^');
}

static struct jv m_ljust(struct jinja *j, struct jv self, const struct jargs *a)
{
    return padded(j, self, a, "ljust", '<');
}

static struct jv m_rjust(struct jinja *j, struct jv self, const struct jargs *a)
{
    return padded(j, self, a, "rjust", '>');
}

static struct jv m_zfill(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "zfill", a, 1, 1);
    int64_t width = joperator_index(j, a->v[0]), n = (int64_t)jstr_chars(j, self.s);
    if (width > WIDTH_MAX)
        jinja_fail(j, "a width of more than %d", WIDTH_MAX);
    struct jbuild b = jbuild_new(j, self.s->n);
    size_t sign = self.s->n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    jbuild_sub(&b, self.s, 0, sign);
    jbuild_fill(&b, '0', width > n ? (size_t)(width - n) : 0, false);
    jbuild_sub(&b, self.s, sign, self.s->n - sign);
    return jbuild_end(&b);
}

static struct jv m_expandtabs(struct jinja *j, struct jv self, const struct jargs *a)
{
    static const char *const names[] = {"tabsize"};
    struct jv size;
    jcall_bind(j, "expandtabs", a, names, 1, 0, &size);
    int64_t tab = size.kind == JV_MISSING ? 8 : joperator_index(j, size);
    if (tab > WIDTH_MAX)
        jinja_fail(j, "a width of more than %d", WIDTH_MAX);
    struct jbuild b = jbuild_new(j, self.s->n);
    int64_t column = 0;
    for (size_t at = 0; at < self.s->n;) {
        size_t begin = at;
        uint32_t c = jstr_next(self.s, &at);
        if (c == '\t') {
            int64_t n = tab > 0 ? tab - column % tab : 0;
            jbuild_fill(&b, ' ', (size_t)n, false);
            column += n;
            continue;
        }
        jbuild_sub(&b, self.s, begin, at - begin);
        column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    return jbuild_end(&b);
}

static struct jv m_removeprefix(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "removeprefix", a, 1, 1);
    const struct jstr *what = string_arg(j, "removeprefix", a->v[0]);
    size_t cut = jstr_starts(self.s, what) ? what->n : 0;
    return jstr_sub(j, self.s, cut, self.s->n - cut);
}

static struct jv m_removesuffix(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "removesuffix", a, 1, 1);
    const struct jstr *what = string_arg(j, "removesuffix", a->v[0]);
    size_t cut = jstr_ends(self.s, what) ? what->n : 0;
    return jstr_sub(j, self.s, 0, self.s->n - cut);
}

static struct jv m_format(struct jinja *j, struct jv self, const struct jargs *a)
{
    return jformat_braces(j, self.s, a);
}

static struct jv m_format_map(struct jinja *j, struct jv self, const struct jargs *a)
{
    positional(j, "format_map", a, 1, 1);
    if (a->v[0].kind != JV_DICT)
        jinja_fail(j, "format_map() takes a mapping, not %s", jv_type(a->v[0]));
    struct jargs args = {.kw = a->v[0].d};
    return jformat_braces(j, self.s, &args);
}

/* isalpha and so on */

static struct jv every(struct jinja *j, struct jv self, const struct jargs *a, const char *what,
                       bool (*is)(uint32_t), bool empty)
{
    positional(j, what, a, 0, 0);
    jinja_step(j, self.s->n / 8);
    for (size_t at = 0; at < self.s->n;)
        if (!is(jstr_next(self.s, &at)))
            return jv_bool(false);
    return jv_bool(self.s->n || empty);
}

static bool ascii(uint32_t c)
{
    return c < 0x80;
}

static struct jv m_isalnum(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isalnum", jcase_alnum, false);
}

static struct jv m_isalpha(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isalpha", jcase_alpha, false);
}

static struct jv m_isascii(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isascii", ascii, true);
}

static struct jv m_isdecimal(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isdecimal", jcase_decimal, false);
}

static struct jv m_isdigit(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isdigit", jcase_digit, false);
}

static struct jv m_isnumeric(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isnumeric", jcase_numeric, false);
}

static struct jv m_isspace(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isspace", jstr_space, false);
}

static struct jv m_isprintable(struct jinja *j, struct jv self, const struct jargs *a)
{
    return every(j, self, a, "isprintable", jrepr_printable, true);
}

static struct jv whole(struct jinja *j, struct jv self, const struct jargs *a, const char *what,
                       bool (*is)(const struct jstr *))
{
    positional(j, what, a, 0, 0);
    jinja_step(j, self.s->n / 8);
    return jv_bool(is(self.s));
}

static struct jv m_isupper(struct jinja *j, struct jv self, const struct jargs *a)
{
    return whole(j, self, a, "isupper", jcase_is_upper);
}

static struct jv m_islower(struct jinja *j, struct jv self, const struct jargs *a)
{
    return whole(j, self, a, "islower", jcase_is_lower);
}

static struct jv m_istitle(struct jinja *j, struct jv self, const struct jargs *a)
{
    return whole(j, self, a, "istitle", jcase_is_title);
}

static struct jv m_isidentifier(struct jinja *j, struct jv self, const struct jargs *a)
{
    return whole(j, self, a, "isidentifier", jcase_is_identifier);
}

const struct jmethod_entry jmethod_str[] = {{"strip", m_strip},
                                            {"split", m_split},
                                            {"startswith", m_startswith},
                                            {"endswith", m_endswith},
                                            {"replace", m_replace},
                                            {"lstrip", m_lstrip},
                                            {"rstrip", m_rstrip},
                                            {"upper", m_upper},
                                            {"lower", m_lower},
                                            {"title", m_title},
                                            {"join", m_join},
                                            {"format", m_format},
                                            {"find", m_find},
                                            {"rfind", m_rfind},
                                            {"index", m_index},
                                            {"rindex", m_rindex},
                                            {"count", m_count},
                                            {"rsplit", m_rsplit},
                                            {"splitlines", m_splitlines},
                                            {"partition", m_partition},
                                            {"rpartition", m_rpartition},
                                            {"capitalize", m_capitalize},
                                            {"casefold", m_casefold},
                                            {"swapcase", m_swapcase},
                                            {"center", m_center},
                                            {"ljust", m_ljust},
                                            {"rjust", m_rjust},
                                            {"zfill", m_zfill},
                                            {"expandtabs", m_expandtabs},
                                            {"removeprefix", m_removeprefix},
                                            {"format_map", m_format_map},
                                            {"removesuffix", m_removesuffix},
                                            {NULL, NULL}};

const struct jmethod_entry jmethod_str_is[] = {{"isalnum", m_isalnum},
                                               {"isalpha", m_isalpha},
                                               {"isascii", m_isascii},
                                               {"isdecimal", m_isdecimal},
                                               {"isdigit", m_isdigit},
                                               {"isnumeric", m_isnumeric},
                                               {"isspace", m_isspace},
                                               {"isupper", m_isupper},
                                               {"islower", m_islower},
                                               {"istitle", m_istitle},
                                               {"isprintable", m_isprintable},
                                               {"isidentifier", m_isidentifier},
                                               {NULL, NULL}};
