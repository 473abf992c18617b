// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/clock.h"
#include "supervise/restart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

// Each step: the process lived `lived_s`, then ended; the wait that must follow.
struct step {
    double lived_s;
    double want_s;
};

static const struct {
    const char *name;
    struct step steps[12];
} rows[] = {
    {"the first five are started at once", {{.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {-1, 0}}},
    {"then one second, doubling",
     {{.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 1}, {.1, 2}, {.1, 4}, {.1, 8}, {-1, 0}}},
    {"up to sixty and no further",
     {{.1, 0},
      {.1, 0},
      {.1, 0},
      {.1, 0},
      {.1, 0},
      {.1, 1},
      {.1, 2},
      {.1, 4},
      {.1, 8},
      {.1, 16},
      {.1, 32},
      {.1, 60}}},
    {"ends far enough apart never wait",
     {{13, 0}, {13, 0}, {13, 0}, {13, 0}, {13, 0}, {13, 0}, {13, 0}, {13, 0}, {-1, 0}}},
    {"a sixth end just within the window waits",
     {{12, 0}, {11.9, 0}, {11.9, 0}, {11.9, 0}, {11.9, 0}, {11.9, 1}, {-1, 0}}},
    {"a life of twelve seconds ends the doubling",
     {{.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 1}, {.1, 2}, {12, 1}, {-1, 0}}},
    {"a life a little shorter does not",
     {{.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 1}, {.1, 2}, {11.9, 4}, {-1, 0}}},
    {"a life as long as the window forgets all",
     {{.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 0}, {.1, 1}, {60, 0}, {.1, 0}, {-1, 0}}},
};

static void waits_follow_the_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct restart r = {0};
        uint64_t now = 5 * NS_PER_S;
        for (size_t k = 0; k < ARRAY_LEN(rows[i].steps) && rows[i].steps[k].lived_s >= 0; k++) {
            const struct step *s = &rows[i].steps[k];
            if (s->lived_s == 0)
                break;
            uint64_t started = now;
            now += (uint64_t)(s->lived_s * 1e9);
            uint64_t wait = restart_wait(&r, started, now);
            if (wait != (uint64_t)(s->want_s * 1e9))
                fail_msg("%s: step %zu waits %.3f s, not %.3f", rows[i].name, k, (double)wait / 1e9,
                         s->want_s);
            now += wait;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(waits_follow_the_rule)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
