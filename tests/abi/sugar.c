// SPDX-License-Identifier: Apache-2.0
// One row is one ?query and what sv_query finds under "q" in it; run by test_matrix.py.
#include "abi/plugin.h"

static const struct {
    const char *query, *want; // NULL: -1
    size_t cap;
} rows[] = {
    {NULL, NULL, 8},
    {"", NULL, 8},
    {"q=", "", 8},
    {"q", NULL, 8},
    {"q=a", "a", 8},
    {"xq=a", NULL, 8},
    {"qx=a", NULL, 8},
    {"x=1&q=a", "a", 8},
    {"q=a&q=b", "a", 8},
    {"&&q=a&", "a", 8},
    {"q=a+b", "a b", 8},
    {"q=a%20b", "a b", 8},
    {"q=%2B%26%3d", "+&=", 8},
    {"q=%", "%", 8},
    {"q=%4", "%4", 8},
    {"q=%41", "A", 8},
    {"q=%+1", "% 1", 8},
    {"q=%0x", "%0x", 8},
    {"q=%zz", "%zz", 8},
    {"q=1234567", "1234567", 8},
    {"q=12345678", NULL, 8},
    {"q=a", NULL, 1},
    {"q=", NULL, 0},
    {"q=a=b", "a=b", 8},
    {"q=%e2%82%ac", "\xe2\x82\xac", 8},
};

int main(void)
{
    int failed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[8];
        sv_req r = {.query = rows[i].query};
        int got = sv_query(&r, "q", out, rows[i].cap);
        int want = rows[i].want ? (int)strlen(rows[i].want) : -1;
        if (got == want && (want < 0 || !strcmp(out, rows[i].want)))
            continue;
        printf("query '%s': got %d, wanted %d\n", rows[i].query, got, want);
        failed = 1;
    }
    return failed;
}
