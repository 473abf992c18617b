// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * buf - a growing run of bytes with a read position: out-buffers, texts, frames.
 *
 * Bounds  none of its own; whoever fills it checks buf_len against a named limit first.
 * Owner   whoever holds the struct. `= {0}` is an empty buffer.
 * Thread  one at a time.
 */
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data;      // owned
    size_t off, end; // content is data[off, end)
    size_t cap;
};

// A borrowed run of bytes.
struct bytes {
    const char *p;
    size_t n;
};

void buf_finish(struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->off;
}
static inline char *buf_head(const struct buf *b)
{
    return b->off ? b->data + b->off : b->data; // data may be NULL
}
char *buf_reserve(struct buf *b, size_t n); // room for n more bytes at the end; then buf_commit
void buf_commit(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
__attribute__((format(printf, 2, 3))) void buf_printf(struct buf *b, const char *fmt, ...);
void buf_put_json(struct buf *b, const char *s, size_t n); // as a JSON string with its quotes;
                                                           // invalid UTF-8 becomes U+FFFD
void buf_consume(struct buf *b, size_t n);                 // drops n bytes from the front
void buf_clear(struct buf *b);                             // keeps the memory
const char *buf_cstr(struct buf *b); // NUL-terminated view (NUL is not counted)
