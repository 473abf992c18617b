// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/str.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void distances(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        unsigned want;
    } cases[] = {
        {"", "", 0},         {"abc", "", 3},      {"abc", "abc", 0},        {"abc", "acb", 1},
        {"abc", "axc", 1},   {"abc", "ac", 1},    {"kitten", "sitting", 3}, {"ab", "ba", 1},
        {"prot", "port", 1}, {"abcd", "badc", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(str_distance(cases[i].a, cases[i].b), cases[i].want);
        assert_int_equal(str_distance(cases[i].b, cases[i].a), cases[i].want);
    }
    char big[100];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(str_distance(big, "x"), 99);
    assert_int_equal(str_distance(big, big), 0);
}

static const char *candidate(void *arg, size_t i)
{
    static const char *const names[] = {"port", "host", "max_ongoing_requests", "max_batch_size"};
    (void)arg;
    return i < 4 ? names[i] : NULL;
}

static void suggestions(void **state)
{
    (void)state;
    static const struct {
        const char *word, *want;
    } cases[] = {
        {"prot", "port"},
        {"hst", "host"},
        {"max_ongoing_request", "max_ongoing_requests"},
        {"max_ongoing_requets", "max_ongoing_requests"},
        {"maxbatchsize", "max_batch_size"},
        {"nothing_like_it", ""},
        {"xx", ""},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = str_suggest(cases[i].word, candidate, NULL);
        assert_string_equal(got ? got : "", cases[i].want);
    }
}

static void whole_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        int rc;
        int64_t want;
    } cases[] = {
        {"0", 0, 0},
        {"-5", 0, -5},
        {"9223372036854775807", 0, INT64_MAX},
        {"-9223372036854775808", 0, INT64_MIN},
        {"9223372036854775808", -400, 0},
        {"", -400, 0},
        {" 5", -400, 0},
        {"5 ", -400, 0},
        {"+5", -400, 0},
        {"5.0", -400, 0},
        {"0x5", -400, 0},
        {"-", -400, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v = 0;
        struct err err;
        if (str_to_i64(cases[i].s, &v, &err) != cases[i].rc || v != cases[i].want)
            fail_msg("'%s'", cases[i].s);
    }
}

static void numbers_with_units(void **state)
{
    (void)state;
    enum { F64, BYTES, TIME };
    static const struct {
        int kind;
        const char *s;
        int rc;
        double want;
    } cases[] = {
        {F64, "1.5", 0, 1.5},
        {F64, "-2e3", 0, -2000},
        {F64, ".5", 0, 0.5},
        {F64, "inf", -400, 0},
        {F64, "nan", -400, 0},
        {F64, "1e999", -400, 0},
        {F64, "0x10", -400, 0},
        {F64, "-0x1p3", -400, 0},
        {F64, "", -400, 0},
        {F64, "1,5", -400, 0},
        {F64, " 1", -400, 0},
        {F64, "--1", -400, 0},
        {BYTES, "4096", 0, 4096},
        {BYTES, "64KiB", 0, 65536},
        {BYTES, "2MB", 0, 2e6},
        {BYTES, "1GiB", 0, 1 << 30},
        {BYTES, "5B", 0, 5},
        {BYTES, "-1", -400, 0},
        {BYTES, "1.5GiB", -400, 0},
        {BYTES, "64 KiB", -400, 0},
        {BYTES, "64K", -400, 0},
        {BYTES, "9999999TiB", -400, 0},
        {BYTES, "99999999999999999999", -400, 0},
        {BYTES, "", -400, 0},
        {BYTES, "KiB", -400, 0},
        {TIME, "5", 0, 5},
        {TIME, "250ms", 0, 0.25},
        {TIME, "2m", 0, 120},
        {TIME, "1h", 0, 3600},
        {TIME, "0.5s", 0, 0.5},
        {TIME, "-1", -400, 0},
        {TIME, "1 h", -400, 0},
        {TIME, "1w", -400, 0},
        {TIME, "inf", -400, 0},
        {TIME, "", -400, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double v = 0;
        int64_t bytes = 0;
        struct err err = {0};
        int rc = cases[i].kind == F64    ? str_to_f64(cases[i].s, &v, &err)
                 : cases[i].kind == TIME ? str_to_time(cases[i].s, &v, &err)
                                         : str_to_bytes(cases[i].s, &bytes, &err);
        v = cases[i].kind == BYTES ? (double)bytes : v;
        if (rc != cases[i].rc || fabs(v - cases[i].want) > 1e-9)
            fail_msg("'%s': %d, %g", cases[i].s, rc, v);
        if (rc < 0)
            assert_non_null(strchr(err.msg, '\''));
    }
}

static void utf8(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        bool want;
    } cases[] = {
        {"", true},
        {"plain", true},
        {"\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", true},
        {"\x80", false},
        {"\xc0\x80", false},         // overlong
        {"\xc1\xbf", false},         // overlong
        {"\xe0\x9f\xbf", false},     // overlong
        {"\xf0\x8f\xbf\xbf", false}, // overlong
        {"\xed\xa0\x80", false},     // surrogate
        {"\xf4\x90\x80\x80", false}, // above U+10FFFF
        {"\xf5\x80\x80\x80", false},
        {"\xe2\x82", false},
        {"\xe2\x82x", false},
        {"\xf0\x9f\x98", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (str_valid_utf8(cases[i].s, strlen(cases[i].s)) != cases[i].want)
            fail_msg("row %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances),     cmocka_unit_test(suggestions),
        cmocka_unit_test(whole_numbers), cmocka_unit_test(numbers_with_units),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
