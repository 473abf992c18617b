// SPDX-License-Identifier: Apache-2.0
#include "llm/bytelevel.h"

#include "llm/unicode.h"

// Bytes that do not stand for themselves: [0, 0x21), [0x7f, 0xa1), 0xad.
uint32_t bytelevel_char(uint8_t b)
{
    if (b < 0x21)
        return 0x100u + b;
    if (b >= 0x7f && b < 0xa1)
        return 0x100u + 0x21 + (b - 0x7fu);
    if (b == 0xad)
        return BYTELEVEL_END - 1;
    return b;
}

int bytelevel_byte(uint32_t c)
{
    if (c < 0x100)
        return bytelevel_char((uint8_t)c) == c ? (int)c : -1;
    if (c < 0x100 + 0x21)
        return (int)(c - 0x100);
    if (c < BYTELEVEL_END - 1)
        return (int)(c - 0x100 - 0x21 + 0x7f);
    return c == BYTELEVEL_END - 1 ? 0xad : -1;
}

void bytelevel_put(struct buf *out, const char *text, size_t n)
{
    char *at = buf_reserve(out, 2 * n + 1);
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += unicode_encode(bytelevel_char((uint8_t)text[i]), at + used);
    buf_commit(out, used);
}

bool bytelevel_get(struct buf *out, const char *text, size_t n)
{
    char *at = buf_reserve(out, n + 1);
    size_t used = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int byte = bytelevel_byte(unicode_get(text + i, n - i, &len));
        if (byte < 0)
            return false;
        at[used++] = (char)byte;
    }
    buf_commit(out, used);
    return true;
}
