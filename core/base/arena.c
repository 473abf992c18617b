// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ARENA_ALIGN = 16, ARENA_BLOCK_MIN = 2 << 10, ARENA_BLOCK_MAX = 64 << 10 }; // bytes

struct arena_block {
    struct arena_block *next;
    size_t size, used;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit)
{
    *a = (struct arena){.limit = limit};
}

static void drop_blocks(struct arena_block *b)
{
    while (b) {
        struct arena_block *next = b->next;
        xfree(b);
        b = next;
    }
}

void arena_finish(struct arena *a)
{
    drop_blocks(a->blocks);
    a->blocks = NULL;
    a->used = 0;
}

void arena_reset(struct arena *a)
{
    struct arena_block *keep = a->blocks;
    a->used = 0;
    if (!keep)
        return;
    drop_blocks(keep->next);
    keep->next = NULL;
    keep->used = 0;
    if (keep->size > ARENA_BLOCK_MAX) { // one large object must not stay for a connection's life
        xfree(keep);
        a->blocks = NULL;
    }
}

static struct arena_block *add_block(struct arena *a, size_t n)
{
    size_t size = a->blocks ? a->blocks->size * 2 : ARENA_BLOCK_MIN;
    if (size > ARENA_BLOCK_MAX)
        size = ARENA_BLOCK_MAX;
    if (size < n)
        size = n;
    struct arena_block *b = xrealloc(NULL, sizeof *b + size);
    b->size = size;
    b->used = 0;
    b->next = a->blocks;
    a->blocks = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        return NULL;
    size_t room = (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (a->limit && (room > a->limit || a->used > a->limit - room))
        return NULL;
    struct arena_block *b = a->blocks;
    if (!b || b->size - b->used < room)
        b = add_block(a, room);
    void *p = b->data + b->used;
    b->used += room;
    a->used += room;
    memset(p, 0, room);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = arena_alloc(a, len + 1);
    if (copy)
        memcpy(copy, s, len);
    return copy;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    char *text = arena_alloc(a, (size_t)n + 1);
    if (!text)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return text;
}
