// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * pool - threads that work through a job together: phases one after the other, each cut in items.
 *
 * Items   a free thread takes the next one. A phase ends when its items are done, not when every
 *         thread has come by: one that the system has put aside holds up its own item alone.
 * Waiting spins for at most SPIN_NS, then sleeps on a futex: the processor goes to whoever has
 * work. Memory  what an item wrote, every item of a later phase sees. Bounds  POOL_THREADS_MAX
 * threads, POOL_ITEMS_MAX items of a phase. Thread  the one that calls pool_run is thread 0 and
 * works too; one caller at a time.
 */
#include <stdint.h>

enum { POOL_THREADS_MAX = 1024, POOL_ITEMS_MAX = (1 << 22) - 4 * POOL_THREADS_MAX };

struct pool;

struct pool_job {
    void *arg;
    uint32_t phases;
    // How many items a phase has, 0 is fine. Called once, by any thread, when all before is done.
    uint32_t (*items)(void *arg, uint32_t phase);
    void (*run)(void *arg, uint32_t phase, uint32_t item, uint32_t thread);
    void (*tick)(
        void *arg); // on the caller's thread, once a millisecond and 16 items at most; or NULL
};

int pool_create(uint32_t threads, struct pool **ret); // 0, or -507
void pool_destroy(struct pool *p);
uint32_t pool_threads(const struct pool *p);
uint32_t pool_processors(void); // that this process may run on
void pool_run(struct pool *p, const struct pool_job *job);
