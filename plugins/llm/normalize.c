// SPDX-License-Identifier: Apache-2.0
#include "llm/normalize.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/bytelevel.h"
#include "llm/nf.h"
#include "llm/unicode.h"

#include <string.h>

void normalizer_finish(struct normalizer *z)
{
    for (uint32_t i = 0; i < z->n; i++) {
        regex_destroy(z->steps[i].regex);
        xfree(z->steps[i].from);
        xfree(z->steps[i].to);
        charsmap_finish(&z->steps[i].map);
    }
    xfree(z->steps);
    *z = (struct normalizer){0};
}

int normalizer_add(struct normalizer *z, enum normalize_kind kind, struct normalize_step **ret,
                   struct err *err)
{
    if (z->n == NORMALIZE_STEPS)
        return err_set(err, SV_E_INVALID, "more than %d steps of normalizing", NORMALIZE_STEPS);
    if (!z->steps)
        z->steps = xcalloc(NORMALIZE_STEPS, sizeof *z->steps);
    z->steps[z->n].kind = kind;
    *ret = &z->steps[z->n++];
    return 0;
}

void normalize_work_finish(struct normalize_work *w)
{
    buf_finish(&w->text);
    buf_finish(&w->spare);
    regex_state_finish(&w->regex);
    *w = (struct normalize_work){0};
}

// The character at this place goes; `lead` is what w->lead was before the step.
static void drop(struct normalize_work *w, size_t lead, size_t place)
{
    if (place < lead && w->lead > 0)
        w->lead--;
}

static size_t count(const char *t, size_t n)
{
    size_t characters = 0;
    for (size_t i = 0; i < n; i++)
        characters += ((unsigned char)t[i] & 0xc0) != 0x80;
    return characters;
}

static void put_form(const struct normalize_step *s, struct normalize_work *w, struct buf *out,
                     const char *t, size_t n)
{
    size_t end = 0, len;
    for (size_t i = 0; i < w->lead && end < n; i++, end += len)
        unicode_get(t + end, n - end, &len);
    nf_put(out, t, end, s->compose, s->compatible);
    w->lead = count(buf_head(out), buf_len(out));
    buf_clear(out);
    nf_put(out, t, n, s->compose, s->compatible);
}

static void put_lower(struct buf *out, const char *t, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t lower[2];
        size_t made = unicode_lower(unicode_get(t + i, n - i, &len), lower);
        for (size_t k = 0; k < made; k++)
            unicode_put(out, lower[k]);
    }
}

static void put_stripped(struct normalize_work *w, struct buf *out, const char *t, size_t n,
                         bool left, bool right)
{
    size_t begin = 0, end = n, len, lead = w->lead;
    for (size_t i = 0;
         left && begin < end && unicode_is_space(unicode_get(t + begin, end - begin, &len)); i++) {
        begin += len;
        drop(w, lead, i);
    }
    while (right && end > begin && unicode_is_space(unicode_before(t, end, &len)))
        end -= len;
    buf_put(out, t + begin, end - begin);
}

static void put_kept(struct normalize_work *w, struct buf *out, const char *t, size_t n,
                     bool (*goes)(uint32_t c))
{
    for (size_t i = 0, place = 0, lead = w->lead, len; i < n; i += len, place++) {
        if (goes(unicode_get(t + i, n - i, &len)))
            drop(w, lead, place);
        else
            buf_put(out, t + i, len);
    }
}

// A match at the very beginning that becomes nothing.
static void drop_match(const struct normalize_step *s, struct normalize_work *w, const char *t,
                       size_t begin, size_t end)
{
    size_t lead = w->lead, gone = begin == 0 && s->to_n == 0 ? count(t, end) : 0;
    for (size_t i = 0; i < gone && i < lead; i++)
        drop(w, lead, i);
}

static void put_replaced(const struct normalize_step *s, struct normalize_work *w, struct buf *out,
                         const char *t, size_t n, size_t most)
{
    size_t done = 0, from = 0, last = SIZE_MAX, begin, end, len;
    while (from <= n && buf_len(out) <= most &&
           regex_find(s->regex, &w->regex, t, n, from, &begin, &end)) {
        if (begin == end && end == last) { // an empty match right behind a match is none
            len = 1;
            if (from < n)
                unicode_get(t + from, n - from, &len);
            from += len;
            continue;
        }
        buf_put(out, t + done, begin - done);
        buf_put(out, s->to, s->to_n);
        drop_match(s, w, t, begin, end);
        done = from = last = end;
    }
    buf_put(out, t + done, n - done);
}

static void put_literal(const struct normalize_step *s, struct normalize_work *w, struct buf *out,
                        const char *t, size_t n)
{
    for (size_t i = 0; i < n;) {
        const char *p = memmem(t + i, n - i, s->from, s->from_n);
        size_t end = p ? (size_t)(p - t) : n;
        buf_put(out, t + i, end - i);
        if (!p)
            return;
        buf_put(out, s->to, s->to_n);
        drop_match(s, w, t, end, end + s->from_n);
        i = end + s->from_n;
    }
}

// google/sentencepiece: src/builder.cc, the rules of nmt_nfkc beyond NFKC.
static void put_nmt(struct normalize_work *w, struct buf *out, const char *t, size_t n)
{
    for (size_t i = 0, place = 0, lead = w->lead, len; i < n; i += len, place++) {
        uint32_t c = unicode_get(t + i, n - i, &len);
        if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
            c == 0x9f) {
            drop(w, lead, place);
            continue;
        }
        bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                     (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xfeff || c == 0xfffd;
        buf_put(out, space ? " " : t + i, space ? 1 : len);
    }
}

static void put_clean(struct normalize_work *w, struct buf *out, const char *t, size_t n)
{
    for (size_t i = 0, place = 0, lead = w->lead, len; i < n; i += len, place++) {
        uint32_t c = unicode_get(t + i, n - i, &len);
        bool line = c == '\t' || c == '\n' || c == '\r';
        if (c == 0 || c == 0xfffd || (!line && unicode_is_other(c))) {
            drop(w, lead, place);
            continue;
        }
        bool space = line || unicode_is_space(c);
        buf_put(out, space ? " " : t + i, space ? 1 : len);
    }
}

// The blocks that BERT's tokenizer calls Chinese, with the number that `tokenizers` has mistyped.
static bool is_han(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
}

static void put_han(struct buf *out, const char *t, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        bool han = is_han(unicode_get(t + i, n - i, &len));
        if (han)
            buf_puts(out, " ");
        buf_put(out, t + i, len);
        if (han)
            buf_puts(out, " ");
    }
}

static void put_nonspacing(struct normalize_work *w, struct buf *out, const char *t, size_t n)
{
    struct buf form = {0};
    nf_put(&form, t, n, false, false);
    put_kept(w, out, buf_head(&form), buf_len(&form), unicode_is_nonspacing);
    buf_finish(&form);
}

static void put_spaces(struct buf *out, const char *t, size_t n)
{
    size_t begin = buf_len(out);
    for (size_t i = 0; i < n; i++)
        if (t[i] != ' ' || (buf_len(out) > begin && buf_head(out)[buf_len(out) - 1] != ' '))
            buf_put(out, t + i, 1);
    if (buf_len(out) > begin && buf_head(out)[buf_len(out) - 1] == ' ')
        out->end--;
}

static void put_around(const struct normalize_step *s, struct buf *out, const char *t, size_t n)
{
    if (n > 0 && s->kind == NORMALIZE_PREPEND)
        buf_put(out, s->to, s->to_n);
    buf_put(out, t, n);
    if (n > 0 && s->kind == NORMALIZE_APPEND)
        buf_put(out, s->to, s->to_n);
}

static void run_step(const struct normalize_step *s, struct normalize_work *w, struct buf *out,
                     const char *t, size_t n, size_t most)
{
    switch (s->kind) {
    case NORMALIZE_FORM:
        put_form(s, w, out, t, n);
        break;
    case NORMALIZE_LOWER:
        put_lower(out, t, n);
        break;
    case NORMALIZE_STRIP:
        put_stripped(w, out, t, n, s->left, s->right);
        break;
    case NORMALIZE_ACCENTS:
        put_kept(w, out, t, n, unicode_is_mark);
        break;
    case NORMALIZE_REPLACE:
        if (s->regex)
            put_replaced(s, w, out, t, n, most);
        else
            put_literal(s, w, out, t, n);
        break;
    case NORMALIZE_PREPEND:
    case NORMALIZE_APPEND:
        put_around(s, out, t, n);
        break;
    case NORMALIZE_NMT:
        put_nmt(w, out, t, n);
        break;
    case NORMALIZE_CHARSMAP:
        charsmap_put(&s->map, out, t, n, s->longest);
        break;
    case NORMALIZE_CLEAN:
        put_clean(w, out, t, n);
        break;
    case NORMALIZE_HAN:
        put_han(out, t, n);
        break;
    case NORMALIZE_NONSPACING:
        put_nonspacing(w, out, t, n);
        break;
    case NORMALIZE_BYTES:
        bytelevel_put(out, t, n);
        break;
    case NORMALIZE_SPACES:
        put_spaces(out, t, n);
        break;
    }
}

int normalizer_run(const struct normalizer *z, const char *text, size_t n, struct normalize_work *w,
                   struct err *err)
{
    size_t most = n <= (SIZE_MAX - NORMALIZE_SLACK) / NORMALIZE_GROWTH
                      ? n * NORMALIZE_GROWTH + NORMALIZE_SLACK
                      : SIZE_MAX;
    buf_clear(&w->text);
    w->lead = 1;
    if (z->n == 0)
        buf_put(&w->text, text, n);
    for (uint32_t i = 0; i < z->n; i++) {
        struct buf *out = &w->spare;
        buf_clear(out);
        if (i == 0)
            run_step(&z->steps[i], w, out, text, n, most);
        else
            run_step(&z->steps[i], w, out, buf_len(&w->text) ? buf_head(&w->text) : "",
                     buf_len(&w->text), most);
        if (buf_len(out) > most)
            return err_set(err, SV_E_TOO_LARGE,
                           "the text of %zu bytes is more than %zu once it is normalized", n, most);
        struct buf old = w->text;
        w->text = w->spare;
        w->spare = old;
    }
    return 0;
}
