// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/err.h"
#include "cli/plugin_new.h"

#include <limits.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

// One row is one name; `says` is NULL for a good one.
static const struct {
    const char *name, *says;
} rows[] = {
    {"a", NULL},
    {"mine_2", NULL},
    {"x234567890123456789012345678901234567890", NULL},
    {"x2345678901234567890123456789012345678901", "1 to 40"},
    {"", "a letter first"},
    {"2x", "a letter first"},
    {"_x", "a letter first"},
    {"Mine", "a-z, 0-9 and _"},
    {"a-b", "a-z, 0-9 and _"},
    {"../a", "a letter first"},
    {"a/b", "a-z, 0-9 and _"},
    {"a\xc3\xa4", "a-z, 0-9 and _"},
};

static void names(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char dir[] = "/tmp/plugin_new.XXXXXX", path[PATH_MAX];
        struct err err = {0};
        assert_non_null(mkdtemp(dir));
        int code = plugin_new(rows[i].name, dir, &err);
        snprintf(path, sizeof path, "%s/%s.c", dir, rows[i].name);
        assert_int_equal(access(path, F_OK), rows[i].says ? -1 : 0);
        assert_int_equal(code, rows[i].says ? SV_E_INVALID : 0);
        if (rows[i].says)
            assert_non_null(strstr(err.msg, rows[i].says));
    }
}

static void files_carry_the_name(void **unused)
{
    (void)unused;
    char dir[] = "/tmp/plugin_new.XXXXXX", path[PATH_MAX], text[8192] = "";
    static const char *const files[] = {"mine.c", "CMakeLists.txt", "test_mine.py", "README.md"};
    assert_non_null(mkdtemp(dir));
    assert_int_equal(plugin_new("mine", dir, NULL), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        assert_non_null(strstr(text, "mine"));
        assert_null(strstr(text, "@name@"));
    }
}

static void nothing_is_overwritten(void **unused)
{
    (void)unused;
    char dir[] = "/tmp/plugin_new.XXXXXX", path[PATH_MAX];
    struct err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/README.md", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(plugin_new("mine", dir, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "README.md' is there already"));
    snprintf(path, sizeof path, "%s/mine.c", dir);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(files_carry_the_name),
        cmocka_unit_test(nothing_is_overwritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
