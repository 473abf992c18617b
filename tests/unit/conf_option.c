// SPDX-License-Identifier: Apache-2.0
// A plugin's options against `config:`, and the file that flags make. One row is one config.
#include "base/buf.h"
#include "base/err.h"
#include "conf/app.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// type: 0 STR 1 INT 2 NUM 3 BOOL 4 BYTES 5 TIME 6 PATH 7 JSON; flags: 1 REQUIRED
static const char options[] =
    "[{\"type\":6,\"flags\":1,\"name\":\"model\",\"fallback\":null,\"min\":0,\"max\":0,"
    "  \"help\":\"A GGUF file.\"},"
    " {\"type\":1,\"flags\":0,\"name\":\"max_model_len\",\"fallback\":\"2048\",\"min\":1,"
    "  \"max\":131072,\"help\":\"\"},"
    " {\"type\":2,\"name\":\"sampling.temperature\",\"fallback\":\"0.7\",\"min\":0,\"max\":2},"
    " {\"type\":0,\"name\":\"sampling.stop\"},"
    " {\"type\":3,\"name\":\"greedy\",\"fallback\":\"false\"},"
    " {\"type\":4,\"name\":\"cache_bytes\",\"fallback\":\"1GiB\"},"
    " {\"type\":5,\"name\":\"idle\",\"fallback\":\"500ms\"},"
    " {\"type\":7,\"name\":\"extra\",\"fallback\":\"{a: [1, 2]}\"},"
    " {\"type\":0,\"name\":\"prefix\",\"fallback\":\"\"},"
    " {\"type\":1,\"name\":\"seed\",\"min\":1,\"max\":0}]";

#define REST "\"extra\":{\"a\":[1,2]},\"prefix\":\"\"}"

static const struct {
    const char *config;
    const char *want; // JSON, or the lines of the report
} rows[] = {
    {"{model: /etc/passwd}",
     "{\"model\":\"/etc/passwd\",\"max_model_len\":2048,\"sampling\":{\"temperature\":0.7},"
     "\"greedy\":false,\"cache_bytes\":1073741824,\"idle\":0.5," REST},
    {"{model: \"hf://a/b\", max_model_len: 4, greedy: true, cache_bytes: 4KiB, idle: 2m, seed: 7,"
     " extra: [x], prefix: 10, sampling: {stop: '###', temperature: 0}}",
     "{\"model\":\"hf://a/"
     "b\",\"max_model_len\":4,\"greedy\":true,\"cache_bytes\":4096,\"idle\":120,"
     "\"seed\":7,\"extra\":[\"x\"],\"prefix\":\"10\",\"sampling\":{\"stop\":\"###\","
     "\"temperature\":0}}"},
    {"{model: \"hf://a/b\", sampling.temperature: 1, cache_bytes: 1, idle: 1, greedy: ~, extra: 1}",
     "{\"model\":\"hf://a/b\",\"sampling\":{\"temperature\":1},\"cache_bytes\":1,\"idle\":1,"
     "\"extra\":1,\"max_model_len\":2048,\"greedy\":false,\"prefix\":\"\"}"},
    {"{}", "t.yaml:3:4: plugin 'llm' needs the option 'model' under 'config:': A GGUF file.\n"},
    {"{model: \"hf://a\", max_len: 5, sampling: {temp: 1}, zzz: 1}",
     "t.yaml:3:22: plugin 'llm' has no option 'max_len'; it has model, max_model_len, "
     "sampling.temperature, sampling.stop, greedy, cache_bytes, idle, extra, prefix, seed\n"
     "t.yaml:3:45: plugin 'llm' has no option 'sampling.temp' (did you mean 'sampling.stop'?)\n"
     "t.yaml:3:55: plugin 'llm' has no option 'zzz'; it has model, max_model_len, "
     "sampling.temperature, sampling.stop, greedy, cache_bytes, idle, extra, prefix, seed\n"},
    {"{model: \"hf://a\", max_model_len: 200000, sampling: {temperature: hot}, seed: 0}",
     "t.yaml:3:37: 'max_model_len' wants a whole number from 1 to 131072, not 200000\n"
     "t.yaml:3:69: 'sampling.temperature' wants a number from 0 to 2, not 'hot'\n"
     "t.yaml:3:81: 'seed' wants a whole number of 1 or more, not 0\n"},
    {"{model: [a], greedy: yes, cache_bytes: much, idle: 5 min, max_model_len: 1.5}",
     "t.yaml:3:12: 'model' wants a text, not a list\n"
     "t.yaml:3:25: 'greedy' wants true or false, not 'yes'\n"
     "t.yaml:3:43: 'cache_bytes' wants a size, not 'much' (write bytes, or a whole number with its "
     "unit: 512KiB, 16MiB, 1GiB)\n"
     "t.yaml:3:55: 'idle' wants a time, not '5 min' (write seconds, or a number with its unit: "
     "250ms, 10s, 5m, 1h)\n"
     "t.yaml:3:77: 'max_model_len' wants a whole number from 1 to 131072, not 1.5\n"},
    {"{model: \"hf://a\", sampling: {stop: a}, sampling.stop: b}",
     "t.yaml:3:43: option 'sampling.stop' stands here twice\n"},
};

static struct conf_deployment *load(struct conf_file *f, const char *config)
{
    char text[1024];
    struct err err = {0};
    int n = snprintf(text, sizeof text,
                     "applications:\n  - {plugin: llm, deployments: [{name: "
                     "chat, config:\n   %s}]}\n",
                     config);

    if (conf_load_bytes("t.yaml", text, (size_t)n, f, &err) < 0)
        fail_msg("%s", err.msg);
    return f->apps[0].deployments;
}

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf_file f = {0};
        struct err err = {0};
        struct buf lines = {0};
        const char *json = NULL;
        int rc = conf_check_options(&f, load(&f, rows[i].config), options, &json, &err);
        conf_print(&f, &lines);
        assert_string_equal(rc < 0 ? buf_cstr(&lines) : json, rows[i].want);
        buf_finish(&lines);
        conf_finish(&f);
    }
}

static void no_options_take_any_key(void **state)
{
    struct conf_file f = {0};
    const char *json = NULL;
    struct conf_deployment *d = load(&f, "{a: 1, b: {c: d}}");

    (void)state;
    assert_int_equal(conf_check_options(&f, d, NULL, &json, NULL), 0);
    assert_string_equal(json, "{\"a\":1,\"b\":{\"c\":\"d\"}}");
    assert_int_equal(conf_check_options(&f, d, "[]", &json, NULL), 0);
    assert_string_equal(json, "{\"a\":1,\"b\":{\"c\":\"d\"}}");
    assert_int_equal(conf_where_of(d, "b.c").column, 18);
    assert_int_equal(conf_where_of(d, "b.x").column, 4);
    conf_finish(&f);
}

static void bad_plugins(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[",
        "[{\"type\":0}]",
        "[{\"type\":8,\"name\":\"a\"}]",
        "[{\"type\":7,\"name\":\"a\"},{\"type\":0,\"name\":\"a.b\"}]",
        "[{\"type\":0,\"name\":\"a\"},{\"type\":0,\"name\":\"a\"}]",
        "[{\"type\":1,\"name\":\"b\",\"fallback\":\"many\"}]",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct conf_file f = {0};
        struct err err = {0};
        const char *json = NULL;
        assert_true(conf_check_options(&f, load(&f, "{}"), bad[i], &json, &err) < 0);
        assert_non_null(strstr(err.msg, "plugin 'llm'"));
        conf_finish(&f);
    }
}

static void paths_are_the_files(void **state)
{
    struct conf_file f = {0};
    struct err err = {0};
    struct buf lines = {0};
    const char *json = NULL;
    const char text[] =
        "applications: [{plugin: x, deployments: [{name: a, config: {p: m/w.bin}}]}]";
    const char *path = TEST_DATA "/../golden/config/none.yaml";

    (void)state;
    assert_int_equal(conf_load_bytes(path, text, sizeof text - 1, &f, &err), 0);
    assert_int_equal(
        conf_check_options(&f, f.apps[0].deployments, "[{\"type\":6,\"name\":\"p\"}]", &json, &err),
        0);
    assert_non_null(strstr(json, "golden/config/m/w.bin\"}"));
    assert_memory_equal(json, "{\"p\":\"/", 7);
    conf_print(&f, &lines);
    assert_non_null(strstr(buf_cstr(&lines), "warning: 'p' names no file: /"));
    buf_finish(&lines);
    conf_finish(&f);
}

static void flags(void **state)
{
    static const char *const keys[] = {"model", "max-model-len", "prefix", "stop", "greedy"};
    static const char *const values[] = {"models/Qwen2.5-0.5B.gguf", "4096", "", "[a, b]", "true"};
    struct conf_file f = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(conf_from_flags("llm", keys, values, 5, &f, &err), 0);
    assert_int_equal(f.n_apps, 1);
    assert_string_equal(f.apps[0].name, "default");
    assert_string_equal(f.apps[0].route_prefix, "/");
    assert_string_equal(f.apps[0].deployments[0].name, "Qwen2.5-0.5B");
    assert_string_equal(f.apps[0].deployments[0].plugin, "llm");
    assert_string_equal(f.apps[0].deployments[0].config_json,
                        "{\"model\":\"models/Qwen2.5-0.5B.gguf\",\"max_model_len\":4096,"
                        "\"prefix\":\"\",\"stop\":[\"a\",\"b\"],\"greedy\":true}");
    conf_finish(&f);

    assert_int_equal(conf_from_flags("./plugins/my echo.so", NULL, NULL, 0, &f, &err), 0);
    assert_string_equal(f.apps[0].deployments[0].name, "my-echo");
    conf_finish(&f);
}

static void flag_errors(void **state)
{
    static const char *const keys[] = {"max-model-len", "model"}, *const twice[] = {"a-b", "a_b"};
    static const char *const values[] = {"long", "hf://a"};
    struct conf_file f = {0};
    struct err err = {0};
    const char *json;

    (void)state;
    assert_int_equal(conf_from_flags("llm", keys, values, 2, &f, &err), 0);
    assert_true(conf_check_options(&f, f.apps[0].deployments, options, &json, &err) < 0);
    assert_string_equal(err.msg, "--max-model-len: 'max_model_len' wants a whole number from 1 to "
                                 "131072, not 'long'");
    conf_finish(&f);
    assert_true(conf_from_flags("llm", twice, values, 2, &f, &err) < 0);
    assert_string_equal(err.msg, "--a_b: stands here twice");
    conf_finish(&f);
}

static void hosts(void **state)
{
    static const struct {
        const char *host;
        int strict;
    } cases[] = {{"127.0.0.1", 0},  {"127.9.9.9", 0}, {"::1", 0},        {"localhost", 0},
                 {"0.0.0.0", -400}, {"::", -400},     {"10.0.0.1", -400}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conf_file f = {0};
        struct err err = {0};
        load(&f, "{}");
        f.http.host = cases[i].host;
        assert_int_equal(conf_host_check(&f, false, &err), 0);
        assert_int_equal(f.report->n_warnings, cases[i].strict ? 1 : 0);
        assert_int_equal(conf_host_check(&f, true, &err), cases[i].strict);
        if (cases[i].strict)
            assert_non_null(strstr(err.msg, "--allow-unauthenticated"));
        conf_finish(&f);
        load(&f, "{}");
        f.http.host = cases[i].host;
        f.http.allow_unauthenticated = true;
        assert_int_equal(conf_host_check(&f, true, &err), 0);
        conf_finish(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),       cmocka_unit_test(no_options_take_any_key),
        cmocka_unit_test(bad_plugins), cmocka_unit_test(paths_are_the_files),
        cmocka_unit_test(flags),       cmocka_unit_test(flag_errors),
        cmocka_unit_test(hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
