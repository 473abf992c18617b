// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * args - options of one command: `--name value`, `--name=value`, `--flag`, and words between them.
 */
#include <stdbool.h>
#include <stddef.h>

struct err;

struct arg {
    const char *name;   // with its dashes; NULL ends the table
    const char **value; // takes a value
    bool *flag;         // or none; with both the value is optional and stands behind a '='
};

struct args {
    const struct arg *table;
    const char **words; // room for max_words; words[n_words] = NULL after parsing
    size_t max_words, n_words;
    // An option that the table does not know; NULL: those are errors. value is never NULL.
    int (*other)(void *ctx, const char *name, const char *value, struct err *err);
    void *ctx;
};

// SV_E_INVALID with what to do; a near name is suggested.
int args_parse(struct args *a, int argc, char **argv, struct err *err);
