// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BUF_MIN = 256 }; // bytes

void buf_finish(struct buf *b)
{
    xfree(b->data);
    *b = (struct buf){0};
}

char *buf_reserve(struct buf *b, size_t n)
{
    size_t len = buf_len(b), cap = b->data ? b->cap : BUF_MIN;
    if (b->data && b->cap - b->end >= n)
        return b->data + b->end;
    if (b->data && len <= b->off && b->cap - len >= n) { // moves no more than was consumed
        memmove(b->data, b->data + b->off, len);
        b->off = 0;
        b->end = len;
        return b->data + len;
    }
    CHECK(n <= SIZE_MAX / 4 - len);
    while (cap - len < n)
        cap *= 2;
    char *data = xrealloc(NULL, cap);
    if (b->data)
        memcpy(data, b->data + b->off, len);
    xfree(b->data);
    *b = (struct buf){.data = data, .end = len, .cap = cap};
    return data + len;
}

void buf_commit(struct buf *b, size_t n)
{
    CHECK(n <= b->cap - b->end);
    b->end += n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    memcpy(buf_reserve(b, n), p, n);
    b->end += n;
}

void buf_puts(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    size_t room = BUF_MIN / 2;
    for (;;) {
        char *at = buf_reserve(b, room);
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(at, room, fmt, ap);
        va_end(ap);
        CHECK(n >= 0);
        if ((size_t)n < room) {
            b->end += (size_t)n;
            return;
        }
        room = (size_t)n + 1;
    }
}

// Length of the run at s that JSON takes as it is.
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == '"' || c == '\\')
            break;
        size_t len = c < 0x80 ? 1 : str_utf8_len(s + i, n - i);
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

static void put_json_escape(struct buf *b, unsigned char c)
{
    static const char short_of[256] = {['"'] = '"',  ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r',
                                       ['\t'] = 't', ['\b'] = 'b',  ['\f'] = 'f'};
    if (short_of[c])
        buf_put(b, (char[]){'\\', short_of[c]}, 2);
    else if (c < 0x20)
        buf_printf(b, "\\u%04x", c);
    else
        buf_puts(b, "\xef\xbf\xbd"); // U+FFFD for a byte that is no UTF-8
}

void buf_put_json(struct buf *b, const char *s, size_t n)
{
    buf_put(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t run = plain_run(s + i, n - i);
        buf_put(b, s + i, run);
        i += run;
        if (i < n)
            put_json_escape(b, (unsigned char)s[i++]);
    }
    buf_put(b, "\"", 1);
}

void buf_consume(struct buf *b, size_t n)
{
    CHECK(n <= buf_len(b));
    b->off += n;
    if (b->off == b->end)
        b->off = b->end = 0;
}

void buf_clear(struct buf *b)
{
    b->off = b->end = 0;
}

const char *buf_cstr(struct buf *b)
{
    *buf_reserve(b, 1) = '\0';
    return b->data + b->off;
}
