// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void alignment_and_zeroes(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    for (size_t n = 0; n < 3000; n += 7) {
        unsigned char *p = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    arena_reset(&a);
    assert_int_equal(a.used, 0);
    unsigned char *again = arena_alloc(&a, 2000); // a used block comes back zeroed
    assert_int_equal(again[0] | again[1999], 0);
    arena_finish(&a);
}

static void limits(void **state)
{
    (void)state;
    static const struct {
        size_t limit, sizes[3];
        const char *want; // y or n for each
    } cases[] = {
        {64, {16, 32, 16}, "yyy"},         {64, {16, 32, 17}, "yyn"},
        {64, {65, 64, 1}, "nyn"},          {64, {SIZE_MAX, SIZE_MAX - 15, 1}, "nny"},
        {0, {SIZE_MAX, 100000, 1}, "nyy"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena a;
        char got[4] = {0};
        arena_init(&a, cases[i].limit);
        for (int k = 0; k < 3; k++)
            got[k] = arena_alloc(&a, cases[i].sizes[k]) ? 'y' : 'n';
        assert_string_equal(got, cases[i].want);
        arena_finish(&a);
    }
}

static void texts(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 64);
    assert_string_equal(arena_strdup(&a, "abc"), "abc");
    assert_string_equal(arena_strndup(&a, "abcdef", 2), "ab");
    assert_string_equal(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    assert_null(arena_printf(&a, "%0200d", 7));
    assert_null(arena_strdup(&a, "a text that does not fit in here"));
    arena_finish(&a);
}

static void a_zeroed_arena_is_fine(void **state)
{
    (void)state;
    struct arena a = {0};
    arena_reset(&a);
    arena_finish(&a);
    arena_finish(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alignment_and_zeroes),
        cmocka_unit_test(limits),
        cmocka_unit_test(texts),
        cmocka_unit_test(a_zeroed_arena_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
