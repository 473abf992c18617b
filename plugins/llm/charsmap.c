// SPDX-License-Identifier: Apache-2.0
#include "llm/charsmap.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "llm/unicode.h"

#include <string.h>
#include <utf8proc.h>

static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

// u32 bytes of the trie | the trie, u32 each | texts
int charsmap_init(struct charsmap *m, const void *data, size_t n, struct err *err)
{
    const unsigned char *p = data;
    uint32_t trie = n >= 4 ? get_u32(p) : 0;
    if (n < 4 || n > CHARSMAP_MAX || trie == 0 || trie % 4 != 0 || trie > n - 4)
        return err_set(
            err, SV_E_INVALID,
            "the character map of %zu bytes says that its trie has %u; at most %d in all", n, trie,
            CHARSMAP_MAX);
    *m = (struct charsmap){.n_units = trie / 4, .n_texts = (uint32_t)(n - 4 - trie)};
    m->units = xcalloc(m->n_units, sizeof *m->units);
    for (uint32_t i = 0; i < m->n_units; i++)
        m->units[i] = get_u32(p + 4 + 4 * (size_t)i);
    m->texts = xcalloc(m->n_texts + 1u, 1);
    memcpy(m->texts, p + 4 + trie, m->n_texts);
    if (!str_valid_utf8(m->texts, m->n_texts)) {
        charsmap_finish(m);
        return err_set(err, SV_E_INVALID, "the character map's texts are no valid UTF-8");
    }
    return 0;
}

void charsmap_finish(struct charsmap *m)
{
    xfree(m->units);
    xfree(m->texts);
    *m = (struct charsmap){0};
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

int charsmap_init_base64(struct charsmap *m, const char *text, size_t n, struct err *err)
{
    struct buf data = {0};
    uint32_t bits = 0;
    int count = 0;
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int v = base64_value(text[i]);
        if (v < 0) {
            buf_finish(&data);
            return err_set(err, SV_E_INVALID, "the character map is no base64 at byte %zu", i);
        }
        bits = bits << 6 | (uint32_t)v;
        count += 6;
        if (count >= 8) {
            count -= 8;
            char byte = (char)(bits >> count & 0xff);
            buf_put(&data, &byte, 1);
        }
    }
    int rc = charsmap_init(m, buf_head(&data), buf_len(&data), err);
    buf_finish(&data);
    return rc;
}

// A unit of darts-clone: label in the low byte (and bit 31 for a leaf), bit 8 says that a leaf
// follows, the offset to the children above, scaled by 2^8 with bit 9.
const char *charsmap_find(const struct charsmap *m, const char *text, size_t n, bool longest,
                          size_t *used)
{
    const char *found = NULL;
    uint32_t at = 0;
    for (size_t i = 0; m->texts && i <= n; i++) {
        uint32_t unit = m->units[at];
        if (i > 0 && unit >> 8 & 1) {
            uint32_t leaf = at ^ ((unit >> 10) << ((unit & 1u << 9) >> 6));
            uint32_t value = leaf < m->n_units ? m->units[leaf] & 0x7fffffffu : UINT32_MAX;
            if (value <= m->n_texts && (value == 0 || m->texts[value - 1] == 0)) {
                found = m->texts + value;
                *used = i;
                if (!longest)
                    return found;
            }
        }
        if (i == n || text[i] == 0)
            break;
        at ^= ((unit >> 10) << ((unit & 1u << 9) >> 6)) ^ (uint8_t)text[i];
        if (at >= m->n_units || (m->units[at] & (1u << 31 | 0xff)) != (uint8_t)text[i])
            break;
    }
    return found;
}

static void put_characters(const struct charsmap *m, struct buf *out, const char *text, size_t n)
{
    for (size_t i = 0, len, used; i < n; i += len) {
        unicode_get(text + i, n - i, &len);
        const char *to = charsmap_find(m, text + i, len, false, &used);
        if (to)
            buf_puts(out, to);
        else
            buf_put(out, text + i, len);
    }
}

// The end of the extended grapheme cluster that begins at text[0].
static size_t cluster(const char *text, size_t n)
{
    utf8proc_int32_t state = 0;
    size_t len, at;
    uint32_t before = unicode_get(text, n, &at);
    while (at < n) {
        uint32_t c = unicode_get(text + at, n - at, &len);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)c, &state))
            break;
        before = c;
        at += len;
    }
    return at;
}

enum { CLUSTER_WHOLE = 6 }; // bytes; a cluster below that is looked up as a whole first

static void put_clusters(const struct charsmap *m, struct buf *out, const char *text, size_t n)
{
    for (size_t i = 0, len, used; i < n; i += len) {
        len = cluster(text + i, n - i);
        const char *to = len < CLUSTER_WHOLE ? charsmap_find(m, text + i, len, false, &used) : NULL;
        if (to)
            buf_puts(out, to);
        else
            put_characters(m, out, text + i, len);
    }
}

void charsmap_put(const struct charsmap *m, struct buf *out, const char *text, size_t n,
                  bool longest)
{
    if (!longest) {
        put_clusters(m, out, text, n);
        return;
    }
    for (size_t i = 0, len; i < n; i += len) {
        const char *to = charsmap_find(m, text + i, n - i, true, &len);
        if (to) {
            buf_puts(out, to);
            continue;
        }
        unicode_get(text + i, n - i, &len);
        buf_put(out, text + i, len);
    }
}
