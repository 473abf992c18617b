// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "llm/template.h"

#include <stdarg.h>
#include <stdio.h>

void jinja_fail(struct jinja *j, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(j->err, SV_E_INVALID, "line %u: %s", j->line, text);
    longjmp(j->way_out, 1);
}

void jinja_raise(struct jinja *j, const char *text, size_t n)
{
    err_set(j->err, SV_E_INVALID, "%.*s", (int)(n > ERR_MSG_MAX ? ERR_MSG_MAX : n), text);
    longjmp(j->way_out, 1);
}

void *jinja_alloc(struct jinja *j, size_t n)
{
    void *p = arena_alloc(&j->arena, n);
    if (!p)
        jinja_fail(j, "the template needs more than %zu MiB of memory; give it less input",
                   j->arena.limit >> 20);
    return p;
}

void *jinja_array(struct jinja *j, size_t n, size_t size)
{
    if (n > j->arena.limit / size)
        jinja_fail(j, "the template needs more than %zu MiB of memory; give it less input",
                   j->arena.limit >> 20);
    return jinja_alloc(j, n * size);
}

void jinja_enter(struct jinja *j)
{
    if (++j->levels > JINJA_LEVELS_MAX)
        jinja_fail(j, "values, expressions or macros are nested too deep (%d levels in all)",
                   JINJA_LEVELS_MAX);
}

void jinja_step_limit(struct jinja *j)
{
    jinja_fail(j, "the template takes more than %llu steps; give it less input",
               (unsigned long long)j->steps_max);
}
