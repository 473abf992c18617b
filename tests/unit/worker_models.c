// SPDX-License-Identifier: Apache-2.0
// Each row is one thing that a plugin may say in sv.models/1, or the process that looked at it.
#include "base/err.h"
#include "worker/models.h"

#include <cjson/cJSON.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static char huge[SV_MODEL_NAME + 2], large[SV_MODEL_NAME + 1];

static uint32_t two(void *self)
{
    (void)self;
    return 2;
}

static uint32_t many(void *self)
{
    (void)self;
    return SV_MODELS_COUNT + 1;
}

static uint32_t most(void *self)
{
    (void)self;
    return SV_MODELS_COUNT;
}

static int get(void *self, uint32_t i, sv_model *ret)
{
    const sv_model *all = self;
    uint32_t size = ret->size;
    *ret = all[i];
    ret->size = size;
    return 0;
}

static int get_large(void *self, uint32_t i, sv_model *ret)
{
    static char ids[SV_MODELS_COUNT][8];
    (void)self;
    snprintf(ids[i], sizeof ids[i], "m%u", i);
    ret->id = ids[i];
    ret->root = large;
    return 0;
}

static int get_fails(void *self, uint32_t i, sv_model *ret)
{
    (void)self;
    (void)ret;
    (void)i;
    return SV_E_NOT_FOUND;
}

#define PAIR(...)                                                                                  \
    (sv_model[2])                                                                                  \
    {                                                                                              \
        {.id = "a", .max_model_len = 7},                                                           \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define SERVES(c, g, gauge_)                                                                       \
    {                                                                                              \
        .size = sizeof(sv_models), .count = (c), .get = (g), .queue_gauge = (gauge_)               \
    }

static const struct row {
    const char *name;
    sv_models serves;
    const sv_model *models;
    const char *want; // the models, "id root alias_of" each; or of the complaint
} rows[] = {
    {"two names", SERVES(two, get, NULL), PAIR(.id = "b", .root = "/r", .alias_of = "a"),
     "a a - b /r a"},
    {"of an older minor",
     {sizeof(sv_models) - sizeof(char *), 0, two, get, NULL},
     PAIR(.id = "b"),
     "a a - b b -"},
    {"any language", SERVES(two, get, NULL), PAIR(.id = "中文/é"), "a a - 中文/é 中文/é -"},
    {"no count", SERVES(NULL, get, NULL), PAIR(.id = "b"), "lacks count() and get()"},
    {"no get", SERVES(two, NULL, NULL), PAIR(.id = "b"), "lacks count() and get()"},
    {"too small", {16, 0, two, get, NULL}, PAIR(.id = "b"), "has 16 bytes"},
    {"too many", SERVES(many, get, NULL), PAIR(.id = "b"), "names 1001 models; at most 1000"},
    {"too large together", SERVES(most, get_large, NULL), NULL, "more than 262144 bytes together"},
    {"an id twice", SERVES(two, get, NULL), PAIR(.id = "a"),
     "model 1 that the plugin names: two "
     "models have the id 'a'"},
    {"an empty id", SERVES(two, get, NULL), PAIR(.id = ""), "its id has no bytes"},
    {"no id", SERVES(two, get, NULL), PAIR(.root = "/r"), "its id has no bytes"},
    {"a long id", SERVES(two, get, NULL), PAIR(.id = huge),
     "its id has too many bytes; use 1 to "
     "1024"},
    {"an empty root", SERVES(two, get, NULL), PAIR(.id = "b", .root = ""), "its root has no"},
    {"a broken root", SERVES(two, get, NULL), PAIR(.id = "b", .root = "\xc3("),
     "its root is not valid UTF-8"},
    {"a control character", SERVES(two, get, NULL), PAIR(.id = "b", .alias_of = "x\n"),
     "byte 1 of its alias_of is 0x0a"},
    {"delete", SERVES(two, get, NULL), PAIR(.id = "\x7f"), "byte 0 of its id is 0x7f"},
    {"a bad gauge", SERVES(two, get, "a b"), PAIR(.id = "b"), "queue_gauge must be"},
    {"an empty gauge", SERVES(two, get, ""), PAIR(.id = "b"), "queue_gauge must be"},
    {"a gauge with a digit", SERVES(two, get, "1a"), PAIR(.id = "b"), "queue_gauge must be"},
    {"a long gauge", SERVES(two, get, large), PAIR(.id = "b"), "queue_gauge must be"},
};

static void put(char *out, size_t cap, const cJSON *answer)
{
    const cJSON *m;
    out[0] = '\0';
    cJSON_ArrayForEach(m, cJSON_GetObjectItem(answer, "models"))
    {
        const char *alias = cJSON_GetStringValue(cJSON_GetObjectItem(m, "alias_of"));
        size_t n = strlen(out);
        snprintf(out + n, cap - n, "%s%s %s %s", n ? " " : "",
                 cJSON_GetStringValue(cJSON_GetObjectItem(m, "id")),
                 cJSON_GetStringValue(cJSON_GetObjectItem(m, "root")), alias ? alias : "-");
    }
}

static void run_row(void **state)
{
    const struct row *row = *state;
    struct err err = {0};
    char got[256];
    cJSON *answer = cJSON_CreateObject();
    int rc = models_ask(&row->serves, (void *)(uintptr_t)row->models, 12, answer, &err);
    put(got, sizeof got, answer);
    if (!strstr(rc < 0 ? err.msg : got, row->want))
        fail_msg("'%s' is not in '%s' (%d)", row->want, rc < 0 ? err.msg : got, rc);
    if (rc == 0)
        assert_int_equal(models_check(answer, &err), 0);
    cJSON_Delete(answer);
}

static void what_is_said_of_a_model(void **state)
{
    (void)state;
    const sv_models serves = SERVES(two, get, "vllm:num_requests_waiting");
    cJSON *answer = cJSON_CreateObject();
    assert_int_equal(models_ask(&serves, PAIR(.id = "b"), 1700000000, answer, NULL), 0);
    char *text = cJSON_PrintUnformatted(answer);
    assert_string_equal(text,
                        "{\"models\":[{\"id\":\"a\",\"root\":\"a\",\"max_model_len\":7,\"created\":"
                        "1700000000},{\"id\":\"b\",\"root\":\"b\",\"max_model_len\":0,\"created\":"
                        "1700000000}],\"queue_gauge\":\"vllm:num_requests_waiting\"}");
    cJSON_free(text);
    cJSON_Delete(answer);
}

// The caller knows what fail() said; models_ask gives the code and no text.
static void a_failure_is_its_own(void **state)
{
    (void)state;
    const sv_models serves = SERVES(two, get_fails, NULL);
    struct err err = {.msg = "old"};
    cJSON *answer = cJSON_CreateObject();
    assert_int_equal(models_ask(&serves, NULL, 0, answer, &err), SV_E_NOT_FOUND);
    assert_string_equal(err.msg, "");
    cJSON_Delete(answer);
}

static const struct {
    const char *answer, *want; // NULL: fine
} answers[] = {
    {"{}", NULL},
    {"{\"models\":[]}", NULL},
    {"{\"models\":[{\"id\":\"a\",\"root\":\"a\",\"max_model_len\":0,\"created\":0}]}", NULL},
    {"{\"models\":{}}", "no array"},
    {"{\"models\":[7]}", "lacks a root"},
    {"{\"models\":[{\"id\":\"a\",\"root\":7,\"max_model_len\":0,\"created\":0}]}", "lacks a root"},
    {"{\"models\":[{\"root\":\"a\",\"max_model_len\":0,\"created\":0}]}", "its id has no bytes"},
    {"{\"models\":[{\"id\":\"a\",\"root\":\"a\",\"max_model_len\":1.5,\"created\":0}]}", "number"},
    {"{\"models\":[{\"id\":\"a\",\"root\":\"a\",\"max_model_len\":1e10,\"created\":0}]}", "number"},
    {"{\"models\":[{\"id\":\"a\",\"root\":\"a\",\"max_model_len\":1,\"created\":-5}]}", "number"},
    {"{\"queue_gauge\":7}", "queue_gauge must be"},
};

static void answers_of_the_child(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct err err = {0};
        cJSON *j = cJSON_Parse(answers[i].answer);
        int rc = models_check(j, &err);
        cJSON_Delete(j);
        if ((rc < 0) != (answers[i].want != NULL) || (rc < 0 && !strstr(err.msg, answers[i].want)))
            fail_msg("%s gave %d '%s'", answers[i].answer, rc, err.msg);
    }
}

int main(void)
{
    enum { N = sizeof rows / sizeof *rows };
    struct CMUnitTest tests[N + 3];
    memset(huge, 'h', sizeof huge - 1);
    memset(large, 'l', sizeof large - 1);
    for (size_t i = 0; i < N; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].name, run_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(what_is_said_of_a_model);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(a_failure_is_its_own);
    tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(answers_of_the_child);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
