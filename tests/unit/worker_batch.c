// SPDX-License-Identifier: Apache-2.0
// One row is one test: `a` pushes item a, with `k2` key 2, `c3` cost 3, `d9` deadline 9 ms, `p1`
// priority 1; `xa` removes; `+5` lets 5 ms pass; `?` takes (prints the items and the reason's first
// letter, or `.`), `!` takes only what is full, `$` takes when nothing more can come.
#include "base/clock.h"
#include "worker/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *name;
    uint32_t max, wait_ms;
    const char *steps, *want;
} rows[] = {
    {"nothing there", 4, 0, "?", "."},
    {"no wait: what is there goes", 4, 0, "a b ? ?", "abi ."},
    {"full", 2, 0, "a b c ? ?", "abf ci"},
    {"waits for more", 4, 10, "a b ? +9 ? +1 ?", ". . abt"},
    {"full does not wait", 2, 10, "a b ?", "abf"},
    {"nothing more can come: no wait", 4, 10, "a $", "ai"},
    {"only full ones", 2, 0, "a ! b !", ". abf"},
    {"the oldest member decides", 4, 10, "a +5 b +5 ?", "abt"},
    {"keys do not mix", 4, 0, "a b.k1 c ? ?", "ack bi"},
    {"a full batch of another key goes before a waiting one", 2, 10, "a b.k1 c.k1 ? +10 ?",
     "bcf at"},
    {"the most urgent key first", 2, 0, "a b.k1 c.k1.p1 ?", "cbf"},
    {"costs sum up to max", 4, 0, "a.c3 b.c2 ? ?", "af bi"},
    {"no overtaking by a cheaper one", 4, 0, "a.c3 b.c2 c ? ?", "af bci"},
    {"too dear goes alone", 4, 0, "a.c9 b ? ?", "af bi"},
    {"cost 0 counts as 1", 2, 0, "a.c0 b.c0 c ?", "abf"},
    {"priority first", 1, 0, "a b.p5 c.p-1 ? ? ?", "bf af cf"},
    {"then deadline", 1, 0, "a.d9 b.d5 c ? ? ?", "bf af cf"},
    {"then arrival", 1, 0, "a b c ? ? ?", "af bf cf"},
    {"a near deadline shortens the wait", 4, 10, "a.d15 ? +4 ? +1 ?", ". . at"},
    {"a deadline that has passed does not wait", 4, 10, "a.d3 ?", "at"},
    {"removed", 4, 0, "a b c xb ?", "aci"},
    {"removed the last", 4, 0, "a xa ?", "."},
};

static struct batch_item items[26];

static const char *field(const char *word, char name)
{
    for (const char *p = word; (p = strchr(p, '.')); p++)
        if (p[1] == name)
            return p + 2;
    return NULL;
}

static void push(struct batch *b, const char *word, uint64_t now)
{
    struct batch_item *it = &items[word[0] - 'a'];
    const char *f;
    *it = (struct batch_item){.arrived_ns = now, .cost = 1};
    if ((f = field(word, 'k')))
        it->key = (uint64_t)atoi(f);
    if ((f = field(word, 'c')))
        it->cost = (uint32_t)atoi(f);
    if ((f = field(word, 'd')))
        it->deadline_ns = (uint64_t)atoi(f) * NS_PER_MS;
    if ((f = field(word, 'p')))
        it->priority = atoi(f);
    batch_push(b, it);
}

static void take(struct batch *b, char how, uint64_t now, char *got)
{
    struct batch_item *out[BATCH_MAX];
    enum batch_reason reason;
    uint64_t again;
    uint32_t n = batch_take(b, now, how != '$', how == '!', out, &reason, &again);
    if (*got)
        strcat(got, " ");
    for (uint32_t i = 0; i < n; i++)
        strcat(got, (char[]){(char)('a' + (out[i] - items)), 0});
    strcat(got, n ? (char[]){batch_reason_names[reason][0], 0} : ".");
    if (n == 0 && b->len && how == '?')
        assert_true(again > now && again != UINT64_MAX); // it says when to look again
}

static void run_row(void **state)
{
    const struct row *row = *state;
    struct batch b;
    uint64_t now = 0;
    char words[256], got[256] = "", *save;
    batch_init(&b, &(struct batch_conf){.max = row->max, .wait_ns = row->wait_ms * NS_PER_MS});
    snprintf(words, sizeof words, "%s", row->steps);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        if (*w == '+')
            now += (uint64_t)atoi(w + 1) * NS_PER_MS;
        else if (*w == 'x')
            assert_true(batch_remove(&b, &items[w[1] - 'a']));
        else if (strchr("?!$", *w))
            take(&b, *w, now, got);
        else
            push(&b, w, now++);
    }
    assert_string_equal(got, row->want);
    batch_finish(&b);
}

// Whatever comes: no batch is over its cost, keys never mix, nothing is lost or taken twice, and
// nobody waits longer than its wait once a thread is free.
static void test_random(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct batch_item many[N];
    static bool gone[N];
    struct batch_item *out[BATCH_MAX];
    srand(7);
    for (int round = 0; round < 20; round++) {
        struct batch b;
        struct batch_conf conf = {.max = 1 + (uint32_t)rand() % 16,
                                  .wait_ns = (uint64_t)(rand() % 4) * NS_PER_MS};
        uint64_t now = 0;
        int pushed = 0, taken = 0;
        batch_init(&b, &conf);
        memset(gone, 0, sizeof gone);
        while (taken < N) {
            now += (uint64_t)rand() % NS_PER_MS;
            for (int i = rand() % 6; i > 0 && pushed < N; i--, pushed++) {
                many[pushed] = (struct batch_item){.key = (uint64_t)(rand() % 3),
                                                   .arrived_ns = now,
                                                   .cost = (uint32_t)rand() % 4,
                                                   .priority = rand() % 2};
                batch_push(&b, &many[pushed]);
            }
            enum batch_reason reason;
            uint64_t again;
            uint32_t n = batch_take(&b, now, pushed < N, false, out, &reason, &again), cost = 0;
            for (uint32_t i = 0; i < n; i++) {
                assert_false(gone[out[i] - many]);
                gone[out[i] - many] = true;
                assert_int_equal(out[i]->key, out[0]->key);
                cost += out[i]->cost ? out[i]->cost : 1;
            }
            assert_true(n <= 1 || cost <= conf.max);
            taken += (int)n;
            if (n == 0)
                for (uint32_t i = 0; i < b.len; i++)
                    assert_true(now < b.items[i]->arrived_ns + conf.wait_ns);
        }
        assert_int_equal(b.len, 0);
        batch_finish(&b);
    }
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows + 1];
    size_t n = 0;
    for (; n < sizeof rows / sizeof *rows; n++)
        tests[n] = (struct CMUnitTest){.name = rows[n].name,
                                       .test_func = run_row,
                                       .initial_state = (void *)(uintptr_t)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_random);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
