// SPDX-License-Identifier: Apache-2.0
#include "wire/page.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/os.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "the page is shared between processes");

const char *const page_doing_names[PD_COUNT] = {
    [PD_IDLE] = "idle",         [PD_CREATE] = "create",
    [PD_PLAN] = "plan",         [PD_LOAD] = "load",
    [PD_WARM] = "warm",         [PD_RECONFIGURE] = "reconfigure",
    [PD_HEALTH] = "health",     [PD_DRAIN] = "drain",
    [PD_UNLOAD] = "unload",     [PD_DESTROY] = "destroy",
    [PD_RUN] = "run",           [PD_SUBMIT] = "submit",
    [PD_INPUT] = "input",       [PD_CANCEL] = "cancel",
    [PD_WRITABLE] = "writable", [PD_STEP] = "step",
    [PD_POST] = "post",         [PD_BATCH_KEY] = "batch_key",
    [PD_DLOPEN] = "dlopen",     [PD_EXTENSION] = "extension",
};

int page_create(const char *name, struct err *err)
{
    void *mem;
    int fd = os_memfd(name, sizeof(struct page), err);
    if (fd < 0)
        return fd;
    int rc = os_memfd_map(fd, sizeof(struct page), &mem, err);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    struct page *p = mem;
    p->magic = PAGE_MAGIC;
    p->version = PAGE_VERSION;
    page_unmap(p);
    return fd;
}

int page_map(int fd, struct page **ret, struct err *err)
{
    void *mem;
    int rc = os_memfd_map(fd, sizeof(struct page), &mem, err);
    if (rc < 0)
        return err_ctx(err, "mapping a shared page");
    struct page *p = mem;
    uint32_t magic = p->magic, version = p->version;
    if (magic == PAGE_MAGIC && version == PAGE_VERSION) {
        *ret = p;
        return 0;
    }
    page_unmap(p);
    if (magic != PAGE_MAGIC)
        return err_set(err, SV_E_INVALID, "descriptor %d is no shared page", fd);
    return err_set(err, SV_E_INVALID, "shared page of version %u (this program reads version %d)",
                   version, PAGE_VERSION);
}

void page_unmap(struct page *p)
{
    if (p)
        munmap(p, sizeof *p);
}

/*
 * Free slots are a stack linked through `next`; slots that were never used come after it, in
 * order, so n_requests is the most that were ever held at once. The upper half of the head counts
 * changes: a pop that was overtaken by others fails its exchange (the ABA problem).
 */
static uint64_t free_head(uint64_t old, uint32_t first)
{
    return ((old >> 32) + 1) << 32 | first;
}

static int pop_free(struct page *p)
{
    uint64_t head = atomic_load(&p->free_requests);
    for (;;) {
        uint32_t first = (uint32_t)head;
        if (first == 0 || first > PAGE_REQUESTS)
            return -1;
        uint32_t next = atomic_load(&p->requests[first - 1].next);
        if (atomic_compare_exchange_weak(&p->free_requests, &head, free_head(head, next)))
            return (int)first - 1;
    }
}

static int take_unused(struct page *p)
{
    uint32_t n = atomic_load(&p->n_requests);
    do
        if (n >= PAGE_REQUESTS)
            return -1;
    while (!atomic_compare_exchange_weak(&p->n_requests, &n, n + 1));
    return (int)n;
}

int page_request_take(struct page *p, uint64_t id)
{
    int slot = pop_free(p);
    if (slot < 0)
        slot = take_unused(p);
    if (slot < 0)
        return -1;
    atomic_store_explicit(&p->requests[slot].id, id, memory_order_relaxed);
    atomic_store(&p->requests[slot].state, PR_HELD);
    return slot;
}

void page_request_give(struct page *p, int slot)
{
    CHECK(slot >= 0 && slot < PAGE_REQUESTS);
    atomic_store(&p->requests[slot].state, PR_GIVEN);
}

void page_request_free(struct page *p, int slot)
{
    CHECK(slot >= 0 && slot < PAGE_REQUESTS);
    if (atomic_exchange(&p->requests[slot].state, PR_FREE) == PR_FREE)
        return; // pushed twice, two requests would share the slot
    uint64_t head = atomic_load(&p->free_requests);
    do
        atomic_store(&p->requests[slot].next, (uint32_t)head);
    while (!atomic_compare_exchange_weak(&p->free_requests, &head,
                                         free_head(head, (uint32_t)slot + 1)));
}

static uint32_t clamp(uint32_t n, uint32_t max)
{
    return n < max ? n : max;
}

enum page_request_state page_request_state_of(const struct page *p, uint64_t id)
{
    uint32_t n = clamp(atomic_load(&p->n_requests), PAGE_REQUESTS);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t state = atomic_load(&p->requests[i].state);
        if (state == PR_FREE || atomic_load(&p->requests[i].id) != id)
            continue;
        return state == PR_HELD ? PR_HELD : PR_GIVEN; // in doubt the plugin had it
    }
    return PR_FREE;
}

uint32_t page_request_ids(const struct page *p, enum page_request_state st, uint64_t *out,
                          uint32_t max)
{
    uint32_t found = 0, n = clamp(atomic_load(&p->n_requests), PAGE_REQUESTS);
    for (uint32_t i = 0; i < n; i++) {
        if (atomic_load(&p->requests[i].state) != st)
            continue;
        if (found < max)
            out[found] = atomic_load(&p->requests[i].id);
        found++;
    }
    return found;
}

void page_log(struct page *p, const char *line, size_t n)
{
    while (n && line[n - 1] == '\n')
        n--;
    n = n < PAGE_LOG_LINE - 1 ? n : PAGE_LOG_LINE - 1;
    char *to = p->log[atomic_fetch_add(&p->log_next, 1) % PAGE_LOG_LINES];
    memcpy(to, line, n);
    to[n] = '\0';
}

bool page_log_line(const struct page *p, uint32_t i, char out[PAGE_LOG_LINE])
{
    uint32_t next = atomic_load(&p->log_next);
    uint32_t n = clamp(next, PAGE_LOG_LINES);
    if (i >= n)
        return false;
    page_str(p->log[(next - n + i) % PAGE_LOG_LINES], PAGE_LOG_LINE, out, PAGE_LOG_LINE);
    return true;
}

void page_str(const char *src, size_t cap, char *out, size_t out_cap)
{
    CHECK(out_cap > 0);
    size_t n = 0;
    for (; n < cap && n < out_cap - 1; n++) { // one look at each byte: they may change meanwhile
        char c = *(const volatile char *)(src + n);
        if (c == '\0')
            break;
        out[n] = c;
    }
    out[n] = '\0';
}

static double to_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

double page_metric_value(const struct page_metric *m)
{
    return to_double(atomic_load_explicit(&m->value, memory_order_relaxed));
}

static void add(struct page_metric *m, double v)
{
    uint64_t old = atomic_load_explicit(&m->value, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&m->value, &old, to_bits(to_double(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void page_metric_add(struct page_metric *m, double v)
{
    add(m, m->kind == PM_DROPPED ? 1 : v);
}

void page_metric_set(struct page_metric *m, double v)
{
    if (m->kind == PM_DROPPED)
        add(m, 1);
    else
        atomic_store_explicit(&m->value, to_bits(v), memory_order_relaxed);
}

void page_metric_observe(struct page_metric *m, double v)
{
    if (isnan(v))
        return; // one would make the sum unreadable for good
    uint32_t i = 0, n = clamp(m->n_bounds, PAGE_BUCKETS);
    while (i < n && v > m->bounds[i])
        i++;
    atomic_fetch_add_explicit(&m->buckets[i < n ? i : PAGE_BUCKETS], 1, memory_order_relaxed);
    add(m, m->kind == PM_DROPPED ? 1 : v);
}
