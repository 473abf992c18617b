// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void texts_are_put_together(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, -404, "no file '%s'", "x"), -404);
    assert_int_equal(err_ctx(&e, "loading '%s'", "m"), -404);
    assert_string_equal(e.msg, "loading 'm': no file 'x'");
    assert_int_equal(err_set(&e, -500, "again: %s", e.msg), -500); // from its own text
    assert_string_equal(e.msg, "again: loading 'm': no file 'x'");
    assert_int_equal(err_set(NULL, -404, "x"), -404);
    assert_true(err_ctx(NULL, "x") < 0);
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    char big[2000];
    struct err e;
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    err_set(&e, -1, "%s", big);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    err_ctx(&e, "a");
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_memory_equal(e.msg, "a: xxx", 6);
    err_ctx(&e, "%s", big);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
}

static void errno_texts(void **state)
{
    (void)state;
    assert_string_equal(err_errno(ENOENT), "No such file or directory");
    assert_string_equal(err_errno(99999), "unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_put_together),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(errno_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
