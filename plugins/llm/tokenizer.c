// SPDX-License-Identifier: Apache-2.0
#include "llm/tokenizer.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

struct tokenizer *tokenizer_create(void)
{
    struct tokenizer *t = xcalloc(1, sizeof *t);
    t->bos = t->eos = -1;
    return t;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    vocab_finish(&t->vocab);
    added_finish(&t->raw);
    added_finish(&t->normalized);
    added_finish(&t->trusted);
    normalizer_finish(&t->normalizer);
    pretok_finish(&t->pretok);
    bpe_finish(&t->bpe);
    spm_finish(&t->spm);
    unigram_finish(&t->unigram);
    wordpiece_finish(&t->wordpiece);
    xfree(t);
}

void tokenizer_put_added(struct tokenizer *t, const struct added_token *like, bool normalized)
{
    struct bytes text = vocab_text(&t->vocab, like->id);
    t->vocab.flags[like->id] |= VOCAB_ADDED | (like->special ? VOCAB_SPECIAL : 0);
    added_put(normalized ? &t->normalized : &t->raw, like, text.p, text.n);
    if (!normalized || like->special)
        added_put(&t->trusted, like, text.p, text.n);
    t->special_normalized |= normalized && like->special;
}

static bool can_keep_bytes(const struct bpe *b)
{
    return !b->byte_fallback && !b->prefix && !b->suffix;
}

// `tokenizers` looks in the normalized text for what the token's own text is when normalized.
static int normalize_added(struct tokenizer *t, struct err *err)
{
    struct normalize_work w = {0};
    struct added made = {0};
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->normalized.n; i++) {
        const struct added_token *a = &t->normalized.tokens[i];
        rc = normalizer_run(&t->normalizer, a->text, a->n, &w, err);
        if (rc == 0)
            added_put(&made, a, buf_head(&w.text), buf_len(&w.text));
    }
    normalize_work_finish(&w);
    added_finish(&t->normalized);
    t->normalized = made;
    return rc;
}

static void find_bytes(const struct vocab *v, int32_t byte[256])
{
    char text[8];
    for (unsigned i = 0; i < 256; i++)
        byte[i] = vocab_find(v, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", i));
}

int tokenizer_seal(struct tokenizer *t, struct err *err)
{
    struct pretok_step *last = t->pretok.n ? &t->pretok.steps[t->pretok.n - 1] : NULL;
    if (t->model == MODEL_BPE) {
        if (last && last->kind == PRETOK_BYTELEVEL && can_keep_bytes(&t->bpe))
            t->bpe.bytes = last->keep_bytes = true;
        bpe_find_bytes(&t->bpe, &t->vocab);
        bpe_forget_special(&t->bpe, &t->vocab);
    }
    int rc = normalize_added(t, err);
    if (t->model == MODEL_SPM)
        find_bytes(&t->vocab, t->spm.byte);
    if (t->model == MODEL_UNIGRAM) {
        find_bytes(&t->vocab, t->unigram.byte);
        for (int32_t i = 0; rc == 0 && (uint32_t)i < t->vocab.n; i++)
            if ((t->vocab.flags[i] & (VOCAB_MODEL | VOCAB_SPECIAL)) == VOCAB_MODEL)
                rc = unigram_add(&t->unigram, &t->vocab, i, err);
    }
    added_sort(&t->raw);
    added_sort(&t->normalized);
    added_sort(&t->trusted);
    return rc;
}

uint32_t tokenizer_vocab(const struct tokenizer *t)
{
    return t->vocab.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return vocab_has(&t->vocab, id, VOCAB_SPECIAL);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token, size_t n)
{
    return vocab_find(&t->vocab, token, n);
}

struct bytes tokenizer_token(const struct tokenizer *t, int32_t id)
{
    return vocab_text(&t->vocab, id);
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                      struct buf *out)
{
    struct detok d;
    detok_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++)
        detok_push(&d, ids[i], out);
    detok_flush(&d, out);
}
