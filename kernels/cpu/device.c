// SPDX-License-Identifier: Apache-2.0
#include "cpu/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REGION_MIN = 1 << 24 };

int why_vset(char *why, int code, const char *fmt, va_list a)
{
    if (why)
        vsnprintf(why, SV_WHY_MAX, fmt, a);
    return code;
}

int why_set(char *why, int code, const char *fmt, ...)
{
    va_list a;
    va_start(a, fmt);
    why_vset(why, code, fmt, a);
    va_end(a);
    return code;
}

static int config_isa(const char *name, enum isa *ret, char *why)
{
    *ret = isa_best();
    if (!name)
        return 0;
    int isa = isa_find(name);
    if (isa < 0)
        return why_set(why, -400, "no instruction set \"%s\"; there are scalar, avx2, avx512, neon",
                       name);
    if (!isa_here((enum isa)isa))
        return why_set(why, -400, "this processor does not have %s; the best it has is %s", name,
                       isa_name(isa_best()));
    *ret = (enum isa)isa;
    return 0;
}

int device_config(const sv_dev_options *o, struct device_config *ret, char *why)
{
    if (!o || o->size < sizeof *o)
        return why_set(why, -400, "sv_dev_options has %u bytes, not %zu", o ? o->size : 0,
                       sizeof *o);
    if (o->threads > POOL_THREADS_MAX)
        return why_set(why, -400, "%u threads; at most %d", o->threads, POOL_THREADS_MAX);
    if (o->activations > SV_ACT_INT8)
        return why_set(why, -400, "no kind of activations %u; there are 0 to %d", o->activations,
                       SV_ACT_INT8);
    int rc = config_isa(o->isa, &ret->isa, why);
    ret->threads = o->threads ? o->threads : pool_processors();
    ret->activations = o->activations;
    return rc;
}

static void describe(sv_dev *d)
{
    static const char *const kinds[] = {"16-bit", "f32", "8-bit"};
    static const char *const sets[ISAS] = {"plain C", "AVX2", "AVX-512 VNNI", "NEON"};
    snprintf(d->about, sizeof d->about, "%s, %u thread%s, %s activations with quantised weights",
             sets[d->c.isa], d->c.threads, d->c.threads == 1 ? "" : "s", kinds[d->c.activations]);
}

void device_large_pages(void *p, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p;
    uintptr_t end = (begin + bytes) / page * page;
    begin = (begin + page - 1) / page * page;
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE); // refusal costs speed alone
}

// Address space for all weights the machine could hold; pages come as they are written.
static void reserve(sv_dev *d)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || size <= 0)
        return;
    uint64_t bytes = (uint64_t)pages * (uint64_t)size;
    for (; bytes >= REGION_MIN; bytes /= 2) { // a process may be held to less
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            continue;
        device_large_pages(p, bytes);
        d->region = p;
        d->region_bytes = bytes;
        return;
    }
}

int device_open(const sv_dev_options *o, sv_dev **ret, char *why)
{
    struct device_config c = {.threads = 1};
    int rc = device_config(o, &c, why);
    if (rc < 0)
        return rc;
    sv_dev *d = calloc(1, sizeof *d);
    if (!d)
        return why_set(why, -507, "no memory for a device");
    *d = (sv_dev){.c = c, .lanes = lanes_of(c.isa), .tick = o->tick, .tick_arg = o->tick_arg};
    if (pool_create(c.threads, &d->pool) < 0) {
        free(d);
        return why_set(why, -507, "the system refuses to start %u threads", c.threads);
    }
    reserve(d);
    describe(d);
    *ret = d;
    return 0;
}

void device_close(sv_dev *d)
{
    if (!d)
        return;
    pool_destroy(d->pool);
    if (d->region)
        munmap(d->region, d->region_bytes);
    free(d);
}

uint64_t device_page(uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return bytes > UINT64_MAX - page ? UINT64_MAX : (bytes + page - 1) / page * page;
}

void *device_keep(sv_dev *d, uint64_t bytes)
{
    if (bytes > d->region_bytes - d->region_used)
        return NULL;
    char *p = d->region + d->region_used;
    d->region_used += device_round(bytes);
    if (d->region_used > d->region_bytes)
        d->region_used = d->region_bytes;
    d->used += device_round(bytes);
    return p;
}

void *device_map(sv_dev *d, uint64_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    d->used += bytes;
    return p;
}

void device_unmap(sv_dev *d, void *p, uint64_t bytes)
{
    if (!p)
        return;
    munmap(p, bytes);
    d->used -= bytes;
}
