// SPDX-License-Identifier: Apache-2.0
/*
 * tokenizer.json: post_processor and decoder, and what its lists of steps have in common. Sequences
 * may nest: the depth of the JSON bounds that, and each list of steps has a bound of its own.
 */
#include "llm/tokenizer_parts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "common/json.h"

#include <string.h>

int tokenizer_json_unknown(const char *what, const char *type, const char *known, struct err *err)
{
    return err_set(err, SV_E_UNSUPPORTED, "%s '%.40s' is not known; these are: %s", what,
                   type ? type : "without a type", known);
}

// Calls one() with each member of a Sequence, or with the thing itself.
int tokenizer_json_each(struct tokenizer *t, yyjson_val *json, const char *list,
                        int (*one)(struct tokenizer *t, yyjson_val *json, const char *type,
                                   struct err *err),
                        struct err *err)
{
    const char *type = json_str(json, "type", NULL);
    if (!json || yyjson_is_null(json))
        return 0;
    if (!type || strcmp(type, "Sequence") != 0)
        return one(t, json, type, err);
    yyjson_arr_iter it;
    yyjson_val *e;
    yyjson_arr_iter_init(json_get(json, list), &it);
    while ((e = yyjson_arr_iter_next(&it))) {
        int rc = tokenizer_json_each(t, e, list, one, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int add_around(struct tokenizer *t, bool tail, int64_t id, struct err *err)
{
    uint32_t *n = tail ? &t->n_tail : &t->n_head;
    if (!vocab_has(&t->vocab, (int32_t)id, VOCAB_SET) || id > INT32_MAX)
        return err_set(err, SV_E_INVALID, "%lld is no token's id", (long long)id);
    if (*n == TOKENIZER_AROUND)
        return err_set(err, SV_E_INVALID, "more than %d tokens beside the text", TOKENIZER_AROUND);
    (tail ? t->tail : t->head)[(*n)++] = (int32_t)id;
    return 0;
}

// {"SpecialToken": {"id": "<s>"}}: the ids that special_tokens["<s>"] lists.
static int read_template_token(struct tokenizer *t, yyjson_val *json, yyjson_val *name, bool tail,
                               struct err *err)
{
    yyjson_val *map = json_get(json, "special_tokens");
    const char *key = yyjson_is_str(name) ? yyjson_get_str(name) : "";
    yyjson_val *ids = json_get(json_get(map, key), "ids"), *id;
    yyjson_arr_iter it;
    if (!yyjson_is_arr(ids))
        return err_set(err, SV_E_INVALID, "special_tokens has no ids for '%.40s'", key);
    yyjson_arr_iter_init(ids, &it);
    while ((id = yyjson_arr_iter_next(&it))) {
        int rc = add_around(t, tail, yyjson_is_int(id) ? yyjson_get_sint(id) : -1, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_template(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    yyjson_arr_iter it;
    yyjson_val *e;
    bool tail = false;
    yyjson_arr_iter_init(json_get(json, "single"), &it);
    while ((e = yyjson_arr_iter_next(&it))) {
        yyjson_val *special = json_get(e, "SpecialToken");
        if (json_get(e, "Sequence") && tail)
            return err_set(err, SV_E_UNSUPPORTED, "the text stands twice in 'single'");
        if (json_get(e, "Sequence")) {
            tail = true;
            continue;
        }
        int rc = read_template_token(t, json, json_get(special, "id"), tail, err);
        if (rc < 0)
            return rc;
    }
    return tail ? 0 : err_set(err, SV_E_INVALID, "the text is not in 'single'");
}

// ["</s>", 2]: the id counts.
static int read_cls_sep(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    yyjson_val *cls = yyjson_arr_get(json_get(json, "cls"), 1);
    yyjson_val *sep = yyjson_arr_get(json_get(json, "sep"), 1);
    int rc = add_around(t, false, yyjson_is_int(cls) ? yyjson_get_sint(cls) : -1, err);
    return rc < 0 ? rc : add_around(t, true, yyjson_is_int(sep) ? yyjson_get_sint(sep) : -1, err);
}

static int read_post(struct tokenizer *t, yyjson_val *json, const char *type, struct err *err)
{
    if (type && strcmp(type, "ByteLevel") == 0)
        return 0; // changes offsets alone
    if (t->n_head + t->n_tail > 0)
        return err_set(err, SV_E_UNSUPPORTED, "two steps that put tokens around the text");
    if (type && strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, json, err);
    if (type && (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0))
        return read_cls_sep(t, json, err);
    return tokenizer_json_unknown("type", type,
                                  "BertProcessing, ByteLevel, RobertaProcessing, Sequence, "
                                  "TemplateProcessing",
                                  err);
}

int tokenizer_json_post(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    int rc = tokenizer_json_each(t, json, "processors", read_post, err);
    return rc < 0 ? err_ctx(err, "post_processor") : 0;
}

static int copy_literal(char *to, uint8_t *n, struct bytes text, const char *what, struct err *err)
{
    if (!text.p || text.n >= DECODER_LITERAL)
        return err_set(err, SV_E_UNSUPPORTED, "%s: a text of at most %d bytes is wanted", what,
                       DECODER_LITERAL - 1);
    memcpy(to, text.p, text.n);
    *n = (uint8_t)text.n;
    return 0;
}

static int read_strip(struct decoder *d, struct decoder_step *s, yyjson_val *json, bool fused,
                      struct err *err)
{
    int64_t left = json_int(json, "start", 0), right = json_int(json, "stop", 0);
    int rc = copy_literal(s->from, &s->from_n, tokenizer_json_text(json_get(json, "content")),
                          "Strip", err);
    if (rc < 0)
        return rc;
    if (left < 0 || right < 0 || left > 255 || right > 255 || s->from_n == 0 || s->from_n > 4)
        return err_set(err, SV_E_UNSUPPORTED, "Strip: one character, 0 to 255 times");
    if (!fused) {
        s->left = (uint8_t)left;
        s->right = (uint8_t)right;
        d->n++;
        return 0;
    }
    if (right > 0 || d->strip_n > 0)
        return err_set(err, SV_E_UNSUPPORTED, "Strip at the end of the whole text");
    memcpy(d->strip, s->from, s->from_n);
    d->strip_n = (uint8_t)left;
    return 0;
}

// A step on each token by itself; it has to come before bytes are put together.
static int read_token_step(struct decoder_step *s, yyjson_val *json, const char *type,
                           struct err *err)
{
    struct bytes text;
    enum pretok_prepend prepend;
    int rc;
    if (strcmp(type, "Replace") == 0) {
        s->kind = DECODE_REPLACE;
        text = tokenizer_json_text(json_at(json, "pattern.String"));
        rc = copy_literal(s->to, &s->to_n, tokenizer_json_text(json_get(json, "content")), type,
                          err);
    } else if (strcmp(type, "Metaspace") == 0) {
        s->kind = DECODE_METASPACE;
        text = tokenizer_json_text(json_get(json, "replacement"));
        rc = tokenizer_json_scheme(json, &prepend, err);
        s->flag = rc == 0 && prepend != PREPEND_NEVER;
    } else if (strcmp(type, "WordPiece") == 0) {
        s->kind = DECODE_WORDPIECE;
        text = tokenizer_json_text(json_get(json, "prefix"));
        s->flag = json_bool(json, "cleanup", true);
        rc = 0;
    } else {
        s->kind = DECODE_SUFFIX;
        text = tokenizer_json_text(json_get(json, "suffix"));
        rc = 0;
    }
    return rc < 0 ? rc : copy_literal(s->from, &s->from_n, text, type, err);
}

static int read_decoder(struct tokenizer *t, yyjson_val *json, const char *type, struct err *err)
{
    struct decoder *d = &t->decoder;
    if (!type)
        return tokenizer_json_unknown("decoder", NULL, "those with a type", err);
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "ByteFallback") == 0) {
        if (d->bytes != BYTES_TEXT || d->fused)
            return err_set(err, SV_E_UNSUPPORTED, "a second step that puts bytes together");
        d->bytes = type[4] == 'L' ? BYTES_LEVEL : BYTES_FALLBACK;
        d->fused = d->bytes == BYTES_LEVEL;
        return 0;
    }
    if (strcmp(type, "Fuse") == 0) {
        d->fused = true;
        return 0;
    }
    bool strip = strcmp(type, "Strip") == 0;
    if (!strip && strcmp(type, "Replace") != 0 && strcmp(type, "Metaspace") != 0 &&
        strcmp(type, "WordPiece") != 0 && strcmp(type, "BPEDecoder") != 0)
        return tokenizer_json_unknown(
            "decoder", type,
            "BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace (of a "
            "String), Sequence, Strip, WordPiece",
            err);
    if (d->n == DECODER_STEPS || (d->fused && !strip))
        return err_set(err, SV_E_UNSUPPORTED, "%s on the whole text, or more than %d steps", type,
                       DECODER_STEPS);
    struct decoder_step *s = &d->steps[d->n];
    *s = (struct decoder_step){.kind = DECODE_STRIP};
    if (strip)
        return read_strip(d, s, json, d->fused, err);
    int rc = read_token_step(s, json, type, err);
    d->n += rc == 0;
    return rc;
}

int tokenizer_json_decoder(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    int rc = tokenizer_json_each(t, json, "decoders", read_decoder, err);
    if (rc < 0)
        return err_ctx(err, "decoder");
    t->decoder.spaced = !json || yyjson_is_null(json);
    return 0;
}
