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

enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 }; // of token_type

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

static int read_types(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    uint64_t n = gguf_array_nums(g, KEY("token_type"));
    if (n == 0)
        return 0;
    if (n != t->vocab.n)
        return err_set(err, SV_E_INVALID, KEY("token_type") " has %llu numbers for %u tokens",
                       (unsigned long long)n, t->vocab.n);
    double *types = xcalloc(n, sizeof *types);
    gguf_array_get_nums(g, KEY("token_type"), types, n);
    for (uint64_t i = 0; i < n; i++) {
        struct added_token like = {.id = (int32_t)i};
        like.special = types[i] == TYPE_CONTROL || types[i] == TYPE_UNKNOWN;
        if (like.special || types[i] == TYPE_USER)
            tokenizer_put_added(t, &like, false);
    }
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

static int read_model(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct bytes model;
    if (!gguf_str(g, KEY("model"), &model))
        return err_set(err, SV_E_INVALID, "the file has no " KEY("model"));
    int rc;
    if (model.n == 4 && memcmp(model.p, "gpt2", 4) == 0)
        rc = read_gpt2(t, g, err);
    else
        return err_set(err, SV_E_UNSUPPORTED, KEY("model") " '%.*s' is not known; gpt2 is",
                       (int)(model.n < 40 ? model.n : 40), model.p);
    if (rc == 0)
        rc = read_types(t, g, err);
    return rc < 0 ? rc : tokenizer_seal(t, err);
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
