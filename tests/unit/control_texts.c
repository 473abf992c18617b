// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/mem.h"
#include "conf/app.h"
#include "control/deploy.h"
#include "control/doc.h"
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

static const char probed[] =
    "{\"models\":[{\"id\":\"m\",\"root\":\"/m\",\"max_model_len\":8,\"created\":17}],"
    "\"queue_gauge\":\"g\"}";

static struct control control;
static struct deploy deploys[2];
static struct replica replicas[3], *pointers[] = {&replicas[0], &replicas[1], &replicas[2]};
static struct version versions[2];
static char state_dir[] = "/state";

static int load(void **state)
{
    (void)state;
    struct err err;
    if (doc_from_text("app.yaml", file, sizeof file - 1, &control.server, &err) < 0) {
        print_error("%s\n", err.msg);
        return -1;
    }
    control.state_dir = state_dir;
    list_init(&control.deploys);
    for (uint32_t i = 0; i < 2; i++) {
        struct version *v = &versions[i];
        v->app = &control.server->conf.apps[i];
        v->conf = &v->app->deployments[v->app->active];
        v->config_json = v->conf->config_json;
        v->numbers = numbers_resolve(v->conf, &(struct plan){.max_batch = 8});
        v->probed = cJSON_Parse(probed);
        snprintf(v->id, sizeof v->id, "v%u", i);
        snprintf(deploys[i].name, sizeof deploys[i].name, "%s", v->app->name);
        deploys[i].control = &control;
        list_push(&control.deploys, &deploys[i].node);
    }
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(replicas[i].name, sizeof replicas[i].name, "a/d/%u", i);
        snprintf(replicas[i].version, sizeof replicas[i].version, "v0");
        replicas[i].deploy = &deploys[0];
    }
    replicas[2].leaving = true;
    deploys[0].target = &versions[0];
    deploys[0].wanted = 2;
    deploys[0].replicas = pointers;
    deploys[0].n_replicas = 3;
    deploys[1].refused = &versions[1];
    snprintf(deploys[1].failed, sizeof deploys[1].failed, "no \"such\" thing");
    snprintf(versions[0].stash.path, sizeof versions[0].stash.path, "/state/plugins/x/p.so");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    cJSON_Delete(versions[0].probed);
    cJSON_Delete(versions[1].probed);
    doc_unref(control.server);
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
    cJSON *j = parse(texts_worker(&control, &versions[0], "a/d/1", true));
    assert_string_equal(text(j, "replica"), "a/d/1");
    assert_string_equal(text(j, "version"), "v0");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(j, "canary")));
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

// Two replicas of a version have the same, whatever their name is and how they were started.
static void what_can_be_told_is_equal(void **state)
{
    (void)state;
    cJSON *a = parse(texts_worker(&control, &versions[0], "a/d/0", true));
    cJSON *b = parse(texts_worker(&control, &versions[0], "a/d/1", false));
    char *one = texts_live(a), *two = texts_live(b);
    assert_string_equal(one, two);
    cJSON_SetNumberValue(cJSON_GetObjectItem(b, "stall_timeout_s"), 4);
    char *three = texts_live(b);
    assert_string_not_equal(one, three);
    xfree(one);
    xfree(two);
    xfree(three);
    cJSON_Delete(a);
    cJSON_Delete(b);
}

static void routes_name_the_models(void **state)
{
    (void)state;
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
}

// A roll that renames a model: each name with those that know it.
static void a_renamed_model_names_who_knows_it(void **state)
{
    (void)state;
    const char *old_names[] = {"both", "m"}, *new_names[] = {"both", "n"};
    struct version next = versions[0], *target = deploys[0].target;
    cJSON *was = versions[0].probed;
    versions[0].probed =
        cJSON_Parse("{\"models\":[{\"id\":\"m\",\"root\":\"/m\"},{\"id\":\"both\"}]}");
    versions[0].names = old_names;
    next.names = new_names;
    versions[0].n_names = next.n_names = 2;
    snprintf(next.id, sizeof next.id, "v9");
    deploys[0].good = target;
    deploys[0].target = &next;
    snprintf(replicas[1].version, sizeof replicas[1].version, "v9");
    cJSON *apps = parse(texts_routes(&control));
    const cJSON *models = cJSON_GetObjectItem(cJSON_GetArrayItem(apps, 0), "models");
    assert_int_equal(cJSON_GetArraySize(models), 2);
    const cJSON *m = cJSON_GetArrayItem(models, 0), *knowers = cJSON_GetObjectItem(m, "workers");
    assert_string_equal(text(m, "id"), "m");
    assert_string_equal(text(m, "root"), "/m");
    assert_int_equal(cJSON_GetArraySize(knowers), 1);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(knowers, 0)), "a/d/0");
    m = cJSON_GetArrayItem(models, 1);
    assert_string_equal(text(m, "id"), "both");
    assert_null(cJSON_GetObjectItem(m, "workers"));
    cJSON_Delete(apps);
    cJSON_Delete(versions[0].probed);
    versions[0].probed = was;
    versions[0].names = NULL;
    versions[0].n_names = 0;
    deploys[0].good = NULL;
    deploys[0].target = target;
    snprintf(replicas[1].version, sizeof replicas[1].version, "v0");
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_worker_gets_its_numbers),
                                       cmocka_unit_test(what_can_be_told_is_equal),
                                       cmocka_unit_test(an_ingress_gets_its_limits),
                                       cmocka_unit_test(routes_say_who_serves_what),
                                       cmocka_unit_test(routes_name_the_models),
                                       cmocka_unit_test(a_renamed_model_names_who_knows_it)};
    return cmocka_run_group_tests(tests, load, unload);
}
