// SPDX-License-Identifier: Apache-2.0
/*
 * timeline - what a step's graph does when: loaded into any program that runs CUDA graphs.
 *
 * Usage: CUDA_INJECTION64_PATH=timeline.so TIMELINE_OUT=FILE llm_step ...
 * CUPTI notes begin and end of each kernel of each graph. At the exit the last SHOWN launches of
 * the kind that the program ended with are averaged, place by place: first by name (how often, how
 * long, and how much of it nothing else ran), then each kernel in order. A kernel that starts
 * before the one before it has ended waits there for it: its time is no work then. What is measured
 * is slower than what is not, and CUPTI may keep kernels apart that would overlap.
 * TIMELINE_ALL=1: instead, all kernels by name, of graphs or not.
 */
#include <cupti.h>

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_BYTES = 8 << 20,
    KERNELS_MAX = 1 << 20,
    PLACES_MAX = 4096,
    NAMES_MAX = 2048,
    SHOWN = 16
};

struct kernel {
    uint64_t start_ns, end_ns;
    uint32_t launch; // correlation id: one for a whole graph launch
    const char *name;
};

struct place { // of the averaged launch
    const char *name;
    double start_us, end_us;
};

static struct {
    CUptiResult (*enable)(CUpti_ActivityKind);
    CUptiResult (*callbacks)(CUpti_BuffersCallbackRequestFunc, CUpti_BuffersCallbackCompleteFunc);
    CUptiResult (*flush)(uint32_t);
    CUptiResult (*next)(uint8_t *, size_t, CUpti_Activity **);
} cupti;
static struct kernel *kernels; // [KERNELS_MAX], the latest
static size_t seen;
static bool all; // launches alone, too
static struct place places[PLACES_MAX];

__attribute__((visibility("default"))) int InitializeInjection(void);

static void give_buffer(uint8_t **buffer, size_t *size, size_t *max_records)
{
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *max_records = 0;
}

static void take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                        size_t valid)
{
    (void)context, (void)stream, (void)size;
    CUpti_Activity *a = NULL;
    while (valid && cupti.next(buffer, valid, &a) == CUPTI_SUCCESS) {
        const CUpti_ActivityKernel10 *k = (const void *)a;
        if (a->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || (k->graphId == 0 && !all))
            continue;
        kernels[seen++ % KERNELS_MAX] = (struct kernel){.start_ns = k->start,
                                                        .end_ns = k->end,
                                                        .launch = k->correlationId,
                                                        .name = strdup(k->name)};
    }
    free(buffer);
}

static int by_launch(const void *a, const void *b)
{
    const struct kernel *x = a, *y = b;
    if (x->launch != y->launch)
        return x->launch < y->launch ? -1 : 1;
    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

// The launch that ends before `end`: its first kernel.
static size_t launch_before(size_t end)
{
    size_t first = end - 1;
    while (first > 0 && kernels[first - 1].launch == kernels[end - 1].launch)
        first--;
    return first;
}

// Averages into places; how many launches there were of n kernels.
static uint32_t average(size_t count, size_t n)
{
    uint32_t launches = 0;
    for (size_t end = count, first; end > 0 && launches < SHOWN; end = first) {
        first = launch_before(end);
        if (end - first != n)
            continue;
        for (size_t i = 0; i < n; i++) {
            const struct kernel *k = &kernels[first + i];
            places[i].name = k->name;
            places[i].start_us += (double)(k->start_ns - kernels[first].start_ns) * 1e-3;
            places[i].end_us += (double)(k->end_ns - kernels[first].start_ns) * 1e-3;
        }
        launches++;
    }
    for (size_t i = 0; i < n; i++) {
        places[i].start_us /= launches;
        places[i].end_us /= launches;
    }
    return launches;
}

// Of places[i], when none before it ran any more.
static double alone_us(size_t i)
{
    double covered = 0;
    for (size_t k = 0; k < i; k++)
        covered = places[k].end_us > covered ? places[k].end_us : covered;
    double from = covered > places[i].start_us ? covered : places[i].start_us;
    return places[i].end_us > from ? places[i].end_us - from : 0;
}

static double idle_us(size_t n)
{
    double covered = 0, idle = 0;
    for (size_t i = 0; i < n; i++) {
        idle += places[i].start_us > covered ? places[i].start_us - covered : 0;
        covered = places[i].end_us > covered ? places[i].end_us : covered;
    }
    return idle;
}

static void print_names(FILE *out, size_t n)
{
    fprintf(out, "%6s %10s %10s  %s\n", "count", "us", "alone us", "kernel");
    for (size_t i = 0; i < n; i++) {
        uint32_t count = 0;
        double whole = 0, alone = 0;
        bool first = true;
        for (size_t k = 0; k < n; k++) {
            if (strcmp(places[k].name, places[i].name) != 0)
                continue;
            first &= k >= i;
            count++;
            whole += places[k].end_us - places[k].start_us;
            alone += alone_us(k);
        }
        if (first)
            fprintf(out, "%6u %10.1f %10.1f  %s\n", count, whole, alone, places[i].name);
    }
}

static int by_start(const void *a, const void *b)
{
    const struct kernel *x = a, *y = b;
    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

// All that was seen, by name.
static void print_all(FILE *out, size_t count)
{
    static struct {
        const char *name;
        double us, alone_us;
        size_t count;
    } names[NAMES_MAX];
    size_t n = 0;
    uint64_t covered = 0;
    double idle = 0, alone = 0;
    for (size_t i = 0; i < count; i++) {
        const struct kernel *k = &kernels[i];
        size_t at = 0;
        while (at < n && at < NAMES_MAX - 1 && strcmp(names[at].name, k->name) != 0)
            at++;
        names[at].name = at < NAMES_MAX - 1 ? k->name : "all others";
        n += at == n;
        names[at].count++;
        names[at].us += (double)(k->end_ns - k->start_ns) * 1e-3;
        uint64_t from = covered > k->start_ns ? covered : k->start_ns;
        names[at].alone_us += k->end_ns > from ? (double)(k->end_ns - from) * 1e-3 : 0;
        alone += k->end_ns > from ? (double)(k->end_ns - from) * 1e-3 : 0;
        idle += covered && k->start_ns > covered ? (double)(k->start_ns - covered) * 1e-3 : 0;
        covered = k->end_ns > covered ? k->end_ns : covered;
    }
    fprintf(out, "timeline: %zu kernels, busy %.1f us, idle %.1f us\n", count, alone, idle);
    fprintf(out, "%8s %12s %12s %6s  %s\n", "count", "us", "alone us", "share", "kernel");
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%8zu %12.1f %12.1f %5.1f%%  %s\n", names[i].count, names[i].us,
                names[i].alone_us, 100 * names[i].alone_us / alone, names[i].name);
}

static void report(void)
{
    const char *path = getenv("TIMELINE_OUT");
    cupti.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    size_t count = seen < KERNELS_MAX ? seen : KERNELS_MAX;
    FILE *out = path ? fopen(path, "w") : stderr;
    if (!out || count == 0) {
        fprintf(stderr, "timeline: no kernel of a graph was seen\n");
        return;
    }
    qsort(kernels, count, sizeof *kernels, all ? by_start : by_launch);
    if (all) {
        print_all(out, count);
        fflush(out);
        return;
    }
    size_t n = count - launch_before(count);
    if (n > PLACES_MAX) {
        fprintf(out, "timeline: %zu kernels in a launch; at most %d\n", n, PLACES_MAX);
        return;
    }
    uint32_t launches = average(count, n);
    double end = 0;
    for (size_t i = 0; i < n; i++)
        end = places[i].end_us > end ? places[i].end_us : end;
    fprintf(out,
            "timeline: mean of %u launches of %zu kernels, %.1f us, of these %.1f us nothing ran\n",
            launches, n, end, idle_us(n));
    print_names(out, n);
    fprintf(out, "%10s %10s %10s  %s\n", "start us", "us", "alone us", "kernel");
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%10.2f %10.2f %10.2f  %s\n", places[i].start_us,
                places[i].end_us - places[i].start_us, alone_us(i), places[i].name);
    fflush(out);
}

int InitializeInjection(void)
{
    void *so = dlopen("libcupti.so.13", RTLD_NOW);
    kernels = malloc(KERNELS_MAX * sizeof *kernels);
    all = getenv("TIMELINE_ALL") != NULL;
    if (!so || !kernels) {
        fprintf(stderr, "timeline: %s\n", so ? "no memory" : dlerror());
        return 1;
    }
    *(void **)&cupti.enable = dlsym(so, "cuptiActivityEnable");
    *(void **)&cupti.callbacks = dlsym(so, "cuptiActivityRegisterCallbacks");
    *(void **)&cupti.flush = dlsym(so, "cuptiActivityFlushAll");
    *(void **)&cupti.next = dlsym(so, "cuptiActivityGetNextRecord");
    if (!cupti.enable || !cupti.callbacks || !cupti.flush || !cupti.next ||
        cupti.callbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
        cupti.enable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS) {
        fprintf(stderr, "timeline: CUPTI did not start\n");
        return 1;
    }
    atexit(report);
    return 1;
}
