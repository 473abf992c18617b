// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "obs/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

// Pages in plain memory: a sanitizer sees what is read beside them.
static struct page *new_page(void)
{
    return calloc(1, sizeof(struct page));
}

static void check_exposed(const struct page *const *pages, size_t n, const struct page *fold,
                          const char *want)
{
    struct buf out = {0};
    metrics_expose(&out, pages, n, fold);
    assert_string_equal(buf_cstr(&out), want);
    buf_finish(&out);
}

static void labels_are_escaped_and_cut(void **state)
{
    (void)state;
    static const struct {
        size_t cap;
        const char *value, *want;
    } cases[] = {
        {64, "echo", "a=\"echo\",b=\"2\""},
        {64, "", "a=\"\",b=\"2\""},
        {64, "q\"u\\o\nte", "a=\"q\\\"u\\\\o\\nte\",b=\"2\""},
        {64, "\xff\xc3\xa4", "a=\"\xef\xbf\xbd\xc3\xa4\",b=\"2\""},
        {8, "echo", "a=\"ech\""}, // cut, and no room for the next
        {8, "ec\\o", "a=\"ec\""}, // never in the middle of an escape
        {5, "echo", "a=\"\""},
        {4, "echo", ""},
        {1, "echo", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = malloc(cases[i].cap);
        metrics_labels(out, cases[i].cap, "a", cases[i].value, "b", "2", (const char *)NULL);
        assert_string_equal(out, cases[i].want);
        free(out);
    }
    char none[8];
    metrics_labels(none, sizeof none, (const char *)NULL);
    assert_string_equal(none, "");
}

static void found_again(void **state)
{
    (void)state;
    struct page *p = new_page(), *q = new_page();
    struct page_metric *m = metrics_core(p, M_requests, "a=\"x\"");
    assert_ptr_equal(metrics_core(p, M_requests, "a=\"x\""), m);
    assert_ptr_not_equal(metrics_core(p, M_requests, "a=\"y\""), m);
    assert_ptr_not_equal(metrics_core(q, M_requests, "a=\"x\""), m);
    memset(p, 0, sizeof *p); // as if another page were mapped at this address
    m = metrics_core(p, M_requests, "a=\"y\"");
    assert_ptr_equal(m, &p->metrics[0]);
    assert_string_equal(m->labels, "a=\"y\"");
    free(p);
    free(q);
}

static void exposition_is_the_sum(void **state)
{
    (void)state;
    struct page *p = new_page(), *q = new_page(), *gone = new_page();
    static const double bounds[] = {0.125, 1};
    const struct page *pages[] = {p, NULL, q, gone};
    gone->folded = 1;
    metrics_add(metrics_core(gone, M_requests, ""), 1000);
    metrics_add(metrics_core(p, M_requests, "a=\"x\",code=\"200\""), 2);
    metrics_add(metrics_core(q, M_requests, "a=\"x\",code=\"200\""), 3);
    metrics_add(metrics_core(q, M_requests, "a=\"b\",code=\"200\""), 1e15);
    metrics_set(metrics_core(p, M_connections, ""), 1.5);
    metrics_set(metrics_core(q, M_connections, ""), 2);
    static const double seen[] = {0.0625, 0.125, 0.5, 7};
    for (size_t i = 0; i < 4; i++)
        metrics_observe(metrics_get(i % 2 ? p : q, PM_HISTOGRAM, "plugin_seconds", "m=\"\\\"\"",
                                    "Time\nof \\ it.", bounds, 2),
                        seen[i]);
    check_exposed(pages, 4, NULL,
                  "# HELP plugin_seconds Time\\nof \\\\ it.\n"
                  "# TYPE plugin_seconds histogram\n"
                  "plugin_seconds_bucket{m=\"\\\"\",le=\"0.125\"} 2\n"
                  "plugin_seconds_bucket{m=\"\\\"\",le=\"1\"} 3\n"
                  "plugin_seconds_bucket{m=\"\\\"\",le=\"+Inf\"} 4\n"
                  "plugin_seconds_sum{m=\"\\\"\"} 7.6875\n"
                  "plugin_seconds_count{m=\"\\\"\"} 4\n"
                  "# HELP salver_connections Open client connections (ingress).\n"
                  "# TYPE salver_connections gauge\n"
                  "salver_connections 3.5\n"
                  "# HELP salver_requests_total Requests finished (a, d, r, outcome, code).\n"
                  "# TYPE salver_requests_total counter\n"
                  "salver_requests_total{a=\"b\",code=\"200\"} 1e+15\n"
                  "salver_requests_total{a=\"x\",code=\"200\"} 5\n");
    free(p);
    free(q);
    free(gone);
}

static void dead_pages_are_folded_once(void **state)
{
    (void)state;
    struct page *fold = new_page(), *dead = new_page(), *live = new_page();
    const struct page *pages[] = {dead, live};
    static const double bounds[] = {1};
    static const char want[] = "# HELP a_total A.\n# TYPE a_total counter\na_total 12\n"
                               "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n"
                               "h_bucket{le=\"+Inf\"} 2\nh_sum 2.5\nh_count 2\n";
    metrics_add(metrics_get(dead, PM_COUNTER, "a_total", "", "A.", NULL, 0), 5);
    metrics_add(metrics_get(live, PM_COUNTER, "a_total", "", "A.", NULL, 0), 7);
    metrics_observe(metrics_get(dead, PM_HISTOGRAM, "h", "", "H.", bounds, 1), 0.5);
    metrics_observe(metrics_get(dead, PM_HISTOGRAM, "h", "", "H.", bounds, 1), 2);
    check_exposed(pages, 2, fold, want);
    metrics_set(metrics_get(dead, PM_GAUGE, "g", "", "G.", NULL, 0), 3); // dies with its process
    fold->seq = 7; // a writer that died at work
    metrics_fold(fold, dead);
    metrics_fold(fold, dead);
    assert_int_equal(fold->seq % 2, 0);
    check_exposed(pages, 2, fold, want);
    check_exposed(pages + 1, 1, fold, want);
    struct page *next = new_page();
    metrics_add(metrics_get(next, PM_COUNTER, "a_total", "", "A.", NULL, 0), 1);
    metrics_fold(fold, next);
    assert_true(page_metric_value(&fold->metrics[0]) == 6);
    fold->seq = 9; // left at work for good: its numbers are still shown
    check_exposed(NULL, 0, fold,
                  "# HELP a_total A.\n# TYPE a_total counter\na_total 6\n"
                  "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n"
                  "h_bucket{le=\"+Inf\"} 2\nh_sum 2.5\nh_count 2\n");
    free(fold);
    free(dead);
    free(live);
    free(next);
}

static void room_is_bounded(void **state)
{
    (void)state;
    struct page *p = new_page();
    char name[32], long_name[128];
    for (int i = 0; i < PAGE_METRICS - 1; i++) {
        snprintf(name, sizeof name, "m%d", i);
        assert_int_equal(metrics_get(p, PM_COUNTER, name, "", "", NULL, 0)->kind, PM_COUNTER);
    }
    struct page_metric *m = metrics_get(p, PM_GAUGE, "one_more", "", "", NULL, 0);
    assert_string_equal(m->name, "salver_metrics_dropped_total");
    assert_ptr_equal(metrics_get(p, PM_COUNTER, "and_one", "", "", NULL, 0), m);
    metrics_set(m, 50);
    metrics_add(m, 3);
    metrics_observe(m, 0.1);
    assert_true(page_metric_value(m) == 3);
    assert_string_equal(metrics_get(p, PM_COUNTER, "m5", "", "", NULL, 0)->name, "m5");
    assert_int_equal(p->n_metrics, PAGE_METRICS);
    memset(p, 0, sizeof *p);
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    static const char *const bad[] = {"", "1st", "a-b", "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(metrics_get(p, PM_GAUGE, bad[i], "", "", NULL, 0)->kind, PM_DROPPED);
    assert_int_equal(metrics_get(p, PM_GAUGE, long_name, "", "", NULL, 0)->kind, PM_DROPPED);
    static const char *const bad_labels[] = {"a",         "a=",        "a=\"",    "a=\"x\",",
                                             "a=\"\n\"",  "a=\"\\x\"", "1=\"x\"", "a=\"x\"b=\"y\"",
                                             "a=\"\xff\""};
    for (size_t i = 0; i < sizeof bad_labels / sizeof *bad_labels; i++)
        assert_int_equal(metrics_get(p, PM_GAUGE, "ok", bad_labels[i], "", NULL, 0)->kind,
                         PM_DROPPED);
    free(p);
}

static void hostile_pages_show_nothing_bad(void **state)
{
    (void)state;
    struct page *p = new_page(), *q = new_page();
    const struct page *pages[] = {q, p};
    metrics_add(metrics_get(q, PM_COUNTER, "good_total", "", "Good.", NULL, 0), 1);
    memset(p->metrics, 'x', sizeof p->metrics); // texts without an end, n_bounds far too large
    p->n_metrics = UINT32_MAX;
    for (uint32_t i = 0; i < PAGE_METRICS; i++)
        p->metrics[i].kind = i % 7;
    static const struct {
        const char *name, *labels, *help;
        uint32_t kind, n_bounds;
        double bounds[2];
    } rows[] = {
        {"good_total", "", "Another kind.", PM_GAUGE, 0, {0}},
        {"inject\nevil 1", "", "", PM_COUNTER, 0, {0}},
        {"inject", "a=\"\"} 1\nevil{b=\"", "", PM_COUNTER, 0, {0}},
        {"h", "", "", PM_HISTOGRAM, PAGE_BUCKETS + 1, {0}},
        {"h", "", "", PM_HISTOGRAM, UINT32_MAX, {0}},
        {"h", "", "", PM_HISTOGRAM, 2, {2, 1}},
        {"h", "", "", PM_HISTOGRAM, 2, {1, NAN}},
        {"kind", "", "", 4, 0, {0}},
        {"help", "", "two\nlines \xff", PM_GAUGE, 0, {0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct page_metric *m = &p->metrics[i];
        memset(m, 0, sizeof *m);
        strcpy(m->name, rows[i].name);
        strcpy(m->labels, rows[i].labels);
        strcpy(m->help, rows[i].help);
        m->kind = rows[i].kind;
        m->n_bounds = rows[i].n_bounds;
        memcpy(m->bounds, rows[i].bounds, sizeof rows[i].bounds);
        for (uint32_t k = 0; rows[i].n_bounds > 2 && k < PAGE_BUCKETS; k++)
            m->bounds[k] = k; // in order, so that their number alone is wrong
    }
    page_metric_set(&p->metrics[8], NAN);
    check_exposed(pages, 2, NULL,
                  "# HELP good_total Good.\n# TYPE good_total counter\ngood_total 1\n"
                  "# HELP help two\\nlines ?\n# TYPE help gauge\nhelp NaN\n");
    metrics_fold(q, p);
    free(p);
    free(q);
}

static void numbers_are_short_and_exact(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *want;
    } cases[] = {{0, "g 0\n"},
                 {0.1, "g 0.1\n"},
                 {1.0 / 3, "g 0.3333333333333333\n"},
                 {1e21, "g 1e+21\n"},
                 {-2.5, "g -2.5\n"},
                 {INFINITY, "g +Inf\n"},
                 {-INFINITY, "g -Inf\n"},
                 {12345678, "g 12345678\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct page *p = new_page();
        const struct page *pages[] = {p};
        struct buf out = {0};
        metrics_set(metrics_get(p, PM_GAUGE, "g", "", "", NULL, 0), cases[i].v);
        metrics_expose(&out, pages, 1, NULL);
        assert_non_null(strstr(buf_cstr(&out), cases[i].want));
        buf_finish(&out);
        free(p);
    }
}

static void doc_and_bounds(void **state)
{
    (void)state;
    struct buf out = {0};
    metrics_doc(&out);
    assert_non_null(strstr(buf_cstr(&out), "| salver_requests_total | counter | Requests"));
    assert_non_null(strstr(buf_cstr(&out), " 1e-05, 2e-05, 5e-05,"));
    buf_finish(&out);
    assert_in_range(metrics_n_bounds, 2, PAGE_BUCKETS);
    for (uint32_t i = 1; i < metrics_n_bounds; i++)
        assert_true(metrics_bounds[i] > metrics_bounds[i - 1]);
    assert_true(metrics_bounds[metrics_n_bounds - 1] == 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_escaped_and_cut),
        cmocka_unit_test(found_again),
        cmocka_unit_test(exposition_is_the_sum),
        cmocka_unit_test(dead_pages_are_folded_once),
        cmocka_unit_test(room_is_bounded),
        cmocka_unit_test(hostile_pages_show_nothing_bad),
        cmocka_unit_test(numbers_are_short_and_exact),
        cmocka_unit_test(doc_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
