// SPDX-License-Identifier: Apache-2.0
#include "common/tensors.h"

#include "abi/plugin.h"
#include "base/arena.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "common/file.h"

#include <stdlib.h>
#include <string.h>

struct tensors {
    char *path;            // owned
    struct arena names;    // of tensors
    struct tensor *v;      // owned, in the order of the files
    uint32_t *by_name;     // owned, [n] once sealed
    uint32_t n, cap;       //
    struct file_map **map; // owned, each
    uint32_t n_maps;
    uint64_t bytes;
};

struct tensors *tensors_create(const char *path)
{
    struct tensors *t = xcalloc(1, sizeof *t);
    t->path = xstrdup(path);
    arena_init(&t->names, 0);
    return t;
}

void tensors_close(struct tensors *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->n_maps; i++) {
        file_unmap(t->map[i]);
        xfree(t->map[i]);
    }
    xfree(t->map);
    xfree(t->v);
    xfree(t->by_name);
    xfree(t->path);
    arena_finish(&t->names);
    xfree(t);
}

int tensors_map(struct tensors *t, const char *path, const struct file_map **ret, struct err *err)
{
    struct file_map map;
    if (t->n_maps == TENSORS_SHARDS)
        return err_set(err, SV_E_TOO_LARGE, "'%s' has more than %d files", t->path, TENSORS_SHARDS);
    int rc = file_map(path, TENSORS_FILE_MAX, &map, err);
    if (rc < 0)
        return rc;
    t->map = xrealloc(t->map, (t->n_maps + 1) * sizeof *t->map);
    t->map[t->n_maps] = xcalloc(1, sizeof map);
    *t->map[t->n_maps] = map;
    *ret = t->map[t->n_maps++];
    return 0;
}

// Printable UTF-8, so that it can stand in a log line.
static int check_name(const char *name, size_t n, struct err *err)
{
    if (n == 0 || n >= TENSOR_NAME)
        return err_set(err, SV_E_INVALID,
                       "tensor '%s': its name has %zu bytes; allowed are 1 to %d",
                       tensor_label(name, n).s, n, TENSOR_NAME - 1);
    bool printable = str_valid_utf8(name, n);
    for (size_t i = 0; i < n; i++)
        printable = printable && (unsigned char)name[i] >= ' ' && name[i] != 0x7f;
    return printable ? 0
                     : err_set(err, SV_E_INVALID, "tensor '%s': its name is not printable UTF-8",
                               tensor_label(name, n).s);
}

int tensors_add(struct tensors *t, const struct file_map *map, const struct tensor *tensor,
                const char *name, size_t n, struct err *err)
{
    int rc = check_name(name, n, err);
    if (rc < 0)
        return rc;
    if (t->n == TENSORS_MAX)
        return err_set(err, SV_E_TOO_LARGE, "more than %d tensors", TENSORS_MAX);
    const uint8_t *p = tensor->data;
    CHECK(p >= map->p && p <= map->p + map->n && tensor->bytes <= (size_t)(map->p + map->n - p));
    CHECK(tensor->n_dims <= TENSOR_DIMS);
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 256;
        t->v = xrealloc(t->v, t->cap * sizeof *t->v);
    }
    struct tensor *own = &t->v[t->n++];
    *own = *tensor;
    own->name = arena_strndup(&t->names, name, n);
    t->bytes += tensor->bytes;
    return 0;
}

static int order_names(const void *a, const void *b, void *arg)
{
    const struct tensor *v = arg;
    return strcmp(v[*(const uint32_t *)a].name, v[*(const uint32_t *)b].name);
}

static int order_data(const void *a, const void *b, void *arg)
{
    const struct tensor *v = arg;
    const struct tensor *x = &v[*(const uint32_t *)a], *y = &v[*(const uint32_t *)b];
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int check_unique(const struct tensors *t, const uint32_t *by_name, struct err *err)
{
    for (uint32_t i = 1; i < t->n; i++)
        if (!strcmp(t->v[by_name[i - 1]].name, t->v[by_name[i]].name))
            return err_set(err, SV_E_INVALID, "tensor '%s' occurs twice", t->v[by_name[i]].name);
    return 0;
}

static int check_apart(const struct tensors *t, const uint32_t *by_data, struct err *err)
{
    for (uint32_t i = 1; i < t->n; i++) {
        const struct tensor *a = &t->v[by_data[i - 1]], *b = &t->v[by_data[i]];
        if ((uintptr_t)a->data + a->bytes > (uintptr_t)b->data)
            return err_set(err, SV_E_INVALID, "tensors '%s' and '%s' overlap in the file", a->name,
                           b->name);
    }
    return 0;
}

int tensors_seal(struct tensors *t, struct err *err)
{
    t->by_name = xcalloc(t->n + 1, sizeof *t->by_name);
    for (uint32_t i = 0; i < t->n; i++)
        t->by_name[i] = i;
    qsort_r(t->by_name, t->n, sizeof *t->by_name, order_data, t->v);
    int rc = check_apart(t, t->by_name, err);
    if (rc < 0)
        return rc;
    qsort_r(t->by_name, t->n, sizeof *t->by_name, order_names, t->v);
    return check_unique(t, t->by_name, err);
}

uint32_t tensors_count(const struct tensors *t)
{
    return t->n;
}

const struct tensor *tensors_at(const struct tensors *t, uint32_t i)
{
    CHECK(i < t->n);
    return &t->v[i];
}

const struct tensor *tensors_find(const struct tensors *t, const char *name)
{
    uint32_t low = 0, high = t->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct tensor *found = &t->v[t->by_name[middle]];
        int order = strcmp(name, found->name);
        if (order == 0)
            return found;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *tensors_path(const struct tensors *t)
{
    return t->path;
}

uint64_t tensors_bytes(const struct tensors *t)
{
    return t->bytes;
}

void tensors_prefetch(const struct tensors *t)
{
    for (uint32_t i = 0; i < t->n_maps; i++)
        file_prefetch(t->map[i]);
}

void tensors_forget(const struct tensors *t)
{
    for (uint32_t i = 0; i < t->n_maps; i++)
        file_forget(t->map[i]);
}

struct tensor_label tensor_label(const char *p, size_t n)
{
    struct tensor_label l = {{0}};
    size_t keep = n < 80 ? n : 80;
    for (size_t i = 0; i < keep; i++)
        l.s[i] = p[i] >= ' ' && p[i] <= '~' ? p[i] : '?';
    if (keep < n)
        memcpy(l.s + keep, "...", 3);
    return l;
}
