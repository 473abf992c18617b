// SPDX-License-Identifier: Apache-2.0
#include "obs/sample.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

static bool is_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool sample_name_ok(const char *name)
{
    if (!is_start(*name) && *name != ':')
        return false;
    for (; *name; name++)
        if (!is_start(*name) && !is_digit(*name) && *name != ':')
            return false;
    return true;
}

// Behind the closing quote of the value that begins at s; NULL: there is none.
static const char *skip_value(const char *s)
{
    for (; *s && *s != '"'; s++) {
        if (*s == '\n')
            return NULL;
        if (*s == '\\' && *++s != '\\' && *s != '"' && *s != 'n')
            return NULL;
    }
    return *s ? s + 1 : NULL;
}

bool sample_labels_ok(const char *labels)
{
    const char *s = labels;
    if (!*s)
        return true;
    if (!str_valid_utf8(s, strlen(s)))
        return false;
    for (;;) {
        if (!is_start(*s))
            return false;
        while (is_start(*s) || is_digit(*s))
            s++;
        if (s[0] != '=' || s[1] != '"' || !(s = skip_value(s + 2)))
            return false;
        if (!*s)
            return true;
        if (*s++ != ',')
            return false;
    }
}

uint32_t sample_count(const struct page *p)
{
    uint32_t n = atomic_load(&p->n_metrics);
    return n < PAGE_METRICS ? n : PAGE_METRICS;
}

static bool read_bounds(const struct page_metric *m, struct sample *s)
{
    uint32_t n = s->n_bounds = m->n_bounds;
    if (n > PAGE_BUCKETS)
        return false;
    memcpy(s->bounds, m->bounds, sizeof s->bounds);
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(s->bounds[i]) || (i > 0 && s->bounds[i] <= s->bounds[i - 1]))
            return false;
    for (uint32_t i = 0; i < PAGE_BUCKETS + 1; i++) {
        bool used = i < n || i == PAGE_BUCKETS;
        s->buckets[i] = used ? atomic_load_explicit(&m->buckets[i], memory_order_relaxed) : 0;
    }
    return true;
}

bool sample_read(const struct page_metric *m, struct sample *s)
{
    page_str(m->name, sizeof m->name, s->name, sizeof s->name);
    page_str(m->labels, sizeof m->labels, s->labels, sizeof s->labels);
    page_str(m->help, sizeof m->help, s->help, sizeof s->help);
    if (!sample_name_ok(s->name) || !sample_labels_ok(s->labels))
        return false;
    uint32_t kind = m->kind;
    s->kind = kind == PM_DROPPED ? PM_COUNTER : kind;
    s->n_bounds = 0;
    s->value = page_metric_value(m);
    if (s->kind == PM_HISTOGRAM)
        return read_bounds(m, s);
    return s->kind == PM_COUNTER || s->kind == PM_GAUGE;
}
