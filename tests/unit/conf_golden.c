// SPDX-License-Identifier: Apache-2.0
// Every tests/golden/config/NN-name.yaml says in NN-name.want what `salver check` prints of it.
// UPDATE_GOLDEN=1 in the environment writes the .want files anew; read the difference.
#include "base/buf.h"
#include "base/err.h"
#include "conf/app.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { GOLDEN_MIN = 2 }; // files there are at least, so that a wrong folder is no success

static int is_yaml(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 5 && strcmp(e->d_name + n - 5, ".yaml") == 0;
}

static char *slurp(const char *path)
{
    static char text[64 << 10];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;

    text[n] = '\0';
    if (f)
        fclose(f);
    return text;
}

static void spill(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

// What the command says: the lines, then one that counts.
static void check(const char *name, struct buf *out)
{
    struct conf_file f = {0};
    struct err err = {0};
    int rc = conf_load(name, &f, &err);

    if (rc == 0)
        rc = conf_host_check(&f, false, &err);
    conf_print(&f, out);
    buf_printf(out, "exit %d\n", rc < 0 ? 2 : 0);
    assert_int_equal(rc < 0, err.code < 0);
    conf_finish(&f);
}

static bool compare(const char *name)
{
    struct buf got = {0};
    char want_path[300];

    snprintf(want_path, sizeof want_path, "%.*s.want", (int)strlen(name) - 5, name);
    check(name, &got);
    const char *want = slurp(want_path);
    bool same = strcmp(want, buf_cstr(&got)) == 0;
    if (!same && getenv("UPDATE_GOLDEN"))
        spill(want_path, buf_cstr(&got));
    else if (!same)
        print_error("%s\n--- want\n%s--- got\n%s", name, want, buf_cstr(&got));
    buf_finish(&got);
    return same || getenv("UPDATE_GOLDEN");
}

static void golden(void **state)
{
    struct dirent **list;
    int n, bad = 0;

    (void)state;
    setenv("SALVER_TEST_PORT", "8123", 1);
    setenv("SALVER_TEST_SECRET", "hunter2", 1);
    setenv("SALVER_TEST_EMPTY", "", 1);
    unsetenv("SALVER_TEST_UNSET");
    assert_int_equal(chdir(TEST_DATA "/../golden/config"), 0);
    n = scandir(".", &list, is_yaml, alphasort);
    assert_true(n >= GOLDEN_MIN);
    for (int i = 0; i < n; i++) {
        bad += !compare(list[i]->d_name);
        free(list[i]);
    }
    free(list);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
