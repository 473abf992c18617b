// SPDX-License-Identifier: Apache-2.0
// What is dumped loads to the same; secrets stay out of it; the defaults load; the JSON is whole.
#include "base/buf.h"
#include "base/err.h"
#include "conf/app.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void dump(const char *text, struct buf *out)
{
    struct conf_file f = {0};
    struct err err = {0};

    if (conf_load_bytes("test.yaml", text, strlen(text), &f, &err) < 0)
        fail_msg("%s\n%s", err.msg, text);
    conf_dump(&f, out);
    conf_finish(&f);
}

static void same_twice(void **state)
{
    static const char *const rows[] = {
        "applications: []",
        "applications: [{plugin: echo}]",
        "applications: [{plugin: echo, route_prefix: null}]",
        "applications: [{plugin: echo, deployments: [{name: a}, {name: b, plugin: x}]}]",
        "applications: [{plugin: echo, deployments: [{name: a, num_replicas: auto}]}]",
        "applications: [{plugin: echo, deployments: [{name: a, num_replicas: 3,"
        " ray_actor_options: {num_gpus: 0.5}, max_ongoing_requests: 7, batch_wait_timeout_s: 0}]}]",
        "applications: [{plugin: echo, deployments: [{name: a, autoscaling_config:"
        " {min_replicas: 0, max_replicas: 9, downscale_delay_s: 5m}}]}]",
        "applications: [{plugin: echo, deployments: [{name: a, config: {a: 1, b: [1, {c: ~}, []],"
        " d: {}, e: 'yes', f: \"x\\ny\\t\\\"\\\\ \\x7f\\u2028\", g: '$${h}', 'i j': 1.5e300,"
        " '': '', k: -0.1, l: '12', m: 'null', n: '- o', p: 'ä€😀', q: 0x1f, r: true, s: Yes}}]}]",
        "applications: [{plugin: echo, deployments: [{name: a, warmup_requests: [{},"
        " {method: get, path: '/a?b=${HOME}', body: ' x\n'}, {json: [], expect_status: 204},"
        " {json: {a: [1, {}], b: 'true'}, content_type: a/b}], rolling_update_percentage: "
        "0.001}]}]",
        "http_options: {port: 1, root_path: /api, max_body_bytes: 1000, request_timeout_s: 250ms}\n"
        "logging_config: {encoding: json, log_level: debug, enable_access_log: false}\n"
        "orphan_timeout_s: 2h\napplications: []",
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf first = {0}, second = {0};
        dump(rows[i], &first);
        dump(buf_cstr(&first), &second);
        assert_string_equal(buf_cstr(&first), buf_cstr(&second));
        buf_finish(&first);
        buf_finish(&second);
    }
}

static void shows_what_holds(void **state)
{
    struct buf out = {0};

    (void)state;
    dump("http_options: {port: 81, max_header_bytes: 65536, request_timeout_s: 2m}\n"
         "applications: [{plugin: echo, deployments: [{name: a, retry: safe,"
         " max_concurrent_queries: 6}]}]",
         &out);
    static const char *const want[] = {
        "port: 81\n",     "max_header_bytes: 64KiB\n", "request_timeout_s: 120\n",
        "retry: safe\n",  "max_ongoing_requests: 6\n", "num_replicas: 1\n",
        "plugin: echo\n", "route_prefix: /\n",         "    deployments:\n      - name: a\n",
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(buf_cstr(&out), want[i]))
            fail_msg("no '%s' in\n%s", want[i], buf_cstr(&out));
    assert_null(strstr(buf_cstr(&out), "autoscaling"));
    buf_finish(&out);
}

static void hides_secrets(void **state)
{
    struct buf out = {0};

    (void)state;
    setenv("SALVER_TEST_SECRET", "hunter2", 1);
    dump("applications: [{plugin: echo, deployments: [{name: a, config: {key: "
         "\"${SALVER_TEST_SECRET}\","
         " text: \"Bearer ${SALVER_TEST_SECRET}\", list: [\"${SALVER_TEST_SECRET}\"]},"
         " user_config: {other: \"${SALVER_TEST_SECRET}\"}}]}]",
         &out);
    assert_null(strstr(buf_cstr(&out), "hunter2"));
    assert_non_null(strstr(buf_cstr(&out), "key: \"***\"\n"));
    struct buf again = {0};
    dump(buf_cstr(&out), &again);
    assert_string_equal(buf_cstr(&again), buf_cstr(&out));
    buf_finish(&again);
    assert_non_null(strstr(buf_cstr(&out), "other: \"***\"\n"));
    buf_finish(&out);
}

static void defaults_load(void **state)
{
    struct buf defaults = {0}, from_defaults = {0}, plain = {0};

    (void)state;
    conf_defaults(&defaults);
    dump(buf_cstr(&defaults), &from_defaults);
    dump("applications: [{plugin: echo, deployments: [{name: echo}]}]", &plain);
    assert_string_equal(buf_cstr(&from_defaults), buf_cstr(&plain));
    buf_finish(&defaults);
    buf_finish(&from_defaults);
    buf_finish(&plain);
}

static void json_has_every_number(void **state)
{
    static const char *const keys[] = {
        "port",
        "request_timeout_s",
        "keep_alive_timeout_s",
        "num_ingress",
        "max_connections",
        "max_connections_per_address",
        "max_request_line_bytes",
        "max_header_bytes",
        "max_headers",
        "max_body_bytes",
        "header_timeout_s",
        "body_timeout_s",
        "write_timeout_s",
    };
    struct conf_file f = {0};
    struct buf out = {0};
    const char text[] = "http_options: {max_body_bytes: 64MiB}\napplications: []";

    (void)state;
    assert_int_equal(conf_load_bytes("t", text, sizeof text - 1, &f, NULL), 0);
    conf_http_json(&f, &out);
    cJSON *json = cJSON_Parse(buf_cstr(&out));
    assert_non_null(json);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!cJSON_IsNumber(cJSON_GetObjectItem(json, keys[i])))
            fail_msg("no number '%s' in %s", keys[i], buf_cstr(&out));
    assert_string_equal(cJSON_GetObjectItem(json, "root_path")->valuestring, "");
    assert_true(cJSON_GetObjectItem(json, "max_body_bytes")->valuedouble == 64.0 * 1024 * 1024);
    cJSON_Delete(json);
    buf_finish(&out);
    conf_finish(&f);
}

// docs/config.md is what the tables say; UPDATE_GOLDEN=1 writes it anew.
static void doc_is_current(void **state)
{
    static char file[256 << 10];
    const char *path = TEST_DATA "/../../docs/config.md";
    struct buf doc = {0};

    (void)state;
    conf_doc(&doc);
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(file, 1, sizeof file - 1, in) : 0;
    file[n] = '\0';
    if (in)
        fclose(in);
    if (strcmp(file, buf_cstr(&doc)) != 0 && getenv("UPDATE_GOLDEN")) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fputs(buf_cstr(&doc), out);
        fclose(out);
    } else {
        assert_string_equal(file, buf_cstr(&doc));
    }
    buf_finish(&doc);
}

// As a worker's orders have them.
static void warmups_in_orders(void **state)
{
    static const char text[] =
        "applications: [{plugin: echo, deployments: [{name: a, warmup_requests: [{},"
        " {method: GET, path: '/a?b', body: \"x\\n\", expect_status: 204},"
        " {json: {a: [1]}, content_type: a/b}]}]}]";
    static const char want[] =
        "[{\"method\":\"POST\",\"path\":\"/\",\"content_type\":\"\",\"body\":\"\","
        "\"expect_status\":0},"
        "{\"method\":\"GET\",\"path\":\"/a?b\",\"content_type\":\"text/plain\",\"body\":\"x\\n\","
        "\"expect_status\":204},"
        "{\"method\":\"POST\",\"path\":\"/\",\"content_type\":\"a/b\","
        "\"body\":\"{\\\"a\\\":[1]}\",\"expect_status\":0}]";
    struct conf_file f = {0};
    struct buf out = {0};

    (void)state;
    assert_int_equal(conf_load_bytes("t", text, sizeof text - 1, &f, NULL), 0);
    conf_warmups_json(&f.apps[0].deployments[0], &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_finish(&out);
    conf_finish(&f);
}

// Bodies are bounded, each and all together.
static void warmups_are_bounded(void **state)
{
    static const struct {
        size_t bytes, n;
        bool good;
    } sizes[] = {{CONF_WARMUP_BODY_MAX, 4, true},
                 {CONF_WARMUP_BODY_MAX + 1, 1, false},
                 {CONF_WARMUP_BODY_MAX, 5, false},
                 {1, CONF_WARMUPS_MAX, true},
                 {1, CONF_WARMUPS_MAX + 1, false}};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct buf yaml = {0};
        struct conf_file f = {0};
        buf_puts(&yaml, "applications: [{plugin: echo, deployments: [{name: a, warmup_requests: [");
        for (size_t k = 0; k < sizes[i].n; k++) {
            buf_puts(&yaml, k ? ",{body: " : "{body: ");
            for (size_t b = 0; b < sizes[i].bytes; b++)
                buf_puts(&yaml, "x");
            buf_puts(&yaml, "}");
        }
        buf_puts(&yaml, "]}]}]");
        int rc = conf_load_bytes("t", buf_cstr(&yaml), buf_len(&yaml), &f, NULL);
        assert_int_equal(rc == 0, sizes[i].good);
        conf_finish(&f);
        buf_finish(&yaml);
    }
}

// What autoscaling begins with, 0 included.
static void replicas_at_the_start(void **state)
{
    static const struct {
        const char *text;
        uint32_t want;
    } starts[] = {
        {"autoscaling_config: {min_replicas: 0, max_replicas: 2}", 0},
        {"autoscaling_config: {min_replicas: 0, initial_replicas: 0, max_replicas: 2}", 0},
        {"autoscaling_config: {min_replicas: 0, initial_replicas: 2, max_replicas: 2}", 2},
        {"autoscaling_config: {min_replicas: 2, max_replicas: 2}", 2},
        {"autoscaling_config: {}", 1},
        {"num_replicas: auto", 1},
        {"num_replicas: 4", 4},
        {"", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        struct conf_file f = {0};
        char text[256];
        snprintf(text, sizeof text, "applications: [{plugin: p, deployments: [{name: a%s%s}]}]",
                 *starts[i].text ? ", " : "", starts[i].text);
        assert_int_equal(conf_load_bytes("t", text, strlen(text), &f, NULL), 0);
        assert_int_equal(f.apps[0].deployments[0].num_replicas, starts[i].want);
        conf_finish(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_twice),          cmocka_unit_test(warmups_in_orders),
        cmocka_unit_test(warmups_are_bounded), cmocka_unit_test(replicas_at_the_start),
        cmocka_unit_test(shows_what_holds),    cmocka_unit_test(hides_secrets),
        cmocka_unit_test(defaults_load),       cmocka_unit_test(json_has_every_number),
        cmocka_unit_test(doc_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
