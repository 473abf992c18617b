// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put_and_consume(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_puts(&b, "hello");
    buf_put(&b, " world", 6);
    buf_put(&b, NULL, 0);
    buf_consume(&b, 6);
    assert_string_equal(buf_cstr(&b), "world");
    assert_int_equal(buf_len(&b), 5);
    buf_printf(&b, " %0300d", 7); // longer than the first guess
    assert_int_equal(buf_len(&b), 306);
    buf_consume(&b, buf_len(&b));
    assert_int_equal(b.off, 0);
    buf_clear(&b);
    assert_string_equal(buf_cstr(&b), "");
    buf_finish(&b);
    buf_finish(&b);
}

// A queue that is filled and emptied for long must neither grow nor lose a byte.
static void a_long_stream_stays_small(void **state)
{
    (void)state;
    struct buf b = {0};
    unsigned char in = 0, out = 0;
    srand(1);
    for (int i = 0; i < 100000; i++) {
        for (int n = rand() % 20; n > 0 && buf_len(&b) < 1000; n--, in++)
            buf_put(&b, &in, 1);
        for (int n = rand() % 20; n > 0 && buf_len(&b) > 0; n--, out++) {
            assert_int_equal((unsigned char)*buf_head(&b), out);
            buf_consume(&b, 1);
        }
    }
    assert_in_range(b.cap, 256, 4096);
    buf_finish(&b);
}

static void reserve_then_commit(void **state)
{
    (void)state;
    struct buf b = {0};
    memcpy(buf_reserve(&b, 1000), "xyz", 3);
    buf_commit(&b, 3);
    char *at = buf_reserve(&b, 900);
    assert_ptr_equal(at, b.data + 3); // there was room: nothing moved
    assert_string_equal(buf_cstr(&b), "xyz");
    buf_finish(&b);
}

static void json_strings(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t n;
        const char *want;
    } cases[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"\"\\/", 3, "\"\\\"\\\\/\""},
        {"\b\f\n\r\t\x01\x1f\x7f", 8, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff", 1, "\"\xef\xbf\xbd\""},
        {"a\xe2\x82", 3, "\"a\xef\xbf\xbd\xef\xbf\xbd\""},               // cut short
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, // half of a surrogate pair
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        buf_put_json(&b, cases[i].in, cases[i].n);
        assert_string_equal(buf_cstr(&b), cases[i].want);
        buf_finish(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_and_consume),
        cmocka_unit_test(a_long_stream_stays_small),
        cmocka_unit_test(reserve_then_commit),
        cmocka_unit_test(json_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
