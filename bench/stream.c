// SPDX-License-Identifier: Apache-2.0
/*
 * stream - how fast THREADS threads together read a buffer again and again: the floor of a decoder,
 * which reads its weights once a token.
 *
 * Usage: stream BYTES THREADS SECONDS
 * Prints bytes/s. Each thread reads a share of its own, as a kernel's threads do.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
    THREADS_MAX = 256,
    LANES = 4,
    PIECE = 1 << 14,
    AHEAD = 4096,
    HUGE_PAGE = 2 << 20
}; // PIECE: wides between two looks at `stop`

typedef uint64_t wide __attribute__((vector_size(32))); // LANES of them fit SSE2 registers

struct reader {
    pthread_t thread;
    const wide *from;
    size_t n;           // of wides
    uint64_t done, sum; // done: wides read
};

static struct reader readers[THREADS_MAX];
static atomic_int ready;
static atomic_bool go, stop;

// The processor's own prefetchers stop at the end of a page; asking AHEAD bytes further on does
// not.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t
read_piece(const wide *p, size_t n)
{
    wide sum[LANES] = {0};
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        __builtin_prefetch((const char *)(p + i) + AHEAD);
        __builtin_prefetch((const char *)(p + i) + AHEAD + 64);
        for (size_t k = 0; k < LANES; k++)
            sum[k] ^= p[i + k];
    }
    for (size_t k = 1; k < LANES; k++)
        sum[0] ^= sum[k];
    return sum[0][0];
}

static void *run(void *arg)
{
    struct reader *r = arg;
    r->sum += read_piece(r->from, r->n); // maps the pages
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&go))
        continue;
    for (size_t at = 0, n; !atomic_load(&stop); at = at + n < r->n ? at + n : 0) {
        n = r->n - at < PIECE ? r->n - at : PIECE;
        r->sum += read_piece(r->from + at, n);
        r->done += n;
    }
    return NULL;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    size_t bytes = argc == 4 ? strtoull(argv[1], NULL, 10) : 0;
    int n = argc == 4 ? atoi(argv[2]) : 0;
    double seconds = argc == 4 ? strtod(argv[3], NULL) : 0;
    if (n < 1 || n > THREADS_MAX || bytes < (size_t)n * sizeof(wide) * LANES || !(seconds > 0)) {
        fprintf(stderr, "usage: stream BYTES THREADS SECONDS\n");
        return 2;
    }
    size_t share = bytes / (size_t)n / sizeof(wide);
    size_t whole = (share * (size_t)n * sizeof(wide) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    wide *all = aligned_alloc(HUGE_PAGE, whole);
    if (all)
        (void)madvise(all, whole, MADV_HUGEPAGE); // as a model's weights are
    if (!all) {
        fprintf(stderr, "stream: no memory for %zu bytes\n", bytes);
        return 1;
    }
    memset(all, 1, share * (size_t)n * sizeof(wide));
    for (int i = 0; i < n; i++) {
        readers[i] = (struct reader){.from = all + share * (size_t)i, .n = share};
        if (pthread_create(&readers[i].thread, NULL, run, &readers[i]) != 0)
            return 1;
    }
    while (atomic_load(&ready) < n)
        continue;
    double begin = now_s();
    atomic_store(&go, true);
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
    double took = now_s() - begin, read = 0;
    uint64_t sum = 0;
    atomic_store(&stop, true);
    for (int i = 0; i < n; i++) {
        pthread_join(readers[i].thread, NULL);
        read += (double)readers[i].done * sizeof(wide);
        sum ^= readers[i].sum;
    }
    printf("%.0f\n", read / took);
    free(all);
    return sum == 1; // so that nothing is left out
}
