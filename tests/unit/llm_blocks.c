// SPDX-License-Identifier: Apache-2.0
#include "llm/blocks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t no_salt[2];

static void tokens(int32_t *t, int32_t first)
{
    for (int32_t i = 0; i < SV_BLOCK; i++)
        t[i] = first + i;
}

static uint32_t named(struct blocks *p, struct chain *at, int32_t first)
{
    int32_t t[SV_BLOCK];
    tokens(t, first);
    uint32_t b = blocks_take(p);
    blocks_name(p, b, at, t, BLOCK_READY);
    return b;
}

static uint32_t found(const struct blocks *p, struct chain *at, int32_t first)
{
    int32_t t[SV_BLOCK];
    tokens(t, first);
    return blocks_find(p, at, t);
}

// Two sequences of three blocks: what is lost first?
static void least_recently_used(void **state)
{
    (void)state;
    struct blocks p;
    blocks_init(&p, 7);
    struct chain at = blocks_root(no_salt);
    uint32_t a[] = {named(&p, &at, 0), named(&p, &at, 100), named(&p, &at, 200)};
    at = blocks_root(no_salt);
    uint32_t b[] = {named(&p, &at, 1), named(&p, &at, 101), named(&p, &at, 201)};
    uint32_t plain = blocks_take(&p);
    assert_int_equal(p.free, 0);
    blocks_release(&p, a, 3);
    blocks_release(&p, b, 3);
    blocks_release(&p, &plain, 1);
    blocks_share(&p, a[0]); // used again, so it goes to the end
    blocks_release(&p, a, 1);
    uint32_t want[] = {plain, a[2], a[1], b[2], b[1], b[0], a[0]};
    for (int i = 0; i < 7; i++)
        assert_int_equal(blocks_take(&p), want[i]);
    assert_int_equal(p.named, 0);
    blocks_finish(&p);
}

static void sharing(void **state)
{
    (void)state;
    struct blocks p;
    blocks_init(&p, 4);
    uint32_t refs[4] = {0};
    struct chain at = blocks_root(no_salt), again = at;
    uint32_t a = named(&p, &at, 0);
    blocks_share(&p, a);
    refs[a] = 2;
    blocks_check(&p, refs);
    blocks_release(&p, &a, 1);
    assert_int_equal(p.free, 3);
    blocks_release(&p, &a, 1);
    assert_int_equal(p.free, 4);
    assert_int_equal(found(&p, &again, 0), a);
    blocks_share(&p, a);
    assert_int_equal(p.free, 3);
    blocks_forget(&p, a);
    blocks_forget(&p, a);
    again = blocks_root(no_salt);
    assert_int_equal(found(&p, &again, 0), BLOCK_NONE);
    refs[a] = 1;
    blocks_check(&p, refs);
    blocks_finish(&p);
}

// A name holds for what is before it, the tokens and the salt.
static void names(void **state)
{
    (void)state;
    struct blocks p;
    blocks_init(&p, 16);
    struct chain at = blocks_root(no_salt);
    uint32_t a = named(&p, &at, 0), b = named(&p, &at, 100);
    struct chain end = at;
    at = blocks_root((uint64_t[2]){7, 0});
    assert_int_equal(found(&p, &at, 0), BLOCK_NONE);
    at = blocks_root((uint64_t[2]){0, 7});
    assert_int_equal(found(&p, &at, 0), BLOCK_NONE);
    at = blocks_root((uint64_t[2]){1, 0}); // the serial of a: it is no salt
    assert_int_equal(found(&p, &at, 100), BLOCK_NONE);
    at = blocks_root(no_salt);
    assert_int_equal(found(&p, &at, 100), BLOCK_NONE); // b is not first
    assert_int_equal(at.index, 0);
    assert_int_equal(found(&p, &at, 0), a);
    assert_int_equal(found(&p, &at, 101), BLOCK_NONE);
    assert_int_equal(found(&p, &at, 100), b);
    assert_memory_equal(at.before, end.before, sizeof at.before);
    assert_int_equal(at.index, end.index);
    // The same content once more: the first keeps the name, the chain goes on behind it.
    at = blocks_root(no_salt);
    uint32_t twin = named(&p, &at, 0);
    assert_int_equal(p.block[twin].state, BLOCK_PLAIN);
    assert_int_equal(found(&p, &at, 100), b);
    // Whose holder is paused loses it.
    p.block[a].state = BLOCK_STALLED;
    at = blocks_root(no_salt);
    twin = named(&p, &at, 0);
    assert_int_equal(p.block[a].state, BLOCK_PLAIN);
    assert_int_equal(p.block[twin].state, BLOCK_READY);
    assert_int_equal(found(&p, &at, 100), BLOCK_NONE); // it followed the other one
    blocks_finish(&p);
}

enum part { TOKENS, SALT, SALT_2, INDEX, PARTS };

// The i-th of many names that differ in one part alone.
static struct chain name_of(enum part part, uint32_t i, int32_t *t)
{
    uint64_t salt[2] = {part == SALT ? i : 0, part == SALT_2 ? i : 0};
    struct chain at = blocks_root(salt);
    at.index = part == INDEX ? i : 0;
    tokens(t, part == TOKENS ? (int32_t)i : 0);
    return at;
}

// Names whose hashes are equal in all 32 bits: 300,000 of them have about ten such pairs.
static void collisions(void **state)
{
    (void)state;
    enum { N = 300000 };
    uint32_t *name = calloc(N, sizeof *name), *refs = calloc(N, sizeof *refs);
    for (enum part part = TOKENS; part < PARTS; part++) {
        struct blocks p;
        blocks_init(&p, N);
        int32_t t[SV_BLOCK];
        for (uint32_t i = 0; i < N; i++) {
            struct chain at = name_of(part, i, t);
            uint32_t b = blocks_take(&p);
            blocks_name(&p, b, &at, t, BLOCK_READY);
            assert_int_equal(p.block[b].state, BLOCK_READY); // nobody had the name
            name[b] = i;
            refs[b] = 1;
        }
        uint32_t pairs = 0;
        for (uint32_t b = 0; b < N; b++) {
            struct chain at = name_of(part, name[b], t);
            assert_int_equal(blocks_find(&p, &at, t), b);
            for (uint32_t o = p.block[b].next; o != BLOCK_NONE; o = p.block[o].next)
                pairs += p.block[o].hash == p.block[b].hash;
        }
        print_message("%u pairs of equal hash\n", pairs);
        blocks_check(&p, refs);
        blocks_finish(&p);
    }
    free(name);
    free(refs);
}

// The hash is keyed anew each time: what collides here does not collide there.
static void keyed(void **state)
{
    (void)state;
    uint32_t hash[2];
    for (int i = 0; i < 2; i++) {
        struct blocks p;
        blocks_init(&p, 4);
        struct chain at = blocks_root(no_salt);
        hash[i] = p.block[named(&p, &at, 5)].hash;
        blocks_finish(&p);
    }
    assert_int_not_equal(hash[0], hash[1]);
}

// Takes, names, shares and releases at random, against plain counters.
static void random_walk(void **state)
{
    (void)state;
    enum { N = 40, HOLDERS = 8, STEPS = 200000 };
    struct blocks p;
    blocks_init(&p, N);
    uint32_t held[HOLDERS][N], n_held[HOLDERS] = {0}, refs[N] = {0};
    uint64_t hits = 0;
    srand(11);
    for (int step = 0; step < STEPS; step++) {
        int h = rand() % HOLDERS;
        if (n_held[h]) {
            for (uint32_t i = 0; i < n_held[h]; i++)
                refs[held[h][i]]--;
            blocks_release(&p, held[h], n_held[h]);
            n_held[h] = 0;
        } else {
            struct chain at = blocks_root(no_salt);
            uint32_t want = 1 + (uint32_t)rand() % 8, text = (uint32_t)rand() % 6;
            bool hit = true;
            for (uint32_t i = 0; i < want; i++) {
                int32_t t[SV_BLOCK];
                tokens(t, (int32_t)(i < 2 ? i : text * 1000 + i));
                uint32_t b = hit ? blocks_find(&p, &at, t) : BLOCK_NONE;
                hit &= b != BLOCK_NONE;
                if (hit)
                    blocks_share(&p, b);
                else if (p.free == 0)
                    break;
                else
                    blocks_name(&p, b = blocks_take(&p), &at, t, BLOCK_READY);
                hits += hit;
                refs[b]++;
                held[h][n_held[h]++] = b;
            }
        }
        blocks_check(&p, refs);
    }
    assert_true(hits > STEPS / 2);
    blocks_finish(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_recently_used),
        cmocka_unit_test(sharing),
        cmocka_unit_test(names),
        cmocka_unit_test(collisions),
        cmocka_unit_test(keyed),
        cmocka_unit_test(random_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
