// SPDX-License-Identifier: Apache-2.0
#include "llm/stops.h"

#include "base/arena.h"
#include "base/check.h"

#include <stdbool.h>
#include <string.h>

void stops_add(struct stops *s, struct arena *arena, const char *text, size_t n)
{
    CHECK(s->n < STOPS_MAX && n >= 1 && n < UINT32_MAX);
    struct stop *t = &s->v[s->n++];
    char *copy = arena_alloc(arena, n);
    *t = (struct stop){
        .text = copy, .n = (uint32_t)n, .fail = arena_alloc(arena, n * sizeof *t->fail)};
    CHECK(copy && t->fail);
    memcpy(copy, text, n);
    for (uint32_t i = 1, k = 0; i < t->n; i++) {
        while (k && text[i] != text[k])
            k = t->fail[k - 1];
        k += text[i] == text[k];
        t->fail[i] = k;
    }
}

// True: the whole string has been read.
static bool advance(const struct stop *t, uint32_t *matched, char c)
{
    uint32_t k = *matched;
    while (k && t->text[k] != c)
        k = t->fail[k - 1];
    k += t->text[k] == c;
    *matched = k;
    return k == t->n;
}

int stops_feed(const struct stops *s, struct stops_state *st, const char *p, size_t n,
               size_t *ret_end)
{
    for (size_t i = 0; i < n; i++) {
        int found = -1;
        for (uint32_t t = 0; t < s->n; t++)
            if (advance(&s->v[t], &st->matched[t], p[i]) &&
                (found < 0 || s->v[t].n > s->v[found].n))
                found = (int)t;
        if (found >= 0) {
            *ret_end = i + 1;
            return found;
        }
    }
    return -1;
}

size_t stops_held(const struct stops *s, const struct stops_state *st)
{
    uint32_t most = 0;
    for (uint32_t t = 0; t < s->n; t++)
        most = st->matched[t] > most ? st->matched[t] : most;
    return most;
}
