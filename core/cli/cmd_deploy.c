// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "cli/apps.h"
#include "cli/args.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "conf/app.h"
#include "conf/yaml.h"
#include "control/statefile.h"

#include <cjson/cJSON.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    WAIT_POLL_MS = 100,
    WAIT_SILENT_S = 20 // a server that does not answer for so long is gone; control may be replaced
};

struct deploy {
    const char *file, *state, *address, *wait_text;
    bool dry_run, wait, allow_unauthenticated;
    double wait_s;   // 0 = no limit
    struct buf text; // of the file
    struct conf_file conf;
    struct ask_server server;
};

static int parse(struct deploy *d, int argc, char **argv, struct err *err);
static int check(struct deploy *d);
static int submit(struct deploy *d);
static int print_changes(struct buf *answer);
static int wait_for_all(struct deploy *d);
static void finish(struct deploy *d);

int cmd_deploy(int argc, char **argv)
{
    static struct deploy d; // large
    struct err err;
    int status = CLI_OK;
    if (parse(&d, argc, argv, &err) < 0 || ask_server_init(&d.server, d.state, d.address, &err) < 0)
        status = cli_fail(CLI_USAGE, "deploy: %s", err.msg);
    if (status == CLI_OK)
        status = check(&d);
    if (status == CLI_OK)
        status = submit(&d);
    if (status == CLI_OK && d.wait && !d.dry_run)
        status = wait_for_all(&d);
    finish(&d);
    return status;
}

static int parse(struct deploy *d, int argc, char **argv, struct err *err)
{
    const char *words[2] = {NULL, NULL};
    const struct arg table[] = {{"--state", &d->state, NULL},
                                {"--address", &d->address, NULL},
                                {"-a", &d->address, NULL},
                                {"--dry-run", NULL, &d->dry_run},
                                {"--wait", &d->wait_text, &d->wait},
                                {"--allow-unauthenticated", NULL, &d->allow_unauthenticated},
                                {NULL, NULL, NULL}};
    struct args a = {.table = table, .words = words, .max_words = 1};
    int rc = args_parse(&a, argc, argv, err);
    if (rc < 0)
        return rc;
    d->file = words[0];
    if (!d->file)
        return err_set(err, SV_E_INVALID, "which file?");
    if (d->wait_text && (str_to_time(d->wait_text, &d->wait_s, NULL) < 0 || d->wait_s <= 0))
        return err_set(err, SV_E_INVALID, "--wait is '%s'; it can be a time such as 60 or 5m",
                       d->wait_text);
    return 0;
}

// Here, so that what is wrong with the file is said as `salver check` says it.
static int check(struct deploy *d)
{
    struct err err = {0};
    int rc = statefile_read_path(d->file, &d->text, NULL) < 0 // then conf_load says why
                 ? conf_load(d->file, &d->conf, &err)
                 : conf_load_bytes(d->file, buf_cstr(&d->text), buf_len(&d->text), &d->conf, &err);
    if (rc == 0) {
        d->conf.http.allow_unauthenticated = d->allow_unauthenticated;
        rc = conf_host_check(&d->conf, true, &err);
    }
    if (rc < 0)
        return check_print(&d->conf, &err);
    struct buf warnings = {0};
    conf_print(&d->conf, &warnings);
    fputs(buf_cstr(&warnings), stderr);
    buf_finish(&warnings);
    return CLI_OK;
}

static void finish(struct deploy *d)
{
    buf_finish(&d->text);
    if (d->conf.report)
        conf_finish(&d->conf);
    ask_server_finish(&d->server);
}

// --- the request

// The file as JSON, for TCP. References to what lies outside of it stay as they are written: the
// server looks them up, as it does for the file itself.
static void make_json(struct deploy *d, struct buf *out)
{
    struct arena arena;
    struct report report;
    arena_init(&arena, 0);
    report_init(&report, &arena);
    yaml_json(yaml_parse(d->file, buf_head(&d->text), buf_len(&d->text), &report), out);
    arena_finish(&arena);
}

static void make_target(const struct deploy *d, struct buf *out)
{
    char full[PATH_MAX];
    buf_puts(out, d->dry_run ? "/api/serve/dry-run" : APPS_PATH);
    buf_puts(out, "?path=");
    ask_put_escaped(out, realpath(d->file, full) ? full : "");
}

static int submit(struct deploy *d)
{
    struct buf target = {0}, json = {0}, answer = {0};
    struct err err;
    bool local = d->server.socket_path != NULL;
    make_target(d, &target);
    if (!local)
        make_json(d, &json);
    struct buf *body = local ? &d->text : &json;
    const struct ask_request q = {.method = d->dry_run ? "POST" : "PUT",
                                  .path = buf_cstr(&target),
                                  .content_type = local ? "application/yaml" : "application/json",
                                  .body = {buf_head(body), buf_len(body)}};
    int rc = ask_change(&d->server, &q, &answer, &err);
    int status = CLI_OK;
    if (rc < 0)
        status = cli_fail(rc == SV_E_INVALID ? CLI_USAGE : CLI_FAILED, "deploy: %s", err.msg);
    else if (d->dry_run)
        status = print_changes(&answer);
    else
        printf("Deployed %u application%s of %s.\n"
               "* `salver status` says how they are.\n"
               "* `salver config` prints what was submitted.\n",
               d->conf.n_apps, d->conf.n_apps == 1 ? "" : "s", d->file);
    buf_finish(&target);
    buf_finish(&json);
    buf_finish(&answer);
    return status;
}

static const char *text_of(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    return v ? v : "";
}

static int print_changes(struct buf *answer)
{
    cJSON *j = cJSON_ParseWithLength(buf_head(answer), buf_len(answer));
    const cJSON *apps = cJSON_GetObjectItemCaseSensitive(j, "applications"), *app, *change;
    if (!apps) {
        cJSON_Delete(j);
        return cli_fail(CLI_FAILED, "deploy: the server's answer does not say what would change");
    }
    cJSON_ArrayForEach(app, apps)
    {
        printf("%s: %s\n", app->string, text_of(app, "action"));
        cJSON_ArrayForEach(change, cJSON_GetObjectItemCaseSensitive(app, "changes"))
            printf("  %s: %s\n", text_of(change, "field"), text_of(change, "class"));
    }
    cJSON_Delete(j);
    return CLI_OK;
}

// --- --wait

static int failed(const char *name, const cJSON *app)
{
    return cli_fail(CLI_FAILED, "deploy: application '%s' is %s: %s", name, text_of(app, "status"),
                    text_of(app, "message"));
}

// CLI_OK: all run; CLI_FAILED: said why not; -1: not yet. *ret_last: one that does not run yet.
static int look(const struct deploy *d, const cJSON *apps, const char **ret_last)
{
    *ret_last = NULL;
    for (uint32_t i = 0; i < d->conf.n_apps; i++) {
        const char *name = d->conf.apps[i].name;
        const cJSON *app = cJSON_GetObjectItemCaseSensitive(apps, name);
        if (!app)
            return cli_fail(CLI_FAILED, "deploy: application '%s' was removed meanwhile", name);
        if (strcmp(text_of(app, "status"), "DEPLOY_FAILED") == 0)
            return failed(name, app);
        if (strcmp(text_of(app, "status"), "RUNNING") != 0)
            *ret_last = name;
    }
    return *ret_last ? -1 : CLI_OK;
}

static int wait_for_all(struct deploy *d)
{
    const struct timespec pause = {.tv_nsec = WAIT_POLL_MS * 1000000L};
    uint64_t begun = clock_now_ns(), heard = begun;
    struct err err;
    for (;;) {
        cJSON *apps = apps_get(&d->server, &err);
        const char *last = NULL;
        uint64_t now = clock_now_ns();
        int status = -1;
        if (apps) {
            heard = now;
            status = look(d, apps, &last);
        } else if (now - heard > WAIT_SILENT_S * 1000000000ull) {
            status = cli_fail(CLI_FAILED, "deploy: %s", err.msg);
        }
        if (status < 0 && d->wait_s > 0 && (double)(now - begun) / 1e9 > d->wait_s)
            status = last ? failed(last, cJSON_GetObjectItemCaseSensitive(apps, last))
                          : cli_fail(CLI_FAILED, "deploy: %s", err.msg);
        cJSON_Delete(apps);
        if (status == CLI_OK)
            puts("All applications are RUNNING.");
        if (status >= 0)
            return status;
        nanosleep(&pause, NULL);
    }
}
