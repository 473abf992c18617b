// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * fake_rules - trouble on demand: a comma-separated list of [CALLBACK:]ACTION[=ARG][@NTH][*TIMES].
 *
 *   CALLBACK  create plan load warm reconfigure health drain unload destroy run batch_key submit
 *             input cancel writable step; without: wherever a request is first handled
 *   ACTION    segv abort fpe trap kill exit[=code] stack   how the process dies
 *             hang spin                                    for ever, asleep or busy
 *             sleep=MS busy=MS progress=MS                 (progress: asleep, host->progress each
 * 20 ms) fail=CODE                                    the callback returns CODE leak=KIB leakfd=N
 * memory touched, descriptors of /dev/null print=WORD err=WORD                          a line on
 * stdout, stderr
 *   @NTH      only at the NTH call of that callback in this process (in ?do=: at the NTH event or
 *             piece of input of the request); else at each
 *   *TIMES    only the first TIMES times over all processes; counted in files of the folder `state`
 *
 * Thread  any; the first process that finds a free count takes it.
 */
#include "plugin.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_ms(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&t, &t) < 0)
        continue;
}

static void busy_ms(int64_t ms)
{
    uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
    while (ms > 0 && now_ns() < end)
        continue;
}

static int eat_stack(volatile char *below)
{
    volatile char mine[65536];
    mine[0] = below ? below[0] : 1;
    return mine[0] ? eat_stack(mine) + mine[0] : 0;
}

static void leak_memory(int64_t kib)
{
    static void *volatile last; // a chain, so that no optimiser drops it
    void **p = malloc((size_t)kib * 1024 + sizeof *p);
    if (!p)
        return;
    memset(p, 1, (size_t)kib * 1024 + sizeof *p);
    *p = last;
    last = p;
}

// Whether fewer than `times` processes or calls have done this rule, counting this one.
static bool still_counts(const char *state, const char *rule, int len, long times)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%.*s", state, len, rule);
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
    bool yes = fd >= 0 && fstat(fd, &st) == 0 && st.st_size < times && write(fd, "x", 1) == 1;
    if (fd >= 0)
        close(fd);
    return yes;
}

static void die(const char *how, int64_t arg)
{
    static const struct {
        const char *name;
        int signal;
    } signals[] = {
        {"segv", SIGSEGV}, {"abort", SIGABRT}, {"fpe", SIGFPE},
        {"trap", SIGTRAP}, {"kill", SIGKILL},
    };
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (!strcmp(how, signals[i].name))
            kill(getpid(), signals[i].signal), sleep_ms(1000);
    if (!strcmp(how, "exit"))
        exit((int)arg);
    if (!strcmp(how, "stack"))
        eat_stack(NULL);
}

// Does one action. 0, or the code of fail=.
static int act(const sv_host *h, const char *what, const char *arg)
{
    int64_t n = strtoll(arg, NULL, 10);
    die(what, n);
    while (!strcmp(what, "hang"))
        pause();
    while (!strcmp(what, "spin"))
        continue;
    if (!strcmp(what, "sleep"))
        sleep_ms(n);
    else if (!strcmp(what, "busy"))
        busy_ms(n);
    else if (!strcmp(what, "leak"))
        leak_memory(n);
    else if (!strcmp(what, "print"))
        printf("%s\n", arg), fflush(stdout);
    else if (!strcmp(what, "err"))
        fprintf(stderr, "%s\n", arg);
    for (int64_t i = 0; !strcmp(what, "leakfd") && i < n; i++)
        (void)!open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int64_t at = 0; !strcmp(what, "progress") && at < n; at += 20)
        sleep_ms(20), h->progress(h, (double)at / (double)n, "faking");
    return strcmp(what, "fail") ? 0 : h->fail(h, (int)n, "the fake plugin was told to fail");
}

// Does what `rules` say for callback `name`, called for the nth time. `first`: rules without a
// callback count too. 0, or the code of fail=.
static int trouble(const sv_host *h, const char *rules, const char *state, const char *name,
                   bool first, uint64_t nth)
{
    int result = 0;
    for (const char *p = rules; *p;) {
        int len = (int)strcspn(p, ",");
        char rule[128], *what = rule, *arg, *at, *times;
        snprintf(rule, sizeof rule, "%.*s", len, p);
        if ((times = strchr(rule, '*')))
            *times++ = 0;
        if ((at = strchr(rule, '@')))
            *at++ = 0;
        if ((arg = strchr(rule, '=')))
            *arg++ = 0;
        char *colon = strchr(rule, ':');
        if (colon)
            *colon = 0, what = colon + 1;
        bool mine = colon ? !strcmp(rule, name) : first;
        if (mine && (!at || strtoull(at, NULL, 10) == nth) &&
            (!times || still_counts(state, p, len, atol(times)))) {
            int code = act(h, what, arg ? arg : "");
            result = code ? code : result;
        }
        p += len;
        p += *p == ',';
    }
    return result;
}
