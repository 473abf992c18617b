// SPDX-License-Identifier: Apache-2.0
// What is accepted stands in the store, and a later control finds it there.
#include "base/err.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/record.h"
#include "control/store.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/salver-record-XXXXXX";
static struct err err;

static void open_control(struct control *c, uint32_t generation)
{
    static const char nothing[] = "applications: []\n";
    *c = (struct control){.generation = generation};
    list_init(&c->deploys);
    if (store_open(dir, &c->store, &err) < 0 ||
        doc_from_text("", nothing, sizeof nothing - 1, &c->server, &err) < 0)
        fail_msg("%s", err.msg);
}

static void close_control(struct control *c)
{
    list_for_each_safe (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        version_unref(d->next);
        version_unref(d->good);
        list_remove(n);
        xfree(d);
    }
    cJSON_Delete(c->desired);
    doc_unref(c->server);
    store_close(c->store);
}

static void put(struct control *c, const char *path, const char *text)
{
    struct doc *doc = NULL;
    if (doc_from_text(path, text, strlen(text), &doc, &err) < 0 || record_put(c, doc, &err) < 0)
        fail_msg("%s", err.msg);
    doc_unref(doc);
}

// A control of its own reads it all; the caller closes it.
static void recall(struct control *c, uint32_t generation)
{
    open_control(c, generation);
    if (record_recall(c, &err) < 0)
        fail_msg("%s", err.msg);
}

static int count(void *ctx, const struct store_kv *kv)
{
    (void)kv;
    ++*(int *)ctx;
    return 0;
}

static int keys(struct control *c, const char *prefix)
{
    int n = 0;
    assert_int_equal(store_list(c->store, prefix, count, &n, NULL, &err), 0);
    return n;
}

static const char one[] = "http_options: {port: 8123}\n"
                          "applications: [{name: a, route_prefix: /a, plugin: p}, "
                          "{name: b, route_prefix: /b, plugin: q}]\n";
static const char two[] = "http_options: {port: 8124}\n"
                          "applications: [{name: b, route_prefix: /b, plugin: q2}, "
                          "{name: c, route_prefix: /c, plugin: r}]\n";

static int set_up(void **state)
{
    (void)state;
    memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void what_was_put_is_found(void **state)
{
    (void)state;
    struct control c, next;
    open_control(&c, 0);
    put(&c, "/etc/one.yaml", one);
    close_control(&c);
    recall(&next, 1);
    const struct deploy *a = deploy_find(&next, "a"), *b = deploy_find(&next, "b");
    assert_true(a && b && !deploy_find(&next, "c"));
    assert_string_equal(a->next->conf->plugin, "p");
    assert_string_equal(a->next->doc->conf.dir, "/etc");
    assert_ptr_equal(a->next->doc, b->next->doc);
    assert_true(a->order < b->order);
    assert_int_equal(next.server->conf.http.port, 8123);
    close_control(&next);
}

static void a_second_text_replaces_the_first(void **state)
{
    (void)state;
    struct control c, next;
    open_control(&c, 0);
    put(&c, "", one);
    put(&c, "", two);
    assert_int_equal(keys(&c, "docs/"), 2); // the server's http options are the first one's
    close_control(&c);
    recall(&next, 1);
    assert_null(deploy_find(&next, "a"));
    const struct deploy *b = deploy_find(&next, "b"), *c2 = deploy_find(&next, "c");
    assert_string_equal(b->next->conf->plugin, "q2");
    assert_true(b->order < c2->order); // it was there before
    assert_int_equal(next.server->conf.http.port, 8123);
    close_control(&next);
    recall(&next, 0); // another server: the last text's options hold
    assert_int_equal(next.server->conf.http.port, 8124);
    put(&next, "", two);
    assert_int_equal(keys(&next, "docs/"), 1);
    put(&next, "", "applications: [{name: d, route_prefix: /d, plugin: s}]\n");
    close_control(&next);
    recall(&next, 0); // that text says nothing of the server
    assert_int_equal(next.server->conf.http.port, 8124);
    assert_non_null(deploy_find(&next, "d"));
    close_control(&next);
}

static void what_is_deleted_is_gone(void **state)
{
    (void)state;
    struct control c, next;
    open_control(&c, 0);
    put(&c, "", one);
    assert_int_equal(record_delete(&c, "a", &err), 0);
    close_control(&c);
    recall(&next, 1);
    assert_true(!deploy_find(&next, "a") && deploy_find(&next, "b"));
    assert_int_equal(record_delete(&next, NULL, &err), 0);
    close_control(&next);
    recall(&next, 1);
    assert_true(list_empty(&next.deploys));
    close_control(&next);
}

// Two controls: the later change of one that read an older state is refused.
static void a_stale_control_changes_nothing(void **state)
{
    (void)state;
    struct control c, stale;
    open_control(&c, 0);
    put(&c, "", one);
    close_control(&c);
    recall(&stale, 1);
    stale.desired_revision--;
    assert_int_equal(record_delete(&stale, "a", &err), -409);
    assert_non_null(strstr(err.msg, "nothing was changed"));
    close_control(&stale);
    recall(&stale, 1);
    assert_non_null(deploy_find(&stale, "a"));
    close_control(&stale);
}

static void write_value(struct control *c, const char *key, const char *value)
{
    const struct store_op op = {
        .key = key, .value = {value, strlen(value)}, .if_revision = STORE_ANY};
    assert_int_equal(store_txn(c->store, &op, 1, NULL, &err), 0);
}

// A fault in the store is said, whatever it is; nothing is made up.
static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "{\"apps\":{\"a\":{}}}", "{\"apps\":{\"a\":{\"doc\":\"0\"}}}", "[", "{\"doc\":\"0\"}"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct control c;
        open_control(&c, 1);
        write_value(&c, "desired", rows[i]);
        if (record_recall(&c, &err) == 0)
            fail_msg("'%s' was taken", rows[i]);
        close_control(&c);
    }
}

static void secrets_are_not_shown(void **state)
{
    (void)state;
    static const char text[] =
        "applications: [{name: a, route_prefix: /a, plugin: p, deployments: "
        "[{name: d, num_replicas: 2, config: {key: '${RECORD_TEST}', n: 1.5, on: true}}]}]\n";
    struct doc *doc = NULL;
    setenv("RECORD_TEST", "hidden", 1);
    assert_int_equal(doc_from_text("", text, sizeof text - 1, &doc, &err), 0);
    cJSON *j = record_config(doc, "a");
    char *said = cJSON_PrintUnformatted(j);
    assert_string_equal(said, "{\"name\":\"a\",\"route_prefix\":\"/a\",\"plugin\":\"p\","
                              "\"deployments\":[{\"name\":\"d\",\"num_replicas\":2,"
                              "\"config\":{\"key\":\"***\",\"n\":1.5,\"on\":true}}]}");
    cJSON_free(said);
    cJSON_Delete(j);
    doc_unref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_put_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_text_replaces_the_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_deleted_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stale_control_changes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nonsense_is_refused, set_up, tear_down),
        cmocka_unit_test(secrets_are_not_shown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
