// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * pages - the shared pages of all processes that this ingress knows of, for /metrics and for what a
 * dead worker was doing.
 *
 * A page stays until PAGE_GONE: the numbers of a dead process count until they are in the fold
 * page.
 *
 * Bounds  PAGES_MAX; more are refused with an err.
 * Owner   the mappings.
 * Thread  loop thread only.
 */
#include <stddef.h>
#include <stdint.h>

struct err;
struct page;

enum { PAGES_MAX = 4096 };

struct pages {
    const struct page **all; // owned array of owned mappings; the first is this process's own
    uint64_t *child_ids;     // owned, beside them
    struct page_held {
        int fd; // owned; what a new supervisor is given of a page that nobody else has
        uint32_t generation;
    } * held; // owned, beside them
    size_t n, room;
};

// Takes own_fd. The same child twice gives the same page.
int pages_add(struct pages *p, uint64_t child_id, uint32_t generation, int own_fd,
              struct page **ret, struct err *err);
void pages_drop(struct pages *p, uint64_t child_id);
void pages_finish(struct pages *p);
