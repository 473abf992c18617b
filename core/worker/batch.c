// SPDX-License-Identifier: Apache-2.0
#include "worker/batch.h"

#include "base/check.h"
#include "base/mem.h"

#include <string.h>

const char *const batch_reason_names[BATCH_REASONS] = {"full", "timeout", "key", "idle"};

void batch_init(struct batch *b, const struct batch_conf *c)
{
    *b = (struct batch){.conf = *c};
    CHECK(c->max >= 1 && c->max <= BATCH_MAX);
}

void batch_finish(struct batch *b)
{
    xfree(b->items);
    *b = (struct batch){0};
}

static bool before(const struct batch_item *a, const struct batch_item *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    uint64_t da = a->deadline_ns ? a->deadline_ns : UINT64_MAX;
    uint64_t db = b->deadline_ns ? b->deadline_ns : UINT64_MAX;
    return da != db ? da < db : a->arrived_ns < b->arrived_ns;
}

void batch_push(struct batch *b, struct batch_item *it)
{
    if (b->len == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 64;
        b->items = xrealloc(b->items, b->cap * sizeof *b->items);
    }
    uint32_t at = b->len++;
    for (; at > 0 && before(it, b->items[at - 1]); at--)
        b->items[at] = b->items[at - 1];
    b->items[at] = it;
}

bool batch_remove(struct batch *b, const struct batch_item *it)
{
    for (uint32_t i = 0; i < b->len; i++)
        if (b->items[i] == it) {
            b->len--;
            memmove(b->items + i, b->items + i + 1, (b->len - i) * sizeof *b->items);
            return true;
        }
    return false;
}

static uint32_t cost_of(const struct batch_item *it)
{
    return it->cost ? it->cost : 1;
}

// One key's batch as it could leave now.
struct group {
    uint64_t key, oldest_ns, due_ns;
    uint32_t n, cost;
    bool full, rest; // rest: others wait that can't come along
};

// From here on, waiting would bring the request nearer to its deadline than one wait.
static uint64_t latest_start(const struct batch *b, const struct batch_item *it)
{
    return it->deadline_ns > b->conf.wait_ns ? it->deadline_ns - b->conf.wait_ns : 0;
}

static void look(const struct batch *b, uint32_t lead, struct group *g)
{
    *g = (struct group){.key = b->items[lead]->key, .oldest_ns = UINT64_MAX, .due_ns = UINT64_MAX};
    for (uint32_t i = lead; i < b->len && !g->full; i++) {
        const struct batch_item *it = b->items[i];
        if (it->key != g->key)
            continue;
        if (g->n && (g->cost + cost_of(it) > b->conf.max)) {
            g->full = true; // what is next in line does not fit: no overtaking by cheaper ones
            break;
        }
        g->n++;
        g->cost += cost_of(it);
        g->full = g->cost >= b->conf.max;
        if (it->arrived_ns < g->oldest_ns)
            g->oldest_ns = it->arrived_ns;
        if (it->deadline_ns && latest_start(b, it) < g->due_ns)
            g->due_ns = latest_start(b, it);
    }
    if (g->oldest_ns + b->conf.wait_ns < g->due_ns)
        g->due_ns = g->oldest_ns + b->conf.wait_ns;
    g->rest = g->n < b->len;
}

static uint32_t take_group(struct batch *b, const struct group *g, struct batch_item **ret)
{
    uint32_t n = 0, kept = 0;
    for (uint32_t i = 0; i < b->len; i++) {
        struct batch_item *it = b->items[i];
        if (n < g->n && it->key == g->key)
            ret[n++] = it;
        else
            b->items[kept++] = it;
    }
    b->len = kept;
    return n;
}

static bool seen(const uint64_t *keys, uint32_t n, uint64_t key)
{
    for (uint32_t i = 0; i < n; i++)
        if (keys[i] == key)
            return true;
    return false;
}

static enum batch_reason reason_of(const struct batch *b, const struct group *g, bool more)
{
    if (g->full)
        return BATCH_FULL;
    if (g->rest)
        return BATCH_KEY;
    return b->conf.wait_ns && more ? BATCH_TIMEOUT : BATCH_IDLE;
}

uint32_t batch_take(struct batch *b, uint64_t now, bool more, bool full_only,
                    struct batch_item **ret, enum batch_reason *ret_reason, uint64_t *ret_again)
{
    uint64_t keys[BATCH_KEYS];
    uint32_t n_keys = 0;
    *ret_again = UINT64_MAX;
    for (uint32_t i = 0; i < b->len && n_keys < BATCH_KEYS; i++) {
        struct group g;
        if (seen(keys, n_keys, b->items[i]->key))
            continue;
        keys[n_keys++] = b->items[i]->key;
        look(b, i, &g);
        bool due = !more || now >= g.due_ns;
        if (g.full || (due && !full_only)) {
            *ret_reason = reason_of(b, &g, more);
            return take_group(b, &g, ret);
        }
        if (g.due_ns < *ret_again)
            *ret_again = g.due_ns;
        if (g.n == b->len)
            break;
    }
    return 0;
}
