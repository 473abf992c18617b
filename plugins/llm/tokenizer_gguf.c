// SPDX-License-Identifier: Apache-2.0
/*
 * The tokenizer.ggml.* keys of a GGUF file, as ggml-org/llama.cpp writes (convert_hf_to_gguf.py)
 * and reads them (src/llama-vocab.cpp).
 */
#include "llm/tokenizer_parts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/gguf.h"
#include "llm/gguf_pre.h"

#include <string.h>

#define KEY(name) "tokenizer.ggml." name

enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN,
    TYPE_CONTROL,
    TYPE_USER,
    TYPE_UNUSED,
    TYPE_BYTE
}; // of token_type

static int read_tokens(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    uint64_t n = gguf_array_strs(g, KEY("tokens"));
    if (n == 0 || n > TOKENIZER_VOCAB)
        return err_set(err, SV_E_INVALID, KEY("tokens") " has %llu texts; 1 to %d are allowed",
                       (unsigned long long)n, TOKENIZER_VOCAB);
    struct bytes *texts = xcalloc(n, sizeof *texts);
    size_t bytes = 0;
    int rc = 0;
    gguf_array_get_strs(g, KEY("tokens"), texts, n);
    for (uint64_t i = 0; i < n && bytes <= VOCAB_BYTES; i++)
        bytes += texts[i].n;
    vocab_init(&t->vocab, (uint32_t)n, bytes <= VOCAB_BYTES ? bytes : 0);
    for (uint64_t i = 0; rc == 0 && i < n; i++)
        rc = vocab_set(&t->vocab, (int64_t)i, texts[i].p, texts[i].n, err);
    xfree(texts);
    return rc < 0 ? err_ctx(err, KEY("tokens")) : 0;
}

// `types` is NULL where all are normal.
static void use_types(struct tokenizer *t, const double *types)
{
    for (uint32_t i = 0; i < t->vocab.n; i++) {
        struct added_token like = {.id = (int32_t)i};
        double type = types ? types[i] : TYPE_NORMAL;
        like.special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
        if (!like.special && type != TYPE_BYTE)
            t->vocab.flags[i] |= VOCAB_MODEL;
        if (like.special || type == TYPE_USER)
            tokenizer_put_added(t, &like, false);
    }
}

static int read_types(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    uint64_t n = gguf_array_nums(g, KEY("token_type"));
    if (n == 0) {
        use_types(t, NULL);
        return 0;
    }
    if (n != t->vocab.n)
        return err_set(err, SV_E_INVALID, KEY("token_type") " has %llu numbers for %u tokens",
                       (unsigned long long)n, t->vocab.n);
    double *types = xcalloc(n, sizeof *types);
    gguf_array_get_nums(g, KEY("token_type"), types, n);
    use_types(t, types);
    xfree(types);
    return 0;
}

// "left right": the first space that is not the first byte parts them.
static int read_merges(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    uint64_t n = gguf_array_strs(g, KEY("merges"));
    if (n == 0 || n > BPE_MERGES)
        return err_set(err, SV_E_INVALID, KEY("merges") " has %llu texts; 1 to %d are allowed",
                       (unsigned long long)n, BPE_MERGES);
    struct bytes *merges = xcalloc(n, sizeof *merges);
    int rc = 0;
    gguf_array_get_strs(g, KEY("merges"), merges, n);
    bpe_init(&t->bpe, (uint32_t)n);
    t->bpe.keep_first = true;
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        struct bytes m = merges[i];
        const char *space = m.n > 1 ? memchr(m.p + 1, ' ', m.n - 1) : NULL;
        if (!space) {
            rc = err_set(err, SV_E_INVALID, "merge %llu has no space in it", (unsigned long long)i);
            break;
        }
        struct bytes left = {m.p, (size_t)(space - m.p)};
        struct bytes right = {space + 1, m.n - left.n - 1};
        rc = bpe_add_merge(&t->bpe, &t->vocab, left, right, err);
    }
    if (rc == 0)
        rc = bpe_end_merges(&t->bpe, &t->vocab, err);
    xfree(merges);
    return rc < 0 ? err_ctx(err, KEY("merges")) : 0;
}

static int read_id(const struct tokenizer *t, const struct gguf *g, const char *key, int32_t *ret,
                   struct err *err)
{
    uint64_t id;
    if (!gguf_u64(g, key, &id))
        return 0;
    if (id >= t->vocab.n)
        return err_set(err, SV_E_INVALID, "%s is %llu; there are %u tokens", key,
                       (unsigned long long)id, t->vocab.n);
    *ret = (int32_t)id;
    return 0;
}

// bos and eos, and whether they are put around a text; `bos` and `eos` are what holds without keys.
static int read_around(struct tokenizer *t, const struct gguf *g, bool bos, bool eos,
                       struct err *err)
{
    int rc = read_id(t, g, KEY("bos_token_id"), &t->bos, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("eos_token_id"), &t->eos, err);
    if (rc < 0)
        return rc;
    gguf_bool(g, KEY("add_bos_token"), &bos);
    gguf_bool(g, KEY("add_eos_token"), &eos);
    if (t->bos >= (int32_t)t->vocab.n || t->eos >= (int32_t)t->vocab.n) // where no key says which
        return err_set(err, SV_E_INVALID, "bos is %d and eos %d; there are %u tokens", t->bos,
                       t->eos, t->vocab.n);
    if ((bos && t->bos < 0) || (eos && t->eos < 0))
        return err_set(err, SV_E_INVALID,
                       KEY("add_%s_token") " is true, but there is no such token",
                       bos && t->bos < 0 ? "bos" : "eos");
    if (bos)
        t->head[t->n_head++] = t->bos;
    if (eos)
        t->tail[t->n_tail++] = t->eos;
    return 0;
}

static int read_gpt2(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct bytes name = {"default", 7};
    const struct gguf_pre *pre;
    gguf_str(g, KEY("pre"), &name);
    int rc = gguf_pre_find(name, &pre, err);
    if (rc == 0)
        rc = read_tokens(t, g, err);
    if (rc == 0)
        rc = read_merges(t, g, err);
    if (rc == 0)
        rc = read_types(t, g, err);
    for (uint32_t i = 0; rc == 0 && i < GGUF_PRE_PATTERNS && pre->patterns[i]; i++)
        rc = pretok_add_regex(&t->pretok, pre->patterns[i], strlen(pre->patterns[i]), KEEP_ISOLATED,
                              false, err);
    if (rc == 0)
        rc = pretok_add_bytelevel(&t->pretok, false, false, err);
    if (rc == 0)
        rc = read_around(t, g, pre->bos, false, err);
    t->model = MODEL_BPE;
    t->bpe.ignore_merges = pre && rc == 0 && pre->ignore_merges;
    t->decoder.bytes = BYTES_LEVEL;
    return rc;
}

// Scores into t->spm or t->unigram. For the latter the lowest of normal pieces counts.
static int read_scores(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    uint64_t n = gguf_array_nums(g, KEY("scores"));
    if (n != t->vocab.n)
        return err_set(err, SV_E_INVALID, KEY("scores") " has %llu numbers for %u tokens",
                       (unsigned long long)n, t->vocab.n);
    double *scores = xcalloc(n, sizeof *scores);
    gguf_array_get_nums(g, KEY("scores"), scores, n);
    if (t->model == MODEL_SPM) {
        t->spm.score = xcalloc(n, sizeof *t->spm.score);
        for (uint64_t i = 0; i < n; i++)
            t->spm.score[i] = (float)scores[i];
        xfree(scores);
        return 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        t->unigram.score[i] = scores[i];
        bool normal = (t->vocab.flags[i] & (VOCAB_MODEL | VOCAB_ADDED)) == VOCAB_MODEL;
        if (normal && scores[i] < t->unigram.lowest)
            t->unigram.lowest = scores[i];
    }
    xfree(scores);
    return 0;
}

static int add_literal(struct tokenizer *t, enum normalize_kind kind, const char *from,
                       const char *to, struct err *err)
{
    struct normalize_step *s;
    int rc = normalizer_add(&t->normalizer, kind, &s, err);
    if (rc != 0)
        return rc;
    s->from = xstrdup(from);
    s->from_n = strlen(from);
    s->to = xstrdup(to);
    s->to_n = strlen(to);
    return 0;
}

// SentencePiece's spaces: one before the text, and all written as U+2581.
static int add_spaces(struct tokenizer *t, const struct gguf *g, bool runs, struct err *err)
{
    static const struct decoder_step leading = {
        .kind = DECODE_LEADING, .from = "\xe2\x96\x81", .from_n = 3};
    static const struct decoder_step spaces = {
        .kind = DECODE_REPLACE, .from = "\xe2\x96\x81", .from_n = 3, .to = " ", .to_n = 1};
    bool prefix = true;
    int rc = 0;
    gguf_bool(g, KEY("add_space_prefix"), &prefix);
    if (prefix)
        rc = add_literal(t, NORMALIZE_PREPEND, "", spaces.from, err);
    if (rc == 0)
        rc = add_literal(t, NORMALIZE_REPLACE, " ", spaces.from, err);
    if (prefix || runs) {
        t->decoder.steps[t->decoder.n] = leading;
        t->decoder.steps[t->decoder.n++].flag = runs;
    }
    t->decoder.steps[t->decoder.n++] = spaces;
    t->decoder.bytes = BYTES_FALLBACK;
    return rc;
}

static int read_llama(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    t->model = MODEL_SPM;
    t->spm.unknown = 0;
    t->bos = 1;
    t->eos = 2;
    int rc = read_tokens(t, g, err);
    if (rc == 0)
        rc = read_scores(t, g, err);
    if (rc == 0)
        rc = read_types(t, g, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("unknown_token_id"), &t->spm.unknown, err);
    if (rc == 0)
        rc = add_spaces(t, g, false, err);
    return rc < 0 ? rc : read_around(t, g, true, false, err);
}

static int read_charsmap(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct normalize_step *s;
    uint64_t n = gguf_array_nums(g, KEY("precompiled_charsmap"));
    if (n == 0)
        return 0;
    if (n > CHARSMAP_MAX)
        return err_set(err, SV_E_INVALID, KEY("precompiled_charsmap") " has %llu bytes; at most %d",
                       (unsigned long long)n, CHARSMAP_MAX);
    int rc = normalizer_add(&t->normalizer, NORMALIZE_CHARSMAP, &s, err);
    if (rc != 0)
        return rc;
    double *numbers = xcalloc(n, sizeof *numbers);
    unsigned char *bytes = xcalloc(n, 1);
    gguf_array_get_nums(g, KEY("precompiled_charsmap"), numbers, n);
    for (uint64_t i = 0; i < n; i++) // int8 or uint8
        bytes[i] = (unsigned char)((int)(numbers[i] >= -128 && numbers[i] < 256 ? numbers[i] : 0));
    s->longest = true;
    rc = charsmap_init(&s->map, bytes, n, err);
    xfree(bytes);
    xfree(numbers);
    return rc;
}

static int read_t5(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct normalize_step *s;
    bool runs = false; // of spaces become one
    t->model = MODEL_UNIGRAM;
    t->eos = 1;
    int rc = read_tokens(t, g, err);
    if (rc < 0)
        return rc;
    unigram_init(&t->unigram, t->vocab.n);
    t->unigram.single = t->unigram.byte_fallback = true;
    t->unigram.unknown = 2;
    rc = read_types(t, g, err);
    if (rc == 0)
        rc = read_scores(t, g, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("unknown_token_id"), &t->unigram.unknown, err);
    if (rc == 0 && (uint32_t)t->unigram.unknown >= t->vocab.n)
        rc = err_set(err, SV_E_INVALID, "there is no " KEY("unknown_token_id"));
    if (rc == 0)
        rc = read_charsmap(t, g, err);
    gguf_bool(g, KEY("remove_extra_whitespaces"), &runs);
    if (rc == 0 && runs)
        rc = normalizer_add(&t->normalizer, NORMALIZE_SPACES, &s, err);
    if (rc == 0)
        rc = add_spaces(t, g, runs, err);
    return rc < 0 ? rc : read_around(t, g, false, true, err);
}

// llama.cpp writes BERT's pieces as "U+2581 word" and "going on"; here they are "word" and "##going
// on" again. Those in brackets stay as they are.
static int read_bert_tokens(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct vocab old;
    int rc = read_tokens(t, g, err);
    if (rc < 0)
        return rc;
    old = t->vocab;
    struct buf text = {0};
    vocab_init(&t->vocab, old.n, buf_len(&old.texts) + 2 * (size_t)old.n);
    for (int32_t i = 0; rc == 0 && (uint32_t)i < old.n; i++) {
        struct bytes piece = vocab_text(&old, i);
        bool begins = piece.n >= 3 && memcmp(piece.p, "\xe2\x96\x81", 3) == 0;
        bool whole = piece.n >= 2 && piece.p[0] == '[' && piece.p[piece.n - 1] == ']';
        buf_clear(&text);
        if (!begins && !whole)
            buf_puts(&text, "##");
        buf_put(&text, piece.p + (begins ? 3 : 0), piece.n - (begins ? 3 : 0));
        rc = vocab_set(&t->vocab, i, buf_len(&text) ? buf_head(&text) : "", buf_len(&text), err);
    }
    buf_finish(&text);
    vocab_finish(&old);
    return rc < 0 ? err_ctx(err, KEY("tokens")) : 0;
}

static int add_bert_steps(struct tokenizer *t, struct err *err)
{
    static const enum normalize_kind kinds[] = {NORMALIZE_CLEAN, NORMALIZE_HAN,
                                                NORMALIZE_NONSPACING, NORMALIZE_LOWER};
    struct normalize_step *z;
    struct pretok_step *p;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int rc = normalizer_add(&t->normalizer, kinds[i], &z, err);
        if (rc < 0)
            return rc;
    }
    int rc = pretok_add(&t->pretok, &p, err);
    if (rc != 0)
        return rc;
    *p = (struct pretok_step){.kind = PRETOK_SPLIT, .match = MATCH_SPACE, .keep = KEEP_NOT};
    rc = pretok_add(&t->pretok, &p, err);
    if (rc == 0)
        *p = (struct pretok_step){
            .kind = PRETOK_SPLIT, .match = MATCH_PUNCTUATION, .keep = KEEP_ISOLATED};
    t->decoder.steps[0] =
        (struct decoder_step){.kind = DECODE_WORDPIECE, .from = "##", .from_n = 2, .flag = true};
    t->decoder.n = 1;
    return rc;
}

// [CLS] before and [SEP] behind, by the ids that BERT has where no key says otherwise.
static int read_bert(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    int32_t cls = 101, sep = 102;
    t->model = MODEL_WORDPIECE;
    t->wordpiece = (struct wordpiece){xstrdup("##"), 100, 100};
    int rc = read_bert_tokens(t, g, err);
    if (rc == 0)
        rc = read_types(t, g, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("bos_token_id"), &cls, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("cls_token_id"), &cls, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("seperator_token_id"), &sep, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("unknown_token_id"), &t->wordpiece.unknown, err);
    if (rc == 0)
        rc = add_bert_steps(t, err);
    if (rc < 0)
        return rc;
    if ((uint32_t)cls >= t->vocab.n || (uint32_t)sep >= t->vocab.n ||
        (uint32_t)t->wordpiece.unknown >= t->vocab.n)
        return err_set(err, SV_E_INVALID,
                       "the ids of [CLS] (%d), [SEP] (%d) or [UNK] (%d) are no "
                       "tokens; there are %u",
                       cls, sep, t->wordpiece.unknown, t->vocab.n);
    t->head[t->n_head++] = cls;
    t->tail[t->n_tail++] = sep;
    return 0;
}

static int read_model(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    static const struct {
        const char *name;
        int (*read)(struct tokenizer *t, const struct gguf *g, struct err *err);
    } kinds[] = {{"gpt2", read_gpt2}, {"llama", read_llama}, {"t5", read_t5}, {"bert", read_bert}};
    struct bytes model;
    if (!gguf_str(g, KEY("model"), &model))
        return err_set(err, SV_E_INVALID, "the file has no " KEY("model"));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (model.n != strlen(kinds[i].name) || memcmp(model.p, kinds[i].name, model.n) != 0)
            continue;
        int rc = kinds[i].read(t, g, err);
        return rc < 0 ? rc : tokenizer_seal(t, err);
    }
    return err_set(err, SV_E_UNSUPPORTED,
                   KEY("model") " '%.*s' is not known; bert, gpt2, llama and t5 are",
                   (int)(model.n < 40 ? model.n : 40), model.p);
}

int tokenizer_from_gguf(const struct gguf *g, struct tokenizer **ret, struct err *err)
{
    struct tokenizer *t = tokenizer_create();
    int rc = read_model(t, g, err);
    if (rc < 0) {
        tokenizer_destroy(t);
        return err_ctx(err, "the tokenizer in '%s'", tensors_path(gguf_tensors(g)));
    }
    *ret = t;
    return 0;
}
