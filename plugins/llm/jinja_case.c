// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_case.h"

#include "llm/jinja_string.h"

#include <ctype.h>
#include <utf8proc.h>

struct special {
    uint32_t from;
    const char *to;
};

// Unicode's SpecialCasing.txt without its conditions; utf8proc knows the simple mappings.
// clang-format off
static const struct special upper_special[] = {
    {0xdf, "SS"}, {0x149, "ʼN"}, {0x1f0, "J̌"}, {0x390, "Ϊ́"}, {0x3b0, "Ϋ́"}, {0x587, "ԵՒ"},
    {0x1e96, "H̱"}, {0x1e97, "T̈"}, {0x1e98, "W̊"}, {0x1e99, "Y̊"}, {0x1e9a, "Aʾ"},
    {0x1f50, "Υ̓"}, {0x1f52, "Υ̓̀"}, {0x1f54, "Υ̓́"}, {0x1f56, "Υ̓͂"}, {0x1f80, "ἈΙ"},
    {0x1f81, "ἉΙ"}, {0x1f82, "ἊΙ"}, {0x1f83, "ἋΙ"}, {0x1f84, "ἌΙ"}, {0x1f85, "ἍΙ"},
    {0x1f86, "ἎΙ"}, {0x1f87, "ἏΙ"}, {0x1f88, "ἈΙ"}, {0x1f89, "ἉΙ"}, {0x1f8a, "ἊΙ"},
    {0x1f8b, "ἋΙ"}, {0x1f8c, "ἌΙ"}, {0x1f8d, "ἍΙ"}, {0x1f8e, "ἎΙ"}, {0x1f8f, "ἏΙ"},
    {0x1f90, "ἨΙ"}, {0x1f91, "ἩΙ"}, {0x1f92, "ἪΙ"}, {0x1f93, "ἫΙ"}, {0x1f94, "ἬΙ"},
    {0x1f95, "ἭΙ"}, {0x1f96, "ἮΙ"}, {0x1f97, "ἯΙ"}, {0x1f98, "ἨΙ"}, {0x1f99, "ἩΙ"},
    {0x1f9a, "ἪΙ"}, {0x1f9b, "ἫΙ"}, {0x1f9c, "ἬΙ"}, {0x1f9d, "ἭΙ"}, {0x1f9e, "ἮΙ"},
    {0x1f9f, "ἯΙ"}, {0x1fa0, "ὨΙ"}, {0x1fa1, "ὩΙ"}, {0x1fa2, "ὪΙ"}, {0x1fa3, "ὫΙ"},
    {0x1fa4, "ὬΙ"}, {0x1fa5, "ὭΙ"}, {0x1fa6, "ὮΙ"}, {0x1fa7, "ὯΙ"}, {0x1fa8, "ὨΙ"},
    {0x1fa9, "ὩΙ"}, {0x1faa, "ὪΙ"}, {0x1fab, "ὫΙ"}, {0x1fac, "ὬΙ"}, {0x1fad, "ὭΙ"},
    {0x1fae, "ὮΙ"}, {0x1faf, "ὯΙ"}, {0x1fb2, "ᾺΙ"}, {0x1fb3, "ΑΙ"}, {0x1fb4, "ΆΙ"},
    {0x1fb6, "Α͂"}, {0x1fb7, "Α͂Ι"}, {0x1fbc, "ΑΙ"}, {0x1fc2, "ῊΙ"}, {0x1fc3, "ΗΙ"},
    {0x1fc4, "ΉΙ"}, {0x1fc6, "Η͂"}, {0x1fc7, "Η͂Ι"}, {0x1fcc, "ΗΙ"}, {0x1fd2, "Ϊ̀"},
    {0x1fd3, "Ϊ́"}, {0x1fd6, "Ι͂"}, {0x1fd7, "Ϊ͂"}, {0x1fe2, "Ϋ̀"}, {0x1fe3, "Ϋ́"},
    {0x1fe4, "Ρ̓"}, {0x1fe6, "Υ͂"}, {0x1fe7, "Ϋ͂"}, {0x1ff2, "ῺΙ"}, {0x1ff3, "ΩΙ"},
    {0x1ff4, "ΏΙ"}, {0x1ff6, "Ω͂"}, {0x1ff7, "Ω͂Ι"}, {0x1ffc, "ΩΙ"}, {0xfb00, "FF"},
    {0xfb01, "FI"}, {0xfb02, "FL"}, {0xfb03, "FFI"}, {0xfb04, "FFL"}, {0xfb05, "ST"},
    {0xfb06, "ST"}, {0xfb13, "ՄՆ"}, {0xfb14, "ՄԵ"}, {0xfb15, "ՄԻ"}, {0xfb16, "ՎՆ"},
    {0xfb17, "ՄԽ"},
};
static const struct special title_special[] = {
    {0xdf, "Ss"}, {0x149, "ʼN"}, {0x1f0, "J̌"}, {0x390, "Ϊ́"}, {0x3b0, "Ϋ́"}, {0x587, "Եւ"},
    {0x1e96, "H̱"}, {0x1e97, "T̈"}, {0x1e98, "W̊"}, {0x1e99, "Y̊"}, {0x1e9a, "Aʾ"},
    {0x1f50, "Υ̓"}, {0x1f52, "Υ̓̀"}, {0x1f54, "Υ̓́"}, {0x1f56, "Υ̓͂"}, {0x1fb2, "Ὰͅ"},
    {0x1fb4, "Άͅ"}, {0x1fb6, "Α͂"}, {0x1fb7, "ᾼ͂"}, {0x1fc2, "Ὴͅ"}, {0x1fc4, "Ήͅ"},
    {0x1fc6, "Η͂"}, {0x1fc7, "ῌ͂"}, {0x1fd2, "Ϊ̀"}, {0x1fd3, "Ϊ́"}, {0x1fd6, "Ι͂"},
    {0x1fd7, "Ϊ͂"}, {0x1fe2, "Ϋ̀"}, {0x1fe3, "Ϋ́"}, {0x1fe4, "Ρ̓"}, {0x1fe6, "Υ͂"},
    {0x1fe7, "Ϋ͂"}, {0x1ff2, "Ὼͅ"}, {0x1ff4, "Ώͅ"}, {0x1ff6, "Ω͂"}, {0x1ff7, "ῼ͂"},
    {0xfb00, "Ff"}, {0xfb01, "Fi"}, {0xfb02, "Fl"}, {0xfb03, "Ffi"}, {0xfb04, "Ffl"},
    {0xfb05, "St"}, {0xfb06, "St"}, {0xfb13, "Մն"}, {0xfb14, "Մե"}, {0xfb15, "Մի"},
    {0xfb16, "Վն"}, {0xfb17, "Մխ"},
};
// clang-format on

static const char *find(const struct special *v, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (v[middle].from == c)
            return v[middle].to;
        if (v[middle].from < c)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

static bool upper_char(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LU || (c >= 0x2160 && c <= 0x216f) ||
           (c >= 0x24b6 && c <= 0x24cf) || (c >= 0x1f130 && c <= 0x1f149) ||
           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

static bool lower_char(uint32_t c) // Ll and Unicode's Other_Lowercase
{
    return category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba ||
           (c >= 0x2b0 && c <= 0x2b8) || c == 0x2c0 || c == 0x2c1 || (c >= 0x2e0 && c <= 0x2e4) ||
           c == 0x345 || c == 0x37a || (c >= 0x1d2c && c <= 0x1d6a) || c == 0x1d78 ||
           (c >= 0x1d9b && c <= 0x1dbf) || c == 0x2071 || c == 0x207f ||
           (c >= 0x2090 && c <= 0x209c) || (c >= 0x2170 && c <= 0x217f) ||
           (c >= 0x24d0 && c <= 0x24e9) || c == 0x2c7c || c == 0x2c7d || c == 0xa69c ||
           c == 0xa69d || c == 0xa770 || c == 0xa7f8 || c == 0xa7f9 || (c >= 0xab5c && c <= 0xab5f);
}

static bool title_char(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LT;
}

static bool cased(uint32_t c)
{
    return upper_char(c) || lower_char(c) || title_char(c);
}

// Unicode's Case_Ignorable.
static bool ignorable(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x387 || c == 0x55f ||
               c == 0x5f4 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027 ||
               c == 0xfe13 || c == 0xfe52 || c == 0xfe55 || c == 0xff07 || c == 0xff0e ||
               c == 0xff1a;
    }
}

// Whether the sigma at [begin, end) ends a word.
static bool final_sigma(const struct jstr *s, size_t begin, size_t end)
{
    uint32_t c = 0;
    size_t at = begin;
    while (at > 0 && ignorable(c = jstr_prev(s, &at)))
        c = 0;
    if (!c || !cased(c))
        return false;
    c = 0;
    at = end;
    while (at < s->n && ignorable(c = jstr_next(s, &at)))
        c = 0;
    return !c || !cased(c);
}

static void put_special(struct jbuild *b, const struct special *v, size_t n, uint32_t c,
                        utf8proc_int32_t simple, bool trusted)
{
    const char *special = find(v, n, c);
    if (special)
        jbuild_put(b, special, strlen(special), trusted);
    else
        jbuild_char(b, (uint32_t)simple, trusted);
}

static void put_upper(struct jbuild *b, uint32_t c, bool trusted)
{
    put_special(b, upper_special, sizeof upper_special / sizeof *upper_special, c,
                utf8proc_toupper((utf8proc_int32_t)c), trusted);
}

static void put_title(struct jbuild *b, uint32_t c, bool trusted)
{
    put_special(b, title_special, sizeof title_special / sizeof *title_special, c,
                utf8proc_totitle((utf8proc_int32_t)c), trusted);
}

static void put_lower(struct jbuild *b, const struct jstr *s, size_t begin, size_t end, uint32_t c,
                      bool trusted)
{
    if (c == 0x130)
        jbuild_put(b, "i\xcc\x87", 3, trusted);
    else if (c == 0x3a3)
        jbuild_char(b, final_sigma(s, begin, end) ? 0x3c2 : 0x3c3, trusted);
    else
        jbuild_char(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), trusted);
}

static void put_fold(struct jbuild *b, uint32_t c, bool trusted)
{
    utf8proc_int32_t out[8];
    int last = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, out, 8, UTF8PROC_CASEFOLD, &last);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++)
        jbuild_char(b, (uint32_t)out[i], trusted);
}

static void put_one(struct jbuild *b, const struct jstr *s, size_t begin, size_t end, uint32_t c,
                    enum jcase how, bool trusted)
{
    if (how == JCASE_UPPER)
        put_upper(b, c, trusted);
    else if (how == JCASE_FOLD)
        put_fold(b, c, trusted);
    else if (how == JCASE_TITLE)
        put_title(b, c, trusted);
    else
        put_lower(b, s, begin, end, c, trusted);
}

struct jv jcase_map(struct jinja *j, const struct jstr *s, enum jcase how)
{
    struct jbuild b = jbuild_new(j, s->n);
    bool in_word = false, trusted = false;
    for (size_t at = 0, run = 0; at < s->n;) {
        size_t begin = at;
        if (begin >= run)
            run = jstr_run(s, begin, &trusted);
        uint32_t c = jstr_next(s, &at);
        enum jcase now = how;
        if (how == JCASE_TITLE)
            now = in_word ? JCASE_LOWER : JCASE_TITLE;
        else if (how == JCASE_CAPITALIZE)
            now = begin ? JCASE_LOWER : JCASE_TITLE;
        else if (how == JCASE_SWAP)
            now = upper_char(c) ? JCASE_LOWER : JCASE_UPPER;
        in_word = cased(c);
        put_one(&b, s, begin, at, c, now, trusted);
    }
    jinja_step(j, s->n / 8);
    return jbuild_end(&b);
}

struct jv jcase_title_filter(struct jinja *j, const struct jstr *s)
{
    struct jbuild b = jbuild_new(j, s->n);
    bool in_word = false, trusted = false;
    size_t word = 0;
    for (size_t at = 0; at < s->n;) {
        size_t begin = at;
        jstr_run(s, begin, &trusted);
        uint32_t c = jstr_next(s, &at);
        bool splits = jstr_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        if (!in_word) { // item[0].upper() of a word, or of a run of splitting characters
            put_upper(&b, c, trusted);
            word = at;
        } else {
            struct jstr tail = {.p = s->p + word, .n = s->n - word, .text = s->text};
            put_lower(&b, &tail, begin - word, at - word, c, trusted);
        }
        in_word = !splits;
    }
    jinja_step(j, s->n / 8);
    return jbuild_end(&b);
}

bool jcase_is_upper(const struct jstr *s)
{
    bool any = false;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = jstr_next(s, &at);
        if (lower_char(c) || title_char(c))
            return false;
        any |= upper_char(c);
    }
    return any;
}

bool jcase_is_lower(const struct jstr *s)
{
    bool any = false;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = jstr_next(s, &at);
        if (upper_char(c) || title_char(c))
            return false;
        any |= lower_char(c);
    }
    return any;
}

bool jcase_is_title(const struct jstr *s)
{
    bool any = false, in_word = false;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = jstr_next(s, &at);
        bool begins = upper_char(c) || title_char(c), goes_on = lower_char(c);
        if ((begins && in_word) || (goes_on && !in_word))
            return false;
        in_word = begins || goes_on;
        any |= in_word;
    }
    return any;
}

bool jcase_alpha(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return true;
    default:
        return false;
    }
}

bool jcase_decimal(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool jcase_digit(uint32_t c) // and the digits that are no decimals: superscripts, circled ones
{
    return jcase_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 ||
           (c >= 0x1369 && c <= 0x1371) || c == 0x19da || c == 0x2070 ||
           (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
           (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247c) ||
           (c >= 0x2488 && c <= 0x2490) || c == 0x24ea || (c >= 0x24f5 && c <= 0x24fd) ||
           c == 0x24ff || (c >= 0x2776 && c <= 0x277e) || (c >= 0x2780 && c <= 0x2788) ||
           (c >= 0x278a && c <= 0x2792) || (c >= 0x10a40 && c <= 0x10a43) ||
           (c >= 0x10e60 && c <= 0x10e68) || (c >= 0x11052 && c <= 0x1105a) ||
           (c >= 0x1f100 && c <= 0x1f10a);
}

bool jcase_numeric(uint32_t c)
{
    utf8proc_category_t k = category(c);
    if (k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO)
        return true;
    // Han numerals: letters with a number.
    static const uint32_t han[] = {0x3007, 0x4e00, 0x4e03, 0x4e07, 0x4e09, 0x4e5d,
                                   0x4e8c, 0x4e94, 0x4ebf, 0x4edf, 0x5104, 0x516b,
                                   0x516d, 0x5341, 0x5343, 0x56db, 0x767e};
    for (size_t i = 0; i < sizeof han / sizeof *han; i++)
        if (han[i] == c)
            return true;
    return false;
}

bool jcase_alnum(uint32_t c)
{
    return jcase_alpha(c) || jcase_numeric(c) || jcase_digit(c);
}

bool jcase_is_identifier(const struct jstr *s)
{
    for (size_t at = 0; at < s->n;) {
        size_t begin = at;
        uint32_t c = jstr_next(s, &at);
        utf8proc_category_t k = category(c);
        bool first = jcase_alpha(c) || k == UTF8PROC_CATEGORY_NL || c == '_';
        bool later = k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
                     k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_PC;
        if (!first && !(begin && later))
            return false;
    }
    return s->n > 0;
}
