// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "base/err.h"
#include "cli/args.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "conf/app.h"
#include "conf/report.h"

#include <stdio.h>

static int finish(struct conf_file *f, const char *path, int status)
{
    struct buf text = {0};
    conf_print(f, &text);
    fputs(buf_cstr(&text), stderr);
    buf_finish(&text);
    if (status == CLI_OK)
        printf("%s: ok, %u application%s\n", path, f->n_apps, f->n_apps == 1 ? "" : "s");
    conf_finish(f);
    return status;
}

int cmd_check(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL}, *plugins = NULL;
    const struct arg table[] = {{"--plugins", &plugins, NULL}, {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct conf_file f;
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "check: %s", err.msg);
    if (!words[0])
        return cli_fail(CLI_USAGE, "check: which file?");
    if (conf_load(words[0], &f, &err) < 0) {
        int status = check_print(&f, &err);
        conf_finish(&f);
        return status;
    }
    conf_host_check(&f, false, &err);
    return finish(&f, words[0], check_options(&f, plugins, true, &err));
}

int cmd_config(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL};
    bool defaults = false;
    const struct arg table[] = {{"--defaults", NULL, &defaults}, {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct conf_file f;
    struct buf text = {0};
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "config: %s", err.msg);
    if (defaults == (words[0] != NULL))
        return cli_fail(CLI_USAGE, "config: give --defaults or a FILE");
    if (defaults) {
        conf_defaults(&text);
    } else {
        int status = conf_load(words[0], &f, &err) < 0 ? check_print(&f, &err) : CLI_OK;
        if (status == CLI_OK)
            conf_dump(&f, &text);
        conf_finish(&f);
        if (status != CLI_OK)
            return status;
    }
    fputs(buf_cstr(&text), stdout);
    buf_finish(&text);
    return CLI_OK;
}
