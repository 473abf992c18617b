// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_string.h"

#include "base/check.h"

#include <utf8proc.h>

enum { SLACK_FROM = 256 }; // shorter strings get no room to grow

// What borrowed bytes belong to; nothing is ever added to these.
static struct jtext trusted_text = {.trusted = true}, untrusted_text = {.trusted = false};

struct jv jstr_new(struct jinja *j, const char *p, size_t n, bool trusted)
{
    struct jstr *s = jinja_alloc(j, sizeof *s);
    *s = (struct jstr){.p = n ? p : "",
                       .n = n,
                       .text = trusted ? &trusted_text : &untrusted_text,
                       .chars = JSTR_UNCOUNTED};
    return jv_string(s);
}

struct jv jstr_of(struct jinja *j, const char *text)
{
    return jstr_new(j, text, strlen(text), false);
}

struct jv jstr_sub(struct jinja *j, const struct jstr *s, size_t from, size_t n)
{
    CHECK(from <= s->n && n <= s->n - from);
    struct jstr *part = jinja_alloc(j, sizeof *part);
    *part = (struct jstr){.p = s->p + from,
                          .n = n,
                          .text = s->text,
                          .chars = s->chars == s->n ? n : JSTR_UNCOUNTED,
                          .markup = s->markup};
    return jv_string(part);
}

struct jv jstr_concat(struct jinja *j, struct jstr *a, struct jstr *b)
{
    if (!b->n)
        return jv_string(a);
    if (!a->n)
        return jv_string(b);
    struct jbuild build = {.j = j, .text = a->text};
    size_t from = 0;
    bool in_place = a->text->cap && a->p + a->n == a->text->data + a->text->used &&
                    a->text->cap - a->text->used >= b->n;
    if (in_place) {
        from = (size_t)(a->p - a->text->data);
    } else {
        size_t n = a->n + b->n;
        build = jbuild_new(j, n < SLACK_FROM ? n : n * 2);
        jbuild_str(&build, a);
    }
    jbuild_str(&build, b);
    struct jstr *s = jinja_alloc(j, sizeof *s);
    *s = (struct jstr){.p = build.text->data + from,
                       .n = a->n + b->n,
                       .text = build.text,
                       .chars = JSTR_UNCOUNTED};
    return jv_string(s);
}

size_t jstr_chars(struct jinja *j, struct jstr *s)
{
    if (s->chars != JSTR_UNCOUNTED)
        return s->chars;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += ((unsigned char)s->p[i] & 0xc0) != 0x80;
    jinja_step_bytes(j, s->n);
    s->chars = n;
    return n;
}

void jstr_freeze(struct jinja *j, struct jstr *s)
{
    jstr_chars(j, s);
    if (s->text != &trusted_text && s->text != &untrusted_text)
        s->text->cap = 0;
}

size_t jstr_offset(struct jinja *j, struct jstr *s, size_t chars)
{
    if (jstr_chars(j, s) == s->n)
        return chars;
    size_t at = 0;
    for (; chars && at < s->n; chars--)
        for (at++; at < s->n && ((unsigned char)s->p[at] & 0xc0) == 0x80;)
            at++;
    jinja_step_bytes(j, at);
    return at;
}

bool jstr_equal(struct jinja *j, const struct jstr *a, const struct jstr *b)
{
    if (a->n != b->n)
        return false;
    jinja_step_bytes(j, a->n);
    return memcmp(a->p, b->p, a->n) == 0;
}

int jstr_compare(struct jinja *j, const struct jstr *a, const struct jstr *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    jinja_step_bytes(j, n);
    int c = memcmp(a->p, b->p, n); // the order of UTF-8 is the order of code points
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

bool jstr_is(const struct jstr *s, const char *text)
{
    return s->n == strlen(text) && memcmp(s->p, text, s->n) == 0;
}

size_t jstr_find(struct jinja *j, const struct jstr *s, size_t from, const struct jstr *what)
{
    if (from > s->n)
        return SIZE_MAX;
    const char *hit = memmem(s->p + from, s->n - from, what->p, what->n);
    jinja_step_bytes(j, hit ? (size_t)(hit - s->p) - from : s->n - from);
    return hit ? (size_t)(hit - s->p) : SIZE_MAX;
}

size_t jstr_rfind(struct jinja *j, const struct jstr *s, size_t end, const struct jstr *what)
{
    if (what->n > end)
        return SIZE_MAX;
    for (size_t at = end - what->n + 1; at-- > 0;) {
        if (memcmp(s->p + at, what->p, what->n) == 0)
            return at;
        jinja_step_bytes(j, (at & 15) == 0 ? what->n + JINJA_STEP_BYTES : 0);
    }
    return SIZE_MAX;
}

bool jstr_starts(const struct jstr *s, const struct jstr *what)
{
    return s->n >= what->n && memcmp(s->p, what->p, what->n) == 0;
}

bool jstr_ends(const struct jstr *s, const struct jstr *what)
{
    return s->n >= what->n && memcmp(s->p + s->n - what->n, what->p, what->n) == 0;
}

size_t jstr_run(const struct jstr *s, size_t at, bool *trusted)
{
    const struct jtext *t = s->text;
    *trusted = t->trusted;
    if (!t->n_runs)
        return s->n;
    size_t begin = (size_t)(s->p - t->data), low = 0, high = t->n_runs - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->runs[middle].end > begin + at)
            high = middle;
        else
            low = middle + 1;
    }
    *trusted = t->runs[low].trusted;
    size_t end = t->runs[low].end - begin;
    return end < s->n ? end : s->n;
}

uint32_t jstr_next(const struct jstr *s, size_t *at)
{
    const unsigned char *p = (const unsigned char *)s->p + *at;
    if (p[0] < 0x80) {
        *at += 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *at += 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *at += 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *at += 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

uint32_t jstr_prev(const struct jstr *s, size_t *at)
{
    for (*at -= 1; ((unsigned char)s->p[*at] & 0xc0) == 0x80;)
        *at -= 1;
    size_t here = *at;
    return jstr_next(s, &here);
}

size_t jstr_put_utf8(char out[4], uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

bool jstr_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

void jstr_strip(const struct jstr *s, size_t *from, size_t *to)
{
    for (size_t at = *from; at < *to && jstr_space(jstr_next(s, &at));)
        *from = at;
    for (size_t at = *to; at > *from && jstr_space(jstr_prev(s, &at));)
        *to = at;
}

struct jbuild jbuild_new(struct jinja *j, size_t expected)
{
    struct jtext *t = jinja_alloc(j, sizeof *t);
    t->cap = expected;
    t->data = expected ? jinja_alloc(j, expected) : NULL;
    return (struct jbuild){.j = j, .text = t};
}

static void make_room(struct jinja *j, struct jtext *t, size_t n)
{
    if (t->cap - t->used >= n)
        return;
    size_t cap = t->cap * 2 > t->used + n ? t->cap * 2 : t->used + n;
    cap = cap < 32 ? 32 : cap;
    char *data = jinja_alloc(j, cap);
    if (t->data)
        memcpy(data, t->data, t->used);
    t->data = data;
    t->cap = cap;
}

static void add_run(struct jinja *j, struct jtext *t, size_t end, bool trusted)
{
    if (t->n_runs && t->runs[t->n_runs - 1].trusted == trusted) {
        t->runs[t->n_runs - 1].end = end;
        return;
    }
    if (t->n_runs == t->cap_runs) {
        size_t cap = t->cap_runs ? t->cap_runs * 2 : 4;
        struct jrun *runs = jinja_array(j, cap, sizeof *runs);
        if (t->n_runs)
            memcpy(runs, t->runs, t->n_runs * sizeof *runs);
        t->runs = runs;
        t->cap_runs = cap;
    }
    t->runs[t->n_runs++] = (struct jrun){.end = end, .trusted = trusted};
}

void jbuild_put(struct jbuild *b, const char *p, size_t n, bool trusted)
{
    struct jtext *t = b->text;
    if (!n)
        return;
    jinja_step_bytes(b->j, n);
    make_room(b->j, t, n);
    if (!t->used) {
        t->trusted = trusted;
    } else if (t->n_runs || t->trusted != trusted) {
        if (!t->n_runs)
            add_run(b->j, t, t->used, t->trusted);
        add_run(b->j, t, t->used + n, trusted);
    }
    CHECK(t->data);
    memcpy(t->data + t->used, p, n);
    t->used += n;
}

void jbuild_puts(struct jbuild *b, const char *text)
{
    jbuild_put(b, text, strlen(text), false);
}

void jbuild_char(struct jbuild *b, uint32_t c, bool trusted)
{
    char bytes[4];
    jbuild_put(b, bytes, jstr_put_utf8(bytes, c), trusted);
}

void jbuild_fill(struct jbuild *b, uint32_t c, size_t n, bool trusted)
{
    jinja_step(b->j, n / 8);
    while (n--)
        jbuild_char(b, c, trusted);
}

void jbuild_str(struct jbuild *b, const struct jstr *s)
{
    jbuild_sub(b, s, 0, s->n);
}

void jbuild_sub(struct jbuild *b, const struct jstr *s, size_t from, size_t n)
{
    CHECK(from <= s->n && n <= s->n - from);
    for (size_t at = from, end = from + n; at < end;) {
        bool trusted;
        size_t stop = jstr_run(s, at, &trusted);
        stop = stop < end ? stop : end;
        jbuild_put(b, s->p + at, stop - at, trusted);
        at = stop;
    }
}

struct jv jbuild_end(struct jbuild *b)
{
    struct jstr *s = jinja_alloc(b->j, sizeof *s);
    *s = (struct jstr){.p = b->text->used ? b->text->data : "",
                       .n = b->text->used,
                       .text = b->text,
                       .chars = JSTR_UNCOUNTED};
    return jv_string(s);
}
