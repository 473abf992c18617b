// SPDX-License-Identifier: Apache-2.0
#include "serve/pages.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "wire/page.h"

#include <unistd.h>

static struct page *writable(const struct page *p)
{
    return (struct page *)(uintptr_t)p;
}

static int add(struct pages *p, uint64_t child_id, int fd, struct page **ret, struct err *err)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->child_ids[i] == child_id) {
            *ret = writable(p->all[i]);
            return 0;
        }
    if (p->n == PAGES_MAX)
        return err_set(err, SV_E_OVERLOADED, "%zu pages are mapped (at most %d)", p->n, PAGES_MAX);
    struct page *page;
    int rc = page_map(fd, &page, err);
    if (rc < 0)
        return rc;
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 16;
        p->all = xrealloc(p->all, p->room * sizeof *p->all);
        p->child_ids = xrealloc(p->child_ids, p->room * sizeof *p->child_ids);
    }
    p->all[p->n] = page;
    p->child_ids[p->n++] = child_id;
    *ret = page;
    return 0;
}

int pages_add(struct pages *p, uint64_t child_id, int own_fd, struct page **ret, struct err *err)
{
    int rc = add(p, child_id, own_fd, ret, err);
    close(own_fd);
    return rc;
}

void pages_drop(struct pages *p, uint64_t child_id)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->child_ids[i] != child_id)
            continue;
        page_unmap(writable(p->all[i]));
        p->n--;
        p->all[i] = p->all[p->n];
        p->child_ids[i] = p->child_ids[p->n];
        return;
    }
}

void pages_finish(struct pages *p)
{
    while (p->n)
        page_unmap(writable(p->all[--p->n]));
    xfree(p->all);
    xfree(p->child_ids);
    *p = (struct pages){0};
}
