// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample - one metric of a page, copied out and found fit to be shown.
 *
 * Trust   none: a page belongs to a process that may have gone wrong and may still write to it.
 *         Every byte is read once, counts are clamped, texts are checked; what Prometheus would
 *         not read is refused.
 */
#include "wire/page.h"

struct sample {
    char name[sizeof(((struct page_metric *)0)->name)];
    char labels[sizeof(((struct page_metric *)0)->labels)];
    char help[sizeof(((struct page_metric *)0)->help)];
    uint32_t kind, n_bounds; // PM_COUNTER, PM_GAUGE, PM_HISTOGRAM
    double bounds[PAGE_BUCKETS];
    uint64_t buckets[PAGE_BUCKETS + 1]; // as in page_metric
    double value;
};

bool sample_read(const struct page_metric *m, struct sample *ret); // false: unfit
bool sample_name_ok(const char *name);                             // [a-zA-Z_:][a-zA-Z0-9_:]*
bool sample_labels_ok(const char *labels); // key="value",... with \\, \" and \n escaped; "" is fine
uint32_t sample_count(const struct page *p); // metrics of the page, clamped
