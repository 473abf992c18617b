// SPDX-License-Identifier: Apache-2.0
/*
 * tokenizer.json of huggingface/tokenizers: the added tokens. Its other parts are in
 * tokenizer_json_*.c.
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
    int rc = tokenizer_json_model(t, json_get(root, "model"), err);
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
    yyjson_doc *doc = NULL;
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
