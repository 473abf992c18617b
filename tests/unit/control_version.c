// SPDX-License-Identifier: Apache-2.0
// What needs a restart makes another version, what does not makes the same.
#include "base/err.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct control control;

// Of the application `a` of a text, after an inspection that found `probed`.
static void id_of(const char *text, const char *probed, char out[VERSION_ID])
{
    struct err err;
    struct doc *doc = NULL;
    struct deploy d = {.control = &control, .name = "a"};
    if (doc_from_text("app.yaml", text, strlen(text), &doc, &err) < 0)
        fail_msg("%s", err.msg);
    struct version *v = version_create(&d, doc);
    v->probed = cJSON_Parse(probed);
    assert_non_null(v->probed);
    if (version_check_options(v, probed, &err) < 0 || version_digest(v, &err) < 0)
        fail_msg("%s", err.msg);
    memcpy(out, v->id, VERSION_ID);
    version_unref(v);
    doc_unref(doc);
}

#define OPTIONS                                                                                    \
    "\"options\":["                                                                                \
    "{\"name\":\"size\",\"type\":1,\"flags\":0,\"fallback\":\"3\",\"min\":0,\"max\":9,\"help\":"   \
    "\"\"},"                                                                                       \
    "{\"name\":\"price\",\"type\":1,\"flags\":2,\"fallback\":\"1\",\"min\":0,\"max\":9,\"help\":"  \
    "\"\"},"                                                                                       \
    "{\"name\":\"deep.er\",\"type\":1,\"flags\":2,\"fallback\":\"1\",\"min\":0,\"max\":9,"         \
    "\"help\":\"\"}]"
#define PROBED(dir, plan)                                                                          \
    "{\"name\":\"p\",\"version\":\"1\",\"stash_path\":\"/s/" dir "/p.so\",\"stash_dir\":\"/s/" dir \
    "\"," OPTIONS ",\"plan\":{" plan "}}"
#define TEXT(prefix, deployment)                                                                   \
    "applications: [{name: a, route_prefix: " prefix                                               \
    ", plugin: p, deployments: [{name: d, " deployment "}]}]\n"

static const char base_text[] = TEXT("/a", "config: {size: 3, price: 1}");
static const char base_probed[] = PROBED("x", "");

static const struct {
    const char *name, *text, *probed;
    bool same;
} rows[] = {
    {"nothing", base_text, base_probed, true},
    {"written otherwise", TEXT("'/a'", "config: {price: 1, size: '3'}"), base_probed, true},
    {"a fallback is not written", TEXT("/a", "config: {price: 1}"), base_probed, true},
    {"a live option", TEXT("/a", "config: {size: 3, price: 2}"), base_probed, true},
    {"a live option of a group", TEXT("/a", "config: {size: 3, deep: {er: 4}}"), base_probed, true},
    {"another option", TEXT("/a", "config: {size: 4, price: 1}"), base_probed, false},
    {"the plugin's bytes", base_text, PROBED("y", ""), false},
    {"the route prefix", TEXT("/b", "config: {size: 3, price: 1}"), base_probed, true},
    {"how many replicas", TEXT("/a", "num_replicas: 7, config: {price: 1}"), base_probed, true},
    {"how much it takes", TEXT("/a", "max_ongoing_requests: 7"), base_probed, true},
    {"a time limit", TEXT("/a", "stall_timeout_s: 7"), base_probed, true},
    {"its threads", TEXT("/a", "concurrency: 2"), base_probed, false},
    {"user_config", TEXT("/a", "config: {size: 4}, user_config: {size: 3}"), base_probed, true},
};

static void ids(void **state)
{
    (void)state;
    char base[VERSION_ID], other[VERSION_ID];
    id_of(base_text, base_probed, base);
    assert_int_equal(strlen(base), VERSION_ID - 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        id_of(rows[i].text, rows[i].probed, other);
        if ((strcmp(base, other) == 0) != rows[i].same)
            fail_msg("%s: %s and %s", rows[i].name, base, other);
    }
}

static void another_deployment_is_another_version(void **state)
{
    (void)state;
    char base[VERSION_ID], other[VERSION_ID];
    id_of(base_text, base_probed, base);
    id_of("applications: [{name: a, route_prefix: /a, plugin: p, deployments: [{name: e}]}]\n",
          base_probed, other);
    assert_string_not_equal(base, other);
}

static void an_inspection_without_a_name_is_refused(void **state)
{
    (void)state;
    struct err err;
    struct doc *doc = NULL;
    struct deploy d = {.control = &control, .name = "a"};
    assert_int_equal(doc_from_text("", base_text, strlen(base_text), &doc, &err), 0);
    struct version *v = version_create(&d, doc);
    v->probed = cJSON_Parse("{\"plan\":{}}");
    assert_int_equal(version_digest(v, &err), -500);
    assert_non_null(strstr(err.msg, "gave no name"));
    version_unref(v);
    doc_unref(doc);
}

static void names(void **state)
{
    (void)state;
    const char *ab[] = {"a", "b"}, *bc[] = {"b", "c"}, *d[] = {"d"};
    struct version one = {.names = ab, .n_names = 2}, two = {.names = bc, .n_names = 2},
                   three = {.names = d, .n_names = 1}, none = {0};
    assert_string_equal(version_shared(&one, &two), "b");
    assert_string_equal(version_shared(&two, &one), "b");
    assert_null(version_shared(&one, &three));
    assert_null(version_shared(&three, &two));
    assert_null(version_shared(&one, &none));
    assert_true(version_names(&one, "b"));
    assert_false(version_names(&one, "c"));
    assert_false(version_names(&none, "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ids), cmocka_unit_test(names),
                                       cmocka_unit_test(another_deployment_is_another_version),
                                       cmocka_unit_test(an_inspection_without_a_name_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
