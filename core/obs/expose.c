// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "obs/metrics.h"
#include "obs/sample.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOLD_TRIES = 100 }; // looks at a fold page whose writer is at work

// The sum over all pages so far, one sample for each name and labels.
struct sums {
    struct sample **samples; // owned array of owned samples
    size_t n, cap;
    struct map by_key;    // name and labels -> its sample
    struct map by_family; // name -> its first sample, which decides kind and bounds
};

static void sums_finish(struct sums *t)
{
    for (size_t i = 0; i < t->n; i++)
        xfree(t->samples[i]);
    xfree(t->samples);
    map_finish(&t->by_key);
    map_finish(&t->by_family);
    *t = (struct sums){0};
}

static bool same_form(const struct sample *a, const struct sample *b)
{
    return a->kind == b->kind && a->n_bounds == b->n_bounds &&
           memcmp(a->bounds, b->bounds, a->n_bounds * sizeof *a->bounds) == 0;
}

static void merge(struct sample *into, const struct sample *s)
{
    into->value += s->value;
    if (s->kind == PM_HISTOGRAM)
        for (uint32_t i = 0; i <= PAGE_BUCKETS; i++)
            into->buckets[i] += s->buckets[i];
}

static void sums_add(struct sums *t, const struct sample *s)
{
    uint64_t family = hash_bytes(s->name, strlen(s->name), 0);
    uint64_t key = hash_bytes(s->labels, strlen(s->labels), family);
    struct sample *first = map_get(&t->by_family, family);
    if (first && (strcmp(first->name, s->name) != 0 || !same_form(first, s)))
        return; // two processes disagree about a name: the first one holds
    struct sample *have = map_get(&t->by_key, key);
    if (have) {
        if (strcmp(have->labels, s->labels) == 0)
            merge(have, s);
        return;
    }
    struct sample *copy = xcalloc(1, sizeof *copy);
    *copy = *s;
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->samples = xrealloc(t->samples, t->cap * sizeof(struct sample *));
    }
    t->samples[t->n++] = copy;
    map_put(&t->by_key, key, copy);
    if (!first)
        map_put(&t->by_family, family, copy);
}

static void sums_add_page(struct sums *t, const struct page *p)
{
    struct sample s;
    uint32_t n = sample_count(p);
    for (uint32_t i = 0; i < n; i++)
        if (sample_read(&p->metrics[i], &s))
            sums_add(t, &s);
}

// A dead page becomes `folded` and its numbers appear in the fold page within one seq, so what is
// read under one seq counts every process once.
static void collect(struct sums *t, const struct page *const *pages, size_t n,
                    const struct page *fold)
{
    for (int tries = 0;; tries++) {
        uint32_t seq = fold ? atomic_load(&fold->seq) : 0;
        for (size_t i = 0; i < n; i++)
            if (pages[i] && !atomic_load(&pages[i]->folded))
                sums_add_page(t, pages[i]);
        if (fold)
            sums_add_page(t, fold);
        bool calm = !fold || (seq % 2 == 0 && atomic_load(&fold->seq) == seq);
        if (calm || tries == FOLD_TRIES) // its writer may have died at work: better old than none
            return;
        sums_finish(t);
        sched_yield();
    }
}

static int by_name(const void *a, const void *b)
{
    const struct sample *const *x = a, *const *y = b;
    int c = strcmp((*x)->name, (*y)->name);
    return c ? c : strcmp((*x)->labels, (*y)->labels);
}

// The shortest text that reads back as v.
static void put_number(struct buf *out, double v)
{
    char text[40];
    if (isnan(v) || isinf(v)) {
        buf_puts(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (!(back < v || back > v))
            break;
    }
    buf_puts(out, text);
}

static void put_help(struct buf *out, const char *s)
{
    for (size_t left = strlen(s), len; left; s += len, left -= len) {
        len = str_utf8_len(s, left);
        if (*s == '\\' || *s == '\n')
            buf_puts(out, *s == '\n' ? "\\n" : "\\\\");
        else
            buf_put(out, len ? s : "?", len ? len : 1);
        len = len ? len : 1;
    }
}

static void put_family(struct buf *out, const struct sample *s)
{
    static const char *const kinds[] = {
        [PM_COUNTER] = "counter", [PM_GAUGE] = "gauge", [PM_HISTOGRAM] = "histogram"};
    buf_printf(out, "# HELP %s ", s->name);
    put_help(out, s->help);
    buf_printf(out, "\n# TYPE %s %s\n", s->name, kinds[s->kind]);
}

static void put_line(struct buf *out, const struct sample *s, const char *suffix, double v)
{
    buf_printf(out, "%s%s", s->name, suffix);
    if (*s->labels)
        buf_printf(out, "{%s}", s->labels);
    buf_puts(out, " ");
    put_number(out, v);
    buf_puts(out, "\n");
}

static void put_histogram(struct buf *out, const struct sample *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i <= s->n_bounds; i++) {
        bool last = i == s->n_bounds;
        sum += s->buckets[last ? PAGE_BUCKETS : i];
        buf_printf(out, "%s_bucket{%s%sle=\"", s->name, s->labels, *s->labels ? "," : "");
        put_number(out, last ? (double)INFINITY : s->bounds[i]);
        buf_printf(out, "\"} %llu\n", (unsigned long long)sum);
    }
    put_line(out, s, "_sum", s->value);
    put_line(out, s, "_count", (double)sum);
}

void metrics_expose(struct buf *out, const struct page *const *pages, size_t n,
                    const struct page *fold)
{
    struct sums t = {0};
    collect(&t, pages, n, fold);
    if (t.n)
        qsort(t.samples, t.n, sizeof(struct sample *), by_name);
    for (size_t i = 0; i < t.n; i++) {
        const struct sample *s = t.samples[i];
        if (i == 0 || strcmp(t.samples[i - 1]->name, s->name) != 0)
            put_family(out, s);
        if (s->kind == PM_HISTOGRAM)
            put_histogram(out, s);
        else
            put_line(out, s, "", s->value);
    }
    sums_finish(&t);
}
