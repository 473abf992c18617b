// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * metrics - numbers in a shared page, and their sum as Prometheus text.
 *
 * A metric is found or made by (name, labels) once and then held as a pointer; recording is an
 * atomic add. Core metrics come from metrics.def: one line gives enum, name, help and doc row.
 * Histograms of the core share METRICS_BOUNDS, 10 us to 10 min.
 *
 * Bounds  PAGE_METRICS a process; past that metrics_get gives the process's one overflow metric
 *         (salver_metrics_dropped_total) and the first time a log line says so.
 * Thread  get: any (a lock); record: any, lock-free. expose: any process that has the pages mapped.
 * Format  Prometheus text exposition 0.0.4; metrics with the same name and labels in several pages
 *         are summed (gauges too), families are sorted by name, HELP and TYPE come once.
 */
#include "wire/page.h"

struct buf;

extern const double metrics_bounds[];
extern const uint32_t metrics_n_bounds; // <= PAGE_BUCKETS

enum metrics_id {
#define COUNTER(id, name, help)   M_##id,
#define GAUGE(id, name, help)     M_##id,
#define HISTOGRAM(id, name, help) M_##id,
#define SIZES(id, name, help)     M_##id,
#include "obs/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef SIZES
    M_COUNT,
};

// Labels as exposed, without braces, escaped by metrics_labels. Never NULL.
struct page_metric *metrics_core(struct page *p, enum metrics_id id, const char *labels);
// A name or labels that are too long or that Prometheus would not read give the overflow metric.
struct page_metric *metrics_get(struct page *p, uint32_t kind, const char *name, const char *labels,
                                const char *help, const double *bounds, uint32_t n_bounds);
// key1, value1, key2, value2, ..., NULL -> `key1="value1",key2="value2"`, escaped. A value that
// does not fit is cut; a pair of which not even the key fits is left out. Ends with (const char
// *)NULL.
__attribute__((sentinel)) void metrics_labels(char *out, size_t cap, ...);
static inline void metrics_add(struct page_metric *m, double v)
{
    page_metric_add(m, v);
}
static inline void metrics_set(struct page_metric *m, double v)
{
    page_metric_set(m, v);
}
static inline void metrics_observe(struct page_metric *m, double v)
{
    page_metric_observe(m, v);
}

// Sums `pages` (NULL entries and folded ones are skipped) with `fold` (may be NULL; read under its
// seq) into Prometheus text.
void metrics_expose(struct buf *out, const struct page *const *pages, size_t n,
                    const struct page *fold);
// Adds the counters and histograms of a dead process's page to the fold page and marks it folded.
void metrics_fold(struct page *fold, struct page *dead);

void metrics_doc(struct buf *out); // every core metric, as a Markdown table
