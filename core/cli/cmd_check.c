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
    bool strict = false;
    const struct arg table[] = {
        {"--plugins", &plugins, NULL}, {"--strict", NULL, &strict}, {NULL, NULL, NULL}};
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
    int status = check_options(&f, plugins, true, &err);
    if (strict && f.report->n_warnings > 0)
        status = CLI_USAGE;
    return finish(&f, words[0], status);
}
