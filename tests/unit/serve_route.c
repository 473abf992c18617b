// SPDX-License-Identifier: Apache-2.0
#include "serve/core_endpoints.h"
#include "serve/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *prefixes, *path; // prefixes separated by spaces
    const char *to, *rest;       // NULL: nobody
} rows[] = {
    {"/echo", "/echo", "/echo", "/"},
    {"/echo", "/echo/", "/echo", "/"},
    {"/echo", "/echo/x/y", "/echo", "/x/y"},
    {"/echo", "/echoes", NULL, NULL},
    {"/echo", "/ech", NULL, NULL},
    {"/echo", "/", NULL, NULL},
    {"/", "/", "/", "/"},
    {"/", "/a/b", "/", "/a/b"},
    {"/ /a /a/b", "/a/b/c", "/a/b", "/c"},
    {"/a/b /a /", "/a/c", "/a", "/c"},
    {"/a /a/b /", "/b", "/", "/b"},
    {"/abc /abd", "/abd/x", "/abd", "/x"},
    {"", "/", NULL, NULL},
};

static void find_row(void **state)
{
    const struct row *row = *state;
    char text[64];
    strcpy(text, row->prefixes);
    struct route_table t = {0};
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " "))
        route_add(&t, p, p);
    const char *rest = NULL;
    const struct route_entry *e = route_find(&t, row->path, &rest);
    if (!row->to) {
        assert_null(e);
    } else {
        assert_non_null(e);
        assert_string_equal(e->to, row->to);
        assert_string_equal(rest, row->rest);
    }
    route_finish(&t);
}

static void below(void **state)
{
    (void)state;
    assert_string_equal(route_below("", "/x"), "/x");
    assert_string_equal(route_below("/api", "/api/x"), "/x");
    assert_string_equal(route_below("/api", "/api"), "/");
    assert_string_equal(route_below("/api/", "/api/x"), "/x");
    assert_null(route_below("/api", "/apix"));
    assert_null(route_below("/api", "/x"));
}

static void core_paths(void **state)
{
    (void)state;
    assert_true(core_endpoints_match("/-/healthz", 0));
    assert_true(core_endpoints_match("/-/routes", 2)); // never an application's
    assert_true(core_endpoints_match("/-/else", 0));
    assert_true(core_endpoints_match("/health", 0));
    assert_false(core_endpoints_match("/health", 7)); // an application at /health
    assert_false(core_endpoints_match("/health/x", 0));
    assert_true(core_endpoints_match("/metrics", 0));
    assert_true(core_endpoints_match("/v1/models", 0));
    assert_true(core_endpoints_match("/v1/models", 3)); // an application at /v1
    assert_true(core_endpoints_match("/version", 0));
    assert_false(core_endpoints_match("/versions", 0));
    assert_false(core_endpoints_match("/-x", 0));
    assert_false(core_endpoints_match("*", 0));
}

int main(void)
{
    enum { N = sizeof rows / sizeof *rows };
    struct CMUnitTest tests[N + 2];
    for (size_t i = 0; i < N; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].path, find_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(below);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(core_paths);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
