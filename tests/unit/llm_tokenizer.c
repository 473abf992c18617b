// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/err.h"
#include "base/str.h"
#include "llm/tokenizer_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// A byte-level BPE of a few letters and the bytes of U+1F600; PARTS come after the model.
#define LEVEL(PARTS)                                                                               \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"ab\":4,"      \
    "\"\\u0120a\":5,\"<\":6,\">\":7,\"\\u00f0\":8,\"\\u0141\":9,\"\\u013a\":10,\"\\u0122\":11,"    \
    "\"\\u00f0\\u0141\":12,\"\\u010a\":13,\"<>\":14},"                                             \
    "\"merges\":[[\"a\",\"b\"],[\"\\u0120\",\"a\"],[\"\\u00f0\",\"\\u0141\"],[\"<\",\">\"]]}"      \
    "," PARTS "}"
#define AROUND                                                                                     \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"                       \
    "\"decoder\":{\"type\":\"ByteLevel\"}"
#define ADDED(ID, TEXT, FLAGS) "{\"id\":" #ID ",\"content\":\"" TEXT "\"" FLAGS "}"
#define SPECIAL                ",\"special\":true,\"normalized\":false"
#define PLAIN                  ",\"normalized\":false"

static struct tokenizer *load(const char *json)
{
    struct tokenizer *t = NULL;
    struct err err = {0};
    int rc = tokenizer_from_json(json, strlen(json), "test", &t, &err);
    if (rc < 0)
        print_error("%s\n", err.msg);
    assert_int_equal(rc, 0);
    return t;
}

// "1 2 3"
static void check_ids(const char *what, const struct ids *ids, const char *want)
{
    char got[512] = "";
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%d", i ? " " : "", ids->v[i]);
    if (strcmp(got, want) != 0)
        fail_msg("%s: got %s, want %s", what, got, want);
}

static void check_encode(const struct tokenizer *t, const char *text, const struct span *spans,
                         size_t n_spans, const char *want)
{
    struct ids ids = {0};
    assert_int_equal(
        tokenizer_encode(t, text, strlen(text), false, spans, n_spans, 1000, &ids, NULL), 0);
    check_ids(text, &ids, want);
    ids_finish(&ids);
}

static const char added[] = LEVEL("\"added_tokens\":[" ADDED(20, "<a>", SPECIAL) "," ADDED(
    21, "<b>", PLAIN) "," ADDED(22, "<a><a>", SPECIAL) "]," AROUND);

static void special_tokens_of_a_user_are_text(void **state)
{
    (void)state;
    // Spans are written as begin-end pairs.
    static const struct {
        const char *name, *text;
        int spans; // -1: everywhere
        struct span at[3];
        const char *want;
    } rows[] = {
        {"everywhere", "c<a>c", -1, {{0}}, "2 20 2"},
        {"nowhere", "c<a>c", 0, {{0}}, "2 6 0 7 2"},
        {"others are found everywhere", "c<b>c", 0, {{0}}, "2 21 2"},
        {"longest", "<a><a>", -1, {{0}}, "22"},
        {"inside", "c<a>c", 1, {{1, 4}}, "2 20 2"},
        {"in the first of two", "<a><a>", 1, {{0, 3}}, "20 6 0 7"},
        {"in the second of two", "<a><a>", 1, {{3, 6}}, "6 0 7 20"},
        {"over a border into trust", "<a>", 1, {{1, 3}}, "6 0 7"},
        {"over a border out of trust", "<a>", 1, {{0, 2}}, "6 0 7"},
        {"over the border of two that touch", "<a>", 2, {{0, 1}, {1, 3}}, "6 0 7"},
        {"shorter where the longer crosses", "<a><a>", 2, {{0, 3}, {3, 6}}, "20 20"},
        {"others don't cross either", "<b>", 1, {{1, 2}}, "6 1 7"},
        {"spans cut no words", "ab", 1, {{0, 1}}, "4"},
        {"third span", "<a>c<a>c<a>", 3, {{0, 3}, {3, 4}, {8, 11}}, "20 2 6 0 7 2 20"},
    };
    struct tokenizer *t = load(added);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        check_encode(t, rows[i].text, rows[i].spans > 0 ? rows[i].at : NULL,
                     rows[i].spans < 0 ? 1 : (size_t)rows[i].spans, rows[i].want);
    }
    struct span none[1]; // spans, but none of them
    check_encode(t, "<a>", none, 0, "6 0 7");
    tokenizer_destroy(t);
}

static void a_model_never_makes_special_tokens(void **state)
{
    (void)state;
    // "<>" is what a merge makes and special: a user who writes it gets its parts.
    struct tokenizer *t = load(LEVEL("\"added_tokens\":[" ADDED(14, "<>", SPECIAL) "]," AROUND));
    check_encode(t, "<>", NULL, 1, "14");
    check_encode(t, "<>", NULL, 0, "6 7");
    check_encode(t, "<>ab", NULL, 0, "6 7 4");
    tokenizer_destroy(t);
    t = load("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"<s>\",0],["
             "\"<\",-1],"
             "[\"s\",-1],[\">\",-1]]},\"added_tokens\":[" ADDED(0, "<unk>", SPECIAL) "," ADDED(
                 1, "<s>", SPECIAL) "]}");
    check_encode(t, "<s>", NULL, 1, "1");
    check_encode(t, "<s>", NULL, 0, "2 3 4");
    tokenizer_destroy(t);
    t = load("{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"!!\":1,"
             "\"!\":2,\"##!\":3}},"
             "\"added_tokens\":[" ADDED(1, "!!", SPECIAL) "]}");
    check_encode(t, "!!", NULL, 1, "1");
    check_encode(t, "!!", NULL, 0, "2 3");
    tokenizer_destroy(t);
}

static void flags_of_added_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *flags, *text, *want;
    } rows[] = {
        {"", "a <a> a", "0 3 20 5"},
        {",\"lstrip\":true", "a \n <a> a", "0 20 5"},
        {",\"rstrip\":true", "a <a> \n a", "0 3 20 0"},
        {",\"lstrip\":true,\"rstrip\":true", " <a> <a> ", "20 20"},
        {",\"single_word\":true", "a<a>", "0 6 0 7"},
        {",\"single_word\":true", "<a>b", "6 0 7 1"},
        {",\"single_word\":true", "a <a> b", "0 3 20 3 1"},
        {",\"single_word\":true", "<<a>", "6 20"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char json[2048];
        snprintf(json, sizeof json, LEVEL("\"added_tokens\":[" ADDED(20, "<a>", "%s") "]," AROUND),
                 rows[i].flags);
        struct tokenizer *t = load(json);
        check_encode(t, rows[i].text, NULL, 1, rows[i].want);
        tokenizer_destroy(t);
    }
}

static void normalized_tokens_are_found_behind_the_normalizer(void **state)
{
    (void)state;
    static const char parts[] =
        LEVEL("\"added_tokens\":[" ADDED(20, "<A>", ",\"normalized\":true") "," ADDED(
            21, "<C>", ",\"normalized\":false") "," ADDED(22, "<B>",
                                                          ",\"special\":true,\"normalized\":"
                                                          "true") "],"
                                                                  "\"normalizer\":{\"type\":"
                                                                  "\"Lowercase\"}," AROUND);
    struct tokenizer *t = load(parts);
    check_encode(t, "<a><A>", NULL, 1, "20 20");
    check_encode(t, "<C><c>", NULL, 1, "21 6 2 7");
    check_encode(t, "<b><B>", NULL, 1, "22 22");
    check_encode(t, "<b><B>", NULL, 0, "6 1 7 6 1 7");
    // Where only a part is trusted, as the template writes it.
    check_encode(t, "<B><B>", (struct span[]){{0, 3}}, 1, "22 6 1 7");
    tokenizer_destroy(t);
}

static void unknown_costs_more_than_any_piece(void **state)
{
    (void)state;
    // One piece at -14, or an unknown one at ten less than that and one at 3.
    struct tokenizer *t = load("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],"
                               "[\"ab\",-14],[\"b\",3]]}}");
    check_encode(t, "ab", NULL, 1, "1");
    check_encode(t, "aab", NULL, 1, "0 1");
    check_encode(t, "cdb", NULL, 1, "0 2");
    tokenizer_destroy(t);
}

static void around_a_text(void **state)
{
    (void)state;
    static const char parts[] = LEVEL(
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
        "\"X\"}},{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"Y\"}}],\"special_"
        "tokens\":{"
        "\"X\":{\"ids\":[0,1]},\"Y\":{\"ids\":[2]}}}," AROUND);
    struct tokenizer *t = load(parts);
    struct ids ids = {0};
    struct err err;
    assert_int_equal(tokenizer_encode(t, "ab", 2, true, NULL, 1, 4, &ids, &err), 0);
    check_ids("with both", &ids, "0 1 4 2");
    assert_int_equal(tokenizer_encode(t, "ab", 2, true, NULL, 1, 3, &ids, &err), SV_E_TOO_LARGE);
    check_ids("appended up to the bound", &ids, "0 1 4 2 0 1 4");
    assert_string_equal(err.msg, "the text has more than 3 tokens");
    ids.n = 0;
    assert_int_equal(tokenizer_encode(t, "", 0, true, NULL, 1, 3, &ids, &err), 0);
    check_ids("around nothing", &ids, "0 1 2");
    ids_finish(&ids);
    tokenizer_destroy(t);
}

// A text by pushes must be the text at once, and each push whole characters.
static void check_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip,
                         const char *want)
{
    struct buf all = {0}, parts = {0};
    struct detok d;
    tokenizer_decode(t, ids, n, skip, &all);
    detok_init(&d, t, skip);
    buf_reserve(&parts, 1);
    for (size_t i = 0; i < n; i++) {
        size_t before = buf_len(&parts);
        detok_push(&d, ids[i], &parts);
        assert_true(str_valid_utf8(buf_head(&parts) + before, buf_len(&parts) - before));
    }
    detok_flush(&d, &parts);
    assert_string_equal(buf_cstr(&all), want);
    assert_string_equal(buf_cstr(&parts), want);
    buf_finish(&all);
    buf_finish(&parts);
}
#define DECODE(T, SKIP, WANT, ...)                                                                 \
    check_decode(T, (int32_t[]){__VA_ARGS__}, sizeof(int32_t[]){__VA_ARGS__} / 4, SKIP, WANT)

#define BROKEN "\xef\xbf\xbd"

static void bytes_become_characters(void **state)
{
    (void)state;
    struct tokenizer *t = load(added);
    DECODE(t, false, "ab a", 4, 5);
    DECODE(t, false, "\xf0\x9f\x98\x80", 8, 9, 10, 11);
    DECODE(t, false, "\xf0\x9f\x98\x80", 12, 10, 11);
    DECODE(t, false, BROKEN "a", 12, 0);            // a start of a character is one U+FFFD
    DECODE(t, false, BROKEN BROKEN "a", 10, 11, 0); // bytes that begin none are one each
    DECODE(t, false, "a" BROKEN, 0, 12);            // at the end too
    DECODE(t, false, BROKEN "\xf0\x9f\x98\x80", 12, 12, 10, 11);
    DECODE(t, false, "a<a>", 0, 20);
    DECODE(t, true, "a<b>", 0, 20, 21);            // only special ones are skipped
    DECODE(t, false, "a", 0, 15, -1, 1 << 30, 23); // ids without a token say nothing
    tokenizer_destroy(t);
}

static void a_push_waits_for_the_character(void **state)
{
    (void)state;
    struct tokenizer *t = load(added);
    struct buf out = {0};
    struct detok d;
    detok_init(&d, t, false);
    for (int32_t id = 8; id < 11; id++) {
        detok_push(&d, id, &out);
        assert_int_equal(buf_len(&out), 0);
    }
    detok_push(&d, 11, &out);
    assert_int_equal(buf_len(&out), 4);
    detok_push(&d, 12, &out);
    assert_int_equal(buf_len(&out), 4);
    detok_push(&d, 12, &out); // now it is certain that the first is broken
    assert_int_equal(buf_len(&out), 7);
    buf_finish(&out);
    tokenizer_destroy(t);
}

#define PIECES                                                                                     \
    "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{\"\\u2581a\":0," \
    "\"b\":1,\"<0xE4>\":2,\"<0xBD>\":3,\"<0xA0>\":4,\"\\u2581\":5,\"<0x20>\":6,\"##c\":7,\".\":8," \
    "\"d</w>\":9}},\"decoder\":%s}"

static void decoders(void **state)
{
    (void)state;
    static const char llama[] =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"\\u2581\"},"
        "\"content\":\" "
        "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":"
        "\" \",\"start\":1,\"stop\":0}]}";
    static const char mute[] =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"b\"},"
        "\"content\":\"\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}";
    static const struct {
        const char *decoder;
        int32_t ids[6];
        size_t n;
        const char *want;
    } rows[] = {
        {llama, {0, 0}, 2, "a a"},
        {llama, {5, 5, 0}, 3, "  a"},
        {llama, {6, 1}, 2, "b"},
        {llama, {2, 3, 4}, 3, "\xe4\xbd\xa0"},
        {llama, {2, 3, 1}, 3, BROKEN BROKEN "b"},
        {llama, {2, 3}, 2, BROKEN BROKEN},
        {llama, {2, 2, 3, 4, 3}, 5, BROKEN "\xe4\xbd\xa0" BROKEN},
        {llama, {2, 3, 2, 3, 4}, 5, BROKEN BROKEN "\xe4\xbd\xa0"},
        {mute, {2, 3, 1, 4}, 4, BROKEN BROKEN BROKEN}, // a token without text ends the bytes too
        {"{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"}", {0, 0}, 2, "a a"},
        {"{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"never\"}",
         {0, 0},
         2,
         " a a"},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", {1, 7, 1, 8}, 4, "bc b."},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}", {1, 7, 1, 8}, 4, "bc b ."},
        {"{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", {1, 9, 1, 9}, 4, "bd bd"},
        {"null", {1, 1}, 2, "b b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char json[2048];
        snprintf(json, sizeof json, PIECES, rows[i].decoder);
        struct tokenizer *t = load(json);
        check_decode(t, rows[i].ids, rows[i].n, false, rows[i].want);
        tokenizer_destroy(t);
    }
}

static void bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want;
    } rows[] = {
        {"", "not valid JSON"},
        {"[]", "there is no model"},
        {"{\"model\":{\"type\":\"WordLevel\"}}", "model.type 'WordLevel' is not known"},
        {"{\"model\":{\"type\":\"BPE\"}}", "model.vocab is no object"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "the id of 'a'"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1048576},\"merges\":[]}}",
         "ids are 0 to 1048575"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}",
         "id 1 is both 'a' and 'b'"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[[\"a\",\"b\"]]}}",
         "merge 0, 'a' and 'b': the second is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":2},\"merges\":[\"a b\"]}}",
         "what they make is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"aa\"]}}",
         "is no pair of texts"},
        {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}}",
         "model.dropout is not 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"unk_token\":\"u\"}}",
         "model.unk_token 'u'"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "model.vocab has 0 tokens"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "entry 0 is no text and number"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}",
         "model.unk_id is 1"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "model.unk_token is missing"},
        {LEVEL("\"added_tokens\":[{\"id\":30}]"), "an entry without content"},
        {LEVEL("\"added_tokens\":[" ADDED(2, "x", "") "]"), "id 2 is both 'c' and 'x'"},
        {LEVEL("\"normalizer\":{\"type\":\"Upper\"}"), "normalizer: type 'Upper' is not known"},
        {LEVEL("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!\"}"),
         "no base64 at byte 0"},
        {LEVEL("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}"),
         "trie has 4294967295"},
        {LEVEL("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), "'UnicodeScripts' is not known"},
        {LEVEL("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":"
               "\"Isolated\"}"),
         "a group is not closed"},
        {LEVEL("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a)\\\\1\"}}"),
         "\\1 at byte 3 is not supported"},
        {LEVEL("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"\"}}"),
         "a text of 0 bytes"},
        {LEVEL("\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"a\",99],\"sep\":["
               "\"b\",1]}"),
         "99 is no token's id"},
        {LEVEL("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
         "the text is not in 'single'"},
        {LEVEL("\"decoder\":{\"type\":\"CTC\"}"), "decoder: decoder 'CTC' is not known"},
        {LEVEL("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
               "\"WordPiece\","
               "\"prefix\":\"#\"}]}"),
         "WordPiece on the whole text"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tokenizer *t = NULL;
        struct err err = {0};
        assert_true(tokenizer_from_json(rows[i].json, strlen(rows[i].json), "F.json", &t, &err) <
                    0);
        assert_null(t);
        if (!strstr(err.msg, rows[i].want) || !strstr(err.msg, "'F.json'"))
            fail_msg("got '%s', want '%s'", err.msg, rows[i].want);
    }
    struct tokenizer *t = NULL;
    struct err err = {0};
    assert_int_equal(tokenizer_from_folder("/nonexistent", &t, &err), SV_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nonexistent/tokenizer.json"));
}

static void a_text_that_grows_is_refused(void **state)
{
    (void)state;
    char json[4096], a[120];
    memset(a, 'a', sizeof a - 1);
    a[sizeof a - 1] = 0;
    snprintf(json, sizeof json,
             LEVEL("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s,%s,%s,%s]}," AROUND),
             "{\"type\":"
             "\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
             "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
             "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
             "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
             "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":"
             "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
             "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
             "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}");
    struct tokenizer *t = load(json);
    struct ids ids = {0};
    struct err err;
    assert_int_equal(tokenizer_encode(t, a, strlen(a), false, NULL, 1, 1 << 20, &ids, &err),
                     SV_E_TOO_LARGE);
    assert_non_null(strstr(err.msg, "once it is normalized"));
    ids_finish(&ids);
    tokenizer_destroy(t);
}

static void what_it_tells(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct err err = {0};
    assert_int_equal(tokenizer_from_folder(LLM_DATA "/tiny-llama", &t, &err), 0);
    assert_true(tokenizer_vocab(t) > 256);
    assert_int_equal(tokenizer_find(t, "<|im_end|>", 10), tokenizer_eos(t));
    assert_true(tokenizer_is_special(t, tokenizer_eos(t)));
    assert_false(tokenizer_is_special(t, -1));
    assert_int_equal(tokenizer_find(t, "no such token", 13), -1);
    assert_int_equal(tokenizer_token(t, -1).n, 0);
    assert_int_equal(tokenizer_token(t, (int32_t)tokenizer_vocab(t)).n, 0);
    assert_int_equal(tokenizer_token(t, tokenizer_eos(t)).n, 10);
    tokenizer_destroy(t);
    tokenizer_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_of_a_user_are_text),
        cmocka_unit_test(a_model_never_makes_special_tokens),
        cmocka_unit_test(flags_of_added_tokens),
        cmocka_unit_test(normalized_tokens_are_found_behind_the_normalizer),
        cmocka_unit_test(unknown_costs_more_than_any_piece),
        cmocka_unit_test(around_a_text),
        cmocka_unit_test(bytes_become_characters),
        cmocka_unit_test(a_push_waits_for_the_character),
        cmocka_unit_test(decoders),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(a_text_that_grows_is_refused),
        cmocka_unit_test(what_it_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
