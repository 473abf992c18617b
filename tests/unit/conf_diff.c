// SPDX-License-Identifier: Apache-2.0
// One row is two versions of a deployment (or application, behind '|') and what changed.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "conf/app.h"
#include "conf/diff.h"
#include "conf/tables.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char options[] =
    "[{\"name\":\"hot\",\"type\":0,\"flags\":2,\"fallback\":\"x\"},"
    "{\"name\":\"cold\",\"type\":1,\"flags\":0,\"fallback\":\"5\"},"
    "{\"name\":\"cache.bytes\",\"type\":4,\"flags\":2,\"fallback\":null},"
    "{\"name\":\"cache.kind\",\"type\":0,\"flags\":1},"
    "{\"name\":\"tree\",\"type\":7,\"flags\":2,\"fallback\":\"{\\\"a\\\":1}\"},"
    "{\"name\":\"on\",\"type\":3,\"flags\":2,\"fallback\":\"true\"}]";

static const struct row {
    const char *old, *new, *want;
} rows[] = {
    {"", "", ""},
    {"num_replicas: 2", "num_replicas: 3", "num_replicas=none"},
    {"max_ongoing_requests: 2", "max_ongoing_requests: 3", "max_ongoing_requests=live"},
    {"max_ongoing_requests: 2", "", "max_ongoing_requests=live"},
    {"max_queued_requests: 2", "", "max_queued_requests=none"},
    {"graceful_shutdown_timeout_s: 20", "", ""}, // its default
    {"graceful_shutdown_timeout_s: 20s", "graceful_shutdown_timeout_s: 0.5m",
     "graceful_shutdown_timeout_s=live"},
    {"health_check_period_s: 2", "health_check_timeout_s: 3",
     "health_check_period_s=live health_check_timeout_s=live"},
    {"ray_actor_options: {num_gpus: 1}", "ray_actor_options: {num_gpus: 2}",
     "ray_actor_options.num_gpus=rolling"},
    {"ray_actor_options: {num_gpus: 1}", "", "ray_actor_options.num_gpus=rolling"},
    {"ray_actor_options: {num_cpus: 1}", "ray_actor_options: {num_cpus: 2}", ""}, // ignored
    {"plugin: a", "plugin: b", "plugin=rolling"},
    {"concurrency: 1", "concurrency: 2", "concurrency=rolling"},
    {"retry: safe", "retry: never", "retry=none"},
    {"rolling_update_percentage: 0.2", "rolling_update_percentage: 0.3",
     "rolling_update_percentage=none"},
    {"load_timeout_s: 1", "load_timeout_s: 2", "load_timeout_s=live"},
    {"warmup_requests: [{path: /a}]", "warmup_requests: [{path: /b}]", "warmup_requests=live"},
    {"warmup_requests: [{path: /a}]", "warmup_requests: [{path: /a}, {}]", "warmup_requests=live"},
    {"warmup_requests: [{json: {a: 1}}]", "warmup_requests: [{json: {a: 2}}]",
     "warmup_requests=live"},
    {"warmup_requests: [{json: {a: 1}}]", "warmup_requests: [{json: {a: 1}, method: POST}]", ""},
    // replicas by load
    {"autoscaling_config: {max_replicas: 3}", "autoscaling_config: {max_replicas: 4}",
     "autoscaling_config.max_replicas=live"},
    {"autoscaling_config: {max_replicas: 3}", "autoscaling_config: {max_replicas: 3, policy: x}",
     ""},
    {"num_replicas: 2", "autoscaling_config: {max_replicas: 3}", "autoscaling_config=live"},
    {"autoscaling_config: {max_replicas: 3}", "num_replicas: 2", "autoscaling_config=live"},
    {"autoscaling_config: {min_replicas: 1, max_replicas: 100, initial_replicas: 1}",
     "num_replicas: auto", ""},
    // config, by the plugin's options
    {"config: {hot: a}", "config: {hot: b}", "config.hot=live"},
    {"config: {hot: a}", "user_config: {hot: b}", "config.hot=live"},
    {"config: {hot: a}", "user_config: {hot: a}", ""},
    {"config: {cold: 1}", "user_config: {cold: 2}", "config.cold=rolling"},
    {"config: {hot: a, cold: 1}", "config: {hot: b, cold: 2}",
     "config.hot=live config.cold=rolling"},
    {"config: {hot: x}", "", ""}, // its fallback
    {"", "config: {cold: 5}", ""},
    {"", "config: {cold: 6}", "config.cold=rolling"},
    {"config: {hot: null}", "", ""},
    {"config: {cold: 7}", "config: {cold: '7'}", ""},
    {"config: {cold: 7}", "config: {cold: 7.0}", ""},
    {"config: {cold: 7}", "config: {cold: '7s'}", "config.cold=rolling"},
    {"config: {on: true}", "config: {on: false}", "config.on=live"},
    {"", "config: {on: true}", ""},
    {"", "config: {cache: {bytes: 5}}", "config.cache.bytes=live"},
    {"config: {cache: {bytes: 5, kind: a}}", "config: {cache: {kind: b, bytes: 5}}",
     "config.cache.kind=rolling"},
    {"config: {cache: {bytes: 5, kind: a}}", "",
     "config.cache.bytes=live config.cache.kind=rolling"},
    {"config: {cache: {bytes: 5}}", "config: {cache: nothing}", "config.cache=rolling"},
    {"config: {cache: {other: 5}}", "config: {cache: {other: 6}}", "config.cache.other=rolling"},
    {"config: {tree: {a: 1}}", "", ""},
    {"config: {tree: {a: [1, {b: c}]}}", "config: {tree: {a: [1, {b: d}]}}", "config.tree=live"},
    {"config: {tree: {a: 1, b: 2}}", "config: {tree: {b: 2, a: 1}}", ""},
    {"config: {who: 1}", "config: {who: 2}", "config.who=rolling"},
    {"config: {who: {a: 1}}", "config: {who: {a: 2}}", "config.who=rolling"},
    // the application
    {"| route_prefix: /a", "| route_prefix: /b", "route_prefix=none"},
    {"| route_prefix: /a", "| route_prefix: null", "route_prefix=none"},
    {"| plugin: p", "| plugin: q", "plugin=rolling"},
    {"plugin: x | plugin: p", "plugin: x | plugin: q", ""}, // the deployment has its own
    {"retry: safe | route_prefix: /a", "max_queued_bytes: 2MiB | route_prefix: /b",
     "route_prefix=none max_queued_bytes=none retry=none"},
};

// name: d, of application a with plugin p, and what the row says.
static void load(const char *text, struct conf_file *f)
{
    char own[512], yaml[2048];
    snprintf(own, sizeof own, "%s", text);
    char *app = strchr(own, '|');
    if (app)
        *app++ = '\0';
    snprintf(yaml, sizeof yaml,
             "applications:\n  - name: a\n    %s\n    %s\n    deployments:\n      - name: d\n"
             "        %s\n",
             app ? app + 1 : "", app && strstr(app, "plugin") ? "" : "plugin: p", own);
    struct err err = {0};
    if (conf_load_bytes("test.yaml", yaml, strlen(yaml), f, &err) < 0)
        fail_msg("%s\n%s", err.msg, yaml);
}

static void put_changes(const struct conf_change *c, uint32_t n, struct buf *out)
{
    static const char *const words[] = {"server", "none", "live", "rolling"};
    for (uint32_t i = 0; i < n; i++)
        buf_printf(out, "%s%s=%s", i ? " " : "", c[i].name, words[c[i].class]);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf_file a = {0}, b = {0};
        struct conf_change changes[16];
        struct buf got = {0};
        load(rows[i].old, &a);
        load(rows[i].new, &b);
        uint32_t n = conf_diff(&a.apps[0], &a.apps[0].deployments[0], &b.apps[0],
                               &b.apps[0].deployments[0], options, changes, 16);
        put_changes(changes, n, &got);
        if (strcmp(buf_cstr(&got), rows[i].want) != 0)
            fail_msg("'%s' -> '%s': got '%s', want '%s'", rows[i].old, rows[i].new, buf_cstr(&got),
                     rows[i].want);
        buf_finish(&got);
        conf_finish(&a);
        conf_finish(&b);
    }
}

// Of nothing known about the plugin every key needs a new worker.
static void test_without_options(void **state)
{
    (void)state;
    static const char *const none[] = {NULL, "[]", "not json", "{}", "[{}, 1, {\"name\":5}]"};
    struct conf_file a = {0}, b = {0};
    load("config: {hot: a}", &a);
    load("config: {hot: b}", &b);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct conf_change c;
        assert_int_equal(conf_diff(&a.apps[0], &a.apps[0].deployments[0], &b.apps[0],
                                   &b.apps[0].deployments[0], none[i], &c, 1),
                         1);
        assert_string_equal(c.name, "config.hot");
        assert_int_equal(c.class, RELOAD_ROLLING);
    }
    conf_finish(&a);
    conf_finish(&b);
}

// With little room the heaviest is not what is left out.
static void test_little_room(void **state)
{
    (void)state;
    struct conf_file a = {0}, b = {0};
    struct conf_change c[3];
    const char *old = "num_replicas: 2\n        max_queued_requests: 1\n        retry: safe";
    const char *new = "concurrency: 2\n        stall_timeout_s: 5";
    load(old, &a);
    load(new, &b);
    for (uint32_t max = 1; max <= 3; max++) {
        uint32_t n = conf_diff(&a.apps[0], &a.apps[0].deployments[0], &b.apps[0],
                               &b.apps[0].deployments[0], NULL, c, max);
        assert_int_equal(n, 5);
        assert_int_equal(conf_diff_class(c, max), RELOAD_ROLLING);
    }
    assert_int_equal(conf_diff(&a.apps[0], &a.apps[0].deployments[0], &b.apps[0],
                               &b.apps[0].deployments[0], NULL, NULL, 0),
                     5);
    assert_int_equal(conf_diff_class(NULL, 0), RELOAD_NONE);
    conf_finish(&a);
    conf_finish(&b);
}

static void test_deep_config(void **state)
{
    (void)state;
    struct buf a = {0}, b = {0};
    const char *names = "[{\"name\":\"a.a.a.a\",\"flags\":2}]";
    struct conf_change c[4];
    for (int i = 0; i < 25; i++) { // less than a file may nest
        buf_puts(&a, "{a: ");
        buf_puts(&b, "{a: ");
    }
    buf_puts(&a, "1");
    buf_puts(&b, "2");
    for (int i = 0; i < 25; i++) {
        buf_puts(&a, "}");
        buf_puts(&b, "}");
    }
    struct conf_file x = {0}, y = {0};
    char text[512];
    snprintf(text, sizeof text, "config: %s", buf_cstr(&a));
    load(text, &x);
    snprintf(text, sizeof text, "config: %s", buf_cstr(&b));
    load(text, &y);
    assert_int_equal(conf_diff(&x.apps[0], &x.apps[0].deployments[0], &y.apps[0],
                               &y.apps[0].deployments[0], names, c, 4),
                     1);
    assert_string_equal(c[0].name, "config.a.a.a.a");
    assert_int_equal(c[0].class, RELOAD_LIVE);
    conf_finish(&x);
    conf_finish(&y);
    buf_finish(&a);
    buf_finish(&b);
}

// Ray's table of what a change does (ray.serve.schema): a field that is wrong here costs a restart,
// or is changed without one.
static void test_classes_are_rays(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum field_reload class;
    } ray[] = {
        {"num_replicas", RELOAD_NONE},
        {"max_ongoing_requests", RELOAD_LIVE},
        {"max_queued_requests", RELOAD_NONE},
        {"user_config", RELOAD_LIVE},
        {"autoscaling_config", RELOAD_LIVE},
        {"graceful_shutdown_wait_loop_s", RELOAD_LIVE},
        {"graceful_shutdown_timeout_s", RELOAD_LIVE},
        {"health_check_period_s", RELOAD_LIVE},
        {"health_check_timeout_s", RELOAD_LIVE},
        {"ray_actor_options", RELOAD_ROLLING},
        {"rolling_update_percentage", RELOAD_NONE},
    };
    for (size_t i = 0; i < sizeof ray / sizeof *ray; i++) {
        const struct field *f = field_find(&conf_deployment_table, ray[i].name);
        assert_non_null(f);
        if (f->reload != ray[i].class)
            fail_msg("%s", ray[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_without_options),
        cmocka_unit_test(test_little_room),
        cmocka_unit_test(test_deep_config),
        cmocka_unit_test(test_classes_are_rays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
