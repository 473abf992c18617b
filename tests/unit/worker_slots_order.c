// SPDX-License-Identifier: Apache-2.0
#include "worker/slots.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull
enum { NOW_MS = 1000, PEERS = 4, TURNS_MAX = 200 };

static void check_law(const struct slots *s)
{
    assert_int_equal(s->free + slots_granted(s) + slots_used(s), s->cap);
}

// Lends what can be lent; grants used at once. Letters of the peers that got a slot, in order.
static void serve(struct slots *s, uint64_t now, char *out)
{
    struct slots_act acts[2 * SLOTS_PEERS];
    uint32_t n = slots_decide(s, now, acts);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; !acts[i].recall && k < acts[i].count; k++) {
            assert_true(slots_submit(s, acts[i].peer));
            slots_end(s, acts[i].peer);
            strncat(out, &"abcd"[acts[i].peer], 1);
        }
    check_law(s);
}

/*
 * One slot, four ingresses. `a4` peer a says that 4 wait, `a4<9` with a deadline in 9 ms, `a0` none
 * any more, `+20` 20 ms pass, `.` one slot is served. At the end all that is wanted is served.
 */
static const struct {
    const char *name, *steps, *want;
} rows[] = {
    {"one alone gets all", "a3", "aaa"},
    {"who asks together takes turns", "a3 b3 c3", "abccbaabc"},
    {"twice as many get twice as much", "a4 b2", "abaaba"},
    {"none more than 10 ms ahead waits for a later one", "a3 +20 b2", "aaabb"},
    {"within 10 ms is together", "a2 +9 b2", "abba"},
    {"said later comes later", "a1 +20 b2 +11 a4", "abbaaa"},
    {"what comes behind is together with its time", "a1 +20 b2 a3 +5 c2", "aabccba"},
    {"the earlier deadline goes first", "a2<50 b2<20", "bbaa"},
    {"a deadline goes before patience", "a2 b1<500", "baa"},
    {"patience goes before a deadline far away", "a1 b1<90000", "ab"},
    {"nothing waits any more", "a3 b1 a0", "b"},
    {"fewer than was said", "a5 a2", "aa"},
    {"one who always asks does not starve the next", "a9 +20 b1 . a9 . a9", "aaaaaaaaaaba"},
};

static void run_row(const char *steps, char *out)
{
    struct slots s;
    uint64_t now = NOW_MS * MS;
    slots_init(&s, 1);
    for (int i = 0; i < PEERS; i++)
        assert_int_equal(slots_join(&s), i);
    char text[128];
    snprintf(text, sizeof text, "%s", steps);
    for (char *p = text; *p;) {
        char *end = p + 1;
        if (*p == '+') {
            now += strtoull(p + 1, &end, 10) * MS;
        } else if (*p == '.') {
            serve(&s, now, out);
        } else if (isalpha((unsigned char)*p)) {
            uint32_t count = (uint32_t)strtoul(p + 1, &end, 10);
            uint64_t deadline = *end == '<' ? now + strtoull(end + 1, &end, 10) * MS : 0;
            slots_want(&s, (uint32_t)(*p - 'a'), count, deadline, now);
        }
        p = end;
    }
    for (int i = 0; i < TURNS_MAX; i++)
        serve(&s, now, out);
}

static void test_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char got[TURNS_MAX + 64] = "";
        run_row(rows[i].steps, got);
        if (strcmp(got, rows[i].want) != 0)
            fail_msg("%s: '%s' gave %s, not %s", rows[i].name, rows[i].steps, got, rows[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
