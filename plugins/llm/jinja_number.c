// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_number.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FLOAT_TEXT_MAX = 400 }; // characters of a float's text that are looked at

void jnumber_int(int64_t i, char out[JNUMBER_TEXT])
{
    snprintf(out, JNUMBER_TEXT, "%lld", (long long)i);
}

// Python: an exponent below -4 or from 16 on is written, with two digits at least.
void jnumber_repr(double d, char out[JNUMBER_TEXT])
{
    if (isnan(d) || isinf(d)) {
        snprintf(out, JNUMBER_TEXT, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    char text[JNUMBER_TEXT];
    for (int digits = 0; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    char *e = strchr(text, 'e');
    int exponent = e ? (int)strtol(e + 1, NULL, 10) : 0;
    int digits = 0;
    for (const char *p = text; p < e; p++)
        digits += isdigit((unsigned char)*p) != 0;
    if (exponent < -4 || exponent >= 16) {
        memcpy(out, text, JNUMBER_TEXT); // %e writes it as Python does
        return;
    }
    int after = digits - 1 - exponent;
    snprintf(out, JNUMBER_TEXT, "%.*f", after < 1 ? 1 : after, d);
}

static void strip(const char **p, size_t *n)
{
    while (*n && isspace((unsigned char)**p)) {
        ++*p;
        --*n;
    }
    while (*n && isspace((unsigned char)(*p)[*n - 1]))
        --*n;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

static int prefix_base(const char *p, size_t n)
{
    if (n < 2 || p[0] != '0')
        return 0;
    char c = (char)(p[1] | 32);
    return c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
}

bool jnumber_parse_int(const char *p, size_t n, int base, int64_t *ret)
{
    strip(&p, &n);
    bool minus = n && *p == '-';
    if (n && (*p == '-' || *p == '+')) {
        p++;
        n--;
    }
    int named = prefix_base(p, n);
    bool zeros = base == 0 && !named && n > 1 && *p == '0'; // int("012", 0) is refused
    if (named && (base == 0 || base == named)) {
        base = named;
        p += 2;
        n -= 2;
        if (n && *p == '_') {
            p++;
            n--;
        }
    }
    base = base ? base : 10;
    if (!n)
        return false;
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '_' && i && i + 1 < n && p[i - 1] != '_')
            continue;
        int d = digit(p[i]);
        if (d >= base || (zeros && d))
            return false;
        if (__builtin_mul_overflow(sum, base, &sum) ||
            __builtin_add_overflow(sum, minus ? -d : d, &sum))
            return false;
    }
    *ret = sum;
    return true;
}

static bool float_word(const char *p, size_t n, double *ret)
{
    double sign = n && *p == '-' ? -1 : 1;
    if (n && (*p == '-' || *p == '+')) {
        p++;
        n--;
    }
    if ((n == 3 && strncasecmp(p, "inf", 3) == 0) || (n == 8 && strncasecmp(p, "infinity", 8) == 0))
        *ret = sign * (double)INFINITY;
    else if (n == 3 && strncasecmp(p, "nan", 3) == 0)
        *ret = (double)NAN;
    else
        return false;
    return true;
}

bool jnumber_parse_float(const char *p, size_t n, double *ret)
{
    strip(&p, &n);
    if (float_word(p, n, ret))
        return true;
    char text[FLOAT_TEXT_MAX];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        bool between =
            i && i + 1 < n && isdigit((unsigned char)p[i - 1]) && isdigit((unsigned char)p[i + 1]);
        if (p[i] == '_' && between)
            continue;
        if ((!isdigit((unsigned char)p[i]) && !strchr("+-.eE", p[i])) || !p[i] ||
            len + 1 == sizeof text)
            return false;
        text[len++] = p[i];
    }
    text[len] = 0;
    char *end = text;
    *ret = strtod(text, &end);
    return len > 0 && end == text + len;
}
