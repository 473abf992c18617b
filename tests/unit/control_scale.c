// SPDX-License-Identifier: Apache-2.0
#include "control/scale.h"

#include "base/check.h"
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BASE_S = 1000, TEXT_MAX = 1024 };

/*
 * A whole life of a deployment. `load`: "5@10 0@40": 5 from second 10, 0 from second 40. `<3@20` a
 * new control that found 3 running, `[1,4]@5` a live change of min and max. A replica runs
 * `start_s` after it was asked for. `want`: every change of the target, with its second rounded
 * down to 0.1.
 */
// clang-format off
static const struct row {
    const char *name;
    // min, max, initial, target, look back, up, down, to zero, factors, aggregation
    struct scale_conf c;
    double start_s;
    const char *load;
    double until_s;
    const char *want;
} rows[] = {
    {"no load: stays at min", {1, 5, 0, 2, 30, 30, 600, -1, 1, 1, 0}, 1, "", 2000, "1@0"},
    {"initial falls to min after the delay", {1, 5, 3, 2, 30, 30, 600, -1, 1, 1, 0}, 1, "", 2000, "3@0 1@600"},
    {"initial is clipped", {1, 2, 9, 2, 30, 30, 600, -1, 1, 1, 0}, 1, "", 100, "2@0"},
    {"a burst is seen within a second when the delay is 0", {1, 9, 0, 2, 30, 0, 600, -1, 1, 1, 0}, 1, "200@10", 60, "1@0 9@10.1"},
    {"the average of half a second decides", {1, 9, 0, 2, 30, 0, 600, -1, 1, 1, 0}, 1, "10@10", 60, "1@0 2@10.2 3@10.3 4@10.4 5@10.5"},
    {"a short look back decides", {1, 9, 0, 2, 0.1, 0, 600, -1, 1, 1, 0}, 1, "10@10", 60, "1@0 5@10.1"},
    {"upscale_delay must hold", {1, 9, 0, 2, 30, 5, 600, -1, 1, 1, 0}, 1, "8@10 0@12 8@50", 80, "1@0 4@56.3"},
    {"a dip that the average bridges does not start it anew", {1, 4, 0, 2, 30, 5, 600, -1, 1, 1, 0}, 1, "40@10 0@12 40@12.2", 30, "1@0 4@15.3"},
    {"a dip does", {1, 4, 0, 2, 30, 5, 600, -1, 1, 1, 0}, 1, "8@10 0@12 8@19", 40, "1@0 4@25.3"},
    {"Arcadia: a burst at zero", {0, 5, 0, 2, 30, 30, 600, -1, 1, 1, 0}, 2, "200@10 0@70", 1400, "0@0 1@10 5@40.2 1@698.8 0@1298.9"},
    {"from zero with a factor", {0, 8, 0, 2, 30, 30, 600, -1, 3, 1, 0}, 2, "1@10", 20, "0@0 3@10"},
    {"from zero never beyond max", {0, 2, 0, 2, 30, 30, 600, -1, 9, 1, 0}, 2, "1@10", 20, "0@0 2@10"},
    {"one request wakes one", {0, 5, 0, 2, 30, 0, 10, -1, 1, 1, 0}, 2, "1@10 0@15", 100, "0@0 1@10 0@55"},
    {"to zero after a delay of its own", {0, 5, 0, 2, 30, 0, 10, 100, 1, 1, 0}, 2, "1@10 0@15", 200, "0@0 1@10 0@145"},
    {"to zero at once", {0, 5, 0, 2, 1, 0, 10, 0, 1, 1, 0}, 2, "1@10 0@15", 200, "0@0 1@10 0@16"},
    {"zero only from one", {0, 5, 4, 2, 1, 0, 10, 60, 1, 1, 0}, 1, "", 200, "4@0 1@10 0@70.1"},
    {"a request that waits keeps one", {0, 5, 0, 2, 30, 0, 10, 0, 1, 1, 2}, 1, "1@10 0@20 1@20.5 0@25", 100, "0@0 1@10 0@20 1@20.5 0@25"},
    {"who gave up does not stop the start", {0, 5, 0, 2, 1, 0, 0, 0, 1, 1, 0}, 60, "1@10 0@12", 100, "0@0 1@10 0@70"},
    {"and when it comes again one runs", {0, 5, 0, 2, 1, 0, 10, -1, 1, 1, 0}, 60, "1@10 0@12", 100, "0@0 1@10 0@80"},
    {"a start that never ends does not stay for ever", {0, 5, 0, 2, 1, 0, 0, 0, 1, 1, 0}, 9999, "1@10 0@12", 2000, "0@0 1@10 0@610"},
    // Ray's PR 61731: factor 2 ran to max while replicas were starting.
    {"no runaway without load", {1, 20, 2, 2, 30, 0, 600, -1, 2, 1, 0}, 60, "", 300, "2@0"},
    {"no runaway while they start", {0, 20, 0, 2, 30, 0, 600, -1, 2, 1, 0}, 60, "3@10", 300, "0@0 2@10"},
    {"a factor steps beyond once", {1, 20, 0, 2, 0.1, 0, 600, -1, 2, 1, 0}, 60, "8@10", 300, "1@0 7@10.1"},
    {"and comes back", {1, 20, 0, 2, 0.1, 0, 60, -1, 2, 1, 0}, 60, "8@10", 300, "1@0 7@10.1 4@70.2"},
    {"two factors of 2 do not swing", {1, 20, 9, 2, 0.1, 0, 20, -1, 2, 2, 0}, 1, "8@1", 300, "9@0 4@20"},
    {"small factors get there", {1, 20, 0, 2, 0.1, 0, 600, -1, 0.3, 1, 0}, 1, "10@10", 30, "1@0 3@10.1 4@10.2 5@10.3"},
    {"and down", {1, 20, 8, 2, 0.1, 0, 5, -1, 1, 0.4, 0}, 1, "8@0", 90, "8@0 7@5 6@10.1 5@15.2 4@20.3"},
    {"those that start are not taken away", {1, 20, 0, 2, 0.1, 0, 0, -1, 0.5, 0.5, 0}, 60, "20@10", 50, "1@0 6@10.1 8@10.2 9@10.3 10@10.4"},
    {"the shorter average holds them", {1, 9, 0, 2, 30, 0, 0, -1, 1, 1, 0}, 1, "10@10", 40, "1@0 2@10.2 3@10.3 4@10.4 5@10.5"},
    {"the largest", {1, 9, 0, 2, 10, 10, 1, -1, 1, 1, 1}, 1, "10@10 0@11", 60, "1@0 5@20 1@22"},
    {"the smallest", {1, 9, 0, 2, 10, 10, 1, -1, 1, 1, 2}, 1, "10@10 0@15 10@16", 60, "1@0 5@36"},
    {"a new control looks first", {1, 9, 0, 2, 30, 0, 0, -1, 1, 1, 0}, 1, "<6@0", 100, "6@0 1@30"},
    {"and may raise at once", {1, 9, 0, 2, 30, 0, 0, -1, 1, 1, 0}, 1, "<2@0 200@1", 20, "2@0 9@1.1"},
    {"and is clipped", {1, 4, 0, 2, 30, 0, 0, -1, 1, 1, 0}, 1, "<9@0", 20, "4@0"},
    {"and looks a second at least", {0, 4, 0, 2, 0.1, 0, 0, 0, 1, 1, 0}, 1, "<1@0", 20, "1@0 0@1"},
    {"bounds move live", {1, 4, 0, 2, 30, 0, 60, -1, 1, 1, 0}, 1, "[2,4]@10 [1,1]@20", 100, "1@0 2@10 1@20"},
    {"a bound that is lifted lets it up", {1, 2, 0, 2, 30, 1, 60, -1, 1, 1, 0}, 1, "20@5 [1,8]@10", 60, "1@0 2@6.2 8@11"},
    {"a day of looking back", {1, 9, 0, 2, 86400, 0, 0, -1, 1, 1, 0}, 1, "10@10 0@43210", 90000, "1@0 2@10.2 3@10.3 4@10.4 5@10.5 4@54000 3@72000"},
};
// clang-format on

// What a shell would do: decides after each event and when it was told to.
struct world {
    struct scale s;
    struct scale_out out;
    const struct row *row;
    uint64_t asked_ns; // a replica that was asked for now runs then
    uint32_t running, running_next;
    char text[TEXT_MAX];
};

static uint64_t at(double s)
{
    return (uint64_t)((BASE_S + s) * 1e9 + 0.5);
}

static void decide(struct world *w, uint64_t now)
{
    if (w->asked_ns && now >= w->asked_ns) {
        w->running = w->running_next;
        w->asked_ns = 0;
    }
    uint32_t before = w->out.target;
    bool first = !*w->text;
    w->out = scale_decide(&w->s, w->running, now);
    assert_true(w->out.again_ns == 0 || w->out.again_ns > now);
    if (w->out.target == before && !first)
        return;
    double s = (double)(uint64_t)(((double)now / 1e9 - BASE_S) * 10 + 1e-4) / 10;
    size_t len = strlen(w->text);
    snprintf(w->text + len, sizeof w->text - len, "%s%u@%g", first ? "" : " ", w->out.target, s);
    if (w->out.target < w->running)
        w->running = w->out.target;
    w->running_next = w->out.target;
    if (w->out.target > w->running)
        w->asked_ns = now + (uint64_t)(w->row->start_s * 1e9);
}

static void pass(struct world *w, uint64_t until)
{
    for (uint64_t turns = 0; turns < 2000000; turns++) {
        uint64_t next = w->out.again_ns ? w->out.again_ns : UINT64_MAX;
        if (w->asked_ns && w->asked_ns < next)
            next = w->asked_ns;
        if (next >= until)
            return;
        decide(w, next);
    }
    fail_msg("does not come to rest: %s", w->text);
}

static const char *event(struct world *w, const char *p, bool before)
{
    char what = *p;
    char *end;
    unsigned long a = strtoul(p + (what == '<' || what == '['), &end, 10);
    unsigned long b = what == '[' ? strtoul(end + 1, &end, 10) : 0;
    if (what == '[')
        end++;
    assert_int_equal(*end, '@');
    uint64_t when = at(strtod(end + 1, &end));
    if (before != (what == '<'))
        return end;
    if (!before)
        pass(w, when);
    if (what == '<')
        scale_adopt(&w->s, (uint32_t)a, when);
    else if (what == '[') {
        w->s.conf.min = (uint32_t)a; // as if read anew
        w->s.conf.max = (uint32_t)b;
        struct scale_conf c = w->s.conf;
        scale_configure(&w->s, &c, when);
    } else
        scale_observe(&w->s, (double)a, when);
    if (!before)
        decide(w, when);
    return end;
}

static void targets_follow_the_load(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof *w);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        *w = (struct world){.row = &rows[i]};
        scale_init(&w->s, &rows[i].c, at(0));
        for (const char *p = rows[i].load; *p; p += strspn(p, " "))
            p = event(w, p, true);
        w->running = w->s.target; // what was there ran
        decide(w, at(0));
        w->asked_ns = w->running < w->out.target ? w->asked_ns : 0;
        for (const char *p = rows[i].load; *p; p += strspn(p, " "))
            p = event(w, p, false);
        pass(w, at(rows[i].until_s));
        if (strcmp(w->text, rows[i].want) != 0)
            fail_msg("%s: got \"%s\", not \"%s\"", rows[i].name, w->text, rows[i].want);
    }
    free(w);
}

// At rest nothing asks to be woken.
static void rest_is_rest(void **state)
{
    (void)state;
    struct scale s;
    scale_init(&s, &(struct scale_conf){0, 5, 0, 2, 30, 30, 600, -1, 1, 1, 0}, at(0));
    struct scale_out out = scale_decide(&s, 0, at(0));
    assert_int_equal(out.again_ns, 0);
    scale_observe(&s, 2, at(1));
    out = scale_decide(&s, 0, at(1));
    assert_int_equal(out.why, SCALE_WAKE);
    while (out.again_ns)
        out = scale_decide(&s, 1, out.again_ns);
    assert_int_equal(out.target, 1);
    assert_int_equal(out.why, SCALE_STEADY);
    for (int i = 0; i < SCALE_WHY_COUNT; i++)
        assert_true(*scale_why_text((enum scale_why)i));
}

// The mean over a window against one that keeps every step.
static void the_past_is_nearly_exact(void **state)
{
    (void)state;
    enum { STEPS = 20000 };
    uint64_t seed = 1, now = at(0);
    static uint64_t times[STEPS];
    static double values[STEPS];
    struct past p;
    uint64_t window = 2 * NS_PER_S;
    past_init(&p, window, 0, now);
    times[0] = now;
    values[0] = 0;
    for (uint32_t n = 1; n < STEPS; n++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t step = (seed >> 40) % (n % 7 == 0 ? 300 * NS_PER_MS : 3 * NS_PER_MS);
        now += step;
        values[n] = (double)((seed >> 33) % 11);
        times[n] = now;
        past_set(&p, values[n], now);
        uint64_t then = now + step / 2, from = then - window > times[0] ? then - window : times[0];
        double area = 0, min = values[n], max = values[n];
        uint64_t end = then;
        for (uint32_t i = n; end > from; end = times[i--]) {
            uint64_t start = times[i] > from ? times[i] : from;
            area += values[i] * (double)(end - start);
            if (end > start && values[i] < min)
                min = values[i];
            if (end > start && values[i] > max)
                max = values[i];
            if (i == 0)
                break;
        }
        struct past_sum sum = past_over(&p, then);
        if (then > from)
            assert_true(area / (double)(then - from) - sum.mean < 10.0 / 60 &&
                        sum.mean - area / (double)(then - from) < 10.0 / 60);
        assert_true(sum.min <= min && sum.max >= max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_past_is_nearly_exact),
        cmocka_unit_test(targets_follow_the_load),
        cmocka_unit_test(rest_is_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
