// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>

static void print_members(const cJSON *j, const char *indent);
static void print_options(const cJSON *options);

int cmd_inspect(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL};
    bool json = false;
    const struct arg table[] = {{"--json", NULL, &json}, {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct err err;
    char *found = NULL;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "inspect: %s", err.msg);
    if (!words[0])
        return cli_fail(CLI_USAGE, "inspect: which PLUGIN.so?");
    struct err no_plan = {0}; // it may want options before it is created
    struct inspect_what what = {.plugin_path = words[0], .config_json = ""};
    if (inspect_run(&what, &found, &err) < 0)
        return cli_fail(CLI_FAILED, "%s", err.msg);
    char *planned = NULL;
    what.config_json = "{}";
    if (inspect_run(&what, &planned, &no_plan) == 0) {
        xfree(found);
        found = planned;
    }
    cJSON *j = cJSON_Parse(found);
    xfree(found);
    char *text = json ? cJSON_Print(j) : NULL;
    if (text)
        puts(text);
    else
        print_members(j, "");
    cJSON_free(text);
    cJSON_Delete(j);
    if (no_plan.code < 0)
        fprintf(stderr, "salver: no plan with an empty config: %s\n", no_plan.msg);
    return CLI_OK;
}

static void print_value(const cJSON *v, const char *indent)
{
    char *text = cJSON_IsString(v) ? NULL : cJSON_PrintUnformatted(v);
    printf("%s%-16s %s\n", indent, v->string, text ? text : v->valuestring);
    cJSON_free(text);
}

static void print_members(const cJSON *j, const char *indent)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, j)
    {
        if (cJSON_IsArray(v) && !v->child)
            continue; // no options, no warnings
        if (cJSON_IsArray(v) && cJSON_IsObject(v->child)) {
            printf("%s%s\n", indent, v->string);
            print_options(v);
        } else if (cJSON_IsObject(v)) {
            printf("%s%s\n", indent, v->string);
            print_members(v, "  ");
        } else {
            print_value(v, indent);
        }
    }
}

static void print_options(const cJSON *options)
{
    const cJSON *o;
    cJSON_ArrayForEach(o, options)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "name"));
        const char *help = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "help"));
        const cJSON *fallback = cJSON_GetObjectItemCaseSensitive(o, "fallback");
        printf("  %-20s %-12s %s\n", name ? name : "?",
               cJSON_IsString(fallback) ? fallback->valuestring : "-", help ? help : "");
    }
}
