// SPDX-License-Identifier: Apache-2.0
// salver delete, salver shutdown.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "cli/apps.h"
#include "cli/args.h"
#include "cli/cli.h"

#include <stdio.h>
#include <unistd.h>

// One request whose answer says nothing more. Exit status.
static int tell(const char *command, const char *state, const char *address,
                const struct ask_request *q)
{
    struct ask_server server;
    struct buf answer = {0};
    struct err err;
    if (ask_server_init(&server, state, address, &err) < 0)
        return cli_fail(CLI_USAGE, "%s: %s", command, err.msg);
    int rc = ask_change(&server, q, &answer, &err);
    ask_server_finish(&server);
    buf_finish(&answer);
    return rc < 0 ? cli_fail(CLI_FAILED, "%s: %s", command, err.msg) : CLI_OK;
}

int cmd_delete(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL}, *state = NULL, *address = NULL;
    const struct arg table[] = {{"--state", &state, NULL},
                                {"--address", &address, NULL},
                                {"-a", &address, NULL},
                                {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct buf path = {0};
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "delete: %s", err.msg);
    if (!words[0] || !*words[0])
        return cli_fail(CLI_USAGE, "delete: which application? `salver status` lists them");
    buf_puts(&path, APPS_PATH);
    ask_put_escaped(&path, words[0]);
    int status = tell("delete", state, address,
                      &(struct ask_request){.method = "DELETE", .path = buf_cstr(&path)});
    buf_finish(&path);
    if (status == CLI_OK)
        printf("Application '%s' is no longer served; its replicas end after their requests.\n",
               words[0]);
    return status;
}

// Only a person at a terminal can answer.
static int confirm(bool yes)
{
    if (yes)
        return CLI_OK;
    if (!isatty(STDIN_FILENO))
        return cli_fail(CLI_USAGE, "shutdown: this removes all applications; confirm it with -y");
    fputs("Remove all applications? [y/N] ", stderr);
    int answer = getchar();
    return answer == 'y' || answer == 'Y' ? CLI_OK : cli_fail(CLI_FAILED, "shutdown: not done");
}

int cmd_shutdown(int argc, char **argv)
{
    const char *words[1] = {NULL}, *state = NULL, *address = NULL;
    bool yes = false;
    const struct arg table[] = {{"--state", &state, NULL}, {"--address", &address, NULL},
                                {"-a", &address, NULL},    {"--yes", NULL, &yes},
                                {"-y", NULL, &yes},        {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 0};
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "shutdown: %s", err.msg);
    int status = confirm(yes);
    if (status == CLI_OK)
        status = tell("shutdown", state, address,
                      &(struct ask_request){.method = "DELETE", .path = APPS_PATH});
    if (status == CLI_OK)
        puts("All applications are removed; their replicas end after their requests. The server "
             "goes on.");
    return status;
}
