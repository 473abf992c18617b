// SPDX-License-Identifier: Apache-2.0
// Which model a body names: every row whole, in two pieces cut anywhere, and byte by byte.
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "serve/model_field.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define FORM       "multipart/form-data; boundary=XX"
#define PART(name) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n"

static const struct {
    const char *body, *want; // NULL: none
} json[] =
    {
        {"{\"model\":\"a\"}", "a"},
        {" \t\r\n{ \"model\" \n:\r \"a b\" }", "a b"},
        {"{\"x\":1,\"model\":\"a\",\"y\":[]}", "a"},
        {"{\"x\":{\"model\":\"no\"},\"y\":[\"model\",{\"model\":\"no\"}],\"model\":\"yes\"}",
         "yes"},
        {"{\"x\":{\"model\":\"no\"}}", NULL},
        {"{\"x\":\"\\\"model\\\":\\\"no\\\"\",\"y\":\"\\\\\",\"model\":\"yes\"}", "yes"},
        {"{\"x\":\"}]\\\\\\\"{[\",\"model\":\"yes\"}", "yes"},
        {"{\"x\":[\"}\",\"\\\\\",\"\\\"]\",[[]],{}],\"model\":\"yes\"}", "yes"},
        // The last one counts, whatever it is.
        {"{\"model\":\"a\",\"model\":\"bc\"}", "bc"},
        {"{\"model\":\"abc\",\"model\":\"d\"}", "d"},
        {"{\"model\":\"a\",\"model\":null}", NULL},
        {"{\"model\":\"a\",\"model\":7,\"x\":\"y\"}", NULL},
        {"{\"model\":\"a\",\"model\":{\"b\":\"c\"}}", NULL},
        {"{\"model\":null,\"model\":\"a\"}", "a"},
        // Keys that are nearly it.
        {"{\"Model\":\"a\"}", NULL},
        {"{\"mode\":\"a\"}", NULL},
        {"{\"models\":\"a\"}", NULL},
        {"{\"\":\"a\",\"model_\":\"b\",\"xmodel\":\"c\"}", NULL},
        {"{\"\\u006dod\\u0065l\":\"a\"}", "a"},
        {"{\"mod\\u00e9l\":\"a\"}", NULL},
        // Escapes of a name.
        {"{\"model\":\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"}", "a\"\\/\b\f\n\r\tz"},
        {"{\"model\":\"\\u00e9\\u20AC\\ud83d\\ude00x\"}", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80x"},
        {"{\"model\":\"\\ud83dx\\ude00\\ud83d\"}", "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd"},
        {"{\"model\":\"\xc3\xa9\"}", "\xc3\xa9"},
        {"{\"model\":\"\"}", ""},
        {"\xef\xbb\xbf{\"model\":\"a\"}", "a"},
        // Kinds and what is no JSON: nobody's name.
        {"", NULL},
        {"[{\"model\":\"a\"}]", NULL},
        {"\"model\"", NULL},
        {"model=a", NULL},
        {"{\"model\":\"\\x\"}", NULL},
        {"{\"model\":\"\\u00g0\"}", NULL},
        {"{\"model\" \"a\"}", NULL},
        {"{\"model\":\"a", NULL},
        {"{\"model\":\"a\"} {\"model\":\"b\"}", "a"},
        // Known before the end.
        {"{\"model\":\"a\",\"x\":\"", "a"},
        {"{\"a\":1.5e3,\"b\":true,\"c\":\"\",\"model\":\"m\"}", "m"},
        {"{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12],\"Y_y\":[\"Y_y\",0],\"model\":\"m\"}", "m"},
},
  form[] = {
      {PART("model") "a\r\n--XX--\r\n", "a"},
      {PART("x") "y\r\n" PART("model") "a b\r\n--XX--", "a b"},
      {"preamble\r\n" PART("x") "\r\n" PART("model") "a\r\n--XX--", "a"},
      {PART("model") "first\r\n" PART("model") "second\r\n--XX--", "first"},
      {PART("model") "a", NULL}, // it may go on
      {PART("model") "a\r\n--XX", NULL},
      {PART("Model") "a\r\n--XX--", NULL},
      {PART("models") "a\r\n--XX--", NULL},
      {PART("x") "--XX\r\r\n--X\r\n--XY\n--XX\r\n--XX-\r\n\r\n" PART("model") "a\r\n--XX--", "a"},
      {"--XX \t\r\ncontent-disposition: form-data; filename=\"model\"; name=model "
       "\r\n\r\na\r\n--XX--",
       "a"},
      {"--XX\r\nContent-Type: "
       "a\r\nCONTENT-DISPOSITION:x;a=\"b;\\\"c\";name=\"mod\\el\"\r\n\r\na\r\n"
       "--XX--",
       NULL},
      {"--XX\r\nContent-Disposition: form-data; name=\"model\r\n\r\na\r\n--XX--", NULL},
      {"--XX\r\n\r\na\r\n--XX--", NULL},
      {"--XX\r\nno colon\r\n\r\n\r\n" PART("model") "a\r\n--XX--", NULL},
      {"--XX\r\nContent-Disposition: form-data; name=model\n\r\n\r\na\r\n--XX--", NULL},
      {"--XX--\r\n" PART("model") "a\r\n--XX--", NULL},
      {"{\"model\":\"a\"}", NULL},
      {"", NULL},
};

static void check(const struct model_field *f, const char *body, const char *want)
{
    const char *got = f->has ? f->text : NULL;
    if (!got != !want || (got && (f->n != strlen(want) || memcmp(got, want, f->n) != 0)))
        fail_msg("'%s': got '%.*s', want '%s'", body, got ? (int)f->n : 4, got ? got : "none",
                 want ? want : "none");
    assert_false(f->too_long);
}

static void row(const char *type, const char *body, const char *want)
{
    struct model_field f;
    size_t n = strlen(body);
    for (size_t cut = 0; cut <= n; cut++) {
        model_field_init(&f, type);
        model_field_feed(&f, body, cut);
        model_field_feed(&f, body + cut, n - cut);
        check(&f, body, want);
    }
    model_field_init(&f, type);
    for (size_t i = 0; i < n; i++)
        model_field_feed(&f, body + i, 1);
    check(&f, body, want);
}

static void rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof json / sizeof *json; i++)
        row("application/json", json[i].body, json[i].want);
    for (size_t i = 0; i < sizeof form / sizeof *form; i++)
        row(FORM, form[i].body, form[i].want);
}

static void content_types(void **state)
{
    (void)state;
    static const char body[] = PART("model") "a\r\n--XX--";
    row("Multipart/Form-Data;Boundary=\"XX\"", body, "a");
    row("multipart/form-data; charset=x; boundary=XX; y=z", body, "a");
    row("multipart/form-data", body, NULL);
    row("multipart/form-data; boundary=", body, NULL);
    row("multipart/form-data2; boundary=XX", body, NULL);
    row("", "{\"model\":\"a\"}", "a");
    row("application/x-www-form-urlencoded", "{\"model\":\"a\"}", "a"); // as curl -d sends it
    char type[128] = "multipart/form-data; boundary=";
    size_t n = strlen(type);
    memset(type + n, 'X', 71);
    row(type, body, NULL);
}

// A name of the greatest length, and one that is longer: it is nobody's, and the end is still
// found.
static void long_names(void **state)
{
    (void)state;
    char name[MODEL_FIELD_MAX + 2], body[3 * MODEL_FIELD_MAX];
    struct model_field f;
    for (size_t over = 0; over < 2; over++) {
        memset(name, 'n', sizeof name);
        name[MODEL_FIELD_MAX + over] = '\0';
        for (int at_end = 0; at_end < 2; at_end++) {
            snprintf(body, sizeof body, "{\"model\":\"%s\",\"x\":\"\\\\\"%s", name,
                     at_end ? ",\"model\":\"z\"}" : "}");
            model_field_init(&f, "");
            model_field_feed(&f, body, strlen(body));
            assert_true(f.has && f.done);
            assert_int_equal(f.too_long, over && !at_end);
            assert_int_equal(f.n, at_end ? 1 : MODEL_FIELD_MAX);
        }
        snprintf(body, sizeof body, PART("model") "%s\r\n--XX--", name);
        model_field_init(&f, FORM);
        model_field_feed(&f, body, strlen(body));
        assert_true(f.has && f.done);
        assert_int_equal(f.too_long, over);
    }
    // Header lines that never end are not looked at for ever.
    model_field_init(&f, FORM);
    model_field_feed(&f, "--XX\r\na: ", 9);
    for (int i = 0; i <= MODEL_FORM_HEADERS && !f.done; i++)
        model_field_feed(&f, "a", 1);
    assert_true(f.done && !f.has);
}

// Nothing that can't change the answer is read: the done scanner stays as it is.
static void done(void **state)
{
    (void)state;
    struct model_field f;
    model_field_init(&f, "");
    model_field_feed(&f, "{\"model\":\"a\"", 12);
    assert_true(f.has && !f.done); // another one may come
    model_field_feed(&f, "}", 1);
    assert_true(f.has && f.done);
    model_field_feed(&f, "{\"model\":\"b\"}", 13);
    assert_true(f.has && f.n == 1 && f.text[0] == 'a');
    model_field_init(&f, FORM);
    model_field_feed(&f, PART("model") "a\r\n--XX\r\n", strlen(PART("model") "a\r\n--XX\r\n"));
    assert_true(f.has && f.done);
}

static void fill(struct buf *b, const char *with, size_t n)
{
    while (buf_len(b) < n)
        buf_puts(b, with);
}

// 16 MiB before the name, of every kind: what it costs is printed, a bound is only what no sane
// build can miss.
static void speed(void **state)
{
    (void)state;
    static const struct {
        const char *type, *begin, *with, *end;
    } kinds[] = {
        {"", "{\"x\":\"", "The quick brown fox jumps over the lazy dog. ", "\",\"model\":\"m\"}"},
        {"", "{\"x\":\"", "line\\n\\\"quoted\\\" ", "\",\"model\":\"m\"}"},
        {"", "{\"x\":\"", "\\\\\\\"", "\",\"model\":\"m\"}"},
        {"", "{\"x\":[", "128000, 271, 9906,", "0],\"model\":\"m\"}"},
        {"", "{\"x\":[", "{\"role\":\"user\",\"content\":\"Hello there\"},", "0],\"model\":\"m\"}"},
        {"", "{\"x\":", "           ", "0,\"model\":\"m\"}"},
        {FORM, PART("file"), "\x01\x02\r\x03\xff\xfe\x7f text \r\n--X ",
         "\r\n" PART("model") "m\r\n--XX--"},
        {FORM, PART("file"), "0123456789012345678901234567890123456789012345678901234567890123\r",
         "\r\n" PART("model") "m\r\n--XX--"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct buf b = {0};
        buf_puts(&b, kinds[i].begin);
        fill(&b, kinds[i].with, 16 << 20);
        buf_puts(&b, kinds[i].end);
        struct model_field f;
        uint64_t before = clock_now_ns();
        model_field_init(&f, kinds[i].type);
        for (size_t at = 0; at < buf_len(&b);) {
            size_t n = buf_len(&b) - at < 65536 ? buf_len(&b) - at : 65536;
            model_field_feed(&f, buf_head(&b) + at, n);
            at += n;
        }
        double s = (double)(clock_now_ns() - before) / (double)NS_PER_S;
        assert_true(f.has && f.n == 1 && f.text[0] == 'm');
        print_message("%.2f GB/s of '%.30s'\n", (double)buf_len(&b) / s / 1e9, kinds[i].with);
        assert_true(s < 5);
        buf_finish(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows), cmocka_unit_test(content_types), cmocka_unit_test(long_names),
        cmocka_unit_test(done), cmocka_unit_test(speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
