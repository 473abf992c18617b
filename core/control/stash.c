// SPDX-License-Identifier: Apache-2.0
#include "control/stash.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 256 << 10 }; // at a time

struct files { // names in one folder, sorted
    char *names[STASH_FILES_MAX];
    size_t n;
};

static bool try_folder(const char *folder, const char *name, struct buf *tried, char *ret);
static int list_libraries(const char *path, struct files *ret, struct err *err);
static int copy_all(const char *from_dir, const char *to_dir, const struct files *files,
                    char ret_hex[SHA256_HEX], struct err *err);
static int copy_file(const char *from, const char *to, struct sha256 *sum, struct err *err);
static int settle(const char *temp, const char *dir, const struct files *files, struct err *err);
static void remove_folder(const char *dir, const struct files *files);

__attribute__((format(printf, 2, 3))) static int path_of(char *out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, STASH_PATH_MAX, fmt, ap);
    va_end(ap);
    return n < 0 || n >= STASH_PATH_MAX ? SV_E_INVALID : 0;
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int find_path(const char *plugin, const char *base_dir, char *ret, struct err *err)
{
    int rc =
        plugin[0] == '/' ? path_of(ret, "%s", plugin) : path_of(ret, "%s/%s", base_dir, plugin);
    if (rc < 0)
        return err_set(err, SV_E_INVALID, "plugin '%s': the path is longer than %d bytes", plugin,
                       STASH_PATH_MAX - 1);
    if (!is_file(ret))
        return err_set(err, SV_E_NOT_FOUND, "plugin '%s': no file '%s'", plugin, ret);
    return 0;
}

static bool try_variable(const char *name, struct buf *tried, char *ret)
{
    const char *folders = getenv("SALVER_PLUGINS");
    while (folders && *folders) {
        size_t n = strcspn(folders, ":");
        char *one = xstrndup(folders, n);
        bool found = *one && try_folder(one, name, tried, ret);
        xfree(one);
        if (found)
            return true;
        folders += n + (folders[n] == ':');
    }
    return false;
}

static bool try_beside_executable(const char *name, struct buf *tried, char *ret)
{
    char exe[STASH_PATH_MAX], folder[STASH_PATH_MAX];
    if (os_self_path(exe, sizeof exe, NULL) < 0)
        return false;
    const char *home = dirname(exe);
    if (path_of(folder, "%s/plugins", home) == 0 && try_folder(folder, name, tried, ret))
        return true;
    return path_of(folder, "%s/../lib/salver/plugins", home) == 0 &&
           try_folder(folder, name, tried, ret);
}

int stash_find(const char *plugin, const char *base_dir, const char *plugins_dir,
               char ret_path[STASH_PATH_MAX], struct err *err)
{
    if (strchr(plugin, '/'))
        return find_path(plugin, base_dir, ret_path, err);
    struct buf tried = {0};
    int rc = 0;
    if (!(plugins_dir && try_folder(plugins_dir, plugin, &tried, ret_path)) &&
        !try_variable(plugin, &tried, ret_path) && !try_beside_executable(plugin, &tried, ret_path))
        rc = err_set(err, SV_E_NOT_FOUND, "plugin '%s': neither %s.so nor %s/%s.so in %s", plugin,
                     plugin, plugin, plugin, buf_cstr(&tried));
    buf_finish(&tried);
    return rc;
}

static bool try_folder(const char *folder, const char *name, struct buf *tried, char *ret)
{
    buf_printf(tried, "%s%s", buf_len(tried) ? ", " : "", folder);
    if (path_of(ret, "%s/%s.so", folder, name) == 0 && is_file(ret))
        return true;
    return path_of(ret, "%s/%s/%s.so", folder, name, name) == 0 && is_file(ret);
}

// Whether the bytes in `from` are in `store` already, whole: then nothing needs room on the disk.
static bool is_there(const char *from, const char *store, const struct files *files,
                     struct stash *ret)
{
    char hex[SHA256_HEX], found[SHA256_HEX];
    return copy_all(from, NULL, files, hex, NULL) == 0 &&
           path_of(ret->dir, "%s/%s", store, hex) == 0 &&
           path_of(ret->path, "%s/%s", ret->dir, files->names[0]) == 0 && is_file(ret->path) &&
           copy_all(ret->dir, NULL, files, found, NULL) == 0 && strcmp(found, hex) == 0;
}

static int copy_new(const char *from, const char *store, const struct files *files,
                    struct stash *ret, struct err *err)
{
    char temp[STASH_PATH_MAX], hex[SHA256_HEX];
    if (path_of(temp, "%s/new.XXXXXX", store) < 0)
        return err_set(err, SV_E_INVALID, "'%s' is too long a path", store);
    if (!mkdtemp(temp))
        return err_set(err, SV_E_INTERNAL, "making '%s': %s", temp, err_errno(errno));
    int rc = copy_all(from, temp, files, hex, err);
    if (rc == 0 && (path_of(ret->dir, "%s/%s", store, hex) < 0 ||
                    path_of(ret->path, "%s/%s", ret->dir, files->names[0]) < 0))
        rc = err_set(err, SV_E_INVALID, "'%s' is too long a path", store);
    if (rc == 0)
        rc = settle(temp, ret->dir, files, err);
    else
        remove_folder(temp, files);
    return rc;
}

int stash_copy(const char *path, const char *state_dir, struct stash *ret, struct err *err)
{
    struct files files = {.n = 0};
    char store[STASH_PATH_MAX], from[STASH_PATH_MAX];
    if (path_of(from, "%s", path) < 0 || path_of(store, "%s/plugins", state_dir) < 0)
        return err_set(err, SV_E_INVALID, "a path of '%s' is longer than %d bytes", path,
                       STASH_PATH_MAX - 1);
    const char *dir = dirname(from);
    int rc = os_mkdirs(store, 0700, err);
    if (rc == 0)
        rc = list_libraries(path, &files, err);
    if (rc == 0 && !is_there(dir, store, &files, ret))
        rc = copy_new(dir, store, &files, ret, err);
    for (size_t i = 0; i < files.n; i++)
        xfree(files.names[i]);
    return rc < 0 ? err_ctx(err, "copying plugin '%s'", path) : 0;
}

int stash_stamp(const char *path, uint64_t *ret, struct err *err)
{
    struct files files = {.n = 0};
    char from[STASH_PATH_MAX], one[STASH_PATH_MAX];
    int rc = list_libraries(path, &files, err);
    *ret = 1; // never 0
    snprintf(from, sizeof from, "%s", path);
    const char *dir = dirname(from);
    for (size_t i = 0; i < files.n; i++) {
        struct stat st;
        bool there =
            rc == 0 && path_of(one, "%s/%s", dir, files.names[i]) == 0 && stat(one, &st) == 0;
        if (there) {
            const int64_t seen[] = {(int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec,
                                    st.st_mtim.tv_nsec};
            *ret = hash_bytes(seen, sizeof seen, *ret) | 1;
        } else if (rc == 0) {
            rc = err_set(err, SV_E_NOT_FOUND, "reading '%s': %s", one, err_errno(errno));
        }
        xfree(files.names[i]);
    }
    return rc;
}

static bool is_library(const char *name)
{
    const char *so = strstr(name, ".so");
    return so && (so[3] == '\0' || so[3] == '.');
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Whether .../NAME/NAME.so: then the folder is the plugin's own.
static bool has_own_folder(const char *path)
{
    char copy[STASH_PATH_MAX], folder_copy[STASH_PATH_MAX];
    if (path_of(copy, "%s", path) < 0 || path_of(folder_copy, "%s", path) < 0)
        return false;
    const char *file = basename(copy), *folder = basename(dirname(folder_copy));
    size_t n = strlen(folder);
    return strncmp(file, folder, n) == 0 && strcmp(file + n, ".so") == 0;
}

// names[0] is the plugin, the others follow sorted.
static int list_libraries(const char *path, struct files *ret, struct err *err)
{
    char copy[STASH_PATH_MAX];
    if (path_of(copy, "%s", path) < 0)
        return err_set(err, SV_E_INVALID, "the path is longer than %d bytes", STASH_PATH_MAX - 1);
    const char *file = basename(copy);
    ret->names[ret->n++] = xstrdup(file);
    if (!has_own_folder(path))
        return 0;
    char folder_copy[STASH_PATH_MAX];
    snprintf(folder_copy, sizeof folder_copy, "%s", path);
    DIR *d = opendir(dirname(folder_copy));
    if (!d)
        return err_set(err, SV_E_INTERNAL, "reading its folder: %s", err_errno(errno));
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        if (!is_library(e->d_name) || strcmp(e->d_name, file) == 0)
            continue;
        if (ret->n == STASH_FILES_MAX)
            rc = err_set(err, SV_E_TOO_LARGE, "more than %d libraries lie in its folder",
                         STASH_FILES_MAX);
        else
            ret->names[ret->n++] = xstrdup(e->d_name);
    }
    closedir(d);
    qsort(ret->names + 1, ret->n - 1, sizeof *ret->names, by_name);
    return rc;
}

// to_dir NULL: the hash alone.
static int copy_all(const char *from_dir, const char *to_dir, const struct files *files,
                    char ret_hex[SHA256_HEX], struct err *err)
{
    struct sha256 *sum = sha256_create();
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < files->n; i++) {
        char from[STASH_PATH_MAX], to[STASH_PATH_MAX];
        sha256_add(sum, files->names[i], strlen(files->names[i]) + 1);
        if (path_of(from, "%s/%s", from_dir, files->names[i]) < 0 ||
            path_of(to, "%s/%s", to_dir ? to_dir : "", files->names[i]) < 0)
            rc = err_set(err, SV_E_INVALID, "'%s' is too long a path", files->names[i]);
        else
            rc = copy_file(from, to_dir ? to : NULL, sum, err);
    }
    sha256_destroy(sum, rc == 0 ? ret_hex : NULL);
    return rc;
}

static int copy_bytes(int in, int out, struct sha256 *sum)
{
    char *piece = xcalloc(1, COPY_BYTES);
    ssize_t n;
    while ((n = read(in, piece, COPY_BYTES)) > 0) {
        sha256_add(sum, piece, (size_t)n);
        for (ssize_t done = 0, w; out >= 0 && done < n; done += w)
            if ((w = write(out, piece + done, (size_t)(n - done))) < 0) {
                xfree(piece);
                return -1;
            }
    }
    xfree(piece);
    return n < 0 ? -1 : 0;
}

static int copy_file(const char *from, const char *to, struct sha256 *sum, struct err *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return err_set(err, SV_E_INTERNAL, "reading '%s': %s", from, err_errno(errno));
    int out = to ? open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0500) : -1;
    int rc = to && out < 0 ? -1 : copy_bytes(in, out, sum);
    if (rc < 0)
        err_set(err, SV_E_INTERNAL, "copying '%s' to '%s': %s", from, to ? to : "nothing",
                err_errno(errno));
    close(in);
    if (out >= 0)
        close(out);
    return rc < 0 ? SV_E_INTERNAL : 0;
}

static int settle(const char *temp, const char *dir, const struct files *files, struct err *err)
{
    if (rename(temp, dir) == 0)
        return 0;
    int why = errno;
    remove_folder(temp, files);
    if (why == EEXIST || why == ENOTEMPTY) // the same bytes are there already
        return 0;
    return err_set(err, SV_E_INTERNAL, "renaming '%s' to '%s': %s", temp, dir, err_errno(why));
}

static void remove_folder(const char *dir, const struct files *files)
{
    char path[STASH_PATH_MAX];
    for (size_t i = 0; i < files->n; i++)
        if (path_of(path, "%s/%s", dir, files->names[i]) == 0)
            unlink(path);
    rmdir(dir);
}

/* ---- sweep ---- */

static bool is_copy(const char *name)
{
    return strlen(name) == SHA256_HEX - 1 && strspn(name, "0123456789abcdef") == SHA256_HEX - 1;
}

static bool is_unfinished(const char *name)
{
    return strncmp(name, "new.", 4) == 0;
}

// With the files in it. Folders in it are none of ours: then it stays.
static bool remove_copy(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    for (struct dirent *e; (e = readdir(d));)
        unlinkat(fd, e->d_name, 0);
    closedir(d);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

uint32_t stash_sweep(const char *state_dir, bool (*keeps)(void *ctx, const char *sha256), void *ctx)
{
    char store[STASH_PATH_MAX];
    DIR *d = path_of(store, "%s/plugins", state_dir) == 0 ? opendir(store) : NULL;
    uint32_t gone = 0;
    for (struct dirent *e; d && gone < STASH_SWEEP_MAX && (e = readdir(d));) {
        bool unused = is_copy(e->d_name) ? !keeps(ctx, e->d_name) : is_unfinished(e->d_name);
        if (unused)
            gone += remove_copy(dirfd(d), e->d_name);
    }
    if (d)
        closedir(d);
    return gone;
}
