// SPDX-License-Identifier: Apache-2.0
/*
 * tokenizer.json: normalizer and pre_tokenizer.
 */
#include "llm/tokenizer_parts.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"

#include <string.h>

// \w of Rust's regex, which reads the Whitespace pre-tokenizer's pattern \w+|[^\w\s]+.
#define RUST_WORD                                                                                  \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"  \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

enum { REWRITES = 4 }; // steps that may make the text longer

static void copy(char **to, size_t *to_n, struct bytes text)
{
    *to = xrealloc(NULL, text.n + 1);
    if (text.n)
        memcpy(*to, text.p, text.n);
    *to_n = text.n;
}

static int add_form(struct tokenizer *t, const char *type, struct err *err)
{
    struct normalize_step *s;
    int rc = normalizer_add(&t->normalizer, NORMALIZE_FORM, &s, err);
    if (rc == 0) {
        s->compatible = type[2] == 'K';
        s->compose = type[strlen(type) - 1] == 'C';
    }
    return rc;
}

static int read_replace(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct normalize_step *s;
    struct bytes regex = tokenizer_json_text(json_at(json, "pattern.Regex"));
    struct bytes from = tokenizer_json_text(json_at(json, "pattern.String"));
    struct bytes to = tokenizer_json_text(json_get(json, "content"));
    int rc = normalizer_add(&t->normalizer, NORMALIZE_REPLACE, &s, err);
    if (rc != 0)
        return rc;
    if (!to.p || to.n > NORMALIZE_LITERAL || from.n > NORMALIZE_LITERAL || (!regex.p && !from.n))
        return err_set(err, SV_E_INVALID, "Replace: texts of %zu and %zu bytes; 1 to %d", from.n,
                       to.n, NORMALIZE_LITERAL);
    copy(&s->to, &s->to_n, to);
    if (regex.p)
        return regex_create(regex.p, regex.n, &s->regex, err);
    copy(&s->from, &s->from_n, from);
    return 0;
}

static int read_prepend(struct tokenizer *t, yyjson_val *json, const char *type, struct err *err)
{
    struct normalize_step *s;
    bool append = strcmp(type, "Append") == 0;
    struct bytes to = tokenizer_json_text(json_get(json, append ? "append" : "prepend"));
    if (!to.p || to.n > NORMALIZE_LITERAL)
        return err_set(err, SV_E_INVALID, "%s: a text of at most %d bytes is wanted", type,
                       NORMALIZE_LITERAL);
    int rc = normalizer_add(&t->normalizer, append ? NORMALIZE_APPEND : NORMALIZE_PREPEND, &s, err);
    if (rc == 0)
        copy(&s->to, &s->to_n, to);
    return rc;
}

// BertNormalizer is up to four steps. Accents go when the case does, unless it is said otherwise.
static int read_bert_normalizer(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    bool lower = json_bool(json, "lowercase", true);
    const struct {
        bool on;
        enum normalize_kind kind;
    } steps[] = {
        {json_bool(json, "clean_text", true), NORMALIZE_CLEAN},
        {json_bool(json, "handle_chinese_chars", true), NORMALIZE_HAN},
        {json_bool(json, "strip_accents", lower), NORMALIZE_NONSPACING},
        {lower, NORMALIZE_LOWER},
    };
    struct normalize_step *s;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int rc = steps[i].on ? normalizer_add(&t->normalizer, steps[i].kind, &s, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_charsmap(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct normalize_step *s;
    struct bytes map = tokenizer_json_text(json_get(json, "precompiled_charsmap"));
    if (map.n == 0)
        return 0; // nothing is changed
    int rc = normalizer_add(&t->normalizer, NORMALIZE_CHARSMAP, &s, err);
    return rc < 0 ? rc : charsmap_init_base64(&s->map, map.p, map.n, err);
}

static int read_strip_normalizer(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct normalize_step *s;
    int rc = normalizer_add(&t->normalizer, NORMALIZE_STRIP, &s, err);
    if (rc == 0) {
        s->left = json_bool(json, "strip_left", true);
        s->right = json_bool(json, "strip_right", true);
    }
    return rc;
}

static int read_normalizer(struct tokenizer *t, yyjson_val *json, const char *type, struct err *err)
{
    static const struct {
        const char *type;
        enum normalize_kind kind;
    } plain[] = {
        {"Lowercase", NORMALIZE_LOWER},
        {"StripAccents", NORMALIZE_ACCENTS},
        {"Nmt", NORMALIZE_NMT},
        {"ByteLevel", NORMALIZE_BYTES},
    };
    struct normalize_step *s;
    if (!type)
        return tokenizer_json_unknown("type", NULL, "those with a type", err);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].type) == 0)
            return normalizer_add(&t->normalizer, plain[i].kind, &s, err);
    if (!strcmp(type, "NFC") || !strcmp(type, "NFD") || !strcmp(type, "NFKC") ||
        !strcmp(type, "NFKD"))
        return add_form(t, type, err);
    if (strcmp(type, "Replace") == 0)
        return read_replace(t, json, err);
    if (strcmp(type, "Prepend") == 0 || strcmp(type, "Append") == 0)
        return read_prepend(t, json, type, err);
    if (strcmp(type, "BertNormalizer") == 0)
        return read_bert_normalizer(t, json, err);
    if (strcmp(type, "Precompiled") == 0)
        return read_charsmap(t, json, err);
    if (strcmp(type, "Strip") == 0)
        return read_strip_normalizer(t, json, err);
    return tokenizer_json_unknown(
        "type", type,
        "Append, BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, "
        "Precompiled, Prepend, Replace, Sequence, Strip, StripAccents",
        err);
}

int tokenizer_json_normalizer(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    int rc = tokenizer_json_each(t, json, "normalizers", read_normalizer, err);
    return rc < 0 ? err_ctx(err, "normalizer") : 0;
}

static int read_keep(yyjson_val *json, enum pretok_keep *keep, struct err *err)
{
    static const char *const words[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    const char *word = json_str(json, "behavior", "Isolated");
    for (int i = 0; i < 5; i++)
        if (strcmp(word, words[i]) == 0) {
            *keep = (enum pretok_keep)i;
            return 0;
        }
    return err_set(err, SV_E_INVALID, "behavior '%.40s' is not known", word);
}

static int read_literal(struct pretok_step *s, struct bytes text, struct err *err)
{
    if (!text.p || text.n == 0 || text.n > PRETOK_LITERAL)
        return err_set(err, SV_E_INVALID, "a text of %zu bytes; 1 to %d are allowed", text.n,
                       PRETOK_LITERAL);
    s->literal = xrealloc(NULL, text.n);
    memcpy(s->literal, text.p, text.n);
    s->literal_n = text.n;
    return 0;
}

static int read_split(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    enum pretok_keep keep;
    struct pretok_step *s = NULL;
    struct bytes regex = tokenizer_json_text(json_at(json, "pattern.Regex"));
    bool invert = json_bool(json, "invert", false);
    int rc = read_keep(json, &keep, err);
    if (rc < 0)
        return rc;
    if (regex.p)
        return pretok_add_regex(&t->pretok, regex.p, regex.n, keep, invert, err);
    rc = pretok_add(&t->pretok, &s, err);
    if (rc != 0)
        return rc;
    *s = (struct pretok_step){
        .kind = PRETOK_SPLIT, .match = MATCH_LITERAL, .keep = keep, .invert = invert};
    return read_literal(s, tokenizer_json_text(json_at(json, "pattern.String")), err);
}

static int add_characters(struct tokenizer *t, enum pretok_match match, enum pretok_keep keep,
                          struct err *err)
{
    struct pretok_step *s = NULL;
    int rc = pretok_add(&t->pretok, &s, err);
    if (rc == 0)
        *s = (struct pretok_step){.kind = PRETOK_SPLIT, .match = match, .keep = keep};
    return rc;
}

int tokenizer_json_scheme(yyjson_val *json, enum pretok_prepend *ret, struct err *err)
{
    static const char *const words[] = {"always", "first", "never"};
    const char *word = json_str(json, "prepend_scheme", "always");
    for (int i = 0; i < 3; i++)
        if (strcmp(word, words[i]) == 0) {
            *ret = (enum pretok_prepend)i;
            if (!json_bool(json, "add_prefix_space", true)) // the older way to say "never"
                *ret = PREPEND_NEVER;
            return 0;
        }
    return err_set(err, SV_E_INVALID, "prepend_scheme '%.40s' is not known", word);
}

static int read_metaspace(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct pretok_step *s = NULL;
    enum pretok_prepend prepend;
    int rc = tokenizer_json_scheme(json, &prepend, err);
    if (rc == 0)
        rc = pretok_add(&t->pretok, &s, err);
    if (rc != 0)
        return rc;
    *s = (struct pretok_step){
        .kind = PRETOK_METASPACE, .prepend = prepend, .split = json_bool(json, "split", true)};
    struct bytes text = tokenizer_json_text(json_get(json, "replacement"));
    if (text.n > 4)
        return err_set(err, SV_E_INVALID, "Metaspace: replacement is not one character");
    return read_literal(s, text, err);
}

static int read_fixed(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct pretok_step *s = NULL;
    int64_t length = json_int(json, "length", 0);
    if (length < 1 || length > INT32_MAX)
        return err_set(err, SV_E_INVALID, "FixedLength: length is %lld; 1 at least",
                       (long long)length);
    int rc = pretok_add(&t->pretok, &s, err);
    if (rc == 0)
        *s = (struct pretok_step){.kind = PRETOK_FIXED, .length = (uint32_t)length};
    return rc;
}

static int read_delimiter(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    struct pretok_step *s = NULL;
    int rc = pretok_add(&t->pretok, &s, err);
    if (rc != 0)
        return rc;
    *s = (struct pretok_step){.kind = PRETOK_SPLIT, .match = MATCH_LITERAL, .keep = KEEP_NOT};
    return read_literal(s, tokenizer_json_text(json_get(json, "delimiter")), err);
}

static int read_bert(struct tokenizer *t, struct err *err)
{
    int rc = add_characters(t, MATCH_SPACE, KEEP_NOT, err);
    return rc < 0 ? rc : add_characters(t, MATCH_PUNCTUATION, KEEP_ISOLATED, err);
}

static int read_pretok(struct tokenizer *t, yyjson_val *json, const char *type, struct err *err)
{
    static const char words[] = "[" RUST_WORD "]+|[^\\s" RUST_WORD "]+";
    enum pretok_keep keep;
    if (!type)
        return tokenizer_json_unknown("pre_tokenizer", NULL, "those with a type", err);
    if (strcmp(type, "ByteLevel") == 0)
        return pretok_add_bytelevel(&t->pretok, json_bool(json, "add_prefix_space", true),
                                    json_bool(json, "use_regex", true), err);
    if (strcmp(type, "Split") == 0)
        return read_split(t, json, err);
    if (strcmp(type, "Digits") == 0)
        return add_characters(
            t, MATCH_DIGIT,
            json_bool(json, "individual_digits", false) ? KEEP_ISOLATED : KEEP_CONTIGUOUS, err);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, json, err);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_characters(t, MATCH_SPACE, KEEP_NOT, err);
    if (strcmp(type, "Whitespace") == 0)
        return pretok_add_regex(&t->pretok, words, sizeof words - 1, KEEP_NOT, true, err);
    if (strcmp(type, "BertPreTokenizer") == 0)
        return read_bert(t, err);
    if (strcmp(type, "Punctuation") == 0) {
        int rc = read_keep(json, &keep, err);
        return rc < 0 ? rc : add_characters(t, MATCH_PUNCTUATION, keep, err);
    }
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return read_delimiter(t, json, err);
    if (strcmp(type, "FixedLength") == 0)
        return read_fixed(t, json, err);
    return tokenizer_json_unknown(
        "pre_tokenizer", type,
        "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, "
        "Metaspace, Punctuation, Sequence, Split, Whitespace, WhitespaceSplit",
        err);
}

int tokenizer_json_pretok(struct tokenizer *t, yyjson_val *json, struct err *err)
{
    int rc = tokenizer_json_each(t, json, "pretokenizers", read_pretok, err), rewrites = 0;
    if (rc < 0)
        return err_ctx(err, "pre_tokenizer");
    for (uint32_t i = 0; i < t->pretok.n; i++)
        rewrites += t->pretok.steps[i].kind == PRETOK_BYTELEVEL ||
                    t->pretok.steps[i].kind == PRETOK_METASPACE;
    if (rewrites > REWRITES)
        return err_set(err, SV_E_INVALID,
                       "pre_tokenizer: %d steps that rewrite the text; at most %d", rewrites,
                       REWRITES);
    return 0;
}
