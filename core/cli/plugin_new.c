// SPDX-License-Identifier: Apache-2.0
#include "cli/plugin_new.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern const char embed_plugin_c[], embed_CMakeLists_txt[], embed_test_py[], embed_README_md[];

static const char mark[] = "@name@";

// Each file of the template; its name may have the mark too.
static const struct {
    const char *name, *text;
} files[] = {
    {"@name@.c", embed_plugin_c},
    {"CMakeLists.txt", embed_CMakeLists_txt},
    {"test_@name@.py", embed_test_py},
    {"README.md", embed_README_md},
};
enum { N_FILES = sizeof files / sizeof *files };

static int check_name(const char *name, struct err *err);
static int path_of(char *path, size_t cap, const char *dir, size_t i, const char *name,
                   struct err *err);
static int write_file(const char *path, const char *text, const char *name, struct err *err);

int plugin_new(const char *name, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    int code = check_name(name, err);
    dir = dir ? dir : name;
    for (size_t i = 0; i < N_FILES && code == 0; i++) {
        code = path_of(path, sizeof path, dir, i, name, err);
        if (code == 0 && access(path, F_OK) == 0)
            code = err_set(err, SV_E_INVALID,
                           "'%s' is there already; choose another folder or remove it", path);
    }
    if (code == 0 && mkdir(dir, 0777) < 0 && errno != EEXIST)
        code =
            err_set(err, SV_E_INTERNAL, "cannot create the folder '%s': %s", dir, strerror(errno));
    for (size_t i = 0; i < N_FILES && code == 0; i++) {
        code = path_of(path, sizeof path, dir, i, name, err);
        if (code == 0)
            code = write_file(path, files[i].text, name, err);
    }
    return code < 0 ? err_ctx(err, "making a plugin '%.40s'", name) : 0;
}

static int check_name(const char *name, struct err *err)
{
    size_t len = strlen(name);
    bool good = len <= PLUGIN_NEW_NAME_MAX && name[0] >= 'a' && name[0] <= 'z' &&
                strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
    if (good)
        return 0;
    return err_set(err, SV_E_INVALID,
                   "the name has to be 1 to %d of a-z, 0-9 and _, a letter first",
                   PLUGIN_NEW_NAME_MAX);
}

// Writes text with every mark replaced by name.
static void put_text(FILE *f, const char *text, const char *name)
{
    for (const char *at; (at = strstr(text, mark)); text = at + strlen(mark)) {
        fwrite(text, 1, (size_t)(at - text), f);
        fputs(name, f);
    }
    fputs(text, f);
}

static int path_of(char *path, size_t cap, const char *dir, size_t i, const char *name,
                   struct err *err)
{
    FILE *f = fmemopen(path, cap, "w");
    if (!f)
        return err_set(err, SV_E_NOMEM, "no memory");
    fprintf(f, "%s/", dir);
    put_text(f, files[i].name, name);
    fputc(0, f);
    if (fclose(f) == 0 && memchr(path, 0, cap))
        return 0;
    return err_set(err, SV_E_INVALID, "the path '%.100s...' is longer than %zu bytes", dir, cap);
}

static int write_file(const char *path, const char *text, const char *name, struct err *err)
{
    FILE *f = fopen(path, "wx"); // x: never over a file that came meanwhile
    if (!f)
        return err_set(err, SV_E_INTERNAL, "cannot create '%s': %s", path, strerror(errno));
    put_text(f, text, name);
    if (fclose(f) == 0)
        return 0;
    return err_set(err, SV_E_INTERNAL, "cannot write '%s': %s", path, strerror(errno));
}
