// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mem - allocation that cannot fail, for small control-plane objects of bounded size.
 *
 * x*  abort on exhaustion. Sizes chosen by a client never come here unbounded: they are checked
 *     against their limit first.
 */
#include <stddef.h>

void *xcalloc(size_t n, size_t size); // zeroed
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);            // NULL stays NULL
char *xstrndup(const char *s, size_t n); // at most n bytes, NUL added
void xfree(void *p);                     // NULL is fine
__attribute__((format(printf, 1, 2))) char *xasprintf(const char *fmt, ...);
