// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/os.h"
#include "wire/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static int setup(void **state)
{
    struct page *p;
    int fd = page_create("test", NULL);
    if (fd < 0 || page_map(fd, &p, NULL) < 0)
        return 1;
    close(fd);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    page_unmap(*state);
    return 0;
}

static void requests_go_through_their_states(void **state)
{
    struct page *p = *state;
    uint64_t ids[4];
    int a = page_request_take(p, 10), b = page_request_take(p, 0);
    assert_int_not_equal(a, b);
    assert_int_equal(page_request_state_of(p, 10), PR_HELD);
    page_request_give(p, a);
    assert_int_equal(page_request_state_of(p, 10), PR_GIVEN);
    assert_int_equal(page_request_state_of(p, 0), PR_HELD);
    assert_int_equal(page_request_state_of(p, 11), PR_FREE);
    assert_int_equal(page_request_ids(p, PR_GIVEN, ids, 4), 1);
    assert_int_equal(ids[0], 10);
    page_request_free(p, a);
    assert_int_equal(page_request_state_of(p, 10), PR_FREE);
    assert_int_equal(page_request_ids(p, PR_HELD, ids, 0), 1); // counted without room
    page_request_free(p, b);
    page_request_free(p, b); // twice is once
    assert_int_not_equal(page_request_take(p, 1), page_request_take(p, 2));
    assert_int_equal(p->n_requests, 2); // freed places are used again
}

static void a_full_table_refuses(void **state)
{
    struct page *p = *state;
    static bool seen[PAGE_REQUESTS];
    for (uint64_t i = 0; i < PAGE_REQUESTS; i++) {
        int slot = page_request_take(p, i);
        assert_in_range(slot, 0, PAGE_REQUESTS - 1);
        assert_false(seen[slot]);
        seen[slot] = true;
    }
    assert_int_equal(page_request_take(p, 1), -1);
    page_request_free(p, 77);
    assert_int_equal(page_request_take(p, 5000), 77);
    assert_int_equal(page_request_take(p, 1), -1);
    assert_int_equal(page_request_ids(p, PR_HELD, NULL, 0), PAGE_REQUESTS);
}

static _Atomic int owners[PAGE_REQUESTS];

static void *take_and_free(void *arg)
{
    struct page *p = arg;
    for (int i = 0; i < 20000; i++) {
        int slot = page_request_take(p, (uint64_t)i);
        if (slot < 0 || atomic_fetch_add(&owners[slot], 1) != 0)
            return p; // refused, or two hold one slot
        atomic_fetch_sub(&owners[slot], 1);
        page_request_free(p, slot);
    }
    return NULL;
}

static void threads_never_share_a_slot(void **state)
{
    struct page *p = *state;
    pthread_t threads[4];
    void *bad;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, take_and_free, p);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
    assert_in_range(p->n_requests, 1, 4);
}

static void log_ring(void **state)
{
    struct page *p = *state;
    char line[PAGE_LOG_LINE], text[32];
    assert_false(page_log_line(p, 0, line));
    page_log(p, "first\n", 6);
    assert_true(page_log_line(p, 0, line));
    assert_string_equal(line, "first");
    for (int i = 0; i < PAGE_LOG_LINES + 3; i++)
        page_log(p, text, (size_t)snprintf(text, sizeof text, "line %d", i));
    assert_true(page_log_line(p, 0, line));
    assert_string_equal(line, "line 3");
    assert_true(page_log_line(p, PAGE_LOG_LINES - 1, line));
    assert_string_equal(line, "line 52");
    assert_false(page_log_line(p, PAGE_LOG_LINES, line));
    char longer[600];
    memset(longer, 'x', sizeof longer);
    page_log(p, longer, sizeof longer);
    assert_true(page_log_line(p, PAGE_LOG_LINES - 1, line));
    assert_int_equal(strlen(line), PAGE_LOG_LINE - 1);
}

static void hostile_pages_are_clamped(void **state)
{
    struct page *p = *state;
    char line[PAGE_LOG_LINE], small[4];
    memset(p, 0xff, sizeof *p);
    for (uint32_t i = 0; page_log_line(p, i, line); i++)
        assert_in_range(strlen(line), 0, PAGE_LOG_LINE - 1);
    assert_int_equal(page_request_state_of(p, UINT64_MAX), PR_GIVEN); // in doubt the plugin had it
    assert_int_equal(page_request_take(p, 1), -1);
    page_str(p->name, sizeof p->name, small, sizeof small);
    assert_string_equal(small, "\xff\xff\xff");
    page_metric_observe(&p->metrics[0], 1);
    memset(p, 0, sizeof *p);
    p->free_requests = PAGE_REQUESTS + 5; // a slot that there is not
    assert_int_equal(page_request_take(p, 1), 0);
}

static void strings_are_copied_with_an_end(void **state)
{
    (void)state;
    static const struct {
        const char *src;
        size_t cap, out_cap;
        const char *want;
    } cases[] = {
        {"abc", 4, 8, "abc"}, {"abc", 2, 8, "ab"}, {"abc", 3, 3, "ab"},
        {"abc", 3, 1, ""},    {"a\0c", 3, 8, "a"}, {"abc", 0, 8, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[8];
        page_str(cases[i].src, cases[i].cap, out, cases[i].out_cap);
        assert_string_equal(out, cases[i].want);
    }
}

static void metric_values(void **state)
{
    struct page_metric *m = &((struct page *)*state)->metrics[0];
    page_metric_add(m, 1.5);
    page_metric_add(m, 2);
    assert_true(page_metric_value(m) == 3.5);
    page_metric_set(m, -1);
    assert_true(page_metric_value(m) == -1);
    m->kind = PM_HISTOGRAM;
    m->n_bounds = 2;
    m->bounds[0] = 1;
    m->bounds[1] = 10;
    static const double seen[] = {0.5, 1, 1.5, 10, 11, NAN, INFINITY};
    page_metric_set(m, 0);
    for (size_t i = 0; i < 6; i++)
        page_metric_observe(m, seen[i]);
    assert_int_equal(m->buckets[0], 2);
    assert_int_equal(m->buckets[1], 2);
    assert_int_equal(m->buckets[PAGE_BUCKETS], 1);
    assert_true(page_metric_value(m) == 24);
    m->kind = PM_DROPPED;
    page_metric_set(m, 100);
    assert_true(page_metric_value(m) == 25); // recordings, not their value
}

static void only_good_files_are_mapped(void **state)
{
    (void)state;
    struct page *p = NULL;
    struct err err;
    int small = os_memfd("small", 4096, NULL), whole = page_create("whole", NULL);
    int unsealed = memfd_create("unsealed", MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(unsealed, sizeof(struct page)), 0);
    int empty = os_memfd("empty", sizeof(struct page), NULL);
    assert_true(page_map(small, &p, &err) < 0);
    assert_non_null(strstr(err.msg, "4096 bytes"));
    assert_true(page_map(unsealed, &p, &err) < 0);
    assert_non_null(strstr(err.msg, "not sealed"));
    assert_true(page_map(empty, &p, &err) < 0);
    assert_non_null(strstr(err.msg, "no shared page"));
    assert_int_equal(page_map(whole, &p, &err), 0);
    assert_true(ftruncate(whole, 4096) < 0);
    p->version = PAGE_VERSION + 1;
    page_unmap(p);
    assert_true(page_map(whole, &p, &err) < 0);
    assert_non_null(strstr(err.msg, "version 2"));
    close(small);
    close(whole);
    close(unsealed);
    close(empty);
}

static void every_doing_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < PD_COUNT; i++)
        assert_non_null(page_doing_names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_go_through_their_states, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_table_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_never_share_a_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(log_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_pages_are_clamped, setup, teardown),
        cmocka_unit_test(strings_are_copied_with_an_end),
        cmocka_unit_test_setup_teardown(metric_values, setup, teardown),
        cmocka_unit_test(only_good_files_are_mapped),
        cmocka_unit_test(every_doing_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
