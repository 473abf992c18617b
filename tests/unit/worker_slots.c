// SPDX-License-Identifier: Apache-2.0
// One row is one test of the policy: `j` a peer joins (a, b, c in order), `la` leaves, `wa3` wants
// 3
// (`wa3@9` by deadline 9), `sa` submits, `ea` ends one, `ga2` gives back, `x`/`o` close and open,
// `r3` makes the cap 3, `+5` lets 5 ms pass, `?` decides: its grants print as `a2`, its recalls as
// `a2!`.
#include "base/clock.h"
#include "worker/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *name;
    uint32_t cap;
    const char *steps, *want;
} rows[] = {
    {"one ingress gets all", 8, "j ?", "a8"},
    {"two get half each", 8, "j ? j ?", "a8"},
    {"two at once", 9, "j j ?", "a4 b4"},
    {"remainder to whoever asks", 9, "j j ? wb1 ?", "a4 b4 b1"},
    {"cap 1, two peers: nothing in advance", 1, "j j ?", ""},
    {"cap 1: asked, lent", 1, "j j ? wb1 ?", "b1"},
    {"an ended request's slot goes back to its peer", 2, "j ? sa ea ?", "a2 a1"},
    {"a want goes before the even share", 2, "j j ? sa ea wb1 ?", "a1 b1 b1"},
    {"earliest deadline first", 1, "j j wa1@90000000 wb1@50000000 ?", "b1"},
    {"who has waited longest first", 1, "j j wb1 +11 wa1 ?", "b1"},
    {"no deadline is as urgent as one in 60 s", 1, "j j wa1 wb1@59000000000 ?", "b1"},
    {"no deadline is more urgent than one later", 1, "j j wa1 wb1@61000000000 ?", "a1"},
    {"idle grants are asked back for a want", 4, "j ? j wb1 ?", "a4 a1!"},
    {"and only once", 4, "j ? j wb1 ? ? ?", "a4 a1!"},
    {"what came back is lent", 4, "j ? j wb1 ? ga1 ?", "a4 a1! b1"},
    {"who gives nothing is left alone", 4, "j ? j wb1 ? ga0 ? ?", "a4 a1!"},
    {"for 10 ms", 4, "j ? j wb1 ? ga0 ? +11 ?", "a4 a1! a1!"},
    {"a grant that was wanted has 1 ms to be used", 1, "j j wa1 ? wb1 ? +2 ?", "a1 a1!"},
    {"a leaving peer's grants are free at once", 4, "j ? j la wb2 ?", "a4 b4"},
    {"its requests only when they end", 2, "j ? sa j la ? ea ?", "a2 b1 b1"},
    {"closed: nothing is lent, all asked back", 4, "j ? sa x ?", "a4 a3!"},
    {"closed: nor what ends", 4, "j ? sa x ea ?", "a4 a3!"},
    {"opened again", 4, "j ? x ? ga4 o ?", "a4 a4! a4"},
    {"want lowers by each grant", 2, "j j wa3 ? wb1 ?", "a2"},
    {"who asks together shares by how much it wants", 8, "j j x o wa12 wb4 ?", "a6 b2"},
    {"a peer that wants no more is out", 2, "j j wa2 wa0 wb2 ?", "b2"},
    {"a larger cap is lent at once", 2, "j ? r5 ?", "a2 a3"},
    {"to those who want it first", 2, "j j ? wb1 ? r3 ?", "a1 b1 a1! b1"},
    {"a smaller cap asks unused grants back", 8, "j ? r3 ? ga5 ?", "a8 a5!"},
    {"evenly spread ones too", 8, "j j ? r3 ? ga4 gb1 ?", "a4 b4 a4! b1!"},
    {"free slots go first", 4, "j j r3 ? r2 ?", "a1 b1"},
    {"used ones as they end", 3, "j ? sa sa sa r1 ? ea ? ea ? ea ?", "a3 a1"},
    {"then the new cap is lent again", 3, "j ? sa sa r2 ? ga1 ea ? ea ?", "a3 a1! a1 a1"},
    {"who wants waits until it has shrunk", 2, "j j ? sa sb r1 wa1 ? ea ? eb ?", "a1 b1 a1"},
    {"what a leaving peer held pays it off", 4, "j j ? r1 la ? wb1 ?", "a2 b2 b1!"},
    {"smaller, and larger before it took hold", 4, "j ? sa sa sa sa r1 r3 ea ? ea ?", "a4 a1"},
    {"to its old size and all is as before", 4, "j ? sa r1 r4 ea ?", "a4 a1"},
    {"closed while it shrinks: all is asked back", 4, "j ? sa r2 x ?", "a4 a3!"},
};

static void print_acts(const struct slots_act *acts, uint32_t n, char *got)
{
    for (uint32_t i = 0; i < n; i++)
        sprintf(got + strlen(got), "%s%c%u%s", *got ? " " : "", (char)('a' + acts[i].peer),
                acts[i].count, acts[i].recall ? "!" : "");
}

static uint32_t sum(const struct slots *s)
{
    return s->free + slots_used(s) + slots_granted(s);
}

static void check_law(const struct slots *s)
{
    assert_int_equal(sum(s), s->cap + s->over);
    assert_true(s->over == 0 || s->free == 0);
}

static void step(struct slots *s, const char *word, uint64_t *now, char *got)
{
    struct slots_act acts[2 * SLOTS_PEERS];
    uint32_t peer = (uint32_t)(word[1] - 'a');
    const char *at = strchr(word, '@');
    switch (word[0]) {
    case 'j':
        assert_true(slots_join(s) >= 0);
        break;
    case 'l':
        slots_leave(s, peer);
        break;
    case 'w':
        slots_want(s, peer, (uint32_t)atoi(word + 2), at ? (uint64_t)atoll(at + 1) : 0, *now);
        break;
    case 's':
        assert_true(slots_submit(s, peer));
        break;
    case 'e':
        slots_end(s, peer);
        break;
    case 'g':
        assert_true(slots_give(s, peer, (uint32_t)atoi(word + 2), *now));
        break;
    case 'x':
        slots_close(s, true);
        break;
    case 'o':
        slots_close(s, false);
        break;
    case 'r':
        slots_resize(s, (uint32_t)atoi(word + 1));
        break;
    case '+':
        *now += (uint64_t)atoi(word + 1) * NS_PER_MS;
        break;
    default:
        print_acts(acts, slots_decide(s, *now, acts), got);
    }
    check_law(s);
}

static void run_row(void **state)
{
    const struct row *row = *state;
    struct slots s;
    uint64_t now = 1;
    char words[256], got[256] = "", *save;
    slots_init(&s, row->cap);
    snprintf(words, sizeof words, "%s", row->steps);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
        step(&s, w, &now, got);
    assert_string_equal(got, row->want);
}

/* ---- a whole life, by seed: peers as an ingress behaves, with frames under way ---- */

enum { PEERS = 4, STEPS = 20000, QUEUE_MAX = 40 };

struct sim_peer {
    bool on;
    uint32_t number, grants, queue, running, want_left;
    uint64_t oldest_ns; // arrival of what waits longest
    uint64_t longest_ns;
};

static uint32_t next_random(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*seed >> 33) % below;
}

static void take_acts(struct slots *s, struct sim_peer *peers, uint64_t now)
{
    struct slots_act acts[2 * SLOTS_PEERS];
    uint32_t n = slots_decide(s, now, acts);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < PEERS; k++) {
            struct sim_peer *p = &peers[k];
            if (!p->on || p->number != acts[i].peer)
                continue;
            if (!acts[i].recall) {
                p->grants += acts[i].count;
                p->want_left -= acts[i].count < p->want_left ? acts[i].count : p->want_left;
                continue;
            }
            uint32_t back = acts[i].count < p->grants ? acts[i].count : p->grants;
            p->grants -= back;
            assert_true(slots_give(s, p->number, back, now));
        }
}

static void peer_turn(struct slots *s, struct sim_peer *p, uint64_t now)
{
    while (p->queue && p->grants) {
        assert_true(slots_submit(s, p->number));
        p->grants--;
        p->running++;
        if (now - p->oldest_ns > p->longest_ns)
            p->longest_ns = now - p->oldest_ns;
        p->oldest_ns = now; // the next one's arrival is not known: it waited at most so long
        p->queue--;
    }
    if (p->queue && p->want_left == 0) {
        p->want_left = p->queue;
        slots_want(s, p->number, p->queue, 0, now);
    }
}

static void sim_step(struct slots *s, struct sim_peer *peers, uint64_t *seed, uint64_t now)
{
    struct sim_peer *p = &peers[next_random(seed, PEERS)];
    uint32_t dice = next_random(seed, 100);
    if (!p->on) {
        if (dice < 20) {
            *p = (struct sim_peer){.on = true, .number = (uint32_t)slots_join(s)};
        }
    } else if (dice < 45 && p->queue < QUEUE_MAX) {
        if (p->queue++ == 0)
            p->oldest_ns = now;
    } else if (dice < 97 && p->running) {
        p->running--;
        slots_end(s, p->number);
    } else if (dice == 99) {
        slots_leave(s, p->number);
        while (p->running) { // cancelled, ended later: here at once
            p->running--;
            slots_end(s, p->number);
        }
        p->on = false;
    }
}

// `resizes`: the cap changes every now and then; what is above it must be gone in time.
static void run_life(bool resizes)
{
    for (uint64_t first = 1; first <= 40; first++) {
        uint64_t seed = first, now = 1;
        struct slots s;
        struct sim_peer peers[PEERS] = {0};
        uint32_t cap = 1 + next_random(&seed, 12), shrinking = 0;
        slots_init(&s, cap);
        for (int i = 0; i < STEPS; i++) {
            if (resizes && next_random(&seed, 400) == 0) {
                cap = 1 + next_random(&seed, 12);
                slots_resize(&s, cap);
            }
            now += next_random(&seed, 2) ? NS_PER_MS / 4 : NS_PER_MS * 2;
            sim_step(&s, peers, &seed, now);
            take_acts(&s, peers, now);
            uint32_t running = 0;
            for (int k = 0; k < PEERS; k++) {
                if (peers[k].on)
                    peer_turn(&s, &peers[k], now);
                running += peers[k].on ? peers[k].running : 0;
            }
            take_acts(&s, peers, now);
            check_law(&s);
            assert_int_equal(s.cap, cap);
            assert_int_equal(running, slots_used(&s));
            assert_true(running <= cap + s.over);
            shrinking = s.over ? shrinking + 1 : 0;
            assert_true(shrinking < 600);
        }
        // Nobody may wait longer than it takes to serve what can be before it, several times over:
        // a step is about 1 ms and ends a request now and then.
        for (int k = 0; k < PEERS; k++)
            assert_true(peers[k].longest_ns < 4000 * NS_PER_MS);
    }
}

static void test_random(void **state)
{
    (void)state;
    run_life(false);
}

static void test_random_caps(void **state)
{
    (void)state;
    run_life(true);
}

// One peer floods, another asks for one slot now and then: it must not starve.
static void test_no_starving(void **state)
{
    (void)state;
    struct slots s;
    struct sim_peer peers[PEERS] = {0};
    uint64_t now = 1, longest = 0;
    slots_init(&s, 1);
    for (int k = 0; k < 2; k++)
        peers[k] = (struct sim_peer){.on = true, .number = (uint32_t)slots_join(&s)};
    for (int i = 0; i < 5000; i++) {
        now += NS_PER_MS;
        for (int k = 0; k < 2; k++)
            if (peers[k].running) {
                peers[k].running--;
                slots_end(&s, peers[k].number);
            }
        peers[0].queue = QUEUE_MAX;
        if (peers[1].queue == 0) {
            peers[1].queue = 1;
            peers[1].oldest_ns = now;
        }
        for (int round = 0; round < 2; round++) {
            take_acts(&s, peers, now);
            peer_turn(&s, &peers[0], now);
            peer_turn(&s, &peers[1], now);
        }
    }
    longest = peers[1].longest_ns;
    assert_true(longest <= (QUEUE_MAX + 2) * NS_PER_MS);
}

static void test_dishonest(void **state)
{
    (void)state;
    struct slots s;
    struct slots_act acts[2 * SLOTS_PEERS];
    slots_init(&s, 4);
    uint32_t a = (uint32_t)slots_join(&s);
    assert_false(slots_submit(&s, a)); // it was lent nothing
    slots_decide(&s, 1, acts);
    assert_false(slots_give(&s, a, 5, 1)); // it had 4
    assert_int_equal(sum(&s), 4);
    for (uint32_t i = 1; i < SLOTS_PEERS; i++)
        assert_true(slots_join(&s) >= 0);
    assert_int_equal(slots_join(&s), -1);
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows + 4];
    size_t n = 0;
    for (; n < sizeof rows / sizeof *rows; n++)
        tests[n] = (struct CMUnitTest){.name = rows[n].name,
                                       .test_func = run_row,
                                       .initial_state = (void *)(uintptr_t)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_random);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_random_caps);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_no_starving);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_dishonest);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
