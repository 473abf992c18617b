// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_string - strings whose every byte is trusted or not, and the builder that makes them.
 *
 * Trust   bytes of the template's source are trusted, bytes of the input and whatever we compute
 *         (digits, JSON's brackets, escapes) are not. A jtext holds bytes with the runs of equal
 *         trust; strings are parts of a jtext, so that cutting costs nothing and keeps the trust.
 * Growth  a string at the end of its jtext is extended in place: adding to a string in a loop
 *         takes memory in proportion to the result.
 * Owner   the arena.
 */
#include "llm/jinja_value.h"

#include <string.h>

struct jrun {
    size_t end;
    bool trusted;
};
struct jtext {
    char *data;
    size_t used, cap;
    bool trusted; // all of it, while n_runs is 0
    struct jrun *runs;
    size_t n_runs, cap_runs;
};
struct jstr {
    const char *p;
    size_t n;
    struct jtext *text;
    size_t chars; // JSTR_UNCOUNTED: nobody asked yet
    bool markup;  // Python's Markup: what is added to it gets HTML escapes
};
#define JSTR_UNCOUNTED SIZE_MAX

// Bytes that outlive the string.
struct jv jstr_new(struct jinja *j, const char *p, size_t n, bool trusted);
struct jv jstr_of(struct jinja *j, const char *text); // ours, static: untrusted
struct jv jstr_sub(struct jinja *j, const struct jstr *s, size_t from, size_t n); // bytes
struct jv jstr_concat(struct jinja *j, struct jstr *a, struct jstr *b);
size_t jstr_chars(struct jinja *j, struct jstr *s);
// For what outlives this arena's owner: never grown in place, nor written to by jstr_chars.
void jstr_freeze(struct jinja *j, struct jstr *s);
size_t jstr_offset(struct jinja *j, struct jstr *s, size_t chars); // of that character
bool jstr_equal(struct jinja *j, const struct jstr *a, const struct jstr *b);
int jstr_compare(struct jinja *j, const struct jstr *a, const struct jstr *b);
bool jstr_is(const struct jstr *s, const char *text);
// Offset of the first `what` in s from `from` on; SIZE_MAX: none.
size_t jstr_find(struct jinja *j, const struct jstr *s, size_t from, const struct jstr *what);
size_t jstr_rfind(struct jinja *j, const struct jstr *s, size_t end, const struct jstr *what);
bool jstr_starts(const struct jstr *s, const struct jstr *what);
bool jstr_ends(const struct jstr *s, const struct jstr *what);
// The run of equal trust at byte `at` of s: its end.
size_t jstr_run(const struct jstr *s, size_t at, bool *trusted);

// Code points. *at moves on; s is valid UTF-8.
uint32_t jstr_next(const struct jstr *s, size_t *at);
uint32_t jstr_prev(const struct jstr *s, size_t *at); // moves back
size_t jstr_put_utf8(char out[4], uint32_t c);
bool jstr_space(uint32_t c);                                     // Python's str.isspace
void jstr_strip(const struct jstr *s, size_t *from, size_t *to); // of white space, in [from, to)

struct jbuild {
    struct jinja *j;
    struct jtext *text;
};
struct jbuild jbuild_new(struct jinja *j, size_t expected);
void jbuild_put(struct jbuild *b, const char *p, size_t n, bool trusted);
void jbuild_puts(struct jbuild *b, const char *text); // untrusted
void jbuild_char(struct jbuild *b, uint32_t c, bool trusted);
void jbuild_fill(struct jbuild *b, uint32_t c, size_t n, bool trusted); // n times
void jbuild_str(struct jbuild *b, const struct jstr *s);
void jbuild_sub(struct jbuild *b, const struct jstr *s, size_t from, size_t n);
struct jv jbuild_end(struct jbuild *b);
