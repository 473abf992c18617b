// SPDX-License-Identifier: Apache-2.0
#include "base/param.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *text, *name, *want; // NULL: there is none
} rows[] = {
    {"", "name", NULL},
    {";", "name", NULL},
    {"form-data", "name", NULL},
    {"name=a", "name", NULL}, // the value itself, no parameter
    {"form-data; name=a", "name", "a"},
    {"form-data;name=a", "name", "a"},
    {"form-data;\t name=a", "name", "a"},
    {"form-data; NaMe=a", "name", "a"},
    {"form-data; name=", "name", ""},
    {"form-data; name=;", "name", ""},
    {"form-data; name", "name", NULL},
    {"form-data; name; name=a", "name", "a"},
    {"form-data; name =a", "name", NULL}, // the space is the name's
    {"form-data; name=a b", "name", "a"},
    {"form-data; name=a\tb", "name", "a"},
    {"form-data; name= a", "name", ""},
    {"form-data; name=a; name=b", "name", "a"},
    {"form-data; filename=b; name=a", "name", "a"},
    {"form-data; names=b; nam=c; name=a", "name", "a"},
    {"form-data; name=a\"b", "name", "a\"b"},
    {"form-data; name=\"a b;c=d\"", "name", "a b;c=d"},
    {"form-data; name=\"\"", "name", ""},
    {"form-data; name=\"a", "name", NULL},
    {"form-data; name=\"", "name", NULL},
    {"form-data; name=\"a\\\"b\\\\c\\d\"", "name", "a\"b\\c\\d"},
    {"form-data; name=\"a\\", "name", NULL},
    {"form-data; name=\"a\\\"", "name", NULL},
    {"form-data; name=a\\\"b", "name", "a\\\"b"},
    {"form-data; x=\"; name=b\"; name=a", "name", "a"},
    {"form-data; x=\"\\\"; name=b\"; name=a", "name", "a"},
    {"form-data; x=\"; name=a", "name", NULL}, // a quote before it is not closed
    {"form-data; x\"; name=a", "name", "a"},
    {"form-data; name=\"a\"b; x=c", "x", "c"},
    {"multipart/form-data; boundary=----x'y", "boundary", "----x'y"},
};

// Bounds are those of memory, so that a sanitizer sees what is read or written beyond them.
static void every_row_at_every_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].text), want = rows[i].want ? strlen(rows[i].want) : 0;
        char *text = malloc(n + 1);
        memcpy(text + 1, rows[i].text, n);
        for (size_t cap = 0; cap <= want + 1; cap++) {
            char *out = malloc(cap + 1);
            memset(out, '#', cap + 1);
            ptrdiff_t got = param_find(text + 1, n, rows[i].name, out + 1, cap);
            if (got != (rows[i].want ? (ptrdiff_t)want : -1))
                fail_msg("'%s' has %td bytes for %s", rows[i].text, got, rows[i].name);
            size_t there = rows[i].want && cap < want ? cap : want;
            if (rows[i].want)
                assert_memory_equal(out + 1, rows[i].want, there);
            free(out);
        }
        free(text);
    }
}

static void ends_where_it_is_told(void **state)
{
    (void)state;
    char out[8];
    static const char text[] = "form-data; name=abc";
    for (size_t n = 0; n < sizeof text; n++)
        assert_int_equal(param_find(text, n, "name", out, sizeof out), n < 16 ? -1 : (int)n - 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_at_every_size),
        cmocka_unit_test(ends_where_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
