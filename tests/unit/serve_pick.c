// SPDX-License-Identifier: Apache-2.0
#include "serve/pick.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Grants and loads of up to 4 replicas; which ones may be chosen, whatever the random number.
static const struct row {
    const char *name;
    uint32_t n;
    struct pick_choice c[4];
    int avoid;
    const char *may; // indices
} rows[] = {
    {"nobody", 0, {{0}}, PICK_NONE, ""},
    {"no grants", 2, {{0, 1}, {0, 2}}, PICK_NONE, ""},
    {"the only one with a grant", 3, {{0, 0}, {1, 9}, {0, 0}}, PICK_NONE, "1"},
    {"the less loaded of two", 2, {{1, 5}, {1, 4}}, PICK_NONE, "1"},
    {"the most loaded of three never", 3, {{1, 1}, {1, 2}, {1, 3}}, PICK_NONE, "01"},
    {"equals share", 2, {{1, 3}, {1, 3}}, PICK_NONE, "01"},
    {"a refuser is avoided", 2, {{1, 0}, {1, 9}}, 0, "1"},
    {"a refuser alone is taken", 2, {{1, 0}, {0, 9}}, 0, "0"},
    {"a refuser without a grant", 2, {{0, 0}, {0, 9}}, 0, ""},
    {"three of four", 4, {{1, 4}, {1, 3}, {1, 2}, {1, 1}}, 3, "12"},
};

static void run_row(void **state)
{
    const struct row *row = *state;
    char seen[5] = "";
    srand(3);
    for (int i = 0; i < 2000; i++) {
        uint64_t random = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();
        int p = pick(row->c, row->n, row->avoid, random);
        char digit[2] = {(char)('0' + p), 0};
        if (p == PICK_NONE)
            assert_string_equal(row->may, "");
        else
            assert_non_null(strstr(row->may, digit));
        if (p != PICK_NONE && !strchr(seen, digit[0]))
            strcat(seen, digit);
    }
    assert_int_equal(strlen(seen), strlen(row->may)); // each of them was chosen
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].name, run_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
