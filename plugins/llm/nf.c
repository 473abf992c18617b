// SPDX-License-Identifier: Apache-2.0
#include "llm/nf.h"

#include "base/mem.h"
#include "llm/unicode.h"

#include <string.h>
#include <utf8proc.h>

enum { DECOMPOSED = 18, RUN = 64 }; // characters that one becomes; sorted without memory of its own

struct character {
    uint32_t c;
    uint32_t class;
};
struct characters {
    struct character *v; // owned
    size_t n, room;
};

static void push(struct characters *a, uint32_t c)
{
    if (a->n == a->room) {
        a->room = a->room ? 2 * a->room : 256;
        a->v = xrealloc(a->v, a->room * sizeof *a->v);
    }
    a->v[a->n++] = (struct character){c, unicode_class(c)};
}

static void decompose(struct characters *a, uint32_t c, bool compatible)
{
    utf8proc_int32_t parts[DECOMPOSED];
    int boundary = 0;
    if (c < 0xa0 || !unicode_decomposes(c)) {
        push(a, c);
        return;
    }
    utf8proc_ssize_t n = utf8proc_decompose_char(
        (utf8proc_int32_t)c, parts, DECOMPOSED,
        compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE, &boundary);
    if (n < 1 || n > DECOMPOSED)
        push(a, c);
    for (utf8proc_ssize_t i = 0; i < n && n <= DECOMPOSED; i++)
        push(a, (uint32_t)parts[i]);
}

// Stable, by class; insertion for short runs, counting for long ones.
static void sort_run(struct character *v, size_t n)
{
    if (n <= RUN) {
        for (size_t i = 1; i < n; i++) {
            struct character c = v[i];
            size_t j = i;
            for (; j > 0 && v[j - 1].class > c.class; j--)
                v[j] = v[j - 1];
            v[j] = c;
        }
        return;
    }
    size_t at[257] = {0};
    struct character *sorted = xrealloc(NULL, n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        at[v[i].class + 1]++;
    for (size_t i = 1; i < 257; i++)
        at[i] += at[i - 1];
    for (size_t i = 0; i < n; i++)
        sorted[at[v[i].class]++] = v[i];
    memcpy(v, sorted, n * sizeof *v);
    xfree(sorted);
}

static void sort_marks(struct characters *a)
{
    for (size_t i = 0, j; i < a->n; i = j + 1) {
        for (j = i; j < a->n && a->v[j].class != 0;)
            j++;
        sort_run(a->v + i, j - i);
    }
}

// What the two make together; 0: nothing. Nothing below U+0300 comes second.
static uint32_t compose_pair(uint32_t first, uint32_t second)
{
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)first, (utf8proc_int32_t)second};
    if (second < 0x300)
        return 0;
    utf8proc_ssize_t n = utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return n == 1 && unicode_decomposes((uint32_t)pair[0]) ? (uint32_t)pair[0] : 0;
}

// UAX 15, D117: a character is composed with the last starter unless one between them blocks it.
static void compose_all(struct characters *a)
{
    size_t kept = 0, starter = SIZE_MAX;
    uint32_t last = 0; // class of the last one kept behind the starter
    for (size_t i = 0; i < a->n; i++) {
        struct character c = a->v[i];
        bool next = starter != SIZE_MAX && kept == starter + 1;
        uint32_t both = 0;
        if (starter != SIZE_MAX && (next || last < c.class))
            both = compose_pair(a->v[starter].c, c.c);
        if (both) {
            a->v[starter].c = both;
            continue;
        }
        if (c.class == 0)
            starter = kept;
        last = c.class;
        a->v[kept++] = c;
    }
    a->n = kept;
}

void nf_put(struct buf *out, const char *text, size_t n, bool compose, bool compatible)
{
    struct characters a = {0};
    for (size_t i = 0, len; i < n; i += len)
        decompose(&a, unicode_get(text + i, n - i, &len), compatible);
    sort_marks(&a);
    if (compose)
        compose_all(&a);
    for (size_t i = 0; i < a.n; i++)
        unicode_put(out, a.v[i].c);
    xfree(a.v);
}
