// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "base/err.h"
#include "cli/args.h"
#include "cli/ask.h"
#include "cli/cli.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

static void print_all(const cJSON *j);
static int keep_one(cJSON *j, const char *name, struct err *err);

int cmd_status(int argc, char **argv)
{
    const char *state = NULL, *address = NULL, *name = NULL, *words[1] = {NULL};
    bool json = false;
    const struct arg table[] = {{"--state", &state, NULL}, {"--address", &address, NULL},
                                {"-a", &address, NULL},    {"--name", &name, NULL},
                                {"-n", &name, NULL},       {"--json", NULL, &json},
                                {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 0};
    struct buf body = {0};
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "status: %s", err.msg);
    struct ask_server server;
    if (ask_server_init(&server, state, address, &err) < 0)
        return cli_fail(CLI_USAGE, "status: %s", err.msg);
    int rc = ask(&server, &(struct ask_request){.method = "GET", .path = "/status"}, &body, &err);
    ask_server_finish(&server);
    if (rc < 0)
        return cli_fail(CLI_FAILED, "status: %s", err.msg);
    cJSON *j = cJSON_ParseWithLength(buf_head(&body), buf_len(&body));
    buf_finish(&body);
    if (!j)
        return cli_fail(CLI_FAILED, "status: the server's answer is not JSON");
    if (name && keep_one(j, name, &err) < 0) {
        cJSON_Delete(j);
        return cli_fail(CLI_FAILED, "status: %s", err.msg);
    }
    char *text = json ? cJSON_Print(j) : NULL;
    if (text)
        puts(text);
    else
        print_all(j);
    cJSON_free(text);
    cJSON_Delete(j);
    return CLI_OK;
}

// Of the applications the one that was asked for.
static int keep_one(cJSON *j, const char *name, struct err *err)
{
    cJSON *all = cJSON_GetObjectItemCaseSensitive(j, "applications");
    cJSON *one = cJSON_DetachItemFromObjectCaseSensitive(all, name);
    if (!one)
        return cli_unknown_app(all, name, err);
    cJSON *only = cJSON_CreateObject();
    cJSON_AddItemToObject(only, name, one);
    cJSON_ReplaceItemInObjectCaseSensitive(j, "applications", only);
    return 0;
}

static const cJSON *get(const cJSON *j, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(j, key);
}

static const char *text_of(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(get(j, key));
    return v ? v : "-";
}

static long number_of(const cJSON *j, const char *key)
{
    const cJSON *v = get(j, key);
    return cJSON_IsNumber(v) ? (long)v->valuedouble : 0;
}

// Only when there is something to say.
static void print_said(const char *indent, const char *what, const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(get(j, key));
    if (v && *v)
        printf("%s%s: %s\n", indent, what, v);
}

static void print_replica(const cJSON *r, const char *version)
{
    const char *own = text_of(r, "version");
    printf("    %-28s %-9s pid %-7ld in flight %-5ld restarts %ld", text_of(r, "replica_id"),
           text_of(r, "state"), number_of(r, "pid"), number_of(r, "num_ongoing_requests"),
           number_of(r, "restarts"));
    if (strcmp(own, version) != 0)
        printf("  version %s", own);
    putchar('\n');
    const cJSON *wait = get(r, "restart_in_s");
    if (wait)
        printf("      starts again in %.1f s\n", wait->valuedouble);
    print_said("      ", "last error", r, "last_error");
}

static void print_deployment(const cJSON *d)
{
    const cJSON *conf = get(d, "deployment_config"), *replicas = get(d, "replicas"), *r;
    long running = 0;
    cJSON_ArrayForEach(r, replicas) running +=
        cJSON_GetStringValue(get(r, "state")) && *text_of(r, "state") == 'R';
    printf("  %s  %s  plugin %s  version %s  replicas %ld of %ld  max_ongoing_requests %ld\n",
           text_of(d, "name"), text_of(d, "status"), text_of(d, "plugin"), text_of(d, "version"),
           running, number_of(d, "target_num_replicas"), number_of(conf, "max_ongoing_requests"));
    print_said("    ", "scaling", d, "scaling");
    cJSON_ArrayForEach(r, replicas) print_replica(r, text_of(d, "version"));
}

static void print_upgrade(const cJSON *up)
{
    if (cJSON_IsTrue(get(up, "under_way")))
        printf("going over to %s\n", text_of(up, "path"));
    else if (up && *text_of(up, "error"))
        printf("did not go over to %s: %s\n", text_of(up, "path"), text_of(up, "error"));
}

static void print_all(const cJSON *j)
{
    const cJSON *http = get(j, "http_options"), *it;
    printf("http://%s:%ld  supervisor pid %ld  control pid %ld (restarts %ld)  state %s\n",
           text_of(http, "host"), number_of(http, "port"), number_of(j, "supervisor_pid"),
           number_of(get(j, "controller_info"), "pid"),
           number_of(get(j, "controller_info"), "restarts"), text_of(j, "state_dir"));
    printf("build %s\n", text_of(get(j, "controller_info"), "build"));
    print_said("", "nothing can be changed", j, "store_error");
    print_upgrade(get(j, "upgrade"));
    cJSON_ArrayForEach(it, get(j, "proxies"))
        printf("%-32s %-9s pid %-7ld in flight %-5ld restarts %ld\n", text_of(it, "name"),
               text_of(it, "status"), number_of(it, "pid"), number_of(it, "num_ongoing_requests"),
               number_of(it, "restarts"));
    int gpu = 0;
    cJSON_ArrayForEach(it, get(j, "gpus"))
        printf("GPU %-28d %-32s %.1f GiB  %s\n", gpu++, text_of(it, "name"),
               cJSON_GetNumberValue(get(it, "bytes")) / (1 << 30), text_of(it, "replica"));
    cJSON_ArrayForEach(it, get(j, "applications"))
    {
        printf("\n%s  %s  %s\n", text_of(it, "name"), text_of(it, "route_prefix"),
               text_of(it, "status"));
        print_said("  ", "message", it, "message");
        const cJSON *d;
        cJSON_ArrayForEach(d, get(it, "deployments")) print_deployment(d);
    }
}
