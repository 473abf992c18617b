// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/err.h"
#include "control/stash.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(root, "/tmp/salver-stash-XXXXXX");
    unsetenv("SALVER_PLUGINS");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

__attribute__((format(printf, 1, 2))) static const char *at(const char *fmt, ...)
{
    static char paths[8][STASH_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    int n = snprintf(path, STASH_PATH_MAX, "%s/", root);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path + n, STASH_PATH_MAX - (size_t)n, fmt, ap);
    va_end(ap);
    return path;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static bool has(const char *dir, const char *name, const char *text)
{
    char path[2 * STASH_PATH_MAX], found[64] = "";
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    return n == strlen(text) && memcmp(found, text, n) == 0;
}

static void finds_in_order(void **state)
{
    (void)state;
    char path[STASH_PATH_MAX];
    struct err err;
    mkdir(at("one"), 0700);
    mkdir(at("two"), 0700);
    mkdir(at("two/x"), 0700);
    write_file(at("two/x/x.so"), "nested");
    assert_int_equal(stash_find("x", root, at("one"), path, &err), SV_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, at("one")));
    setenv("SALVER_PLUGINS", at("none:%s", at("two")), 1); // a folder that is not there is skipped
    assert_int_equal(stash_find("x", root, at("one"), path, &err), 0);
    assert_string_equal(path, at("two/x/x.so"));
    write_file(at("two/x.so"), "flat");
    assert_int_equal(stash_find("x", root, at("one"), path, &err), 0);
    assert_string_equal(path, at("two/x.so"));
    write_file(at("one/x.so"), "given");
    assert_int_equal(stash_find("x", root, at("one"), path, &err), 0);
    assert_string_equal(path, at("one/x.so"));
}

static void finds_paths_from_the_files_folder(void **state)
{
    (void)state;
    char path[STASH_PATH_MAX];
    struct err err;
    write_file(at("y.so"), "y");
    assert_int_equal(stash_find("./y.so", root, NULL, path, &err), 0);
    assert_int_equal(stash_find(at("y.so"), "/nowhere", NULL, path, &err), 0);
    assert_int_equal(stash_find("./z.so", root, NULL, path, &err), SV_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "z.so"));
}

static void copies_the_plugin_and_what_it_brings(void **state)
{
    (void)state;
    struct stash a, b;
    struct err err;
    mkdir(at("p"), 0700);
    write_file(at("p/p.so"), "plugin");
    write_file(at("p/libk.so.2"), "kernels");
    write_file(at("p/notes.txt"), "no library");
    assert_int_equal(stash_copy(at("p/p.so"), at("state"), &a, &err), 0);
    assert_true(has(a.dir, "p.so", "plugin"));
    assert_true(has(a.dir, "libk.so.2", "kernels"));
    assert_false(has(a.dir, "notes.txt", "no library"));
    assert_int_equal(strlen(strrchr(a.dir, '/')), 65);
    assert_int_equal(stash_copy(at("p/p.so"), at("state"), &b, &err), 0); // the same again
    assert_string_equal(a.dir, b.dir);
    struct rlimit was, none;
    getrlimit(RLIMIT_FSIZE, &was);
    none = was;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none); // as where the disk is full
    assert_int_equal(stash_copy(at("p/p.so"), at("state"), &b, &err), 0);
    assert_string_equal(a.dir, b.dir);
    setrlimit(RLIMIT_FSIZE, &was);
    write_file(at("p/libk.so.2"), "new kernels");
    assert_int_equal(stash_copy(at("p/p.so"), at("state"), &b, &err), 0);
    assert_string_not_equal(a.dir, b.dir);
    assert_true(has(a.dir, "libk.so.2", "kernels")); // what runs keeps its own
}

static void copies_one_file_out_of_a_common_folder(void **state)
{
    (void)state;
    struct stash s;
    struct err err;
    write_file(at("q.so"), "q");
    write_file(at("other.so"), "other");
    assert_int_equal(stash_copy(at("q.so"), at("state"), &s, &err), 0);
    assert_true(has(s.dir, "q.so", "q"));
    assert_false(has(s.dir, "other.so", "other"));
}

static void leaves_nothing_behind_after_a_failure(void **state)
{
    (void)state;
    struct stash s;
    struct err err;
    assert_true(stash_copy(at("gone.so"), at("state"), &s, &err) < 0);
    assert_non_null(strstr(err.msg, "gone.so"));
    assert_int_equal(rmdir(at("state/plugins")), 0); // empty
}

static bool is_named(void *ctx, const char *sha256)
{
    return strstr(ctx, sha256) != NULL;
}

static void copy_of(const char *text, char ret_dir[STASH_PATH_MAX])
{
    struct stash s;
    write_file(at("p.so"), text);
    assert_int_equal(stash_copy(at("p.so"), at("state"), &s, NULL), 0);
    snprintf(ret_dir, STASH_PATH_MAX, "%s", s.dir);
}

static void sweeps_what_nobody_uses(void **state)
{
    (void)state;
    static char dirs[2 * STASH_SWEEP_MAX][STASH_PATH_MAX], kept[STASH_PATH_MAX];
    enum { N = 2 * STASH_SWEEP_MAX };
    char text[16], known[] = "";
    assert_int_equal(stash_sweep(at("state"), is_named, known), 0); // there is no folder yet
    for (unsigned i = 0; i < N; i++) {
        snprintf(text, sizeof text, "%u", i);
        copy_of(text, dirs[i]);
    }
    copy_of("kept", kept);
    mkdir(at("state/plugins/new.abcdef"), 0700); // of a copy that was cut short
    write_file(at("state/plugins/new.abcdef/p.so"), "half");
    mkdir(at("state/plugins/notes"), 0700); // not ours
    mkdir(at("%s/folder", dirs[3] + strlen(root) + 1), 0700);
    assert_int_equal(symlink(root, at("state/plugins/new.link")), 0); // never followed
    write_file(at("treasure"), "x");

    assert_int_equal(stash_sweep(at("state"), is_named, kept), STASH_SWEEP_MAX);
    uint32_t gone = STASH_SWEEP_MAX, more;
    while ((more = stash_sweep(at("state"), is_named, kept)) > 0)
        gone += more;
    assert_int_equal(gone, N - 1 + 1); // all but dirs[3], and new.abcdef
    assert_true(has(kept, "p.so", "kept"));
    assert_int_equal(access(dirs[3], F_OK), 0);
    assert_int_equal(access(dirs[4], F_OK), -1);
    assert_int_equal(access(at("state/plugins/new.abcdef"), F_OK), -1);
    assert_int_equal(access(at("state/plugins/notes"), F_OK), 0);
    assert_true(has(root, "treasure", "x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_paths_from_the_files_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_the_plugin_and_what_it_brings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_one_file_out_of_a_common_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leaves_nothing_behind_after_a_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sweeps_what_nobody_uses, set_up, tear_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
