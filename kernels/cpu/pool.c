// SPDX-License-Identifier: Apache-2.0
#include "cpu/pool.h"

#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE = 64,
    SPIN_NS = 10000,
    TICK_NS = 1000000,
    TICK_ITEMS = 16,
    ITEM_BITS = 22,
    ITEM_MASK = (1 << 22) - 1
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

/*
 * The ticket says in one word which items are left: (phase number, items, next item). Adding one
 * takes an item, and since all three come back together, a thread that was away for a while cannot
 * take an item of one phase for one of another. Whoever finds none left adds what it has done to
 * `done`; the one that makes it whole begins the next phase.
 */
struct pool {
    _Alignas(LINE) _Atomic uint64_t ticket;
    _Alignas(LINE) _Atomic uint32_t done;
    _Alignas(LINE) _Atomic uint32_t epoch; // changes with every phase; waiters sleep on it
    _Atomic uint32_t asleep;
    _Atomic bool caller_asleep;
    _Alignas(LINE) _Atomic bool idle; // no job
    _Atomic bool stop;
    // Written before a phase begins, by one thread, while no item is left or being done.
    struct pool_job job;
    uint32_t phase, n_items;
    uint64_t begun; // phases
    uint64_t ticked_ns;
    uint32_t ticking; // items of thread 0
    uint32_t threads;
    struct worker worker[];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static void futex(_Atomic uint32_t *word, int what, uint32_t value)
{
    syscall(SYS_futex, word, what | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

// Until the epoch is no longer the one that was seen.
static void wait_epoch(struct pool *p, uint32_t seen, uint32_t thread)
{
    uint64_t until = 0;
    for (uint32_t i = 1;; i++) {
        if (atomic_load_explicit(&p->epoch, memory_order_acquire) != seen)
            return;
        relax();
        if (i % 16)
            continue;
        uint64_t now = now_ns();
        if (!until)
            until = now + SPIN_NS;
        if (now >= until)
            break;
    }
    if (thread == 0)
        atomic_store(&p->caller_asleep, true);
    atomic_fetch_add(&p->asleep, 1);
    while (atomic_load(&p->epoch) == seen)
        futex(&p->epoch, FUTEX_WAIT, seen);
    atomic_fetch_sub(&p->asleep, 1);
    if (thread == 0)
        atomic_store(&p->caller_asleep, false);
}

// n = 0 ends the job: once the caller sees `idle`, all here is its own again but for the epoch.
static void publish(struct pool *p, uint32_t n)
{
    p->n_items = n;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->ticket, ++p->begun << 2 * ITEM_BITS | (uint64_t)n << ITEM_BITS,
                          memory_order_release);
    if (n == 0)
        atomic_store_explicit(&p->idle, true, memory_order_release);
    atomic_fetch_add(&p->epoch, 1);
}

// Wakes as many as have something to do.
static void wake(struct pool *p, uint32_t n, bool caller)
{
    if (atomic_load(&p->asleep) == 0)
        return;
    if (caller ? atomic_load(&p->caller_asleep) : n > 0)
        futex(&p->epoch, FUTEX_WAKE, caller ? POOL_THREADS_MAX : n);
}

// The phase before is done, or there was none.
static void next_phase(struct pool *p, uint32_t phase)
{
    for (; phase < p->job.phases; phase++) {
        uint32_t n = p->job.items(p->job.arg, phase);
        if (!n)
            continue;
        assert(n <= POOL_ITEMS_MAX);
        p->phase = phase;
        publish(p, n);
        wake(p, n - 1, false);
        return;
    }
    publish(p, 0);
    wake(p, 0, true);
}

static void tick(struct pool *p)
{
    uint64_t now = now_ns();
    if (now - p->ticked_ns < TICK_NS)
        return;
    p->ticked_ns = now;
    p->job.tick(p->job.arg);
}

// Takes items of the phase under way until none is left.
static void work(struct pool *p, uint32_t thread)
{
    uint32_t finished = 0;
    for (;;) {
        uint64_t t = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acq_rel);
        uint32_t item = (uint32_t)t & ITEM_MASK, n = (uint32_t)(t >> ITEM_BITS) & ITEM_MASK;
        if (item >= n)
            break;
        p->job.run(p->job.arg, p->phase, item, thread);
        finished++;
        if (thread == 0 && p->job.tick && ++p->ticking % TICK_ITEMS == 0)
            tick(p); // not after each: looking at the clock takes 25 ns
    }
    if (!finished)
        return;
    // n_items is this phase's: it can't end before what is finished here is counted.
    uint32_t n = p->n_items;
    if (atomic_fetch_add_explicit(&p->done, finished, memory_order_acq_rel) + finished == n)
        next_phase(p, p->phase + 1);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (atomic_load_explicit(&p->stop, memory_order_acquire))
            return NULL;
        work(p, w->index);
        wait_epoch(p, seen, w->index);
    }
}

void pool_run(struct pool *p, const struct pool_job *job)
{
    assert(atomic_load(&p->idle));
    p->job = *job;
    p->ticked_ns = job->tick ? now_ns() : 0;
    atomic_store_explicit(&p->idle, false, memory_order_relaxed);
    next_phase(p, 0);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (atomic_load_explicit(&p->idle, memory_order_acquire))
            return;
        work(p, 0);
        wait_epoch(p, seen, 0);
    }
}

// Signals are the business of the process's other threads.
static int start(struct worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int pool_create(uint32_t threads, struct pool **ret)
{
    assert(threads >= 1 && threads <= POOL_THREADS_MAX);
    struct pool *p;
    size_t bytes = (sizeof *p + threads * sizeof *p->worker + LINE - 1) / LINE * LINE;
    if (posix_memalign((void **)&p, LINE, bytes))
        return -507;
    *p = (struct pool){.idle = true, .threads = 1};
    for (uint32_t i = 1; i < threads; i++) {
        p->worker[i] = (struct worker){.pool = p, .index = i};
        if (start(&p->worker[i])) {
            pool_destroy(p);
            return -507;
        }
        p->threads++;
    }
    *ret = p;
    return 0;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->epoch, 1);
    futex(&p->epoch, FUTEX_WAKE, POOL_THREADS_MAX);
    for (uint32_t i = 1; i < p->threads; i++)
        pthread_join(p->worker[i].thread, NULL);
    free(p);
}

uint32_t pool_threads(const struct pool *p)
{
    return p->threads;
}

uint32_t pool_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > POOL_THREADS_MAX ? POOL_THREADS_MAX : (uint32_t)n;
}
