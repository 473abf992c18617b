// SPDX-License-Identifier: Apache-2.0
#include "control/roll.h"

#include "base/check.h"
#include "base/clock.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NOW_S = 1000, REPLICAS_MAX = 16, ALL = 1000 };

/*
 * Replicas, keys from 0: o old, f fresh, then R ready since 100 s, N ready since 9 s, r ready since
 * 0.3 s, S starting, W waiting, G waits for a GPU, K sick, T stopping; then numbers: `q7` 7
 * requests, `!2` 2 failures, `x1` 1 early end. Result: `+2` starts 2, `-0-3` drains 0 and 3, `back
 * 1`, then what it waits for.
 */
static const struct {
    const char *name;
    uint32_t wanted, room;
    double percentage;
    bool has_good;
    const char *replicas, *want;
} rows[] = {
    {"nothing is there", 3, ALL, 0.2, false, "", "+3"},
    {"as many as wanted", 2, ALL, 0.2, false, "fR fR", ""},
    {"one more", 3, ALL, 0.2, false, "fR fR", "+1"},
    {"the one more loads", 3, ALL, 0.2, false, "fR fR fS", "start 2"},
    {"none wanted", 0, ALL, 0.2, false, "fR fS fW", "-2-1-0 backoff 2"},
    {"none wanted, none there", 0, ALL, 0.2, false, "", ""},
    {"one fewer: who isn't ready", 2, ALL, 0.2, false, "fR fS fR", "-1 start 1"},
    {"one fewer: the fewest requests", 2, ALL, 0.2, false, "fRq3 fRq1 fRq2", "-1"},
    {"one fewer: the newest", 2, ALL, 0.2, false, "fR fN fR", "-1"},
    {"one fewer: of the same age the last", 2, ALL, 0.2, false, "fR fR fR", "-2"},
    {"a sick one goes before a ready one", 1, ALL, 0.2, false, "fKq1 fR", "-0 sick 0"},
    {"one that stops is nobody", 2, ALL, 0.2, false, "fR fT", "+1 drain 1"},
    {"without room it must be gone first", 2, 0, 0.2, false, "fR fT", "drain 1"},
    {"with a place it need not", 2, 1, 0.2, false, "fR fT", "+1 drain 1"},
    {"back-off", 2, ALL, 0.2, false, "fR fW", "backoff 1"},
    {"no GPU", 2, 0, 0.2, false, "fR fG", "gpu 1"},

    {"a roll begins with a new one", 1, ALL, 0.2, true, "oR", "+1"},
    {"which loads", 1, ALL, 0.2, true, "oR fS", "start 1"},
    {"and settles", 1, ALL, 0.2, true, "oR fr", "settle 1 again 0.7"},
    {"then the old one drains", 1, ALL, 0.2, true, "oR fN", "-0"},
    {"and is waited for", 1, ALL, 0.2, true, "oT fN", "drain 0"},
    {"a fifth at a time", 10, ALL, 0.2, true, "oR oR oR oR oR oR oR oR oR oR", "+2"},
    {"rounded down", 9, ALL, 0.2, true, "oR oR oR oR oR oR oR oR oR", "+1"},
    {"but never none", 2, ALL, 0.2, true, "oR oR", "+1"},
    {"all at once", 3, ALL, 1, true, "oR oR oR", "+3"},
    {"room for one", 3, 1, 1, true, "oR oR oR", "+1"},
    {"what is gone is replaced at once", 3, ALL, 0.2, true, "oT oR oR fN", "+1 drain 0"},
    {"but not without room", 3, 1, 0.2, true, "oT oR oR fN", "drain 0"},
    {"one by one", 3, ALL, 0.2, true, "oR oR oR fN", "-2+1"},
    {"a crashed old one is no one's loss", 3, ALL, 0.2, true, "oR oW oR fN", "-1+1"},
    {"nor many of them", 3, ALL, 0.2, true, "oW oK oS fN", "-2-1-0 +2"},
    {"but it stays while nothing new has settled", 3, ALL, 0.2, true, "oR oW oR fS", "start 3"},
    {"nor does it drain then", 3, ALL, 0.2, true, "oR oW oR fr", "settle 3 again 0.7"},
    {"one that ended early must prove itself", 1, ALL, 0.2, true, "oR fNx1", "settle 1 again 21"},
    {"and then counts", 1, ALL, 0.2, true, "oR fRx1", "-0"},

    {"room for one, which the new one has", 1, 1, 0.2, true, "oR fS", "start 1"},

    {"and the next when an old one has gone", 3, 1, 0.2, true, "oR oR oR fN", "-2"},

    {"no room: an old one goes first", 3, 0, 0.2, true, "oR oR oR", "-2"},
    {"then it is waited for", 3, 0, 0.2, true, "oR oR oT", "drain 2"},
    {"then a new one comes", 3, 0, 0.2, true, "oR oR", "+1"},
    {"which loads ", 3, 0, 0.2, true, "oR oR fS", "start 2"},
    {"and settles ", 3, 0, 0.2, true, "oR oR fr", "settle 2 again 0.7"},
    {"then the next", 3, 0, 0.2, true, "oR oR fN", "-1"},
    {"no room: the only one", 1, 0, 0.2, true, "oR", "-0"},
    {"no room: two of five", 5, 0, 0.4, true, "oR oR oR oR oR", "-4-3"},
    {"no room: a crashed one goes first", 3, 0, 0.2, true, "oR oW oR", "-1"},
    {"no room: but one at a time", 3, 0, 0.2, true, "oW oW fS", "start 2"},
    {"no room: not while an empty place is", 3, 0, 0.2, true, "oW oR", "+1"},
    {"a new one without a GPU says that there is no room", 3, ALL, 0.2, true, "oR oR oR fG",
     "-2 gpu 3"},
    {"more wanted than GPUs are there", 5, 0, 0.2, true, "oR oR oR oG oG", "-4"},
    {"more wanted than GPUs are there: the rest", 5, 0, 0.2, true, "oR oR oR fG fG", "-2 gpu 3"},
    {"more wanted than GPUs: nobody twice", 5, 0, 0.2, true, "oR oR fS fG fG", "gpu 3"},

    {"wanted falls in a roll: old ones go", 2, ALL, 0.2, true, "oR oR oR fN fN", "-2-1-0"},
    {"wanted falls, nothing new is ready: old ones stay", 2, ALL, 0.2, true, "oR oR oR fS",
     "-2 start 3"},
    {"wanted falls below what is new", 1, ALL, 0.2, true, "oR fN fN", "-0-2"},
    {"wanted falls, new ones load", 1, ALL, 0.2, true, "oR oR fS fS", "-1-3 start 2"},
    {"wanted rises in a roll: new ones come", 5, ALL, 0.2, true, "oR fN", "+4"},
    {"wanted rises, nothing new is ready", 5, ALL, 0.2, true, "oR fS", "+4 start 1"},
    {"wanted zero in a roll", 0, ALL, 0.2, true, "oR fN oT", "-0-1 drain 2"},
    {"a surge that crashed old ones take up", 1, ALL, 0.2, true, "oW oW oR", "-1-0 +1"},

    {"two failed starts", 1, ALL, 0.2, true, "oR fW!2", "backoff 1"},
    {"three", 1, ALL, 0.2, true, "oR fW!3", "back 1"},
    {"nothing to go back to", 1, ALL, 0.2, false, "oR fW!3", "backoff 1"},
    {"three of an old one", 1, ALL, 0.2, true, "oW!3 fS", "start 1"},
    {"three early ends", 1, ALL, 0.2, true, "oR fSx3", "back 1"},
    {"two early ends", 1, ALL, 0.2, true, "oR fSx2", "start 1"},
    {"also when the old ones are gone", 1, ALL, 0.2, true, "fW!3", "back 0"},
    {"but not once one is proven", 2, ALL, 0.2, true, "fR fW!3", "backoff 1"},
    {"unless old ones are there", 3, ALL, 0.2, true, "fR fW!3 oR", "back 1"},
    {"one that stops is nobody's fault", 1, ALL, 0.2, true, "oR fT!3", "+1 drain 1"},
};

static const char *read_replica(const char *p, struct roll_replica *r)
{
    static const struct {
        char c;
        enum roll_state state;
        double since_s;
    } states[] = {{'R', ROLL_READY, 100},  {'N', ROLL_READY, 9},   {'r', ROLL_READY, 0.3},
                  {'S', ROLL_STARTING, 0}, {'W', ROLL_WAITING, 0}, {'G', ROLL_WAITING, 0},
                  {'K', ROLL_SICK, 0},     {'T', ROLL_STOPPING, 0}};
    r->fresh = *p++ == 'f';
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (states[i].c == *p) {
            r->state = states[i].state;
            r->ready_since_ns =
                states[i].since_s > 0 ? (uint64_t)((NOW_S - states[i].since_s) * 1e9) : 0;
        }
    r->waits_for_gpu = *p++ == 'G';
    while (*p && !isspace((unsigned char)*p)) {
        char what = *p++;
        char *end;
        uint32_t n = (uint32_t)strtoul(p, &end, 10);
        p = end;
        *(what == 'q' ? &r->ongoing : what == '!' ? &r->failures : &r->crashes) = n;
    }
    return p + strspn(p, " ");
}

static void append(char *text, size_t size, const char *fmt, unsigned n)
{
    static const char *const gaps[] = {"", " "};
    size_t len = strlen(text);
    bool glued = len == 0 || (fmt[0] == '-' && text[len - 1] != ' ' && strchr(text, '-'));
    if (fmt[0] == '-')
        snprintf(text + len, size - len, "%s-%u", gaps[!glued], n);
    else
        snprintf(text + len, size - len, "%s%s%u", gaps[len > 0], fmt, n);
}

static void write_out(const struct roll_in *in, const struct roll_out *out, const uint32_t *drain,
                      char *text, size_t size)
{
    static const char *const waits[ROLL_WAIT_COUNT] = {"",         "start ", "settle ", "sick ",
                                                       "backoff ", "gpu ",   "drain "};
    *text = '\0';
    for (uint32_t i = 0; i < out->n_drain; i++)
        append(text, size, "-", drain[i]);
    if (out->start)
        append(text, size, "+", out->start);
    if (out->roll_back)
        append(text, size, "back ", out->wait_key);
    if (out->wait)
        append(text, size, waits[out->wait], out->wait_key);
    if (out->wait == ROLL_WAIT_SETTLE) {
        size_t len = strlen(text);
        snprintf(text + len, size - len, " again %g", (double)(out->again_ns - in->now_ns) / 1e9);
    }
}

static bool same(const char *a, const char *b) // but for spaces
{
    for (;; a++, b++) {
        a += strspn(a, " ");
        b += strspn(b, " ");
        if (*a != *b || !*a)
            return *a == *b;
    }
}

static uint32_t read_replicas(const char *p, struct roll_replica *replicas)
{
    uint32_t n = 0;
    memset(replicas, 0, REPLICAS_MAX * sizeof *replicas);
    for (; *p; n++) {
        replicas[n].key = n;
        p = read_replica(p, &replicas[n]);
    }
    return n;
}

static void replicas_follow_the_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct roll_replica replicas[REPLICAS_MAX];
        struct roll_in in = {.wanted = rows[i].wanted,
                             .percentage = rows[i].percentage,
                             .room = rows[i].room,
                             .has_good = rows[i].has_good,
                             .replicas = replicas,
                             .n = read_replicas(rows[i].replicas, replicas),
                             .now_ns = NOW_S * NS_PER_S};
        uint32_t drain[REPLICAS_MAX];
        struct roll_out out = roll_decide(&in, drain);
        char text[256];
        write_out(&in, &out, drain, text, sizeof text);
        if (!same(text, rows[i].want))
            fail_msg("%s: got \"%s\", not \"%s\"", rows[i].name, text, rows[i].want);
    }
}

static void versions_are_proven(void **state)
{
    (void)state;
    static const struct {
        const char *replicas;
        bool proven;
        double again_s;
    } cases[] = {
        {"", false, 0},       {"fR fR", true, 0},  {"fR fS", true, 0},  {"fr fN", false, 0.7},
        {"fN fN", false, 21}, {"fR oR", false, 0}, {"oR oR", false, 0}, {"fR oT", true, 0},
        {"fK fS", false, 0},  {"fT fS", false, 0}, {"fNx1", false, 21},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct roll_replica replicas[REPLICAS_MAX];
        struct roll_in in = {.wanted = 2,
                             .percentage = 0.2,
                             .replicas = replicas,
                             .n = read_replicas(cases[i].replicas, replicas),
                             .now_ns = NOW_S * NS_PER_S};
        uint32_t drain[REPLICAS_MAX];
        struct roll_out out = roll_decide(&in, drain);
        double again_s = out.again_ns ? (double)(out.again_ns - in.now_ns) / 1e9 : 0;
        if (out.proven != cases[i].proven || again_s != cases[i].again_s)
            fail_msg("%s: proven %d, again %g", cases[i].replicas, out.proven, again_s);
    }
}

static void early_ends_are_counted(void **state)
{
    (void)state;
    uint64_t now = NOW_S * NS_PER_S;
    assert_int_equal(roll_crashes(1, now - NS_PER_S, now), 2);
    assert_int_equal(roll_crashes(2, now - ROLL_PROVE_NS, now), 0);
    assert_int_equal(roll_crashes(2, 0, now), 2);
}

static void waits_have_texts(void **state)
{
    (void)state;
    for (int w = 0; w < ROLL_WAIT_COUNT; w++) {
        char text[128];
        roll_wait_text((enum roll_wait)w, "app/dep/3", text, sizeof text);
        assert_int_equal(strstr(text, "app/dep/3") != NULL, w != ROLL_WAIT_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_follow_the_rules),
        cmocka_unit_test(versions_are_proven),
        cmocka_unit_test(early_ends_are_counted),
        cmocka_unit_test(waits_have_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
