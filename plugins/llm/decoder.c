// SPDX-License-Identifier: Apache-2.0
#include "llm/decoder.h"

#include "llm/bytelevel.h"
#include "llm/unicode.h"

#include <string.h>

static void replace(struct buf *out, const char *t, size_t n, const char *from, size_t from_n,
                    const char *to, size_t to_n)
{
    for (size_t i = 0; i < n;) {
        const char *p = from_n ? memmem(t + i, n - i, from, from_n) : NULL;
        size_t end = p ? (size_t)(p - t) : n;
        buf_put(out, t + i, end - i);
        if (!p)
            return;
        buf_put(out, to, to_n);
        i = end + from_n;
    }
}

// tokenizers' clean-up, in its order, of one token.
static void clean_up(struct buf *out, const char *t, size_t n)
{
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    struct buf a = {0}, b = {0};
    buf_put(&a, t, n);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        buf_clear(&b);
        replace(&b, buf_head(&a), buf_len(&a), pairs[i][0], strlen(pairs[i][0]), pairs[i][1],
                strlen(pairs[i][1]));
        struct buf swap = a;
        a = b;
        b = swap;
    }
    buf_put(out, buf_head(&a), buf_len(&a));
    buf_finish(&a);
    buf_finish(&b);
}

static void wordpiece(const struct decoder_step *s, struct buf *out, const char *t, size_t n,
                      bool first)
{
    struct buf word = {0};
    if (!first && n >= s->from_n && memcmp(t, s->from, s->from_n) == 0) {
        t += s->from_n;
        n -= s->from_n;
    } else if (!first) {
        buf_puts(&word, " ");
    }
    buf_put(&word, t, n);
    if (s->flag)
        clean_up(out, buf_head(&word), buf_len(&word));
    else
        buf_put(out, buf_head(&word), buf_len(&word));
    buf_finish(&word);
}

static void strip(const struct decoder_step *s, struct buf *out, const char *t, size_t n)
{
    for (unsigned i = 0; i < s->left && n >= s->from_n && !memcmp(t, s->from, s->from_n); i++) {
        t += s->from_n;
        n -= s->from_n;
    }
    for (unsigned i = 0;
         i < s->right && n >= s->from_n && !memcmp(t + n - s->from_n, s->from, s->from_n); i++)
        n -= s->from_n;
    buf_put(out, t, n);
}

// A space before the next word instead of behind this one: the last one gets none.
static void suffix(const struct decoder_step *s, struct buf *out, const char *t, size_t n,
                   uint8_t *state)
{
    bool end = n >= s->from_n && memcmp(t + n - s->from_n, s->from, s->from_n) == 0;
    if (*state & DECODER_SPACE_DUE)
        buf_puts(out, " ");
    *state = end ? *state | DECODER_SPACE_DUE : *state & (uint8_t)~DECODER_SPACE_DUE;
    buf_put(out, t, end ? n - s->from_n : n);
}

static void leading(const struct decoder_step *s, struct buf *out, const char *t, size_t n,
                    uint8_t *state)
{
    bool there = n >= s->from_n && memcmp(t, s->from, s->from_n) == 0;
    if (there && !(*state & (DECODER_TEXT | DECODER_LED))) {
        t += s->from_n;
        n -= s->from_n;
        *state |= s->flag ? 0 : DECODER_LED;
    }
    buf_put(out, t, n);
}

static void run_step(const struct decoder_step *s, struct buf *out, const char *t, size_t n,
                     uint8_t *state)
{
    bool first = !(*state & DECODER_STARTED);
    switch (s->kind) {
    case DECODE_METASPACE:
        replace(out, t, n, s->from, s->from_n, " ", s->flag && first ? 0 : 1);
        break;
    case DECODE_REPLACE:
        replace(out, t, n, s->from, s->from_n, s->to, s->to_n);
        break;
    case DECODE_WORDPIECE:
        wordpiece(s, out, t, n, first);
        break;
    case DECODE_SUFFIX:
        suffix(s, out, t, n, state);
        break;
    case DECODE_STRIP:
        strip(s, out, t, n);
        break;
    case DECODE_LEADING:
        leading(s, out, t, n, state);
        break;
    }
}

void decoder_token(const struct decoder *d, const struct vocab *v, int32_t id, uint8_t *state,
                   struct buf *out)
{
    struct bytes t = vocab_text(v, id);
    struct buf a = {0}, b = {0};
    bool first = !(*state & DECODER_STARTED);
    size_t before = buf_len(out);
    if (d->bytes == BYTES_FALLBACK && vocab_has(v, id, VOCAB_BYTE)) {
        buf_put(out, &v->byte[id], 1);
        *state |= DECODER_STARTED | DECODER_TEXT;
        return;
    }
    if (d->spaced && !first)
        buf_puts(out, " ");
    for (uint32_t i = 0; i < d->n; i++) {
        buf_clear(&b);
        run_step(&d->steps[i], &b, t.p, t.n, state);
        struct buf swap = a;
        a = b;
        b = swap;
        t = (struct bytes){buf_len(&a) ? buf_head(&a) : "", buf_len(&a)};
    }
    if (d->bytes != BYTES_LEVEL || !bytelevel_get(out, t.p, t.n))
        buf_put(out, t.p, t.n);
    buf_finish(&a);
    buf_finish(&b);
    *state |= DECODER_STARTED | (buf_len(out) > before ? DECODER_TEXT : 0);
}
