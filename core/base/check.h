// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * check - what we do about our own bugs: stop, saying where. Compiled in always.
 *
 * BUG(...)     prints file:line and the text to stderr and aborts.
 * CHECK(cond)  BUG when cond is false. Use it for what must hold whatever the outside does.
 * Never for what a client, an operator or a plugin can cause.
 */
__attribute__((noreturn, format(printf, 3, 4))) void check_bug(const char *file, int line,
                                                               const char *fmt, ...);
#define BUG(...)    check_bug(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond) ((cond) ? (void)0 : BUG("broken: %s", #cond))

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof *(a))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
