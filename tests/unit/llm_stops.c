// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"
#include "llm/stops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One row is one text, fed in pieces that `|` ends. want: what is let out after each piece, `|`
 * again; `!k` when string k was found, after the text before it.
 */
static const struct {
    const char *stops[5], *text, *want;
} rows[] = {
    {{"stop"}, "no such thing|", "no such thing|"},
    {{"stop"}, "a stop b|", "a !0"},
    {{"stop"}, "a s|t|o|p|", "a |||!0"},
    {{"stop"}, "a st|art|", "a |start|"},
    {{"stop"}, "sto|stop|", "|sto!0"},
    {{"aab"}, "aa|a|a|b|", "|a|a|!0"},
    {{"abab", "bc"}, "aba|bc|", "|!0"},
    {{"abcd", "bc"}, "ab|c|", "|a!1"},
    {{"c", "bc"}, "abc|", "a!1"}, // they end together: the longer
    {{"\n\n"}, "x\n|y\n|\nz|", "x|\ny|!0"},
    {{"x", "y", "z", "w"}, "abcw|", "abc!3"},
    {{"\xc3\xa9t\xc3\xa9"}, "l'\xc3\xa9t|age|", "l'|\xc3\xa9tage|"},
    {{"a"}, "||a|", "||!0"},
};

// Feeds one piece; what is let out goes to `out`. Returns whether a string was found.
static bool feed(const struct stops *s, struct stops_state *st, char *kept, const char *p, size_t n,
                 char *out)
{
    size_t before = strlen(kept), end;
    strncat(kept, p, n);
    int found = stops_feed(s, st, p, n, &end);
    size_t keep = found < 0 ? strlen(kept) - stops_held(s, st) : before + end - s->v[found].n;
    sprintf(out + strlen(out), "%.*s", (int)keep, kept);
    if (found >= 0)
        sprintf(out + strlen(out), "!%d", found);
    else
        memmove(kept, kept + keep, strlen(kept + keep) + 1);
    return found >= 0;
}

static void pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct arena a;
        struct stops s = {0};
        struct stops_state st = {0};
        char kept[64] = "", out[256] = "";
        arena_init(&a, 0);
        for (int k = 0; rows[i].stops[k]; k++)
            stops_add(&s, &a, rows[i].stops[k], strlen(rows[i].stops[k]));
        for (const char *p = rows[i].text; *p; p += strcspn(p, "|") + 1) {
            if (feed(&s, &st, kept, p, strcspn(p, "|"), out))
                break;
            strcat(out, "|");
        }
        arena_finish(&a);
        if (strcmp(out, rows[i].want) != 0)
            fail_msg("row %zu, '%s': got '%s', want '%s'", i, rows[i].text, out, rows[i].want);
    }
}

static bool ends_with(const char *text, size_t n, const char *stop, size_t len)
{
    return n >= len && memcmp(text + n - len, stop, len) == 0;
}

// The definition: the first place where a string ends; before that, what may become one is held.
static void random_texts(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 20000; round++) {
        struct arena a;
        struct stops s = {0};
        struct stops_state st = {0};
        char text[65];
        size_t n = (size_t)rand() % 64, n_stops = 1 + (size_t)rand() % 4, at = 0;
        arena_init(&a, 0);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + rand() % 2);
        for (size_t k = 0; k < n_stops; k++) {
            char stop[12];
            size_t len = 1 + (size_t)rand() % 11;
            for (size_t i = 0; i < len; i++)
                stop[i] = (char)('a' + rand() % 2);
            stops_add(&s, &a, stop, len);
        }
        while (at < n) {
            size_t piece = 1 + (size_t)rand() % 5, end = 0;
            piece = piece < n - at ? piece : n - at;
            int found = stops_feed(&s, &st, text + at, piece, &end);
            size_t read = found < 0 ? at + piece : at + end, want = 0;
            int first = -1;
            for (size_t i = at + 1; i <= at + piece && first < 0; i++)
                for (size_t k = 0; k < n_stops; k++)
                    if (ends_with(text, i, s.v[k].text, s.v[k].n) &&
                        (first < 0 || s.v[k].n > s.v[first].n)) {
                        first = (int)k;
                        want = i;
                    }
            assert_int_equal(found, first);
            if (found >= 0) {
                assert_int_equal(read, want);
                break;
            }
            size_t held = 0;
            for (size_t k = 0; k < n_stops; k++)
                for (size_t len = 1; len < s.v[k].n; len++)
                    if (len > held && ends_with(text, read, s.v[k].text, len))
                        held = len;
            assert_int_equal(stops_held(&s, &st), held);
            at += piece;
        }
        arena_finish(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces),
        cmocka_unit_test(random_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
