// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/err.h"
#include "control/api_gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *host;
    bool want;
} hosts[] = {
    {"localhost", true},
    {"LocalHost:8265", true},
    {"127.0.0.1", true},
    {"127.0.0.1:8265", true},
    {"127.3.2.1:1", true},
    {"[::1]", true},
    {"[::1]:8265", true},
    {"", false},
    {"localhost.", false},
    {"localhost.evil.example", false},
    {"evil.example", false},
    {"127.0.0.1.evil.example", false},
    {"127.0.0.1:8265.evil.example", false},
    {"127.1", false},
    {"0.0.0.0", false},
    {"0", false},
    {"128.0.0.1", false},
    {"10.0.0.1:8265", false},
    {"::1", false},
    {"[::1", false},
    {"[::1]x", false},
    {"[::1]:", false},
    {"[::2]", false},
    {"[127.0.0.1]", false},
    {"[localhost]", false},
    {"[]", false},
    {":8265", false},
    {"localhost:", false},
    {"localhost:123456", false},
    {"localhost:80:80", false},
    {"localhost@evil.example", false},
    {"127.0.0.1127.0.0.1127.0.0.1127.0.0.1127.0.0.1127.0.0.1127.0.0.1127.0.0.1", false},
};

static void hosts_are_told_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
        if (api_gate_host(hosts[i].host) != hosts[i].want)
            fail_msg("'%s' must %sbe taken", hosts[i].host, hosts[i].want ? "" : "not ");
}

#define JSON "application/json"
#define YAML "application/yaml"

// want: the code, or the kind of body.
static const struct {
    bool tcp;
    const char *method, *host, *type, *origin;
    int want;
} rows[] = {
    {true, "GET", "localhost:8265", "", NULL, API_BODY_NONE},
    {true, "GET", "evil.example", "", NULL, -403},
    {true, "GET", "", "", NULL, -403},
    {true, "GET", "localhost", "", "http://evil.example", -403},
    {true, "GET", "localhost", "", "null", -403},
    {true, "GET", "localhost", "", "", -403},
    {true, "GET", "localhost", "", "http://localhost:3000", API_BODY_NONE},
    {true, "GET", "localhost", "", "https://[::1]", API_BODY_NONE},
    {true, "GET", "localhost", "", "file://localhost", -403},
    {true, "GET", "localhost", "", "http://localhost.evil.example", -403},
    {true, "GET", "localhost", "text/plain", NULL, API_BODY_NONE},
    {true, "DELETE", "localhost", "", NULL, API_BODY_NONE},
    {true, "DELETE", "localhost", "", "http://evil.example", -403},
    {true, "PUT", "localhost", JSON, NULL, API_BODY_JSON},
    {true, "PUT", "localhost", "Application/JSON; charset=utf-8", NULL, API_BODY_JSON},
    {true, "PUT", "localhost", JSON "x", NULL, -415},
    {true, "PUT", "localhost", "", NULL, -415},
    {true, "PUT", "localhost", YAML, NULL, -415},
    {true, "POST", "localhost", "text/plain", NULL, -415},
    {true, "POST", "localhost", "application/x-www-form-urlencoded", NULL, -415},
    {true, "POST", "localhost", "multipart/form-data; boundary=application/json", NULL, -415},
    {true, "PATCH", "localhost", "text/plain", NULL, -415},
    {false, "GET", "", "", NULL, API_BODY_NONE},
    {false, "GET", "evil.example", "", "http://evil.example", API_BODY_NONE},
    {false, "PUT", "", YAML, NULL, API_BODY_YAML},
    {false, "PUT", "", "text/yaml", NULL, API_BODY_YAML},
    {false, "PUT", "", "application/x-yaml", NULL, API_BODY_YAML},
    {false, "PUT", "", JSON, NULL, API_BODY_JSON},
    {false, "PUT", "", "", NULL, -415},
    {false, "PUT", "", "text/plain", NULL, -415},
};

static void callers_are_told_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct api_caller who = {.tcp = rows[i].tcp,
                                       .method = rows[i].method,
                                       .host = rows[i].host,
                                       .content_type = rows[i].type,
                                       .origin = rows[i].origin};
        enum api_body body = API_BODY_NONE;
        struct err err = {0};
        int rc = api_gate(&who, &body, &err), got = rc < 0 ? rc : (int)body;
        if (got != rows[i].want || (rc < 0) != (err.msg[0] != '\0'))
            fail_msg("row %zu: %d, not %d (%s)", i, got, rows[i].want, err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hosts_are_told_apart),
                                       cmocka_unit_test(callers_are_told_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
