// SPDX-License-Identifier: Apache-2.0
/*
 * sim [SEED [COUNT]] [--trace] [--big REQUESTS] [--law]
 *
 * Runs COUNT seeds from SEED on (1, 1); without a seed those that once failed and SEEDS more, as
 * ctest does. Exit 1 at the first broken law, which is named with its seed. Same seed, same hash.
 */
#include "sim.h"

#include "base/mem.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef SEEDS
#define SEEDS 500
#endif

// Seeds that find a fault we had, were it there again. They must be looked for anew when plan.c
// draws otherwise.
static const struct {
    uint64_t seed;
    const char *finds;
} regressions[] = {
    {2, "control forgot a drained replica whose worker was started again"},
    {11, "the way back was closed when the last old replica went"},
    {12, "old replicas that crashed held up the update"},
    {20, "a surge's new replica used up the room for itself"},
    {41, "none of none running was healthy, so nobody was told of failed starts"},
    {45, "a hang right after READY was no early end"},
};

struct total {
    uint64_t seeds, events, accepted, refused, retried, roll_backs, starts, virtual_ns,
        outcomes[OUTCOMES], hash;
};

static uint64_t running_seed;

// A CHECK of the real code failed.
static void on_abort(int signal)
{
    (void)signal;
    char text[128];
    int n = snprintf(text, sizeof text, "sim: seed %llu broke a CHECK\n",
                     (unsigned long long)running_seed);
    if (write(2, text, (size_t)n) < 0)
        _exit(2);
    _exit(1);
}

static uint64_t run_one(uint64_t seed, bool trace, uint32_t big, struct total *t)
{
    struct sim *s = xcalloc(1, sizeof *s);
    running_seed = seed;
    s->seed = seed;
    s->random = seed * 0xd1342543de82ef95u + 1;
    s->trace = trace;
    if (big)
        plan_big(s, big);
    else
        plan_draw(s);
    sim_run(s);
    t->seeds++;
    t->events += s->events;
    t->accepted += s->accepted;
    t->refused += s->refused;
    t->retried += s->retried;
    t->roll_backs += s->roll_backs;
    t->starts += s->starts;
    t->virtual_ns += s->now;
    t->hash = t->hash * 31 + s->hash;
    for (int k = 0; k < OUTCOMES; k++)
        t->outcomes[k] += s->outcomes[k];
    uint64_t hash = s->hash;
    sim_finish(s);
    xfree(s);
    return hash;
}

static void report(const struct total *t, double seconds)
{
    static const char *const names[OUTCOMES] = {"ok",      "lost",   "timeout",      "client gone",
                                                "removed", "failed", "ingress died", "stopped"};
    printf("%llu seeds, %.0f virtual s, %llu events, %.1f s: %.1f M events/s, hash %016llx\n",
           (unsigned long long)t->seeds, (double)t->virtual_ns / 1e9, (unsigned long long)t->events,
           seconds, (double)t->events / seconds / 1e6, (unsigned long long)t->hash);
    printf("%llu requests accepted, %llu refused, %llu tried again, %llu starts, %llu roll-backs;",
           (unsigned long long)t->accepted, (unsigned long long)t->refused,
           (unsigned long long)t->retried, (unsigned long long)t->starts,
           (unsigned long long)t->roll_backs);
    for (int k = 0; k < OUTCOMES; k++)
        printf(" %s %llu", names[k], (unsigned long long)t->outcomes[k]);
    putchar('\n');
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_regressions(struct total *t)
{
    for (size_t k = 0; k < sizeof regressions / sizeof *regressions; k++) {
        uint64_t seed = regressions[k].seed, first = run_one(seed, false, 0, t);
        if (run_one(seed, false, 0, t) == first)
            continue;
        fprintf(stderr, "sim: seed %llu has two hashes\n", (unsigned long long)seed);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    uint64_t numbers[2] = {1, 0};
    uint32_t n = 0, big = 0;
    bool trace = false;
    for (int k = 1; k < argc; k++) {
        if (strcmp(argv[k], "--trace") == 0)
            trace = true;
        else if (strcmp(argv[k], "--big") == 0 && k + 1 < argc)
            big = (uint32_t)strtoul(argv[++k], NULL, 10);
        else if (n < 2 && *argv[k] >= '0' && *argv[k] <= '9')
            numbers[n++] = strtoull(argv[k], NULL, 10);
        else {
            fprintf(stderr, "usage: sim [SEED [COUNT]] [--trace] [--big REQUESTS]\n");
            return 2;
        }
    }
    signal(SIGABRT, on_abort);
    struct total t = {0};
    double begin = seconds_now();
    if (n == 0 && !big)
        run_regressions(&t);
    uint64_t count = numbers[1] ? numbers[1] : n || big ? 1 : SEEDS;
    for (uint64_t k = 0; k < count; k++)
        run_one(numbers[0] + k, trace, big, &t);
    report(&t, seconds_now() - begin);
    return 0;
}
