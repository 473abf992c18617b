// SPDX-License-Identifier: Apache-2.0
// The policy by itself: what it must refuse even if the parser before it had let it pass.
#include "http/policy.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "http/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { HEADERS_MAX = 8 };

// Headers as "name: value|name: value"; Host is added unless the row starts with '!'.
static const struct {
    const char *name, *method, *target, *headers;
    unsigned minor;
    int want; // 0 or the code
} rows[] = {
    {"plain", "GET", "/", "", 1, 0},
    {"no host", "GET", "/", "!", 1, -400},
    {"no host in 1.0", "GET", "/", "!", 0, 0},
    {"two hosts", "GET", "/", "host: b", 1, -400},
    {"length and coding", "POST", "/", "content-length: 1|transfer-encoding: chunked", 1, -400},
    {"coding and length", "POST", "/", "transfer-encoding: chunked|content-length: 1", 1, -400},
    {"two lengths", "POST", "/", "content-length: 1|content-length: 1", 1, -400},
    {"length of 18 digits", "POST", "/", "content-length: 999999999999999999", 1, 0},
    {"length of 19 digits", "POST", "/", "content-length: 1000000000000000000", 1, -400},
    {"length with a sign", "POST", "/", "content-length: +1", 1, -400},
    {"empty length", "POST", "/", "content-length: ", 1, -400},
    {"chunked", "POST", "/", "transfer-encoding: chunked", 1, 0},
    {"chunked in 1.0", "POST", "/", "transfer-encoding: chunked", 0, -400},
    {"identity", "POST", "/", "transfer-encoding: identity", 1, -400},
    {"two codings", "POST", "/", "transfer-encoding: chunked|transfer-encoding: chunked", 1, -400},
    {"empty coding", "POST", "/", "transfer-encoding: ", 1, -400},
    {"name with a space", "GET", "/", "x y: z", 1, -400},
    {"empty name", "GET", "/", ": z", 1, -400},
    {"control in a value", "GET", "/", "x: a\x01", 1, -400},
    {"delete in a value", "GET", "/", "x: a\x7f", 1, -400},
    {"tab in a value", "GET", "/", "x: a\tb", 1, 0},
    {"encoded body", "POST", "/", "content-encoding: br", 1, -415},
    {"trace", "TRACE", "/", "", 1, -405},
    {"version 1.2", "GET", "/", "", 2, -505},
    {"control in the target", "GET", "/\x1f", "", 1, -400},
    {"space in the target", "GET", "/a b", "", 1, -400},
    {"byte above 0x7f", "GET", "/\x80", "", 1, -400},
    {"fragment", "GET", "/#", "", 1, -400},
    {"dot segment", "GET", "/a/./b", "", 1, -400},
    {"dots at the end", "GET", "/a/..", "", 1, -400},
    {"two dots encoded", "GET", "/%2e.", "", 1, -400},
    {"dots encoded twice are a name", "GET", "/%252e%252e", "", 1, 0},
    {"dots in the query", "GET", "/?../..", "", 1, 0},
    {"NUL", "GET", "/%00", "", 1, -400},
    {"escape cut off", "GET", "/%", "", 1, -400},
    {"escape of no hex", "GET", "/%g0", "", 1, -400},
    {"absolute", "GET", "http://a/x", "", 1, 0},
    {"absolute with a port that Host lacks", "GET", "http://a:80/x", "", 1, -400},
    {"absolute without a host", "GET", "http:///x", "", 1, -400},
    {"relative", "GET", "x", "", 1, -400},
    {"expectation", "POST", "/", "expect: 100-Continue|content-length: 1", 1, 0},
    {"other expectation", "POST", "/", "expect: 200-ok", 1, -417},
    {"other expectation in 1.0", "POST", "/", "expect: 200-ok", 0, 0},
};

static uint32_t split_headers(char *text, struct http_header *out)
{
    uint32_t n = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "|", &save); line; line = strtok_r(NULL, "|", &save)) {
        char *colon = strstr(line, ": ");
        assert_non_null(colon);
        *colon = '\0';
        out[n++] = (struct http_header){line, colon + 2};
    }
    return n;
}

static void rules(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_header headers[HEADERS_MAX] = {{"host", "a"}};
        bool bare = rows[i].headers[0] == '!', chunked;
        char *text = xstrdup(rows[i].headers + bare), room[128];
        uint32_t n = bare ? 0 : 1;
        n += split_headers(text, headers + n);
        struct http_msg m = {
            .method = rows[i].method, .target = rows[i].target, .headers = headers, .n_headers = n};
        struct err err = {0};
        int got = policy_check(&m, 1, rows[i].minor, room, &chunked, &err);
        if (got != rows[i].want) {
            print_error("%s: want %d, got %d (%s)\n", rows[i].name, rows[i].want, got, err.msg);
            wrong++;
        }
        assert_true(got == 0 || strlen(err.msg) > 0);
        assert_true(got == 0 || !m.keep_alive);
        xfree(text);
    }
    assert_int_equal(wrong, 0);
}

static void tokens(void **state)
{
    (void)state;
    assert_true(policy_has_token("close", "close"));
    assert_true(policy_has_token(" keep-alive ,\tClose", "close"));
    assert_false(policy_has_token("closed, enclose", "close"));
    assert_false(policy_has_token("", "close"));
    assert_true(policy_token("x-a_b.c!", 8));
    assert_false(policy_token("", 0));
    assert_false(policy_token("a\0b", 3));
    assert_false(policy_token("a:b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules), cmocka_unit_test(tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
