// SPDX-License-Identifier: Apache-2.0
// One row is one test. `a30` pushes request a with deadline 30 (0: none), `-` pops, `xa` removes a,
// `+a` puts a back; `!` refused, `.` nothing popped. Each item counts 10 bytes.
#include "abi/plugin.h"
#include "base/err.h"
#include "serve/queue.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *name;
    uint32_t cap;
    size_t cap_bytes;
    const char *steps, *want;
} rows[] = {
    {"earliest deadline first", 4, 100, "a30 b10 c20 - - -", "bca"},
    {"arrival order on ties", 4, 100, "a5 b5 c5 - - -", "abc"},
    {"no deadline comes last", 4, 100, "a0 b9 c0 - - -", "bac"},
    {"full queue refuses", 2, 100, "a1 b2 c3 - c3 - -", "!abc"},
    {"full in bytes refuses", 9, 25, "a1 b2 c3 - c3 - -", "!abc"},
    {"pop of empty", 1, 100, "- a1 - -", ".a."},
    {"removed from the middle", 9, 100, "a1 b2 c3 d4 xb - - - -", "acd."},
    {"removal frees a place", 2, 100, "a1 b2 xa c3 - -", "bc"},
    {"put back at its place", 9, 100, "a5 b5 c5 - +a - - -", "aabc"},
    {"put back beyond the cap", 2, 100, "a1 b2 - c3 +a - - -", "aabc"},
    {"nothing fits cap 0", 0, 100, "a1 -", "!."},
    {"many", 26, 1000, "z9 y8 x7 w6 v5 u4 t3 s2 r1 - - - - - - - - -", "rstuvwxyz"},
};

static void run_row(void **state)
{
    const struct row *row = *state;
    static struct queue_item items[26];
    memset(items, 0, sizeof items);
    char got[64] = "";
    struct queue q;
    queue_init(&q, row->cap, row->cap_bytes);
    for (const char *s = row->steps; *s; s++) {
        if (*s == '-') {
            struct queue_item *it = queue_pop(&q);
            strcat(got, it ? (char[]){(char)('a' + (it - items)), 0} : ".");
        } else if (*s == 'x' && isalpha((unsigned char)s[1])) {
            queue_remove(&q, &items[*++s - 'a']);
        } else if (*s == '+') {
            queue_put_back(&q, &items[*++s - 'a']);
        } else if (isalpha((unsigned char)*s)) {
            struct queue_item *it = &items[*s - 'a'];
            it->deadline_ns = (uint64_t)atoi(s + 1);
            it->bytes = 10;
            struct err err;
            int rc = queue_push(&q, it, &err);
            if (rc < 0) {
                assert_int_equal(rc, SV_E_UNAVAILABLE);
                strcat(got, "!");
            }
        }
    }
    assert_string_equal(got, row->want);
    while (queue_pop(&q))
        ;
    assert_int_equal(q.bytes, 0);
    queue_finish(&q);
}

// Against a plain search for the smallest, with a fixed seed.
static void against_oracle(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct queue_item items[N];
    struct queue q;
    queue_init(&q, N, SIZE_MAX);
    srand(7);
    for (int step = 0; step < 20000; step++) {
        struct queue_item *it = &items[rand() % N];
        if (it->at != QUEUE_OUT) {
            queue_remove(&q, it);
        } else {
            it->deadline_ns = (uint64_t)(rand() % 50);
            assert_int_equal(queue_push(&q, it, NULL), 0);
        }
        const struct queue_item *best = NULL;
        for (int i = 0; i < N; i++) {
            const struct queue_item *c = &items[i];
            if (c->at == QUEUE_OUT)
                continue;
            uint64_t x = c->deadline_ns - 1, y = best ? best->deadline_ns - 1 : 0;
            if (!best || x < y || (x == y && c->seq < best->seq))
                best = c;
        }
        assert_ptr_equal(queue_peek(&q), best);
    }
    while (queue_pop(&q))
        ;
    queue_finish(&q);
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows + 1];
    size_t n = 0;
    for (; n < sizeof rows / sizeof *rows; n++)
        tests[n] =
            (struct CMUnitTest){rows[n].name, run_row, NULL, NULL, (void *)(uintptr_t)&rows[n]};
    tests[n] = (struct CMUnitTest){"against an oracle", against_oracle, NULL, NULL, NULL};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
