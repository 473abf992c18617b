// SPDX-License-Identifier: Apache-2.0
/*
 * tokenizer.json of huggingface/tokenizers: the model and the added tokens. Its other parts are in
 * tokenizer_json_steps.c.
 */
#include "llm/tokenizer_parts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"

#include <string.h>

struct bytes tokenizer_json_text(yyjson_val *s)
{
    return yyjson_is_str(s) ? (struct bytes){yyjson_get_str(s), yyjson_get_len(s)}
                            : (struct bytes){NULL, 0};
}

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

static int read_model(struct tokenizer *t, yyjson_val *model, struct err *err)
{
    const char *type = json_str(model, "type", NULL);
    if (!yyjson_is_obj(model))
        return err_set(err, SV_E_INVALID, "there is no model");
    if (!type)
        type =
            json_get(model, "merges") ? "BPE" : "WordPiece"; // files from before there was a type
    if (strcmp(type, "BPE") == 0)
        return read_bpe(t, model, err);
    return err_set(err, SV_E_UNSUPPORTED, "model.type '%.40s' is not known; BPE is", type);
}

static int read_added_one(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct bytes text = tokenizer_json_text(json_get(json, "content"));
    int64_t id = json_int(json, "id", -1);
    if (!text.p)
        return err_set(err, SV_E_INVALID, "added_tokens: an entry without content");
    int32_t have = vocab_find(&t->vocab, text.p, text.n);
    if (have >= 0) {
        id = have; // as `tokenizers` does, whatever the file says
    } else {
        int rc = vocab_set(&t->vocab, id, text.p, text.n, err);
        if (rc < 0)
            return err_ctx(err, "added_tokens");
    }
    struct added_token like = {.id = (int32_t)id,
                               .special = json_bool(json, "special", false),
                               .single_word = json_bool(json, "single_word", false),
                               .lstrip = json_bool(json, "lstrip", false),
                               .rstrip = json_bool(json, "rstrip", false)};
    tokenizer_put_added(t, &like, json_bool(json, "normalized", !like.special));
    return 0;
}

// Special ones first: of two with the same text after normalizing the first counts.
static int read_added(struct tokenizer *t, yyjson_val *list, struct err *err)
{
    for (int special = 1; special >= 0; special--) {
        yyjson_arr_iter it;
        yyjson_val *a;
        yyjson_arr_iter_init(list, &it);
        while ((a = yyjson_arr_iter_next(&it))) {
            if (json_bool(a, "special", false) != (special == 1))
                continue;
            int rc = read_added_one(t, a, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int read_all(struct tokenizer *t, yyjson_val *root, struct err *err)
{
    int rc = read_model(t, json_get(root, "model"), err);
    if (rc == 0)
        rc = read_added(t, json_get(root, "added_tokens"), err);
    if (rc == 0)
        rc = tokenizer_json_normalizer(t, json_get(root, "normalizer"), err);
    if (rc == 0)
        rc = tokenizer_json_pretok(t, json_get(root, "pre_tokenizer"), err);
    if (rc == 0)
        rc = tokenizer_json_post(t, json_get(root, "post_processor"), err);
    if (rc == 0)
        rc = tokenizer_json_decoder(t, json_get(root, "decoder"), err);
    return rc < 0 ? rc : tokenizer_seal(t, err);
}

int tokenizer_from_json(const char *text, size_t n, const char *file, struct tokenizer **ret,
                        struct err *err)
{
    yyjson_doc *doc;
    int rc = json_parse(text, n, TOKENIZER_JSON_MAX, &doc, err);
    if (rc < 0)
        return err_ctx(err, "reading '%s'", file);
    struct tokenizer *t = tokenizer_create();
    rc = read_all(t, yyjson_doc_get_root(doc), err);
    yyjson_doc_free(doc);
    if (rc < 0) {
        tokenizer_destroy(t);
        return err_ctx(err, "reading '%s'", file);
    }
    *ret = t;
    return 0;
}
