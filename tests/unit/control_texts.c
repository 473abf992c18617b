// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/mem.h"
#include "control/texts.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char file[] =
    "http_options: {port: 8123, keep_alive_timeout_s: 7, num_ingress: 2}\n"
    "orphan_timeout_s: 9\n"
    "applications:\n"
    "  - name: a\n"
    "    route_prefix: /a\n"
    "    plugin: p\n"
    "    deployments: [{name: d, num_replicas: 2, config: {k: [1, 2]}, stall_timeout_s: 3,\n"
    "                   retry: safe, graceful_shutdown_timeout_s: 4}]\n"
    "  - {name: hidden, route_prefix: null, plugin: q}\n";

static struct control control;
static struct deploy deploys[2];
static struct replica replicas[2];
static char state_dir[] = "/state";

static int load(void **state)
{
    (void)state;
    struct err err;
    if (conf_load_bytes("app.yaml", file, sizeof file - 1, &control.conf, &err) < 0) {
        print_error("%s\n", err.msg);
        return -1;
    }
    control.state_dir = state_dir;
    control.deploys = deploys;
    control.n_deploys = 2;
    for (uint32_t i = 0; i < 2; i++) {
        deploys[i].app = &control.conf.apps[i];
        deploys[i].conf = &deploys[i].app->deployments[deploys[i].app->active];
        deploys[i].config_json = deploys[i].conf->config_json;
        deploys[i].numbers = numbers_resolve(deploys[i].conf, &(struct plan){.max_batch = 8});
        snprintf(replicas[i].name, sizeof replicas[i].name, "a/d/%u", i);
    }
    deploys[0].phase = DP_ACCEPTED;
    deploys[0].replicas = replicas;
    deploys[0].n_replicas = 2;
    deploys[1].phase = DP_FAILED;
    snprintf(deploys[1].message, sizeof deploys[1].message, "no \"such\" thing");
    snprintf(deploys[0].stash.path, sizeof deploys[0].stash.path, "/state/plugins/x/p.so");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    conf_finish(&control.conf);
    return 0;
}

static cJSON *parse(char *own_text)
{
    cJSON *j = cJSON_Parse(own_text);
    xfree(own_text);
    assert_non_null(j);
    return j;
}

static double number(const cJSON *j, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    if (!cJSON_IsNumber(v))
        fail_msg("%s is no number", key);
    return v->valuedouble;
}

static const char *text(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    if (!v)
        fail_msg("%s is no text", key);
    return v;
}

static void a_worker_gets_its_numbers(void **state)
{
    (void)state;
    cJSON *j = parse(texts_worker(&control, &deploys[0], &replicas[1]));
    assert_string_equal(text(j, "replica"), "a/d/1");
    assert_string_equal(text(j, "plugin_path"), "/state/plugins/x/p.so");
    assert_string_equal(text(j, "cache_dir"), "/state/cache");
    assert_int_equal(number(j, "max_batch_size"), 8);
    assert_int_equal(number(j, "max_ongoing_requests"), 16);
    assert_int_equal(number(j, "stall_timeout_s"), 3);
    assert_int_equal(number(j, "graceful_shutdown_timeout_s"), 4);
    assert_int_equal(number(j, "orphan_timeout_s"), 9);
    const cJSON *k = cJSON_GetObjectItem(cJSON_GetObjectItem(j, "config"), "k");
    assert_int_equal(cJSON_GetArraySize(k), 2);
    cJSON_Delete(j);
}

static void an_ingress_gets_its_limits(void **state)
{
    (void)state;
    cJSON *j = parse(texts_ingress(&control, 1));
    assert_int_equal(number(j, "place"), 1);
    assert_string_equal(text(j, "state_dir"), "/state");
    assert_int_equal(number(cJSON_GetObjectItem(j, "http"), "keep_alive_timeout_s"), 7);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(j, "access_log")));
    cJSON_Delete(j);
}

static const char probed[] =
    "{\"models\":[{\"id\":\"m\",\"root\":\"/m\",\"max_model_len\":8,\"created\":17}],"
    "\"queue_gauge\":\"g\"}";

static void routes_name_the_models(void **state)
{
    (void)state;
    deploys[0].probed = cJSON_Parse(probed);
    deploys[1].probed = deploys[0].probed; // failed to deploy, so it names none
    cJSON *apps = parse(texts_routes(&control));
    const cJSON *a = cJSON_GetArrayItem(apps, 0), *hidden = cJSON_GetArrayItem(apps, 1);
    const cJSON *m = cJSON_GetArrayItem(cJSON_GetObjectItem(a, "models"), 0);
    assert_string_equal(text(m, "id"), "m");
    assert_string_equal(text(m, "root"), "/m");
    assert_int_equal(number(m, "max_model_len"), 8);
    assert_int_equal(number(m, "created"), 17);
    assert_string_equal(text(a, "queue_gauge"), "g");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(hidden, "models")), 0);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(hidden, "queue_gauge")));
    cJSON_Delete(apps);
    cJSON_Delete(deploys[0].probed); // the text borrowed it
    deploys[0].probed = deploys[1].probed = NULL;
}

static void routes_say_who_serves_what(void **state)
{
    (void)state;
    char *routes = texts_routes(&control);
    cJSON *j = parse(texts_snapshot(routes, 12));
    xfree(routes);
    assert_int_equal(number(j, "version"), 12);
    const cJSON *apps = cJSON_GetObjectItem(j, "apps"), *a = cJSON_GetArrayItem(apps, 0);
    assert_string_equal(text(a, "route_prefix"), "/a");
    assert_string_equal(text(a, "status"), "DEPLOYING");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(a, "workers")), 2);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(a, "retry_safe")));
    assert_int_equal(number(a, "max_queued_requests"), CONF_QUEUE_DEFAULT);
    const cJSON *hidden = cJSON_GetArrayItem(apps, 1);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(hidden, "route_prefix")));
    assert_string_equal(text(hidden, "status"), "DEPLOY_FAILED");
    assert_string_equal(text(hidden, "message"), "no \"such\" thing");
    cJSON_Delete(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_gets_its_numbers), cmocka_unit_test(an_ingress_gets_its_limits),
        cmocka_unit_test(routes_say_who_serves_what), cmocka_unit_test(routes_name_the_models)};
    return cmocka_run_group_tests(tests, load, unload);
}
