// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/plugin_new.h"
#include "conf/app.h"
#include "http/http.h"
#include "obs/metrics.h"
#include "wire/wire.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    void (*print)(struct buf *out);
} pages[] = {
    {"config", conf_doc}, {"metrics", metrics_doc}, {"wire", wire_doc}, {"errors", http_error_doc}};

int cmd_doc(int argc, char **argv)
{
    for (size_t i = 0; argc == 1 && i < ARRAY_LEN(pages); i++) {
        if (strcmp(argv[0], pages[i].name) != 0)
            continue;
        struct buf text = {0};
        pages[i].print(&text);
        fputs(buf_cstr(&text), stdout);
        buf_finish(&text);
        return CLI_OK;
    }
    return cli_fail(CLI_USAGE, "doc: which page? config, metrics, wire or errors");
}

int cmd_version(int argc, char **argv)
{
    (void)argv;
    if (argc > 0)
        return cli_fail(CLI_USAGE, "version takes no arguments");
    printf("salver %s (plugin ABI %d.%d, wire %d)\n", SALVER_VERSION, SV_ABI_MAJOR, SV_ABI_MINOR,
           WIRE_VERSION);
    return CLI_OK;
}

int cmd_plugin(int argc, char **argv)
{
    struct err err;
    if (argc < 2 || argc > 3 || strcmp(argv[0], "new") != 0)
        return cli_fail(CLI_USAGE, "plugin: salver plugin new NAME [DIR]");
    int rc = plugin_new(argv[1], argc == 3 ? argv[2] : NULL, &err);
    if (rc < 0)
        return cli_fail(rc == SV_E_INVALID ? CLI_USAGE : CLI_FAILED, "%s", err.msg);
    printf("wrote a plugin to %s/; its README.md says how to build and serve it\n",
           argc == 3 ? argv[2] : argv[1]);
    return CLI_OK;
}
