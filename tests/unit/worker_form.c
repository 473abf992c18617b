// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "worker/form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TYPE_URL "application/x-www-form-urlencoded"
#define TYPE_B   "multipart/form-data; boundary=B"

// `want`: the code, then each part as name=data, name<file>type=data for files.
static const struct row {
    const char *name, *type, *body, *want;
} rows[] = {
    {"pairs", TYPE_URL, "a=1&b=2", "2 a=1 b=2"},
    {"decoded", TYPE_URL, "a+b=%41%2b+%zz", "1 a b=A+ %zz"},
    {"empty pieces", TYPE_URL, "&&a=1&&", "1 a=1"},
    {"no value", TYPE_URL, "a&b=", "2 a= b="},
    {"no name", TYPE_URL, "=x", "1 =x"},
    {"empty body", TYPE_URL, "", "0"},
    {"with a charset", TYPE_URL "; charset=utf-8", "a=1", "1 a=1"},
    {"any case", "Application/X-WWW-Form-Urlencoded", "a=1", "1 a=1"},
    {"a NUL in a name", TYPE_URL, "a%00=1", "-400"},
    {"a NUL in a value is data", TYPE_URL, "a=%00", "1 a=\\0"},
    {"another type", "application/json", "{}", "-415"},
    {"no type", "", "a=1", "-415"},
    {"type is a prefix only", TYPE_URL "x", "a=1", "-415"},
    {"one part", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello\r\n--B--\r\n", "1 a=hello"},
    {"two parts, a file", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
     "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.wav\"\r\n"
     "Content-Type: audio/wav\r\n\r\nRIFF\r\n--B--",
     "2 a=1 f<x.wav>audio/wav=RIFF"},
    {"preamble and epilogue", TYPE_B,
     "before\r\n--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--\r\nafter",
     "1 a=1"},
    {"the boundary in the data with more behind", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--Bx\r\n--B--",
     "1 a=x\r\n--Bx"},
    {"blanks behind the boundary", TYPE_B,
     "--B \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--", "1 a=1"},
    {"empty data", TYPE_B, "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--",
     "1 a="},
    {"no header lines", TYPE_B, "--B\r\n\r\nx\r\n--B--", "1 =x"},
    {"quoted boundary", "multipart/form-data; boundary=\"B\"",
     "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--", "1 a=1"},
    {"another parameter first", "multipart/form-data; charset=utf-8; boundary=B",
     "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B--", "1 a=1"},
    {"escaped quotes in names", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a\\\"b\"; "
     "filename=\"c\\\\d\"\r\n\r\n1\r\n--B--",
     "1 a\"b<c\\d>=1"},
    {"a semicolon in quotes", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a;b=c\"\r\n\r\n1\r\n--B--", "1 a;b=c=1"},
    {"an empty file name is a file", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"\"\r\n\r\n\r\n--B--", "1 a<>="},
    {"no parts at all", TYPE_B, "--B--", "0"},
    {"no boundary in the type", "multipart/form-data", "--B--", "-400"},
    {"empty boundary", "multipart/form-data; boundary=", "--B--", "-400"},
    {"boundary of 71 bytes",
     "multipart/form-data; "
     "boundary=00000000001111111111222222222233333333334444444444555555555566666666667",
     "", "-400"},
    {"no boundary in the body", TYPE_B, "hello", "-400"},
    {"empty body, multipart", TYPE_B, "", "-400"},
    {"cut off in the data", TYPE_B, "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhel",
     "-400"},
    {"cut off in the header", TYPE_B, "--B\r\nContent-Disp", "-400"},
    {"header without an end", TYPE_B, "--B\r\nContent-Disposition: x\r\n--B--", "-400"},
    {"part without anything", TYPE_B, "--B\r\n--B--", "-400"},
    {"part with one blank line", TYPE_B, "--B\r\n\r\n--B--", "-400"},
    {"a folded header line", TYPE_B, "--B\r\nA: b\r\n c\r\n\r\nx\r\n--B--", "-400"},
    {"a bare LF in a header", TYPE_B, "--B\r\nA: b\nC: d\r\n\r\nx\r\n--B--", "-400"},
    {"a header line without a colon", TYPE_B, "--B\r\nhello\r\n\r\nx\r\n--B--", "-400"},
    {"a quote that does not close", TYPE_B,
     "--B\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--B--", "1 =x"},
};

static void print_form(const struct form *f, char *got)
{
    sprintf(got, "%d", f->code);
    for (uint32_t i = 0; i < f->n && f->code >= 0; i++) {
        const sv_part *p = &f->parts[i];
        sprintf(got + strlen(got), " %s", p->name);
        if (p->file_name)
            sprintf(got + strlen(got), "<%s>%s", p->file_name, p->content_type);
        strcat(got, "=");
        if (p->len == 1 && *(const char *)p->data == 0)
            strcat(got, "\\0");
        else
            sprintf(got + strlen(got), "%.*s", (int)p->len, (const char *)p->data);
    }
}

static int parse(struct form *f, struct arena *a, const char *type, const char *body, size_t n)
{
    arena_init(a, 0);
    return form_parse(f, a, type, (struct bytes){body, n});
}

static void run_row(void **state)
{
    const struct row *row = *state;
    struct form f;
    struct arena a;
    char got[512];
    parse(&f, &a, row->type, row->body, strlen(row->body));
    print_form(&f, got);
    assert_string_equal(got, row->want);
    assert_true(f.code >= 0 || f.why[0]);
    arena_finish(&a);
}

static void test_bounds(void **state)
{
    (void)state;
    static char body[1 << 20];
    struct form f;
    struct arena a;
    for (int extra = 0; extra < 2; extra++) {
        size_t n = 0;
        for (int i = 0; i < SV_FORM_PARTS + extra; i++)
            n += (size_t)sprintf(body + n, "--B\r\n\r\nx\r\n");
        n += (size_t)sprintf(body + n, "--B--");
        int want = extra ? SV_E_TOO_LARGE : SV_FORM_PARTS;
        assert_int_equal(parse(&f, &a, TYPE_B, body, n), want);
        arena_finish(&a);
        n = 0;
        for (int i = 0; i < SV_FORM_PARTS + extra; i++)
            n += (size_t)sprintf(body + n, "a=1&");
        assert_int_equal(parse(&f, &a, TYPE_URL, body, n), want);
        arena_finish(&a);
    }
    size_t n = (size_t)sprintf(body, "--B\r\nX: ");
    memset(body + n, 'x', SV_FORM_HEADER);
    n += SV_FORM_HEADER;
    n += (size_t)sprintf(body + n, "\r\n\r\nx\r\n--B--");
    assert_int_equal(parse(&f, &a, TYPE_B, body, n), SV_E_TOO_LARGE);
    arena_finish(&a);
}

// Every prefix of a good body is refused or read, and nothing is read beyond it.
static void test_prefixes(void **state)
{
    (void)state;
    static const char whole[] =
        "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n"
        "Content-Type: text/plain\r\n\r\nhello\r\n--B\r\n\r\nx\r\n--B--\r\n";
    for (size_t n = 0; n < sizeof whole; n++) {
        char *exact = malloc(n + 1);
        memcpy(exact, whole, n);
        exact[n] = 0;
        struct form f;
        struct arena a;
        parse(&f, &a, TYPE_B, exact, n);
        assert_int_equal(f.code >= 0, n >= sizeof whole - 3);
        arena_finish(&a);
        free(exact);
    }
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows + 2];
    size_t n = 0;
    for (; n < sizeof rows / sizeof *rows; n++)
        tests[n] = (struct CMUnitTest){.name = rows[n].name,
                                       .test_func = run_row,
                                       .initial_state = (void *)(uintptr_t)&rows[n]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_bounds);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_prefixes);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
