// SPDX-License-Identifier: Apache-2.0
#include "llm/wordpiece.h"

#include "base/mem.h"
#include "llm/unicode.h"

#include <string.h>

void wordpiece_finish(struct wordpiece *p)
{
    xfree(p->prefix);
    *p = (struct wordpiece){0};
}

static size_t count(const char *s, size_t n)
{
    size_t characters = 0;
    for (size_t i = 0; i < n; i++)
        characters += ((unsigned char)s[i] & 0xc0) != 0x80;
    return characters;
}

// The id of the longest start of text[0, n); *used is its bytes.
static int32_t longest(const struct vocab *v, const char *text, size_t n, size_t skip, size_t *used)
{
    size_t end = n;
    if (end > v->longest) // back to where a character ends
        for (end = v->longest; end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80;)
            end--;
    while (end > skip) {
        size_t len;
        int32_t id = vocab_find_piece(v, text, end);
        if (id >= 0) {
            *used = end - skip;
            return id;
        }
        unicode_before(text, end, &len);
        end -= len;
    }
    return -1;
}

void wordpiece_encode(const struct wordpiece *p, const struct vocab *v, struct buf *spare,
                      const char *word, size_t n, struct ids *out)
{
    size_t before = out->n, prefix = strlen(p->prefix), used;
    if (count(word, n) > p->most) {
        ids_push(out, p->unknown);
        return;
    }
    for (size_t at = 0; at < n; at += used) {
        int32_t id;
        if (at == 0) {
            id = longest(v, word, n, 0, &used);
        } else { // the prefix takes the place of what is done
            buf_clear(spare);
            buf_put(spare, p->prefix, prefix);
            buf_put(spare, word + at, n - at < v->longest + 4u ? n - at : v->longest + 4u);
            id = longest(v, buf_head(spare), buf_len(spare), prefix, &used);
        }
        if (id < 0) {
            out->n = before;
            ids_push(out, p->unknown);
            return;
        }
        ids_push(out, id);
    }
}
