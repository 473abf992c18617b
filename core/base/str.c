// SPDX-License-Identifier: Apache-2.0
#include "base/str.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STR_WORD_MAX = 64 }; // bytes of a word that is worth a suggestion

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

// Words longer than STR_WORD_MAX are as far apart as they can be.
unsigned str_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > STR_WORD_MAX || nb > STR_WORD_MAX)
        return strcmp(a, b) == 0 ? 0 : (unsigned)(na > nb ? na : nb);
    unsigned rows[3][STR_WORD_MAX + 1]; // of the last two prefixes of a, and of this one
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned change = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            now[j] = min3(now[j - 1] + 1, last[j] + 1, change);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        unsigned *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[nb];
}

const char *str_suggest(const char *word, const char *(*candidate)(void *arg, size_t i), void *arg)
{
    unsigned best = (unsigned)strlen(word) / 3;
    best = best < 1 ? 2 : best + 1; // one more than what is near
    const char *found = NULL, *c;
    for (size_t i = 0; (c = candidate(arg, i)); i++) {
        unsigned d = str_distance(word, c);
        if (d < best) {
            best = d;
            found = c;
        }
    }
    return found;
}

int str_to_i64(const char *s, int64_t *ret, struct err *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (end == s || *end || isspace((unsigned char)*s) || *s == '+')
        return err_set(err, SV_E_INVALID, "'%.64s' is not a whole number", s);
    if (errno == ERANGE)
        return err_set(err, SV_E_INVALID, "'%.64s' does not fit in 64 bits", s);
    *ret = v;
    return 0;
}

// A decimal number at the front of s; *end is behind it. False: there is none.
static bool take_number(const char *s, double *ret, const char **end)
{
    const char *c = s + (*s == '-' ? 1 : 0);
    if (!isdigit((unsigned char)*c) && *c != '.') // no nan, inf, spaces
        return false;
    if (c[0] == '0' && (c[1] == 'x' || c[1] == 'X'))
        return false;
    char *stop;
    *ret = strtod(s, &stop);
    *end = stop;
    return stop != s && isfinite(*ret);
}

int str_to_f64(const char *s, double *ret, struct err *err)
{
    const char *end;
    double v;
    if (!take_number(s, &v, &end) || *end)
        return err_set(err, SV_E_INVALID, "'%.64s' is not a finite decimal number", s);
    *ret = v;
    return 0;
}

int str_to_bytes(const char *s, int64_t *ret, struct err *err)
{
    static const struct {
        const char *name;
        int64_t bytes;
    } units[] = {
        {"", 1},
        {"B", 1},
        {"kB", 1000},
        {"KB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", 1000000000000},
        {"KiB", 1ll << 10},
        {"MiB", 1ll << 20},
        {"GiB", 1ll << 30},
        {"TiB", 1ll << 40},
    };
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (!isdigit((unsigned char)*s))
        return err_set(err, SV_E_INVALID, "'%.64s' is not a size (write 4096, 64KiB or 1GiB)", s);
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (errno == ERANGE || v > INT64_MAX / units[i].bytes)
            return err_set(err, SV_E_INVALID, "'%.64s' does not fit in 64 bits", s);
        *ret = v * units[i].bytes;
        return 0;
    }
    return err_set(err, SV_E_INVALID,
                   "'%.64s' has no unit of size (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)", s);
}

int str_to_time(const char *s, double *ret_s, struct err *err)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"", 1},   {"s", 1},    {"ms", 1e-3}, {"us", 1e-6},
                 {"m", 60}, {"min", 60}, {"h", 3600},  {"d", 86400}};
    const char *end;
    double v;
    if (!take_number(s, &v, &end) || v < 0)
        return err_set(err, SV_E_INVALID, "'%.64s' is not a time (write 5, 250ms, 2m or 1h)", s);
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        *ret_s = v * units[i].seconds;
        return 0;
    }
    return err_set(err, SV_E_INVALID, "'%.64s' has no unit of time (us, ms, s, m, h, d)", s);
}

size_t str_utf8_len(const char *s, size_t n)
{
    // RFC 3629 section 4: the second byte's range depends on the first.
    const unsigned char *c = (const unsigned char *)s;
    if (n == 0)
        return 0;
    if (c[0] < 0x80)
        return 1;
    size_t len = c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    unsigned low = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (c[1] < low || c[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

bool str_valid_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = str_utf8_len(s + i, n - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}
