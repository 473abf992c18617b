// SPDX-License-Identifier: Apache-2.0
// Who has which name, who is asked without one, and what is said to those who find nobody.
#include "serve/registry.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "serve/dispatch.h"
#include "serve/model_field.h"
#include "serve/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Applications a, b, c; `models` says what each names, '!' that it failed, '/' that it is the root.
static struct dispatch apps[3];
static struct snapshot_model models[64];
static char ids[64][32], running[] = "RUNNING", deploy_failed[] = "DEPLOY_FAILED";

static void build(struct registry *r, const char *const setup[3])
{
    uint32_t n = 0;
    *r = (struct registry){0};
    for (int i = 0; i < 3; i++) {
        const char *s = setup[i];
        bool failed = *s == '!';
        s += failed;
        apps[i].status = failed ? deploy_failed : running;
        if (*s == '/') {
            registry_set_root(r, &apps[i]);
            s++;
        }
        for (; *s; s += strspn(s, " "), n++) {
            size_t k = strcspn(s, " ");
            snprintf(ids[n], sizeof ids[n], "%.*s", (int)k, s);
            models[n] = (struct snapshot_model){.id = ids[n], .root = ""};
            registry_add(r, &models[n], &apps[i], failed);
            s += k;
        }
    }
    registry_sort(r);
}

// 'a', 'b', 'c': chosen; '4': 404, '?': 400. `name` NULL: the body has none.
static char choose(const struct registry *r, const char *name, struct dispatch_refusal *why)
{
    static struct model_field field;
    field.has = name != NULL;
    field.n = name ? (uint32_t)strlen(name) : 0;
    if (name)
        memcpy(field.text, name, field.n);
    const struct dispatch *d = registry_choose(r, &field, why);
    if (d)
        return (char)('a' + (d - apps));
    assert_string_equal(why->param, "model");
    return why->code == SV_E_NOT_FOUND ? '4' : '?';
}

static const struct {
    const char *setup[3], *name;
    char want;
} rows[] = {
    {{"x", "y z", "w"}, "x", 'a'},
    {{"x", "y z", "w"}, "z", 'b'},
    {{"x", "y z", "w"}, "w", 'c'},
    {{"x", "y z", "w"}, "", '4'},
    {{"x", "y z", "w"}, "xx", '4'},
    {{"x", "y z", "w"}, NULL, '?'},
    {{"b ab abc a", "B ba", "bb"}, "ab", 'a'},
    {{"b ab abc a", "B ba", "bb"}, "abc", 'a'},
    {{"b ab abc a", "B ba", "bb"}, "B", 'b'},
    {{"b ab abc a", "B ba", "bb"}, "ba", 'b'},
    {{"b ab abc a", "B ba", "bb"}, "bb", 'c'},
    {{"b ab abc a", "B ba", "bb"}, "abcd", '4'},
    // One name, two that claim it.
    {{"x", "x", ""}, "x", 'a'},
    {{"!x", "x", ""}, "x", 'b'},
    {{"!x", "!x", ""}, "x", 'a'},
    {{"!x", "", ""}, "x", 'a'}, // whose application says why nobody answers
    // The application at /.
    {{"/x", "y", ""}, NULL, 'a'},
    {{"/x", "y", ""}, "z", '4'},
    {{"/", "y", ""}, NULL, 'a'},
    {{"/", "y", ""}, "z", 'a'},
    {{"/", "y", ""}, "y", 'b'},
    {{"y", "/", ""}, "z", 'b'},
    {{"y", "/", ""}, NULL, 'b'},
    {{"y", "/z", ""}, "x", '4'},
    {{"y z", "", ""}, NULL, 'a'},
    {{"y z", "", ""}, "x", '4'},
    {{"y", "z", ""}, NULL, '?'},
    {{"", "y", "y"}, NULL, '?'},
};

static void every_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct registry r;
        struct dispatch_refusal why;
        build(&r, rows[i].setup);
        char got = choose(&r, rows[i].name, &why);
        if (got != rows[i].want)
            fail_msg("row %zu (%s): %c", i, rows[i].name ? rows[i].name : "none", got);
        registry_finish(&r);
    }
}

static void a_name_too_long(void **state)
{
    (void)state;
    struct registry r;
    struct dispatch_refusal why;
    struct model_field field = {.has = true, .too_long = true, .n = 1, .text = "x"};
    build(&r, (const char *const[3]){"x", "", ""});
    assert_null(registry_choose(&r, &field, &why));
    assert_int_equal(why.code, SV_E_NOT_FOUND);
    assert_ptr_equal(registry_choose(&r, NULL, &why), &apps[0]); // no body at all
    registry_finish(&r);
}

static void texts(void **state)
{
    (void)state;
    struct registry r;
    struct dispatch_refusal why;
    build(&r, (const char *const[3]){"m1 m2", "!bad", "m2 m3"});
    assert_int_equal(choose(&r, "m4", &why), '4');
    assert_string_equal(why.text, "The model `m4` does not exist. Known models: `m1`, `m2`, `m3`");
    assert_int_equal(choose(&r, NULL, &why), '?');
    assert_string_equal(why.text, "A `model` is needed here. Known models: `m1`, `m2`, `m3`");
    registry_finish(&r);
    build(&r, (const char *const[3]){"!x", "", ""});
    choose(&r, "m4", &why);
    assert_string_equal(why.text, "The model `m4` does not exist. Known models: none");
    registry_finish(&r);
}

// Many names, and long ones: the text is bounded and says how many there are.
static void many(void **state)
{
    (void)state;
    enum { N = 1000 };
    static struct snapshot_model all[N];
    static char names[N][1025];
    struct registry r = {0};
    struct dispatch_refusal why;
    apps[0].status = running;
    for (int i = 0; i < N; i++) {
        memset(names[i], 'n', sizeof names[i] - 1);
        snprintf(names[i], 16, "%d", i * 7919 % N);
        names[i][strlen(names[i])] = i % 2 ? 'n' : '\0';
        all[i] = (struct snapshot_model){.id = names[i], .root = ""};
        registry_add(&r, &all[i], &apps[0], false);
    }
    registry_sort(&r);
    for (int i = 0; i < N; i++)
        assert_ptr_equal(registry_find(&r, names[i], strlen(names[i]))->model, &all[i]);
    static char asked[5000];
    memset(asked, 'q', sizeof asked - 1);
    struct model_field field = {.has = true, .n = 1000};
    memcpy(field.text, asked, field.n);
    assert_null(registry_choose(&r, &field, &why));
    assert_true(strlen(why.text) < REGISTRY_TEXT);
    const char *and = strstr(why.text, " and ");
    assert_non_null(and);
    int shown = 0;
    for (const char *c = strstr(why.text, "Known"); (c = strchr(c + 1, '`'));)
        shown++;
    assert_true(shown / 2 >= 5 && shown / 2 <= REGISTRY_SHOWN);
    assert_int_equal(strtol(and+5, NULL, 10), N - shown / 2);
    registry_finish(&r);
}

static void shown(void **state)
{
    (void)state;
    struct registry r;
    build(&r, (const char *const[3]){"x", "!x y", "z"});
    static const bool want[] = {true, false, false, true};
    for (uint32_t i = 0; i < r.n; i++)
        assert_int_equal(registry_shows(&r.entries[i]), want[i]);
    registry_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row), cmocka_unit_test(a_name_too_long), cmocka_unit_test(texts),
        cmocka_unit_test(many),      cmocka_unit_test(shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
