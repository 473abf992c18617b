// SPDX-License-Identifier: Apache-2.0
#include "llm/tokenizer.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "llm/tokenizer_parts.h"

/*
 * Spans are places in the raw text, and a normalizer moves places. So where some of the text is
 * trusted and some is not, special tokens that are to be matched after the normalizer are matched
 * before it, in the trusted parts, where templates write them as they are. Everywhere or nowhere is
 * exact.
 */

// One text's way through the tokenizer, and its memory.
struct encoder {
    const struct tokenizer *t;
    struct normalize_work normalize;
    struct pretok_work pretok;
    struct bpe_work bpe;
    struct spm_work spm;
    struct unigram_work unigram;
    struct buf spare;
    struct fragments raw, normalized;
    bool special; // may be matched after the normalizer
    struct ids *out;
    size_t before, most; // ids in out
};

static void encoder_finish(struct encoder *e)
{
    normalize_work_finish(&e->normalize);
    pretok_work_finish(&e->pretok);
    bpe_work_finish(&e->bpe);
    spm_work_finish(&e->spm);
    unigram_work_finish(&e->unigram);
    buf_finish(&e->spare);
    fragments_finish(&e->raw);
    fragments_finish(&e->normalized);
}

static int check_room(const struct encoder *e, struct err *err)
{
    if (e->out->n <= e->most)
        return 0;
    e->out->n = e->most;
    return err_set(err, SV_E_TOO_LARGE, "the text has more than %zu tokens", e->most - e->before);
}

static void encode_word(struct encoder *e, const char *word, size_t n)
{
    const struct tokenizer *t = e->t;
    switch (t->model) {
    case MODEL_BPE:
        bpe_encode(&t->bpe, &t->vocab, &e->bpe, word, n, e->out);
        break;
    case MODEL_SPM:
        spm_encode(&t->spm, &t->vocab, &e->spm, word, n, e->out);
        break;
    case MODEL_UNIGRAM:
        unigram_encode(&t->unigram, &t->vocab, &e->unigram, word, n, e->out);
        break;
    case MODEL_WORDPIECE:
        wordpiece_encode(&t->wordpiece, &t->vocab, &e->spare, word, n, e->out);
        break;
    }
}

static int encode_words(struct encoder *e, struct err *err)
{
    const char *text = buf_head(&e->pretok.text);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < e->pretok.n; i++) {
        struct span w = e->pretok.words[i];
        encode_word(e, text + w.begin, w.end - w.begin);
        rc = check_room(e, err);
    }
    return rc;
}

// A part of the normalized text without added tokens.
static int encode_plain(struct encoder *e, const char *text, size_t n, bool first, struct err *err)
{
    buf_clear(&e->pretok.text);
    buf_put(&e->pretok.text, text, n);
    pretok_run(&e->t->pretok, &e->pretok, first);
    return encode_words(e, err);
}

static int push_one(struct encoder *e, int32_t id, struct err *err)
{
    ids_push(e->out, id);
    return check_room(e, err);
}

// A part of the raw text without added tokens.
static int encode_text(struct encoder *e, const char *raw, size_t raw_n, bool first,
                       struct err *err)
{
    int rc = normalizer_run(&e->t->normalizer, raw, raw_n, &e->normalize, err);
    if (rc < 0)
        return rc;
    const char *text = buf_head(&e->normalize.text);
    first &= e->normalize.lead > 0;
    added_split(&e->t->normalized, text, buf_len(&e->normalize.text), NULL, e->special,
                &e->normalized);
    for (size_t i = 0; rc == 0 && i < e->normalized.n; i++) {
        struct fragment f = e->normalized.v[i];
        rc = f.id >= 0
                 ? push_one(e, f.id, err)
                 : encode_plain(e, text + f.begin, f.end - f.begin, first && f.begin == 0, err);
    }
    return rc;
}

static int encode_fragments(struct encoder *e, const char *text, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < e->raw.n; i++) {
        struct fragment f = e->raw.v[i];
        rc = f.id >= 0 ? push_one(e, f.id, err)
                       : encode_text(e, text + f.begin, f.end - f.begin, f.begin == 0, err);
    }
    return rc;
}

static int push_all(struct encoder *e, const int32_t *ids, uint32_t n, struct err *err)
{
    for (uint32_t i = 0; i < n; i++)
        ids_push(e->out, ids[i]);
    return check_room(e, err);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool add_special,
                     const struct span *spans, size_t n_spans, size_t max_ids, struct ids *ret,
                     struct err *err)
{
    struct encoder e = {.t = t,
                        .special = !spans && n_spans > 0,
                        .out = ret,
                        .before = ret->n,
                        .most = ret->n + max_ids};
    if (e.most < max_ids)
        e.most = SIZE_MAX;
    int rc = add_special ? push_all(&e, t->head, t->n_head, err) : 0;
    if (rc == 0) {
        added_split(spans && t->special_normalized ? &t->trusted : &t->raw, text, n, spans, n_spans,
                    &e.raw);
        rc = encode_fragments(&e, text, err);
    }
    if (rc == 0 && add_special)
        rc = push_all(&e, t->tail, t->n_tail, err);
    encoder_finish(&e);
    return rc;
}
