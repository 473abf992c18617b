// SPDX-License-Identifier: Apache-2.0
#include "conf/report.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_TEXT_MAX = 2048 }; // bytes of one line; longer is cut

__attribute__((format(printf, 4, 0))) static void add(struct report *r, struct place at,
                                                      bool warning, const char *fmt, va_list ap);

void report_init(struct report *r, struct arena *arena)
{
    r->arena = arena;
    r->n = r->n_errors = r->n_warnings = 0;
}

void report_error(struct report *r, struct place at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(r, at, false, fmt, ap);
    va_end(ap);
}

void report_warn(struct report *r, struct place at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(r, at, true, fmt, ap);
    va_end(ap);
}

// Texts quote what a user wrote: a control character must not reach a terminal.
static void tame(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static void add(struct report *r, struct place at, bool warning, const char *fmt, va_list ap)
{
    char text[REPORT_TEXT_MAX], where[64] = "";
    uint32_t *count = warning ? &r->n_warnings : &r->n_errors;

    if (*count >= REPORT_LINES_MAX) {
        ++*count;
        return;
    }
    vsnprintf(text, sizeof text, fmt, ap);
    tame(text);
    if (at.line)
        snprintf(where, sizeof where, ":%u:%u", at.line, at.column);
    const char *line =
        arena_printf(r->arena, "%s%s: %s%s", at.file, where, warning ? "warning: " : "", text);
    for (uint32_t i = 0; i < r->n; i++)
        if (strcmp(r->lines[i].text, line) == 0) // an alias brings a place twice
            return;
    ++*count;
    r->lines[r->n++] = (struct report_line){.at = at, .warning = warning, .text = line};
}

static bool before(const struct report_line *a, const struct report_line *b)
{
    if (a->at.line != b->at.line)
        return a->at.line < b->at.line;
    return a->at.column < b->at.column;
}

// Insertion sort: stable, and there are few lines.
void report_sort(struct report *r)
{
    for (uint32_t i = 1; i < r->n; i++) {
        struct report_line line = r->lines[i];
        uint32_t j = i;
        for (; j > 0 && before(&line, &r->lines[j - 1]); j--)
            r->lines[j] = r->lines[j - 1];
        r->lines[j] = line;
    }
}

int report_result(const struct report *r, struct err *err)
{
    if (!r->n_errors)
        return 0;
    const char *first = "";
    for (uint32_t i = 0; i < r->n; i++) {
        if (!r->lines[i].warning) {
            first = r->lines[i].text;
            break;
        }
    }
    if (r->n_errors == 1)
        return err_set(err, SV_E_INVALID, "%s", first);
    return err_set(err, SV_E_INVALID, "%s (and %u more: see 'salver check')", first,
                   r->n_errors - 1);
}
