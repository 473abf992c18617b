// SPDX-License-Identifier: Apache-2.0
#include "cli/args.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/str.h"

#include <string.h>

static const char *candidate(void *arg, size_t i)
{
    const struct arg *table = arg;
    return table[i].name;
}

static const struct arg *find(const struct arg *table, const char *text, size_t n)
{
    for (; table->name; table++)
        if (strlen(table->name) == n && strncmp(table->name, text, n) == 0)
            return table;
    return NULL;
}

static int unknown(const struct arg *table, const char *name, struct err *err)
{
    const char *near = str_suggest(name, candidate, (void *)(uintptr_t)table);
    if (near)
        return err_set(err, SV_E_INVALID, "unknown option '%s'; did you mean '%s'?", name, near);
    return err_set(err, SV_E_INVALID, "unknown option '%s'; --help lists those there are", name);
}

static int take_word(struct args *a, const char *word, struct err *err)
{
    if (a->n_words == a->max_words)
        return err_set(err, SV_E_INVALID, "'%s' is one argument too many", word);
    a->words[a->n_words++] = word;
    return 0;
}

// Takes argv[*i] and, when it has a value that stands alone, the one after it.
static int take_option(struct args *a, int argc, char **argv, int *i, struct err *err)
{
    const char *text = argv[*i];
    size_t n = strcspn(text, "=");
    const struct arg *arg = find(a->table, text, n);
    if (!arg && !a->other)
        return unknown(a->table, text, err);
    if (arg && arg->flag) {
        if (text[n] && !arg->value)
            return err_set(err, SV_E_INVALID, "'%s' takes no value", arg->name);
        if (text[n])
            *arg->value = text + n + 1;
        *arg->flag = true;
        return 0;
    }
    const char *value = text[n] ? text + n + 1 : *i + 1 < argc ? argv[++*i] : NULL;
    if (!value)
        return err_set(err, SV_E_INVALID, "'%s' needs a value", text);
    if (arg) {
        *arg->value = value;
        return 0;
    }
    argv[text[n] ? *i : *i - 1][n] = '\0'; // the name alone
    return a->other(a->ctx, text, value, err);
}

int args_parse(struct args *a, int argc, char **argv, struct err *err)
{
    int rc = 0;
    bool only_words = false;
    for (int i = 0; rc == 0 && i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (!only_words && argv[i][0] == '-' && argv[i][1])
            rc = take_option(a, argc, argv, &i, err);
        else
            rc = take_word(a, argv[i], err);
    }
    return rc;
}
