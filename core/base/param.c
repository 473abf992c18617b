// SPDX-License-Identifier: Apache-2.0
#include "base/param.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

// Reads the value at *p up to the quote that closes it or, of an unquoted one, what ends it.
static ptrdiff_t take_value(const char **p, const char *end, bool quoted, char *out, size_t cap)
{
    const char *at = *p;
    size_t n = 0;
    for (; at < end && (quoted ? *at != '"' : *at != ';' && !is_space(*at)); at++, n++) {
        if (quoted && *at == '\\' && at + 1 < end && (at[1] == '"' || at[1] == '\\'))
            at++;
        if (n < cap)
            out[n] = *at;
    }
    *p = at;
    return quoted && at == end ? -1 : (ptrdiff_t)n;
}

ptrdiff_t param_find(const char *text, size_t n, const char *name, char *out, size_t cap)
{
    size_t want = strlen(name);
    const char *p = text, *end = text + n;
    while (p < end && (p = memchr(p, ';', (size_t)(end - p)))) {
        p++;
        while (p < end && is_space(*p))
            p++;
        const char *key = p;
        while (p < end && *p != '=' && *p != ';' && *p != '"')
            p++;
        bool match = (size_t)(p - key) == want && strncasecmp(key, name, want) == 0;
        if (p == end || *p != '=')
            continue;
        bool quoted = ++p < end && *p == '"';
        p += quoted;
        ptrdiff_t got = take_value(&p, end, quoted, out, cap);
        if (match)
            return got;
    }
    return -1;
}
