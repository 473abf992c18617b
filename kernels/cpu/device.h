// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * device - the processor as a backend: which instructions, which threads, and the memory it gave.
 *
 * Memory  zeroed, aligned to 64, counted to the byte: what session_bytes and weight_bytes said is
 *         what device_used grows by. Weights come out of one region with large pages, and live
 * until the device is closed; sessions have a mapping each. Thread  the caller of the table.
 */
#include "cpu/isa.h"
#include "cpu/lanes.h"
#include "cpu/pool.h"
#include "kernels/kernels.h"

#include <stdarg.h>

enum { DEVICE_ALIGN = 64 };

// What the options come to; the same before and after open().
struct device_config {
    enum isa isa;
    uint32_t threads, activations;
};

struct sv_dev {
    struct device_config c;
    const struct lanes *lanes;
    struct pool *pool;
    void (*tick)(void *);
    void *tick_arg;
    char about[128];
    char *region; // of weights: reserved address space, taken from the front
    uint64_t region_bytes, region_used;
    uint64_t used; // bytes given and not taken back
    sv_session *sessions;
};

int device_config(const sv_dev_options *o, struct device_config *ret, char *why);
int device_open(const sv_dev_options *o, sv_dev **ret, char *why);
void device_close(sv_dev *d); // after its sessions

static inline uint64_t device_round(uint64_t bytes)
{
    return (bytes + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN;
}
uint64_t device_page(uint64_t bytes);         // rounded up to whole pages
void *device_keep(sv_dev *d, uint64_t bytes); // until device_close; NULL: no memory
void *device_map(sv_dev *d, uint64_t bytes);  // whole pages; NULL: no memory
void device_large_pages(void *p, uint64_t bytes);
void device_unmap(sv_dev *d, void *p, uint64_t bytes);

// Text into why[SV_WHY_MAX], which may be NULL. Returns the code.
__attribute__((format(printf, 3, 4))) int why_set(char *why, int code, const char *fmt, ...);
__attribute__((format(printf, 3, 0))) int why_vset(char *why, int code, const char *fmt, va_list a);

// Saturates: sizes beyond what any machine has stay so.
static inline uint64_t size_mul(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}
static inline uint64_t size_add(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_add_overflow(a, b, &r) ? UINT64_MAX : r;
}
