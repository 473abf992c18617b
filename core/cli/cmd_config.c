// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "cli/apps.h"
#include "cli/args.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "conf/app.h"
#include "conf/yaml.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

static int print_file(const char *path);
static int print_deployed(struct ask_server *s, const char *name);

int cmd_config(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL}, *state = NULL, *address = NULL, *name = NULL;
    bool defaults = false;
    const struct arg table[] = {{"--defaults", NULL, &defaults},
                                {"--state", &state, NULL},
                                {"--address", &address, NULL},
                                {"-a", &address, NULL},
                                {"--name", &name, NULL},
                                {"-n", &name, NULL},
                                {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct ask_server server;
    struct buf text = {0};
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "config: %s", err.msg);
    if (defaults + (words[0] != NULL) + (state || address || name) > 1)
        return cli_fail(CLI_USAGE, "config: give one of --defaults, a FILE, or a server");
    if (words[0])
        return print_file(words[0]);
    if (defaults) {
        conf_defaults(&text);
        fputs(buf_cstr(&text), stdout);
        buf_finish(&text);
        return CLI_OK;
    }
    if (ask_server_init(&server, state, address, &err) < 0)
        return cli_fail(CLI_USAGE, "config: %s", err.msg);
    int status = print_deployed(&server, name);
    ask_server_finish(&server);
    return status;
}

static int print_file(const char *path)
{
    struct conf_file f;
    struct buf text = {0};
    struct err err;
    int status = conf_load(path, &f, &err) < 0 ? check_print(&f, &err) : CLI_OK;
    if (status == CLI_OK) {
        conf_dump(&f, &text);
        fputs(buf_cstr(&text), stdout);
    }
    buf_finish(&text);
    conf_finish(&f);
    return status;
}

// JSON is YAML: it is read as that and written in block style.
static void print_yaml(const cJSON *config)
{
    struct arena arena;
    struct report report;
    struct buf text = {0};
    char *json = cJSON_PrintUnformatted(config);
    arena_init(&arena, 0);
    report_init(&report, &arena);
    const struct yaml_node *node = yaml_parse("config", json, strlen(json), &report);
    if (node)
        yaml_write(node, 0, &text);
    fputs(node ? buf_cstr(&text) : json, stdout);
    buf_finish(&text);
    arena_finish(&arena);
    cJSON_free(json);
}

static int print_deployed(struct ask_server *s, const char *name)
{
    struct err err;
    cJSON *apps = apps_get(s, &err);
    if (!apps)
        return cli_fail(CLI_FAILED, "config: %s", err.msg);
    if (name && !cJSON_GetObjectItemCaseSensitive(apps, name)) {
        cli_unknown_app(apps, name, &err);
        cJSON_Delete(apps);
        return cli_fail(CLI_FAILED, "config: %s", err.msg);
    }
    bool first = true;
    const cJSON *it;
    cJSON_ArrayForEach(it, apps)
    {
        if (name && strcmp(it->string, name) != 0)
            continue;
        if (!first)
            puts("\n---\n");
        first = false;
        print_yaml(cJSON_GetObjectItemCaseSensitive(it, "deployed_app_config"));
    }
    cJSON_Delete(apps);
    return CLI_OK;
}
