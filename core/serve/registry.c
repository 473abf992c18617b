// SPDX-License-Identifier: Apache-2.0
#include "serve/registry.h"

#include "abi/plugin.h"
#include "base/mem.h"
#include "serve/dispatch.h"
#include "serve/model_field.h"
#include "serve/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void registry_add(struct registry *r, const struct snapshot_model *model, struct dispatch *d,
                  bool failed)
{
    if (r->n == r->room) {
        r->room = r->room ? 2 * r->room : 16;
        r->entries = xrealloc(r->entries, r->room * sizeof *r->entries);
    }
    r->entries[r->n++] =
        (struct registry_entry){.model = model, .d = d, .len = strlen(model->id), .failed = failed};
    r->several = r->several || (r->only && r->only != d);
    r->only = r->several ? NULL : d;
}

static int compare_ids(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int c = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return c ? c : (n_a > n_b) - (n_a < n_b);
}

static int compare(const void *x, const void *y, void *ctx)
{
    const struct registry_entry *entries = ctx;
    uint32_t i = *(const uint32_t *)x, j = *(const uint32_t *)y;
    const struct registry_entry *a = &entries[i], *b = &entries[j];
    int c = compare_ids(a->model->id, a->len, b->model->id, b->len);
    if (c == 0)
        c = a->failed - b->failed;
    return c ? c : (i > j) - (i < j);
}

void registry_set_root(struct registry *r, struct dispatch *d)
{
    r->root = d;
}

void registry_sort(struct registry *r)
{
    r->by_id = xrealloc(r->by_id, (r->n + 1) * sizeof *r->by_id);
    for (uint32_t i = 0; i < r->n; i++)
        r->by_id[i] = i;
    qsort_r(r->by_id, r->n, sizeof *r->by_id, compare, r->entries);
    r->n_by_id = 0;
    r->root_names = false;
    for (uint32_t i = 0; i < r->n; i++)
        r->root_names = r->root_names || r->entries[i].d == r->root;
    const struct registry_entry *last = NULL;
    for (uint32_t i = 0; i < r->n; i++) {
        struct registry_entry *e = &r->entries[r->by_id[i]];
        e->taken = last && compare_ids(last->model->id, last->len, e->model->id, e->len) == 0;
        if (e->taken)
            continue;
        r->by_id[r->n_by_id++] = r->by_id[i];
        last = e;
    }
}

void registry_finish(struct registry *r)
{
    xfree(r->entries);
    xfree(r->by_id);
    *r = (struct registry){0};
}

const struct registry_entry *registry_find(const struct registry *r, const char *id, size_t n)
{
    uint32_t low = 0, high = r->n_by_id;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct registry_entry *e = &r->entries[r->by_id[mid]];
        int c = compare_ids(id, n, e->model->id, e->len);
        if (c == 0)
            return e;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

bool registry_shows(const struct registry_entry *e)
{
    return !e->taken && !dispatch_failed(e->d);
}

// "`a`, `b` and 7 more" of what is shown.
static void put_known(const struct registry *r, char *out, size_t cap)
{
    uint32_t shown = 0, more = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct registry_entry *e = &r->entries[i];
        char one[REGISTRY_SHOWN_BYTES + 8];
        if (!registry_shows(e))
            continue;
        size_t n = (size_t)snprintf(one, sizeof one, "%s`%.*s`", shown ? ", " : "",
                                    REGISTRY_SHOWN_BYTES, e->model->id);
        if (more || shown == REGISTRY_SHOWN || at + n + sizeof " and 4294967295 more" > cap) {
            more++;
            continue;
        }
        memcpy(out + at, one, n + 1);
        at += n;
        shown++;
    }
    if (shown == 0)
        snprintf(out, cap, "none");
    if (more)
        snprintf(out + at, cap - at, " and %u more", more);
}

static char text[REGISTRY_TEXT];

void registry_unknown(const struct registry *r, const char *id, size_t n,
                      struct dispatch_refusal *ret)
{
    int cut = n < REGISTRY_SHOWN_BYTES ? (int)n : REGISTRY_SHOWN_BYTES;
    int at =
        snprintf(text, sizeof text, "The model `%.*s` does not exist. Known models: ", cut, id);
    put_known(r, text + at, sizeof text - (size_t)at);
    *ret = (struct dispatch_refusal){SV_E_NOT_FOUND, text, OUTCOME_not_found, 0, "model"};
}

struct dispatch *registry_choose(const struct registry *r, const struct model_field *field,
                                 struct dispatch_refusal *ret)
{
    if (field && field->has) {
        const struct registry_entry *e =
            field->too_long ? NULL : registry_find(r, field->text, field->n);
        if (e || (r->root && !r->root_names))
            return e ? e->d : r->root;
        registry_unknown(r, field->text, field->n, ret);
        return NULL;
    }
    if (r->root || r->only)
        return r->root ? r->root : r->only;
    int at = snprintf(text, sizeof text, "A `model` is needed here. Known models: ");
    put_known(r, text + at, sizeof text - (size_t)at);
    *ret = (struct dispatch_refusal){SV_E_INVALID, text, OUTCOME_error, 0, "model"};
    return NULL;
}
