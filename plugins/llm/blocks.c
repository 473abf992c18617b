// SPDX-License-Identifier: Apache-2.0
#include "llm/blocks.h"

#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/os.h"

#include <string.h>

void blocks_init(struct blocks *p, uint32_t n)
{
    CHECK(n > 0 && n < BLOCK_NONE / 2);
    *p = (struct blocks){.n = n, .free = n, .key = os_random()};
    p->mask = 1;
    while (p->mask < n)
        p->mask *= 2;
    p->bucket = xcalloc(p->mask, sizeof *p->bucket);
    p->mask--;
    for (uint32_t i = 0; i <= p->mask; i++)
        p->bucket[i] = BLOCK_NONE;
    p->block = xcalloc((size_t)n + 1, sizeof *p->block);
    for (uint32_t i = 0; i <= n; i++) {
        p->block[i].prev_free = i ? i - 1 : n;
        p->block[i].next_free = i < n ? i + 1 : 0;
    }
}

void blocks_finish(struct blocks *p)
{
    xfree(p->block);
    xfree(p->bucket);
    *p = (struct blocks){0};
}

static void unlink_free(struct blocks *p, uint32_t b)
{
    struct block *x = &p->block[b];
    p->block[x->prev_free].next_free = x->next_free;
    p->block[x->next_free].prev_free = x->prev_free;
    x->prev_free = x->next_free = b;
    p->free--;
}

// Puts b into the free list behind `prev`.
static void link_free(struct blocks *p, uint32_t b, uint32_t prev)
{
    struct block *x = &p->block[b], *before = &p->block[prev];
    x->prev_free = prev;
    x->next_free = before->next_free;
    p->block[before->next_free].prev_free = b;
    before->next_free = b;
    p->free++;
}

uint32_t blocks_take(struct blocks *p)
{
    uint32_t b = p->block[p->n].next_free;
    CHECK(b != p->n);
    unlink_free(p, b);
    blocks_forget(p, b);
    p->block[b].refs = 1;
    return b;
}

void blocks_share(struct blocks *p, uint32_t b)
{
    struct block *x = &p->block[b];
    CHECK(x->state == BLOCK_READY);
    if (x->refs++ == 0)
        unlink_free(p, b);
}

void blocks_release(struct blocks *p, const uint32_t *b, uint32_t n)
{
    while (n-- > 0) {
        struct block *x = &p->block[b[n]];
        CHECK(x->refs > 0);
        if (--x->refs > 0)
            continue;
        if (x->state != BLOCK_READY)
            blocks_forget(p, b[n]);
        link_free(p, b[n], x->state == BLOCK_READY ? p->block[p->n].prev_free : p->n);
    }
}

struct chain blocks_root(const uint64_t salt[2])
{
    return (struct chain){.before = {salt[0], salt[1]}};
}

static struct chain after(const struct block *x)
{
    return (struct chain){.before = {x->serial}, .index = x->at.index + 1};
}

static uint32_t hash(const struct blocks *p, const struct chain *at, const int32_t *token)
{
    uint64_t text[2 + SV_BLOCK / 2] = {at->before[0], at->before[1]};
    memcpy(text + 2, token, SV_BLOCK * sizeof *token);
    return (uint32_t)hash_bytes(text, sizeof text, p->key + at->index);
}

static bool is(const struct block *x, const struct chain *at, const int32_t *token)
{
    return x->at.before[0] == at->before[0] && x->at.before[1] == at->before[1] &&
           x->at.index == at->index && memcmp(x->token, token, sizeof x->token) == 0;
}

static uint32_t look_up(const struct blocks *p, uint32_t h, const struct chain *at,
                        const int32_t *token)
{
    for (uint32_t b = p->bucket[h & p->mask]; b != BLOCK_NONE; b = p->block[b].next)
        if (p->block[b].hash == h && is(&p->block[b], at, token))
            return b;
    return BLOCK_NONE;
}

uint32_t blocks_find(const struct blocks *p, struct chain *at, const int32_t token[SV_BLOCK])
{
    uint32_t b = look_up(p, hash(p, at, token), at, token);
    if (b != BLOCK_NONE)
        *at = after(&p->block[b]);
    return b;
}

void blocks_name(struct blocks *p, uint32_t b, struct chain *at, const int32_t token[SV_BLOCK],
                 enum block_state state)
{
    struct block *x = &p->block[b];
    CHECK(x->state == BLOCK_PLAIN && x->refs == 1);
    uint32_t h = hash(p, at, token);
    uint32_t other = look_up(p, h, at, token);
    if (other != BLOCK_NONE && p->block[other].state != BLOCK_STALLED) {
        *at = after(&p->block[other]);
        return;
    }
    if (other != BLOCK_NONE)
        blocks_forget(p, other);
    x->serial = ++p->serial;
    x->at = *at;
    memcpy(x->token, token, sizeof x->token);
    x->state = state;
    x->hash = h;
    x->next = p->bucket[h & p->mask];
    p->bucket[h & p->mask] = b;
    p->named++;
    *at = after(x);
}

void blocks_forget(struct blocks *p, uint32_t b)
{
    struct block *x = &p->block[b];
    if (x->state == BLOCK_PLAIN)
        return;
    uint32_t *link = &p->bucket[x->hash & p->mask];
    while (*link != b)
        link = &p->block[*link].next;
    *link = x->next;
    x->state = BLOCK_PLAIN;
    p->named--;
}

static void check_free_list(const struct blocks *p)
{
    uint32_t n = 0;
    for (uint32_t b = p->block[p->n].next_free; b != p->n; b = p->block[b].next_free, n++) {
        const struct block *x = &p->block[b];
        CHECK(n < p->n && x->refs == 0);
        CHECK(x->state == BLOCK_PLAIN || x->state == BLOCK_READY);
        CHECK(p->block[x->next_free].prev_free == b && p->block[x->prev_free].next_free == b);
    }
    CHECK(n == p->free);
}

static void check_names(const struct blocks *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i <= p->mask; i++)
        for (uint32_t b = p->bucket[i]; b != BLOCK_NONE; b = p->block[b].next, n++) {
            const struct block *x = &p->block[b];
            CHECK(n < p->n && x->state != BLOCK_PLAIN && (x->hash & p->mask) == i);
            CHECK(x->hash == hash(p, &x->at, x->token) && x->serial <= p->serial);
            CHECK(look_up(p, x->hash, &x->at, x->token) == b); // no name twice
        }
    CHECK(n == p->named);
}

void blocks_check(const struct blocks *p, const uint32_t *refs)
{
    uint32_t held = 0, named = 0;
    for (uint32_t b = 0; b < p->n; b++) {
        const struct block *x = &p->block[b];
        CHECK(x->refs == refs[b]);
        CHECK(x->refs <= 1 || x->state == BLOCK_READY || x->state == BLOCK_PLAIN);
        held += x->refs > 0;
        named += x->state != BLOCK_PLAIN;
    }
    CHECK(held + p->free == p->n && named == p->named);
    check_free_list(p);
    check_names(p);
}
