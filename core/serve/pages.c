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

static int add(struct pages *p, uint64_t child_id, uint32_t generation, int own_fd,
               struct page **ret, struct err *err)
{
    if (p->n == PAGES_MAX)
        return err_set(err, SV_E_OVERLOADED, "%zu pages are mapped (at most %d)", p->n, PAGES_MAX);
    struct page *page;
    int rc = page_map(own_fd, &page, err);
    if (rc < 0)
        return rc;
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 16;
        p->all = xrealloc(p->all, p->room * sizeof *p->all);
        p->child_ids = xrealloc(p->child_ids, p->room * sizeof *p->child_ids);
        p->held = xrealloc(p->held, p->room * sizeof *p->held);
    }
    p->all[p->n] = page;
    p->held[p->n] = (struct page_held){own_fd, generation};
    p->child_ids[p->n++] = child_id;
    *ret = page;
    return 0;
}

int pages_add(struct pages *p, uint64_t child_id, uint32_t generation, int own_fd,
              struct page **ret, struct err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->child_ids[i] != child_id)
            continue;
        *ret = writable(p->all[i]);
        close(own_fd);
        return 0;
    }
    int rc = add(p, child_id, generation, own_fd, ret, err);
    if (rc < 0)
        close(own_fd);
    return rc;
}

void pages_drop(struct pages *p, uint64_t child_id)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->child_ids[i] != child_id)
            continue;
        page_unmap(writable(p->all[i]));
        close(p->held[i].fd);
        p->n--;
        p->all[i] = p->all[p->n];
        p->child_ids[i] = p->child_ids[p->n];
        p->held[i] = p->held[p->n];
        return;
    }
}

void pages_finish(struct pages *p)
{
    while (p->n) {
        page_unmap(writable(p->all[--p->n]));
        close(p->held[p->n].fd);
    }
    xfree(p->all);
    xfree(p->held);
    xfree(p->child_ids);
    *p = (struct pages){0};
}
