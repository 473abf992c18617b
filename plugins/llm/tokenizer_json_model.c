// SPDX-License-Identifier: Apache-2.0
/*
 * tokenizer.json: the model, which is its vocabulary and how words are made of it.
 */
#include "llm/tokenizer_parts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"

#include <string.h>

// {"text": id, ...}
static int read_vocab_map(struct tokenizer *t, yyjson_val *map, struct err *err)
{
    yyjson_obj_iter it;
    yyjson_val *k;
    if (!yyjson_is_obj(map))
        return err_set(err, SV_E_INVALID, "model.vocab is no object");
    size_t n = yyjson_obj_size(map);
    if (n > TOKENIZER_VOCAB)
        return err_set(err, SV_E_INVALID, "model.vocab has %zu tokens; at most %d", n,
                       TOKENIZER_VOCAB);
    vocab_init(&t->vocab, (uint32_t)n + 1024, n * 8);
    yyjson_obj_iter_init(map, &it);
    while ((k = yyjson_obj_iter_next(&it))) {
        yyjson_val *id = yyjson_obj_iter_get_val(k);
        if (!yyjson_is_int(id) || yyjson_get_uint(id) > INT32_MAX)
            return err_set(err, SV_E_INVALID, "model.vocab: the id of '%.60s' is no number of one",
                           yyjson_get_str(k));
        int rc =
            vocab_set(&t->vocab, yyjson_get_sint(id), yyjson_get_str(k), yyjson_get_len(k), err);
        if (rc < 0)
            return err_ctx(err, "model.vocab");
        t->vocab.flags[yyjson_get_sint(id)] |= VOCAB_MODEL;
    }
    return 0;
}

// "left right" with one space, or ["left", "right"].
static bool read_pair(yyjson_val *m, struct bytes *left, struct bytes *right)
{
    if (yyjson_is_arr(m) && yyjson_arr_size(m) == 2) {
        *left = tokenizer_json_text(yyjson_arr_get(m, 0));
        *right = tokenizer_json_text(yyjson_arr_get(m, 1));
        return left->p && right->p;
    }
    struct bytes all = tokenizer_json_text(m);
    const char *space = all.p ? memchr(all.p, ' ', all.n) : NULL;
    if (!space)
        return false;
    *left = (struct bytes){all.p, (size_t)(space - all.p)};
    *right = (struct bytes){space + 1, all.n - left->n - 1};
    return !memchr(right->p, ' ', right->n);
}

static int read_merges(struct tokenizer *t, yyjson_val *merges, struct err *err)
{
    yyjson_arr_iter it;
    yyjson_val *m;
    if (!yyjson_is_arr(merges) || yyjson_arr_size(merges) > BPE_MERGES)
        return err_set(err, SV_E_INVALID, "model.merges is no array of at most %d", BPE_MERGES);
    yyjson_arr_iter_init(merges, &it);
    while ((m = yyjson_arr_iter_next(&it))) {
        struct bytes left, right;
        if (!read_pair(m, &left, &right))
            return err_set(err, SV_E_INVALID, "model.merges: entry %u is no pair of texts",
                           t->bpe.n);
        int rc = bpe_add_merge(&t->bpe, &t->vocab, left, right, err);
        if (rc < 0)
            return err_ctx(err, "model.merges");
    }
    int rc = bpe_end_merges(&t->bpe, &t->vocab, err);
    return rc < 0 ? err_ctx(err, "model.merges") : 0;
}

// A text of the model that may be null or absent. Empty is the same as absent.
static char *copy_text(yyjson_val *model, const char *key)
{
    struct bytes s = tokenizer_json_text(json_get(model, key));
    return s.n ? xstrndup(s.p, s.n) : NULL;
}

static int read_unknown(struct tokenizer *t, yyjson_val *model, int32_t *ret, struct err *err)
{
    struct bytes s = tokenizer_json_text(json_get(model, "unk_token"));
    if (!s.p)
        return 0;
    *ret = vocab_find(&t->vocab, s.p, s.n);
    if (*ret < 0)
        return err_set(err, SV_E_INVALID, "model.unk_token '%.60s' is not in the vocabulary", s.p);
    return 0;
}

static int read_bpe(struct tokenizer *t, yyjson_val *model, struct err *err)
{
    yyjson_val *merges = json_get(model, "merges");
    size_t n = yyjson_is_arr(merges) ? yyjson_arr_size(merges) : 0;
    if (json_num(model, "dropout", 0) != 0)
        return err_set(err, SV_E_UNSUPPORTED, "model.dropout is not 0: its ids would be random");
    int rc = read_vocab_map(t, json_get(model, "vocab"), err);
    if (rc < 0)
        return rc;
    bpe_init(&t->bpe, n > BPE_MERGES ? 0 : (uint32_t)n);
    t->bpe.prefix = copy_text(model, "continuing_subword_prefix");
    t->bpe.suffix = copy_text(model, "end_of_word_suffix");
    t->bpe.fuse_unknown = json_bool(model, "fuse_unk", false);
    t->bpe.byte_fallback = json_bool(model, "byte_fallback", false);
    t->bpe.ignore_merges = json_bool(model, "ignore_merges", false);
    t->model = MODEL_BPE;
    rc = read_unknown(t, model, &t->bpe.unknown, err);
    return rc < 0 ? rc : read_merges(t, merges, err);
}

// [["text", score], ...]: the place is the id.
static int read_scores(struct tokenizer *t, yyjson_val *list, struct err *err)
{
    yyjson_arr_iter it;
    yyjson_val *e;
    size_t n = yyjson_is_arr(list) ? yyjson_arr_size(list) : 0;
    if (n == 0 || n > TOKENIZER_VOCAB)
        return err_set(err, SV_E_INVALID, "model.vocab has %zu tokens; 1 to %d are allowed", n,
                       TOKENIZER_VOCAB);
    vocab_init(&t->vocab, (uint32_t)n + 1024, n * 8);
    unigram_init(&t->unigram, (uint32_t)n);
    yyjson_arr_iter_init(list, &it);
    for (int32_t id = 0; (e = yyjson_arr_iter_next(&it)); id++) {
        struct bytes text = tokenizer_json_text(yyjson_arr_get(e, 0));
        yyjson_val *score = yyjson_arr_get(e, 1);
        if (!text.p || !yyjson_is_num(score))
            return err_set(err, SV_E_INVALID, "model.vocab: entry %d is no text and number", id);
        int rc = vocab_set(&t->vocab, id, text.p, text.n, err);
        if (rc < 0)
            return err_ctx(err, "model.vocab");
        t->vocab.flags[id] |= VOCAB_MODEL;
        t->unigram.score[id] = yyjson_get_num(score);
        if (t->unigram.score[id] < t->unigram.lowest)
            t->unigram.lowest = t->unigram.score[id];
    }
    return 0;
}

static int read_unigram(struct tokenizer *t, yyjson_val *model, struct err *err)
{
    int64_t unknown = json_int(model, "unk_id", -1);
    int rc = read_scores(t, json_get(model, "vocab"), err);
    if (rc < 0)
        return rc;
    if (unknown < 0 || unknown >= t->vocab.n)
        return err_set(err, SV_E_INVALID, "model.unk_id is %lld; it must be an id below %u",
                       (long long)unknown, t->vocab.n);
    t->unigram.unknown = (int32_t)unknown;
    t->unigram.byte_fallback = json_bool(model, "byte_fallback", false);
    t->model = MODEL_UNIGRAM;
    return 0;
}

static int read_wordpiece(struct tokenizer *t, yyjson_val *model, struct err *err)
{
    int64_t most = json_int(model, "max_input_chars_per_word", 100);
    struct bytes prefix = tokenizer_json_text(json_get(model, "continuing_subword_prefix"));
    int rc = read_vocab_map(t, json_get(model, "vocab"), err);
    if (rc < 0)
        return rc;
    if (most < 0 || most > UINT32_MAX || prefix.n > TOKENIZER_PIECE)
        return err_set(err, SV_E_INVALID,
                       "model.max_input_chars_per_word is %lld, the prefix has %zu bytes",
                       (long long)most, prefix.n);
    t->wordpiece.most = (uint32_t)most;
    t->wordpiece.prefix = prefix.p ? xstrndup(prefix.p, prefix.n) : xstrdup("##");
    t->wordpiece.unknown = -1;
    t->model = MODEL_WORDPIECE;
    rc = read_unknown(t, model, &t->wordpiece.unknown, err);
    if (rc == 0 && t->wordpiece.unknown < 0)
        return err_set(err, SV_E_INVALID, "model.unk_token is missing");
    return rc;
}

// Files from before there was a type are told apart by what they have.
static const char *guess_type(yyjson_val *model)
{
    if (json_get(model, "merges"))
        return "BPE";
    return yyjson_is_arr(json_get(model, "vocab")) ? "Unigram" : "WordPiece";
}

int tokenizer_json_model(struct tokenizer *t, yyjson_val *model, struct err *err)
{
    if (!yyjson_is_obj(model))
        return err_set(err, SV_E_INVALID, "there is no model");
    const char *type = json_str(model, "type", guess_type(model));
    if (strcmp(type, "BPE") == 0)
        return read_bpe(t, model, err);
    if (strcmp(type, "Unigram") == 0)
        return read_unigram(t, model, err);
    if (strcmp(type, "WordPiece") == 0)
        return read_wordpiece(t, model, err);
    return err_set(err, SV_E_UNSUPPORTED,
                   "model.type '%.40s' is not known; BPE, Unigram and WordPiece are", type);
}
