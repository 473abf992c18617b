// SPDX-License-Identifier: Apache-2.0
#include "llm/tokenizer_parts.h"

#include "base/check.h"
#include "base/str.h"

#include <string.h>

static const char REPLACEMENT[] = "\xef\xbf\xbd"; // U+FFFD

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special)
{
    *d = (struct detok){.t = t, .skip_special = skip_special, .strip = t->decoder.strip_n};
}

// The length of the longest start of s[0, n), 1 at least, that some character begins with (Unicode
// 3.9, table 3-7); *open: it is the whole of s, so that the character may still come.
static size_t broken_part(const char *s, size_t n, bool *open)
{
    const unsigned char *c = (const unsigned char *)s;
    size_t want = c[0] < 0xc2 ? 1 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 1;
    size_t at = 1;
    while (at < want && at < n) {
        unsigned low = at > 1 ? 0x80 : c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
        unsigned high = at > 1 ? 0xbf : c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
        if (c[at] < low || c[at] > high)
            break;
        at++;
    }
    *open = at == n && at < want;
    return at;
}

static void emit(struct detok *d, const char *s, size_t n, struct buf *out)
{
    const struct decoder *way = &d->t->decoder;
    size_t len = strlen(way->strip);
    while (d->strip > 0 && n >= len && memcmp(s, way->strip, len) == 0) {
        s += len;
        n -= len;
        d->strip--;
    }
    if (n > 0) {
        d->strip = 0;
        buf_put(out, s, n);
    }
}

// Whole characters of s[0, n) go out; how many bytes are left to wait for the rest of theirs.
static size_t emit_characters(struct detok *d, const char *s, size_t n, struct buf *out)
{
    bool single = d->t->decoder.bytes == BYTES_FALLBACK, open = false;
    size_t done = 0, i = 0;
    while (i < n) {
        size_t len = str_utf8_len(s + i, n - i);
        if (len > 0) {
            i += len;
            continue;
        }
        emit(d, s + done, i - done, out);
        done = i;
        len = broken_part(s + i, n - i, &open);
        if (open)
            break;
        emit(d, REPLACEMENT, 3, out);
        done = i += single ? 1 : len;
    }
    if (!open)
        emit(d, s + done, n - done, out);
    return open ? n - done : 0;
}

static void take(struct detok *d, struct buf *bytes, struct buf *out)
{
    const char *s = buf_head(bytes);
    size_t n = buf_len(bytes), left = emit_characters(d, s, n, out);
    CHECK(left < sizeof d->pending);
    memcpy(d->pending, s + n - left, left);
    d->n_pending = (uint8_t)left;
}

void detok_push(struct detok *d, int32_t id, struct buf *out)
{
    const struct tokenizer *t = d->t;
    if (!vocab_has(&t->vocab, id, VOCAB_SET) ||
        (d->skip_special && vocab_has(&t->vocab, id, VOCAB_SPECIAL)))
        return;
    if (t->decoder.bytes == BYTES_FALLBACK && !vocab_has(&t->vocab, id, VOCAB_BYTE))
        detok_flush(d, out); // text ends a run of bytes
    size_t before = buf_len(out);
    buf_reserve(out, 1);                      // so that there is a place, even for nothing
    if (d->n_pending == 0 && d->strip == 0) { // mostly: whole characters, which stay where they are
        decoder_token(&t->decoder, &t->vocab, id, &d->state, out);
        size_t n = buf_len(out) - before;
        if (str_valid_utf8(buf_head(out) + before, n))
            return;
    } else {
        decoder_token(&t->decoder, &t->vocab, id, &d->state, out);
    }
    struct buf bytes = {0};
    buf_put(&bytes, d->pending, d->n_pending);
    buf_put(&bytes, buf_head(out) + before, buf_len(out) - before);
    out->end = out->off + before;
    d->n_pending = 0;
    if (buf_len(&bytes) > 0)
        take(d, &bytes, out);
    buf_finish(&bytes);
}

void detok_flush(struct detok *d, struct buf *out)
{
    bool single = d->t->decoder.bytes == BYTES_FALLBACK;
    for (unsigned i = 0; i < (single ? d->n_pending : d->n_pending > 0); i++)
        emit(d, REPLACEMENT, 3, out);
    d->n_pending = 0;
}
