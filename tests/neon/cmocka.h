// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * cmocka - the few names of cmocka that the kernels' tests use, for a processor that has no cmocka
 * built for it. The first failure ends the program.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f                                                                                      \
    }
#define print_error(...)   ((void)fprintf(stderr, __VA_ARGS__))
#define print_message(...) ((void)printf(__VA_ARGS__))
#define fail()                                                                                     \
    do {                                                                                           \
        (void)fprintf(stderr, "%s:%d: failed\n", __FILE__, __LINE__);                              \
        exit(1);                                                                                   \
    } while (0)
#define assert_true(x)                                                                             \
    do {                                                                                           \
        if (!(x))                                                                                  \
            fail();                                                                                \
    } while (0)
#define assert_false(x)              assert_true(!(x))
#define assert_null(p)               assert_true((p) == NULL)
#define assert_non_null(p)           assert_true((p) != NULL)
#define assert_int_equal(a, b)       assert_true((long long)(a) == (long long)(b))
#define assert_int_not_equal(a, b)   assert_true((long long)(a) != (long long)(b))
#define assert_in_range(x, a, b)     assert_true((x) >= (a) && (x) <= (b))
#define assert_ptr_equal(a, b)       assert_true((a) == (b))
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_float_equal(a, b, e)  assert_true((a) - (b) <= (e) && (b) - (a) <= (e))

static inline int cmocka_run(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *state = NULL;
        tests[i].test(&state);
        (void)printf("%s: ok\n", tests[i].name);
        (void)fflush(stdout);
    }
    return 0;
}
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cmocka_run(tests, sizeof(tests) / sizeof((tests)[0]))
