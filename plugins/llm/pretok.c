// SPDX-License-Identifier: Apache-2.0
#include "llm/pretok.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/bytelevel.h"
#include "llm/unicode.h"

#include <string.h>

void pretok_finish(struct pretok *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        regex_destroy(p->steps[i].regex);
        xfree(p->steps[i].literal);
    }
    xfree(p->steps);
    *p = (struct pretok){0};
}

int pretok_add(struct pretok *p, struct pretok_step **ret, struct err *err)
{
    if (p->n == PRETOK_STEPS) {
        err_set(err, SV_E_INVALID, "more than %d steps of pre-tokenizing", PRETOK_STEPS);
        return SV_E_INVALID;
    }
    if (!p->steps)
        p->steps = xcalloc(PRETOK_STEPS, sizeof *p->steps);
    *ret = &p->steps[p->n++];
    return 0;
}

int pretok_add_regex(struct pretok *p, const char *pattern, size_t n, enum pretok_keep keep,
                     bool invert, struct err *err)
{
    struct pretok_step *s = NULL;
    int rc = pretok_add(p, &s, err);
    if (rc != 0)
        return rc;
    *s = (struct pretok_step){.kind = PRETOK_SPLIT, .keep = keep, .invert = invert};
    return regex_create(pattern, n, &s->regex, err);
}

int pretok_add_bytelevel(struct pretok *p, bool prefix_space, bool split, struct err *err)
{
    static const char gpt2[] =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    struct pretok_step *s = NULL;
    int rc = pretok_add(p, &s, err);
    if (rc != 0)
        return rc;
    *s = (struct pretok_step){.kind = PRETOK_BYTELEVEL,
                              .prepend = prefix_space ? PREPEND_ALWAYS : PREPEND_NEVER,
                              .split = split};
    return split ? regex_create(gpt2, sizeof gpt2 - 1, &s->regex, err) : 0;
}

void pretok_work_finish(struct pretok_work *w)
{
    buf_finish(&w->text);
    buf_finish(&w->spare);
    xfree(w->words);
    xfree(w->made);
    xfree(w->marks);
    regex_state_finish(&w->regex);
    *w = (struct pretok_work){0};
}

static void add_word(struct pretok_work *w, size_t begin, size_t end)
{
    if (begin == end)
        return;
    if (w->made_n == w->made_room) {
        w->made_room = w->made_room ? 2 * w->made_room : 256;
        w->made = xrealloc(w->made, w->made_room * sizeof *w->made);
    }
    w->made[w->made_n++] = (struct span){begin, end};
}

static void use_made(struct pretok_work *w)
{
    struct span *words = w->words;
    size_t room = w->room;
    w->words = w->made;
    w->n = w->made_n;
    w->room = w->made_room;
    w->made = words;
    w->made_room = room;
    w->made_n = 0;
}

static void add_mark(struct pretok_work *w, size_t begin, size_t end, bool hit)
{
    if (w->marks_n == w->marks_room) {
        w->marks_room = w->marks_room ? 2 * w->marks_room : 256;
        w->marks = xrealloc(w->marks, w->marks_room * sizeof *w->marks);
    }
    w->marks[w->marks_n++] = (struct pretok_mark){begin, end, hit};
}

// onig's find_iter: an empty match right behind the last match does not count.
static bool next_regex(const struct pretok_step *s, struct pretok_work *w, const char *t, size_t n,
                       size_t *from, size_t last, size_t *begin, size_t *end)
{
    while (*from <= n && regex_find(s->regex, &w->regex, t, n, *from, begin, end)) {
        if (*begin != *end || *end != last) {
            *from = *end;
            return true;
        }
        size_t len = 1;
        if (*from < n)
            unicode_get(t + *from, n - *from, &len);
        *from += len;
    }
    return false;
}

static void mark_regex(const struct pretok_step *s, struct pretok_work *w, struct span at)
{
    const char *t = buf_head(&w->text) + at.begin;
    size_t n = at.end - at.begin, done = 0, from = 0, last = SIZE_MAX, begin, end;
    while (next_regex(s, w, t, n, &from, last, &begin, &end)) {
        if (done != begin)
            add_mark(w, at.begin + done, at.begin + begin, s->invert);
        add_mark(w, at.begin + begin, at.begin + end, !s->invert);
        done = last = end;
    }
    if (done != n)
        add_mark(w, at.begin + done, at.end, s->invert);
}

static void mark_literal(const struct pretok_step *s, struct pretok_work *w, struct span at)
{
    const char *t = buf_head(&w->text);
    size_t done = at.begin;
    while (s->literal_n > 0 && done < at.end) {
        const char *p = memmem(t + done, at.end - done, s->literal, s->literal_n);
        if (!p)
            break;
        size_t begin = (size_t)(p - t);
        if (done != begin)
            add_mark(w, done, begin, s->invert);
        done = begin + s->literal_n;
        add_mark(w, begin, done, !s->invert);
    }
    if (done != at.end)
        add_mark(w, done, at.end, s->invert);
}

static bool is_hit(enum pretok_match match, uint32_t c)
{
    if (match == MATCH_SPACE)
        return unicode_is_space(c);
    if (match == MATCH_PUNCTUATION)
        return unicode_is_punctuation(c);
    return unicode_is_numeric(c);
}

// Each character that fits is a match of its own.
static void mark_characters(const struct pretok_step *s, struct pretok_work *w, struct span at)
{
    const char *t = buf_head(&w->text);
    size_t done = at.begin;
    for (size_t i = at.begin, len; i < at.end; i += len) {
        if (!is_hit(s->match, unicode_get(t + i, at.end - i, &len)))
            continue;
        if (done != i)
            add_mark(w, done, i, s->invert);
        add_mark(w, i, i + len, !s->invert);
        done = i + len;
    }
    if (done != at.end)
        add_mark(w, done, at.end, s->invert);
}

static void keep_contiguous(struct pretok_work *w)
{
    const struct pretok_mark *m = w->marks;
    for (size_t i = 0, j; i < w->marks_n; i = j) {
        for (j = i + 1; j < w->marks_n && m[j].hit == m[i].hit;)
            j++;
        add_word(w, m[i].begin, m[j - 1].end);
    }
}

// A match joins what is before it, unless that is a match too.
static void keep_previous(struct pretok_work *w)
{
    const struct pretok_mark *m = w->marks;
    for (size_t i = 0, j; i < w->marks_n; i = j) {
        j = i + 1;
        if (j < w->marks_n && m[j].hit && !m[i].hit)
            j++;
        add_word(w, m[i].begin, m[j - 1].end);
    }
}

// Walked from the back a match joins what is behind it, unless that is a match too.
static void keep_next(struct pretok_work *w)
{
    const struct pretok_mark *m = w->marks;
    for (size_t i = 0, j; i < w->marks_n; i = j) {
        j = i + 1;
        if (m[i].hit && j < w->marks_n && !m[j].hit)
            j++;
        add_word(w, m[i].begin, m[j - 1].end);
    }
}

static void keep_marks(struct pretok_work *w, enum pretok_keep keep)
{
    switch (keep) {
    case KEEP_ISOLATED:
    case KEEP_NOT:
        for (size_t i = 0; i < w->marks_n; i++)
            if (keep == KEEP_ISOLATED || !w->marks[i].hit)
                add_word(w, w->marks[i].begin, w->marks[i].end);
        break;
    case KEEP_CONTIGUOUS:
        keep_contiguous(w);
        break;
    case KEEP_PREVIOUS:
        keep_previous(w);
        break;
    case KEEP_NEXT:
        keep_next(w);
        break;
    }
}

static void split(const struct pretok_step *s, struct pretok_work *w, enum pretok_match match,
                  enum pretok_keep keep)
{
    for (size_t i = 0; i < w->n; i++) {
        w->marks_n = 0;
        if (match == MATCH_REGEX)
            mark_regex(s, w, w->words[i]);
        else if (match == MATCH_LITERAL)
            mark_literal(s, w, w->words[i]);
        else
            mark_characters(s, w, w->words[i]);
        keep_marks(w, keep);
    }
    use_made(w);
}

static void split_fixed(const struct pretok_step *s, struct pretok_work *w)
{
    const char *t = buf_head(&w->text);
    for (size_t i = 0; i < w->n; i++) {
        size_t begin = w->words[i].begin, end = w->words[i].end;
        uint32_t count = 0;
        for (size_t at = begin, len; at < end; at += len) {
            if (count == s->length) {
                add_word(w, begin, at);
                begin = at;
                count = 0;
            }
            unicode_get(t + at, end - at, &len);
            count++;
        }
        add_word(w, begin, end);
    }
    use_made(w);
}

// Every word is written anew, by `put`, into another text.
static void rewrite(const struct pretok_step *s, struct pretok_work *w, bool first,
                    void (*put)(const struct pretok_step *s, struct buf *out, const char *word,
                                size_t n, bool first))
{
    struct buf *out = &w->spare;
    buf_clear(out);
    for (size_t i = 0; i < w->n; i++) {
        struct span at = w->words[i];
        size_t begin = buf_len(out);
        put(s, out, buf_head(&w->text) + at.begin, at.end - at.begin, first && at.begin == 0);
        add_word(w, begin, buf_len(out));
    }
    struct buf old = w->text;
    w->text = w->spare;
    w->spare = old;
    use_made(w);
}

static void put_spaced(const struct pretok_step *s, struct buf *out, const char *word, size_t n,
                       bool first)
{
    (void)s, (void)first;
    if (word[0] != ' ')
        buf_puts(out, " ");
    buf_put(out, word, n);
}

static void put_bytes(const struct pretok_step *s, struct buf *out, const char *word, size_t n,
                      bool first)
{
    (void)s, (void)first;
    bytelevel_put(out, word, n);
}

static void put_metaspace(const struct pretok_step *s, struct buf *out, const char *word, size_t n,
                          bool first)
{
    bool there = word[0] == ' ' || (n >= s->literal_n && !memcmp(word, s->literal, s->literal_n));
    if (!there && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && first)))
        buf_put(out, s->literal, s->literal_n);
    for (size_t i = 0; i < n;) {
        const char *space = memchr(word + i, ' ', n - i);
        size_t end = space ? (size_t)(space - word) : n;
        buf_put(out, word + i, end - i);
        if (space)
            buf_put(out, s->literal, s->literal_n);
        i = end + 1;
    }
}

static void run_bytelevel(const struct pretok_step *s, struct pretok_work *w)
{
    if (s->prepend == PREPEND_ALWAYS)
        rewrite(s, w, false, put_spaced);
    if (s->split)
        split(s, w, MATCH_REGEX, KEEP_ISOLATED);
    if (!s->keep_bytes)
        rewrite(s, w, false, put_bytes);
}

void pretok_run(const struct pretok *p, struct pretok_work *w, bool first)
{
    w->made_n = 0;
    add_word(w, 0, buf_len(&w->text));
    use_made(w);
    for (uint32_t i = 0; i < p->n; i++) {
        const struct pretok_step *s = &p->steps[i];
        switch (s->kind) {
        case PRETOK_SPLIT:
            split(s, w, s->match, s->keep);
            break;
        case PRETOK_METASPACE:
            rewrite(s, w, first, put_metaspace);
            if (s->split)
                split(s, w, MATCH_LITERAL, KEEP_NEXT);
            break;
        case PRETOK_BYTELEVEL:
            run_bytelevel(s, w);
            break;
        case PRETOK_FIXED:
            split_fixed(s, w);
            break;
        }
    }
}
