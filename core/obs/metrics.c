// SPDX-License-Identifier: Apache-2.0
#include "obs/metrics.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/map.h"
#include "base/str.h"
#include "obs/log.h"
#include "obs/sample.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const double metrics_bounds[] = {
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
    0.2,  0.5,  1,    2,    5,    10,   20,   50,   100,  200,  500,  600,
};
const uint32_t metrics_n_bounds = ARRAY_LEN(metrics_bounds);
_Static_assert(ARRAY_LEN(metrics_bounds) <= PAGE_BUCKETS, "a page has room for the bounds");
static const double size_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

static const struct core_metric {
    const char *id, *name, *help;
    uint32_t kind, n_bounds;
    const double *bounds;
} core_metrics[M_COUNT] = {
#define COUNTER(id, name, help) [M_##id] = {#id, name, help, PM_COUNTER, 0, NULL},
#define GAUGE(id, name, help)   [M_##id] = {#id, name, help, PM_GAUGE, 0, NULL},
#define HISTOGRAM(id, name, help)                                                                  \
    [M_##id] = {#id, name, help, PM_HISTOGRAM, ARRAY_LEN(metrics_bounds), metrics_bounds},
#define SIZES(id, name, help)                                                                      \
    [M_##id] = {#id, name, help, PM_HISTOGRAM, ARRAY_LEN(size_bounds), size_bounds},
#include "obs/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef SIZES
};

/*
 * Where a metric is, by hash of page address, name and labels. An entry is a guess that is checked
 * against the page, so a page that was unmapped, or two metrics of one hash, do no harm.
 */
enum { PLACES_MAX = 1 << 16 }; // then it begins anew: it only spares searches
static struct map places;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // makes metrics, guards `places`

static uint64_t place_of(const struct page *p, const char *name, const char *labels)
{
    uint64_t h = hash_bytes(name, strlen(name), (uint64_t)(uintptr_t)p);
    return hash_bytes(labels, strlen(labels), h);
}

static void remember(struct page *p, struct page_metric *m)
{
    if (places.len >= PLACES_MAX)
        map_finish(&places);
    map_put(&places, place_of(p, m->name, m->labels), m);
}

static bool is_metric(const struct page_metric *m, const char *name, const char *labels)
{
    return strncmp(m->name, name, sizeof m->name) == 0 &&
           strncmp(m->labels, labels, sizeof m->labels) == 0;
}

static struct page_metric *find(struct page *p, const char *name, const char *labels)
{
    uint32_t n = sample_count(p);
    struct page_metric *guess = map_get(&places, place_of(p, name, labels));
    bool here = guess >= p->metrics && guess < p->metrics + n;
    if (here && is_metric(guess, name, labels))
        return guess;
    for (uint32_t i = 0; i < n; i++) {
        if (!is_metric(&p->metrics[i], name, labels))
            continue;
        remember(p, &p->metrics[i]);
        return &p->metrics[i];
    }
    return NULL;
}

// n_metrics goes up last: readers see a complete entry or none.
static struct page_metric *make(struct page *p, uint32_t kind, const char *name, const char *labels,
                                const char *help, const double *bounds, uint32_t n_bounds)
{
    uint32_t n = sample_count(p);
    CHECK(n < PAGE_METRICS && n_bounds <= PAGE_BUCKETS);
    struct page_metric *m = &p->metrics[n];
    memset(m, 0, sizeof *m);
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->labels, sizeof m->labels, "%s", labels);
    snprintf(m->help, sizeof m->help, "%s", help ? help : "");
    m->kind = kind;
    m->n_bounds = n_bounds;
    if (n_bounds)
        memcpy(m->bounds, bounds, n_bounds * sizeof *bounds);
    atomic_store(&p->n_metrics, n + 1);
    remember(p, m);
    return m;
}

static bool fits(const char *name, const char *labels, uint32_t n_bounds)
{
    const struct page_metric *m = NULL;
    return strlen(name) < sizeof m->name && strlen(labels) < sizeof m->labels &&
           n_bounds <= PAGE_BUCKETS && sample_name_ok(name) && sample_labels_ok(labels);
}

// The last entry is kept free for it.
static struct page_metric *overflow(struct page *p, bool *ret_first)
{
    const struct core_metric *c = &core_metrics[M_dropped_metrics];
    struct page_metric *m = find(p, c->name, "");
    *ret_first = !m;
    return m ? m : make(p, PM_DROPPED, c->name, "", c->help, NULL, 0);
}

struct page_metric *metrics_get(struct page *p, uint32_t kind, const char *name, const char *labels,
                                const char *help, const double *bounds, uint32_t n_bounds)
{
    bool first = false;
    CHECK(p);
    pthread_mutex_lock(&lock);
    struct page_metric *m = find(p, name, labels);
    if (!m && fits(name, labels, n_bounds) && sample_count(p) < PAGE_METRICS - 1)
        m = make(p, kind, name, labels, help, bounds, n_bounds);
    if (!m)
        m = overflow(p, &first);
    pthread_mutex_unlock(&lock);
    if (first)
        LOGW("no room for the metric %.64s{%.256s}: at most %d a process, names of %zu and labels "
             "of %zu bytes in Prometheus's form; salver_metrics_dropped_total counts what is lost",
             name, labels, PAGE_METRICS - 1, sizeof m->name - 1, sizeof m->labels - 1);
    return m;
}

struct page_metric *metrics_core(struct page *p, enum metrics_id id, const char *labels)
{
    const struct core_metric *c = &core_metrics[id];
    uint32_t kind = id == M_dropped_metrics ? PM_DROPPED : c->kind;
    return metrics_get(p, kind, c->name, labels, c->help, c->bounds, c->n_bounds);
}

// The form of one character of a label's value; *len bytes of s are used.
static const char *escape(const char *s, size_t left, char one[5], size_t *len)
{
    *len = 1;
    if (*s == '\\')
        return "\\\\";
    if (*s == '"')
        return "\\\"";
    if (*s == '\n')
        return "\\n";
    size_t n = str_utf8_len(s, left);
    if (n == 0)
        return "\xef\xbf\xbd"; // U+FFFD: one bad byte would make the whole scrape unreadable
    *len = n;
    memcpy(one, s, n);
    one[n] = '\0';
    return one;
}

static size_t put_pair(char *out, size_t room, bool first, const char *key, const char *value)
{
    size_t used = strlen(key) + (first ? 0 : 1) + 3; // comma, =, two quotes
    if (used >= room)
        return 0;
    used = (size_t)snprintf(out, room, "%s%s=\"", first ? "" : ",", key);
    for (size_t left = strlen(value), len; left; value += len, left -= len) {
        char one[5];
        const char *text = escape(value, left, one, &len);
        size_t n = strlen(text);
        if (used + n + 1 >= room) // the closing quote and the NUL
            break;
        memcpy(out + used, text, n);
        used += n;
    }
    out[used++] = '"';
    out[used] = '\0';
    return used;
}

void metrics_labels(char *out, size_t cap, ...)
{
    CHECK(cap > 0);
    out[0] = '\0';
    size_t used = 0;
    va_list ap;
    va_start(ap, cap);
    for (const char *key; (key = va_arg(ap, const char *));) {
        const char *value = va_arg(ap, const char *);
        used += put_pair(out + used, cap - used, used == 0, key, value ? value : "");
    }
    va_end(ap);
}

static void fold_sample(struct page *fold, const struct sample *s)
{
    struct page_metric *m =
        metrics_get(fold, s->kind, s->name, s->labels, s->help, s->bounds, s->n_bounds);
    bool same = m->kind == s->kind && m->n_bounds == s->n_bounds &&
                memcmp(m->bounds, s->bounds, s->n_bounds * sizeof *s->bounds) == 0;
    if (same || m->kind == PM_DROPPED)
        page_metric_add(m, s->value);
    if (!same || s->kind != PM_HISTOGRAM)
        return;
    for (uint32_t i = 0; i <= PAGE_BUCKETS; i++)
        atomic_fetch_add(&m->buckets[i], s->buckets[i]);
}

void metrics_fold(struct page *fold, struct page *dead)
{
    struct sample s;
    if (atomic_load(&dead->folded))
        return;
    uint32_t seq = atomic_load(&fold->seq) | 1; // a writer that died at work left it odd
    atomic_store(&fold->seq, seq);
    uint32_t n = sample_count(dead);
    for (uint32_t i = 0; i < n; i++)
        if (sample_read(&dead->metrics[i], &s) && s.kind != PM_GAUGE)
            fold_sample(fold, &s);
    atomic_store(&dead->folded, 1);
    atomic_store(&fold->seq, seq + 1);
}

void metrics_doc(struct buf *out)
{
    static const char *const kinds[] = {
        [PM_COUNTER] = "counter", [PM_GAUGE] = "gauge", [PM_HISTOGRAM] = "histogram"};
    buf_puts(out, "# Metrics\n\n"
                  "`/metrics` of any ingress is the sum over all processes of the server, those "
                  "that ended included.\nThe labels stand in brackets: a application, d "
                  "deployment, p replica, r route.\n\n"
                  "| name | kind | what |\n|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(core_metrics); i++)
        buf_printf(out, "| %s | %s | %s |\n", core_metrics[i].name, kinds[core_metrics[i].kind],
                   core_metrics[i].help);
    buf_puts(out, "\nBuckets of the histograms in seconds:");
    for (uint32_t i = 0; i < metrics_n_bounds; i++)
        buf_printf(out, "%s %g", i ? "," : "", metrics_bounds[i]);
    buf_puts(out, ".\n");
}
