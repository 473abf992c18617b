// SPDX-License-Identifier: Apache-2.0
/*
 * The pool: every item once, phases in order, whatever threads there are.
 */
#include "cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { PHASES = 5, ITEMS = 200 };

struct work {
    uint32_t items[PHASES];
    uint32_t times[PHASES][ITEMS]; // how often each item was run; written by one thread at a time
    uint64_t sum[PHASES];          // what a phase makes of all that the one before wrote
    _Atomic uint32_t threads_seen; // a bit each
    uint32_t asked[PHASES], ticks;
    uint64_t sleep_ns;
    bool late; // a phase began before the one before was done
};

static uint32_t items(void *arg, uint32_t phase)
{
    struct work *w = arg;
    w->asked[phase]++;
    for (uint32_t i = 0; phase > 0 && i < w->items[phase - 1]; i++) {
        w->late |= w->times[phase - 1][i] != w->asked[phase];
        w->sum[phase] += w->times[phase - 1][i];
    }
    return w->items[phase];
}

static void run(void *arg, uint32_t phase, uint32_t item, uint32_t thread)
{
    struct work *w = arg;
    w->times[phase][item]++;
    atomic_fetch_or(&w->threads_seen, 1u << thread);
    if (w->sleep_ns)
        nanosleep(&(struct timespec){.tv_nsec = (long)w->sleep_ns}, NULL);
}

static void tick(void *arg)
{
    struct work *w = arg;
    w->ticks++;
}

static void every_item_once(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct pool *p = NULL;
        assert_int_equal(pool_create(threads, &p), 0);
        assert_int_equal(pool_threads(p), threads);
        struct work w = {.items = {1, ITEMS, 0, 7, 3}};
        enum { RUNS = 3000 };
        for (uint32_t i = 1; i <= RUNS; i++) {
            pool_run(p, &(struct pool_job){&w, PHASES, items, run, NULL});
            for (uint32_t phase = 0; phase < PHASES; phase++) {
                assert_int_equal(w.asked[phase], i);
                for (uint32_t j = 0; j < w.items[phase]; j++)
                    assert_int_equal(w.times[phase][j], i);
            }
        }
        assert_false(w.late);
        assert_true(atomic_load(&w.threads_seen) < 1u << threads);
        pool_destroy(p);
    }
}

// Longer than waiting threads spin: they sleep and are woken.
static void sleepers_are_woken(void **state)
{
    (void)state;
    struct pool *p = NULL;
    assert_int_equal(pool_create(3, &p), 0);
    struct work w = {.items = {6, 1, 9, 1, 3}, .sleep_ns = 300000};
    for (uint32_t i = 1; i <= 30; i++) {
        pool_run(p, &(struct pool_job){&w, PHASES, items, run, tick});
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    assert_false(w.late);
    assert_int_equal(atomic_load(&w.threads_seen), 7);
    assert_in_range(w.ticks, 1, 20 * 30);
    pool_destroy(p);
}

static void nothing_to_do(void **state)
{
    (void)state;
    struct pool *p = NULL;
    assert_int_equal(pool_create(2, &p), 0);
    struct work w = {.items = {0}};
    pool_run(p, &(struct pool_job){&w, PHASES, items, run, NULL});
    assert_int_equal(w.asked[PHASES - 1], 1);
    assert_int_equal(atomic_load(&w.threads_seen), 0);
    pool_destroy(p);
    pool_destroy(NULL);
    assert_true(pool_processors() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(sleepers_are_woken),
        cmocka_unit_test(nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
