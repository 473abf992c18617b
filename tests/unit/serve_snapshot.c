// SPDX-License-Identifier: Apache-2.0
// Each row changes one thing of a good snapshot: `from` becomes `to`. NULL want: it is taken.
#include "base/err.h"
#include "serve/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char good[] =
    "{\"version\":3,\"apps\":[{\"name\":\"echo\",\"route_prefix\":\"/echo\",\"deployment\":\"d\","
    "\"workers\":[\"echo/d/0\",\"echo/d/1\"],\"stream_in\":false,\"retry_safe\":true,"
    "\"max_queued_requests\":10000,\"max_queued_bytes\":268435456,\"max_ongoing_requests\":8,"
    "\"max_body_bytes\":16777216,\"max_response_buffer_bytes\":4194304,"
    "\"graceful_shutdown_timeout_s\":20.5,\"status\":\"RUNNING\",\"message\":\"\","
    "\"models\":[{\"id\":\"m\",\"root\":\"/"
    "m.gguf\",\"max_model_len\":2048,\"created\":1700000000}],"
    "\"queue_gauge\":\"vllm:num_requests_waiting\"}]}";

static const struct row {
    const char *from, *to, *want;
} rows[] = {
    {"\"version\":3", "\"version\":4", NULL},
    {"\"/echo\"", "null", NULL},
    {"\"/echo\"", "\"/\"", NULL},
    {"\"message\":\"\"", "\"message\":\"\",\"new_key\":1", NULL},
    {"\"version\":3", "\"version\":-3", "'version' must be a whole number"},
    {"{\"version\":3", "[", "not JSON"},
    {"\"apps\":[{", "\"apps\":[3,{", "is not an object"},
    {"\"name\":\"echo\",", "", "'name' is missing"},
    {"\"name\":\"echo\"", "\"name\":7", "'name' must be a string"},
    {"\"/echo\"", "\"echo\"", "must begin with a slash"},
    {"\"/echo\"", "\"/echo/\"", "not end with one"},
    {"\"retry_safe\":true", "\"retry_safe\":1", "must be true or false"},
    {"\"max_queued_requests\":10000", "\"max_queued_requests\":-1", "whole number from 0"},
    {"\"max_queued_requests\":10000", "\"max_queued_requests\":1.5", "whole number from 0"},
    {"\"max_queued_requests\":10000", "\"max_queued_requests\":1e12", "whole number from 0"},
    {"20.5", "\"20\"", "must be seconds"},
    {"\"echo/d/1\"", "5", "strings alone"},
    {"\"models\":[{", "\"models\":[7,{", "model 0 must have"},
    {"\"models\":[", "\"models\":\"m\",\"old\":[", "must be an array"},
    {"\"id\":\"m\"", "\"id\":null", "model 0 must have the texts"},
    {"\"root\":\"/m.gguf\",", "", "model 0 must have the texts"},
    {"\"max_model_len\":2048", "\"max_model_len\":20.48", "the whole numbers"},
    {"\"max_model_len\":2048", "\"max_model_len\":4294967296", "the whole numbers"},
    {"\"created\":1700000000", "\"created\":-1", "the whole numbers"},
    {"\"models\":[{", "\"models\":[],\"was\":[{", NULL},
    {"\"id\":\"m\"", "\"id\":\"m\",\"workers\":[\"echo/d/1\"]", NULL},
    {"\"id\":\"m\"", "\"id\":\"m\",\"workers\":\"echo/d/1\"",
     "model 'm': 'workers' must be an array"},
    {"\"id\":\"m\"", "\"id\":\"m\",\"workers\":[1]", "must hold strings alone"},
    {"\"vllm:num_requests_waiting\"", "null", NULL},
    {",\"queue_gauge\":\"vllm:num_requests_waiting\"", "", "'queue_gauge' is missing"},
    {"waiting\"}]", "waiting\"}],\"apps\":0", NULL}, // the first of two keys counts
    {"waiting\"}]", "waiting\",\"start_s\":1.5}]", NULL},
    {"waiting\"}]", "waiting\",\"start_s\":-1}]", "'start_s' must be seconds"},
    {"waiting\"}]", "waiting\",\"start_s\":null}]", "'start_s' must be seconds"},
};

static void run_row(void **state)
{
    const struct row *row = *state;
    char text[2048];
    const char *at = strstr(good, row->from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, row->to,
             at + strlen(row->from));
    struct snapshot s;
    struct err err = {0};
    int rc = snapshot_parse((struct bytes){text, strlen(text)}, &s, &err);
    if (!row->want) {
        assert_int_equal(rc, 0);
        snapshot_finish(&s);
        return;
    }
    assert_true(rc < 0);
    if (!strstr(err.msg, row->want))
        fail_msg("'%s' is not in '%s'", row->want, err.msg);
}

static void every_field(void **state)
{
    (void)state;
    struct snapshot s;
    assert_int_equal(snapshot_parse((struct bytes){good, strlen(good)}, &s, NULL), 0);
    const struct snapshot_app *a = &s.apps[0];
    assert_int_equal(s.version, 3);
    assert_int_equal(s.n_apps, 1);
    assert_string_equal(a->name, "echo");
    assert_string_equal(a->route_prefix, "/echo");
    assert_string_equal(a->deployment, "d");
    assert_int_equal(a->n_workers, 2);
    assert_string_equal(a->workers[1], "echo/d/1");
    assert_false(a->stream_in);
    assert_true(a->retry_safe);
    assert_int_equal(a->max_queued_requests, 10000);
    assert_int_equal(a->max_queued_bytes, 268435456);
    assert_int_equal(a->max_ongoing_requests, 8);
    assert_int_equal(a->max_body_bytes, 16777216);
    assert_int_equal(a->max_response_buffer_bytes, 4194304);
    assert_true(a->graceful_shutdown_timeout_s == 20.5);
    assert_string_equal(a->status, "RUNNING");
    assert_string_equal(a->message, "");
    assert_int_equal(a->n_models, 1);
    assert_string_equal(a->models[0].id, "m");
    assert_int_equal(a->models[0].n_workers, 0);
    assert_string_equal(a->models[0].root, "/m.gguf");
    assert_int_equal(a->models[0].max_model_len, 2048);
    assert_int_equal(a->models[0].created_s, 1700000000);
    assert_string_equal(a->queue_gauge, "vllm:num_requests_waiting");
    snapshot_finish(&s);
}

// What an older control does not say is zero, whatever else is there.
static void optional(void **state)
{
    (void)state;
    struct snapshot s;
    assert_int_equal(snapshot_parse((struct bytes){good, strlen(good)}, &s, NULL), 0);
    assert_true(s.apps[0].start_s == 0);
    snapshot_finish(&s);
    char text[2048];
    snprintf(text, sizeof text, "%.*s,\"start_s\":2.5,\"x\":[{}]}]}", (int)strlen(good) - 3, good);
    assert_int_equal(snapshot_parse((struct bytes){text, strlen(text)}, &s, NULL), 0);
    assert_true(s.apps[0].start_s == 2.5);
    snapshot_finish(&s);
}

static void twice(void **state)
{
    (void)state;
    const char *body = strstr(good, "{\"name\"");
    int n = (int)(strlen(body) - 2);
    char text[4096], other[2048];
    struct snapshot s;
    struct err err;
    snprintf(text, sizeof text, "{\"version\":1,\"apps\":[%.*s,%.*s]}", n, body, n, body);
    assert_true(snapshot_parse((struct bytes){text, strlen(text)}, &s, &err) < 0);
    assert_non_null(strstr(err.msg, "two applications are named 'echo'"));
    snprintf(other, sizeof other, "%.*s", n, body);
    memcpy(strstr(other, "echo"), "ohce", 4);
    snprintf(text, sizeof text, "{\"version\":1,\"apps\":[%.*s,%s]}", n, body, other);
    assert_true(snapshot_parse((struct bytes){text, strlen(text)}, &s, &err) < 0);
    assert_non_null(strstr(err.msg, "same prefix '/echo'"));
}

int main(void)
{
    enum { N = sizeof rows / sizeof *rows };
    struct CMUnitTest tests[N + 3];
    for (size_t i = 0; i < N; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].to, run_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(every_field);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(twice);
    tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(optional);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
