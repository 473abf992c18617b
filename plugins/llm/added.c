// SPDX-License-Identifier: Apache-2.0
#include "llm/added.h"

#include "base/mem.h"
#include "llm/unicode.h"

#include <stdlib.h>
#include <string.h>

void added_finish(struct added *a)
{
    for (uint32_t i = 0; i < a->n; i++)
        xfree(a->tokens[i].text);
    xfree(a->tokens);
    *a = (struct added){0};
}

void added_put(struct added *a, const struct added_token *like, const char *text, size_t n)
{
    if (n == 0)
        return;
    if (a->n == a->room) {
        a->room = a->room ? 2 * a->room : 16;
        a->tokens = xrealloc(a->tokens, a->room * sizeof *a->tokens);
    }
    struct added_token *t = &a->tokens[a->n++];
    *t = *like;
    t->n = (uint32_t)n;
    t->text = xrealloc(NULL, n);
    memcpy(t->text, text, n);
    a->first[(uint8_t)text[0]] = true;
}

static int compare(const struct added_token *a, const struct added_token *b)
{
    int c = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

// Stable, so that the first of equal texts is the first put.
static void merge_sort(struct added_token *v, struct added_token *spare, uint32_t n)
{
    for (uint32_t width = 1; width < n; width *= 2) {
        for (uint32_t lo = 0; lo < n; lo += 2 * width) {
            uint32_t mid = lo + width < n ? lo + width : n;
            uint32_t hi = mid + width < n ? mid + width : n;
            for (uint32_t i = lo, j = mid, k = lo; k < hi; k++)
                spare[k] = i < mid && (j == hi || compare(&v[i], &v[j]) <= 0) ? v[i++] : v[j++];
        }
        memcpy(v, spare, n * sizeof *v);
    }
}

void added_sort(struct added *a)
{
    if (a->n == 0)
        return;
    struct added_token *spare = xrealloc(NULL, a->n * sizeof *spare);
    merge_sort(a->tokens, spare, a->n);
    xfree(spare);
    uint32_t kept = 1;
    for (uint32_t i = 1; i < a->n; i++) {
        if (compare(&a->tokens[kept - 1], &a->tokens[i]) == 0)
            xfree(a->tokens[i].text);
        else
            a->tokens[kept++] = a->tokens[i];
    }
    a->n = kept;
}

void fragments_finish(struct fragments *f)
{
    xfree(f->v);
    *f = (struct fragments){0};
}

static void put_fragment(struct fragments *f, size_t begin, size_t end, int32_t id)
{
    if (id < 0 && begin >= end)
        return;
    if (f->n == f->room) {
        f->room = f->room ? 2 * f->room : 32;
        f->v = xrealloc(f->v, f->room * sizeof *f->v);
    }
    f->v[f->n++] = (struct fragment){begin, end, id};
}

// The part of the text with one answer to "is it trusted?" that a place lies in.
struct region {
    const struct span *spans;
    size_t n_spans, next; // spans[next - 1] begins at or before the place
    size_t end;
    bool trusted;
};

static void region_at(struct region *r, size_t place, size_t n)
{
    if (!r->spans) {
        r->end = n;
        r->trusted = r->n_spans > 0;
        return;
    }
    while (r->next < r->n_spans && r->spans[r->next].begin <= place)
        r->next++;
    const struct span *s = r->next > 0 ? &r->spans[r->next - 1] : NULL;
    r->trusted = s && place < s->end;
    r->end = r->trusted ? s->end : r->next < r->n_spans ? r->spans[r->next].begin : n;
    if (r->end > n)
        r->end = n;
}

// Where the tokens begin whose byte `at` is not below `byte`, in the sorted [lo, hi) that agree
// before it and are longer than `at`.
static uint32_t lower_bound(const struct added *a, uint32_t lo, uint32_t hi, size_t at,
                            unsigned byte)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)a->tokens[mid].text[at] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static const struct added_token *longest_at(const struct added *a, const char *text, size_t n,
                                            bool trusted)
{
    const struct added_token *found = NULL;
    uint32_t lo = 0, hi = a->n;
    for (size_t at = 0; at < n && lo < hi; at++) {
        unsigned byte = (uint8_t)text[at];
        lo = lower_bound(a, lo, hi, at, byte);
        hi = lower_bound(a, lo, hi, at, byte + 1);
        if (lo < hi && a->tokens[lo].n == at + 1) { // the one that ends here sorts first
            if (trusted || !a->tokens[lo].special)
                found = &a->tokens[lo];
            lo++;
        }
    }
    return found;
}

static bool is_single(const char *text, size_t n, size_t begin, size_t end)
{
    size_t len;
    if (begin > 0 && unicode_is_word(unicode_before(text, begin, &len)))
        return false;
    return end == n || !unicode_is_word(unicode_get(text + end, n - end, &len));
}

static size_t skip_left(const char *text, size_t begin, size_t not_before)
{
    size_t len;
    while (begin > not_before && unicode_is_space(unicode_before(text, begin, &len)))
        begin -= len;
    return begin < not_before ? not_before : begin;
}

static size_t skip_right(const char *text, size_t n, size_t end)
{
    size_t len;
    while (end < n && unicode_is_space(unicode_get(text + end, n - end, &len)))
        end += len;
    return end;
}

void added_split(const struct added *a, const char *text, size_t n, const struct span *spans,
                 size_t n_spans, struct fragments *f)
{
    struct region region = {spans, n_spans, 0, 0, false};
    size_t done = 0;
    f->n = 0;
    for (size_t i = 0; a->n && i < n;) {
        if (!a->first[(uint8_t)text[i]]) {
            i++;
            continue;
        }
        region_at(&region, i, n);
        const struct added_token *t = longest_at(a, text + i, region.end - i, region.trusted);
        if (!t) {
            i++;
            continue;
        }
        size_t begin = i, end = i + t->n;
        i = end;
        if (t->single_word && !is_single(text, n, begin, end))
            continue;
        if (t->lstrip)
            begin = skip_left(text, begin, done);
        if (t->rstrip)
            end = skip_right(text, n, end);
        put_fragment(f, done, begin, -1);
        put_fragment(f, begin, end, t->id);
        done = end;
    }
    put_fragment(f, done, n, -1);
}
