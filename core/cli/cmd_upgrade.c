// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "cli/args.h"
#include "cli/ask.h"
#include "cli/cli.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { UPGRADE_POLL_MS = 100, UPGRADE_WAIT_S = 30 }; // for the supervisor's answer

static int ask_for(struct ask_server *s, const char *exe);
static int wait_for_answer(struct ask_server *s, const char *exe);

int cmd_upgrade(int argc, char **argv)
{
    const char *words[2] = {NULL, NULL}, *state = NULL;
    const struct arg table[] = {{"--state", &state, NULL}, {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    struct ask_server server;
    char exe[PATH_MAX];
    struct err err;
    if (args_parse(&a, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "upgrade: %s", err.msg);
    if (words[0] && !realpath(words[0], exe))
        return cli_fail(CLI_USAGE, "upgrade: '%s': %s", words[0], err_errno(errno));
    if (!words[0] && os_self_path(exe, sizeof exe, &err) < 0)
        return cli_fail(CLI_FAILED, "upgrade: %s", err.msg);
    if (access(exe, X_OK) < 0)
        return cli_fail(CLI_USAGE, "upgrade: '%s': %s", exe, err_errno(errno));
    char *dir = cli_state_dir(state); // never $SALVER_ADDRESS: that is no way to upgrade
    int rc = ask_server_init(&server, dir, NULL, &err);
    xfree(dir);
    if (rc < 0)
        return cli_fail(CLI_USAGE, "upgrade: %s", err.msg);
    int status = ask_for(&server, exe);
    if (status == CLI_OK)
        status = wait_for_answer(&server, exe);
    ask_server_finish(&server);
    return status;
}

static int ask_for(struct ask_server *s, const char *exe)
{
    struct buf body = {0}, answer = {0};
    struct err err;
    buf_puts(&body, "{\"path\":");
    buf_put_json(&body, exe, strlen(exe));
    buf_puts(&body, "}");
    const struct ask_request q = {.method = "POST",
                                  .path = "/api/upgrade",
                                  .content_type = "application/json",
                                  .body = {buf_head(&body), buf_len(&body)}};
    int rc = ask_change(s, &q, &answer, &err);
    buf_finish(&body);
    buf_finish(&answer);
    return rc < 0 ? cli_fail(CLI_FAILED, "upgrade: %s", err.msg) : CLI_OK;
}

// True: *ret_why is the supervisor's answer, "" when it agreed. A control that knows nothing of an
// upgrade is the one that came with it.
static bool answered(struct ask_server *s, struct err *ret_why)
{
    struct buf body = {0};
    if (ask(s, &(struct ask_request){.method = "GET", .path = "/status"}, &body, ret_why) < 0)
        return false; // it is being replaced
    cJSON *j = cJSON_ParseWithLength(buf_head(&body), buf_len(&body));
    const cJSON *up = cJSON_GetObjectItemCaseSensitive(j, "upgrade");
    const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(up, "error"));
    bool waits = !j || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(up, "under_way"));
    err_set(ret_why, SV_E_UNAVAILABLE, "%s",
            waits ? "the server has not said yes or no"
            : why ? why
                  : "");
    cJSON_Delete(j);
    buf_finish(&body);
    return !waits;
}

static int wait_for_answer(struct ask_server *s, const char *exe)
{
    const struct timespec pause = {.tv_nsec = UPGRADE_POLL_MS * 1000000L};
    uint64_t begun = clock_now_ns();
    struct err why;
    bool known;
    while (!(known = answered(s, &why)) && clock_now_ns() - begun < UPGRADE_WAIT_S * 1000000000ull)
        nanosleep(&pause, NULL);
    if (!known || *why.msg)
        return cli_fail(CLI_FAILED, "upgrade: %s", why.msg);
    printf("The server goes over to %s, one process after the other; `salver status` says which "
           "build runs.\n",
           exe);
    return CLI_OK;
}
