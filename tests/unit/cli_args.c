// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/err.h"
#include "cli/args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { WORDS_MAX = 2, ARGV_MAX = 12 };

// A line as typed; what comes of it: `port`, `all`, the words and the other options, or a part of
// the message.
static const struct {
    const char *line, *want;
    bool others;
} rows[] = {
    {"", "port= all=0 words= others=", false},
    {"a b", "port= all=0 words=a,b, others=", false},
    {"--port 1 a", "port=1 all=0 words=a, others=", false},
    {"a --port=1", "port=1 all=0 words=a, others=", false},
    {"--port=", "port= all=0 words= others=", false},
    {"--port 1 --port 2", "port=2 all=0 words= others=", false},
    {"--all a --port 3", "port=3 all=1 words=a, others=", false},
    {"-- --all", "port= all=0 words=--all, others=", false},
    {"-", "port= all=0 words=-, others=", false},
    {"--port --all", "port=--all all=0 words= others=", false},
    {"--key v --all --k2=v2 w", "port= all=1 words=w, others=--key=v,--k2=v2,", true},
    {"a b c", "'c' is one argument too many", false},
    {"--port", "'--port' needs a value", false},
    {"--key", "'--key' needs a value", true},
    {"--wait a", "port= all=0 words=a, others= wait=1:", false},
    {"--wait=5 a", "port= all=0 words=a, others= wait=1:5", false},
    {"a --wait=", "port= all=0 words=a, others= wait=1:", false},
    {"--all=1", "'--all' takes no value", false},
    {"--prot 1", "did you mean '--port'", false},
    {"--unheard", "--help", false},
};

static int on_other(void *ctx, const char *name, const char *value, struct err *err)
{
    (void)err;
    char *out = ctx;
    sprintf(out + strlen(out), "%s=%s,", name, value);
    return 0;
}

static int split(char *line, char **argv)
{
    int n = 0;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
        argv[n++] = word;
    return n;
}

static void lines_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char line[128], got[512], others[128] = "", *argv[ARGV_MAX];
        const char *port = "", *words[WORDS_MAX] = {0};
        const char *wait_for = "";
        bool all = false, waits = false;
        const struct arg table[] = {{"--port", &port, NULL},
                                    {"--all", NULL, &all},
                                    {"--wait", &wait_for, &waits},
                                    {NULL, NULL, NULL}};
        struct args a = {.table = table,
                         .words = words,
                         .max_words = WORDS_MAX,
                         .other = rows[i].others ? on_other : NULL,
                         .ctx = others};
        struct err err = {0};
        snprintf(line, sizeof line, "%s", rows[i].line);
        if (args_parse(&a, split(line, argv), argv, &err) < 0)
            snprintf(got, sizeof got, "%s", err.msg);
        else
            snprintf(got, sizeof got, "port=%s all=%d words=%s%s%s%s others=%s", port, all,
                     words[0] ? words[0] : "", words[0] ? "," : "", words[1] ? words[1] : "",
                     words[1] ? "," : "", others);
        if (!err.code && waits)
            sprintf(got + strlen(got), " wait=1:%s", wait_for);
        if (err.code ? !strstr(got, rows[i].want) : strcmp(got, rows[i].want) != 0)
            fail_msg("'%s': %s", rows[i].line, got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines_are_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
