// SPDX-License-Identifier: Apache-2.0
#include "serve/route.h"

#include "base/mem.h"

#include <stdbool.h>
#include <string.h>

static bool matches(const char *prefix, size_t len, const char *path);

void route_add(struct route_table *t, const char *prefix, void *to)
{
    size_t len = strlen(prefix);
    if (len == 1)
        len = 0;
    t->entries = xrealloc(t->entries, (t->n + 1) * sizeof *t->entries);
    uint32_t i = t->n++;
    for (; i > 0 && t->entries[i - 1].len < len; i--)
        t->entries[i] = t->entries[i - 1];
    t->entries[i] = (struct route_entry){prefix, len, to};
}

void route_finish(struct route_table *t)
{
    xfree(t->entries);
    *t = (struct route_table){0};
}

const struct route_entry *route_find(const struct route_table *t, const char *path,
                                     const char **ret_rest)
{
    for (uint32_t i = 0; i < t->n; i++) {
        const struct route_entry *e = &t->entries[i];
        if (!matches(e->prefix, e->len, path))
            continue;
        *ret_rest = path[e->len] ? path + e->len : "/";
        return e;
    }
    return NULL;
}

const char *route_below(const char *root, const char *path)
{
    size_t len = strlen(root);
    if (len > 0 && root[len - 1] == '/')
        len--;
    if (!matches(root, len, path))
        return NULL;
    return path[len] ? path + len : "/";
}

static bool matches(const char *prefix, size_t len, const char *path)
{
    return strncmp(prefix, path, len) == 0 && (path[len] == '/' || path[len] == '\0');
}
