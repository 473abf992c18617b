// SPDX-License-Identifier: Apache-2.0
#include "cli/args.h"
#include "cli/check.h"
#include "cli/cli.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/str.h"
#include "conf/app.h"
#include "control/doc.h"
#include "control/record.h"
#include "obs/log.h"
#include "supervise/kin.h"
#include "supervise/lock.h"
#include "wire/channel.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char nothing[] = "applications: []";

enum { OPTIONS_MAX = 256 }; // of --plugin

struct serve {
    const char *file, *host, *port, *admin_port, *state, *plugins, *log, *plugin;
    char *state_dir; // owned
    bool allow_unauthenticated;
    const char *keys[OPTIONS_MAX], *values[OPTIONS_MAX];
    uint32_t n_options;
    char file_path[PATH_MAX], plugins_path[PATH_MAX]; // absolute
    struct conf_file conf;
};

static int parse(struct serve *s, int argc, char **argv, struct err *err);
static int load(struct serve *s, struct err *err);
static int resume(struct serve *s);
static int apply(struct serve *s, struct err *err);
static int become_supervisor(struct serve *s);

int cmd_serve(int argc, char **argv)
{
    static struct serve s; // large
    struct err err;
    signal(SIGHUP,
           SIG_IGN); // until the supervisor knows what to do with it: there is nothing to replace
    if (parse(&s, argc, argv, &err) < 0)
        return cli_fail(CLI_USAGE, "serve: %s", err.msg);
    s.state_dir = cli_state_dir(s.state);
    bool resumes = !s.file && !s.plugin;
    int status = resumes ? resume(&s) : CLI_OK;
    if (status != CLI_OK)
        return status;
    if (!resumes && load(&s, &err) < 0)
        return check_print(&s.conf, &err);
    if (apply(&s, &err) < 0)
        return cli_fail(CLI_USAGE, "serve: %s", err.msg);
    if (conf_host_check(&s.conf, true, &err) < 0)
        return check_print(&s.conf, &err);
    if (!resumes && check_options(&s.conf, s.plugins, false, &err) == CLI_USAGE)
        return check_print(&s.conf, &err);
    return become_supervisor(&s);
}

static int take_option(void *ctx, const char *name, const char *value, struct err *err)
{
    struct serve *s = ctx;
    if (strncmp(name, "--", 2) != 0)
        return err_set(err, SV_E_INVALID, "unknown option '%s'", name);
    if (s->n_options == OPTIONS_MAX)
        return err_set(err, SV_E_INVALID, "more than %d options", OPTIONS_MAX);
    s->keys[s->n_options] = name + 2;
    s->values[s->n_options++] = value;
    return 0;
}

static bool names_plugin(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--plugin") == 0 || strncmp(argv[i], "--plugin=", 9) == 0)
            return true;
    return false;
}

static int parse(struct serve *s, int argc, char **argv, struct err *err)
{
    const char *words[2] = {NULL, NULL};
    const struct arg table[] = {{"--host", &s->host, NULL},
                                {"--port", &s->port, NULL},
                                {"--admin-port", &s->admin_port, NULL},
                                {"--state", &s->state, NULL},
                                {"--plugins", &s->plugins, NULL},
                                {"--log", &s->log, NULL},
                                {"--plugin", &s->plugin, NULL},
                                {"--allow-unauthenticated", NULL, &s->allow_unauthenticated},
                                {NULL, NULL, NULL}};
    struct args a = {.table = table,
                     .words = words,
                     .max_words = 1,
                     .ctx = s,
                     .other = names_plugin(argc, argv) ? take_option : NULL};
    int rc = args_parse(&a, argc, argv, err);
    if (rc < 0)
        return rc;
    s->file = words[0];
    if (s->file && s->plugin)
        return err_set(err, SV_E_INVALID, "give a FILE or --plugin NAME, not both");
    if (s->log && strcmp(s->log, "text") != 0 && strcmp(s->log, "json") != 0)
        return err_set(err, SV_E_INVALID, "--log is '%s'; it can be text or json", s->log);
    if (s->plugins && !realpath(s->plugins, s->plugins_path))
        return err_set(err, SV_E_INVALID, "--plugins '%s': %s", s->plugins, err_errno(errno));
    if (s->plugins)
        s->plugins = s->plugins_path;
    return 0;
}

static int load(struct serve *s, struct err *err)
{
    if (s->plugin)
        return conf_from_flags(s->plugin, s->keys, s->values, s->n_options, &s->conf, err);
    int rc = conf_load(s->file, &s->conf, err);
    if (rc == 0 && !realpath(s->file, s->file_path))
        rc = err_set(err, SV_E_INVALID, "%s: %s", s->file, err_errno(errno));
    return rc;
}

static int take_port(const char *option, const char *text, uint32_t *ret, struct err *err)
{
    int64_t port;
    if (!text)
        return 0;
    if (str_to_i64(text, &port, NULL) < 0 || port < 0 || port > UINT16_MAX)
        return err_set(err, SV_E_INVALID, "%s is '%s'; it can be 0 to %d", option, text,
                       UINT16_MAX);
    *ret = (uint32_t)port;
    return 0;
}

// Whether processes of an earlier server still serve. A control that is stuck would hold the store.
static bool orphans_left(const char *state_dir)
{
    bool any = false;
    pid_t pid;
    int kin = kin_open(state_dir, &any, NULL);
    if (kin < 0)
        return false;
    if (any) {
        kin_end_control(kin);
        any = kin_find(kin, CHANNEL_FD_KIN, &pid, 1) > 0;
    }
    close(kin);
    return any;
}

/*
 * Without a file: what was deployed last says how to listen; control reads the rest for itself. A
 * store that cannot be read is control's to tell, since what still runs is to be kept: so while
 * that still serves, a server that does not know where is not started.
 */
static int resume(struct serve *s)
{
    struct err err;
    struct doc *doc = NULL; // lives as long as the process
    int lock = access(s->state_dir, F_OK) == 0 ? lock_take(s->state_dir, &err) : 0;
    if (lock == SV_E_UNAVAILABLE)
        return cli_fail(CLI_FAILED, "serve: %s", err.msg);
    bool orphans = lock > 0 && orphans_left(s->state_dir);
    int rc = lock < 0 ? lock : record_last(s->state_dir, &doc, &err);
    if (lock > 0)
        close(lock);
    if (rc == 0) {
        s->conf = doc->conf;
        fprintf(stderr, "salver: serving what was deployed, last from %s\n", doc->conf.path);
        return CLI_OK;
    }
    if (rc < 0 && orphans && !s->port)
        return cli_fail(
            CLI_FAILED,
            "serve: %s; processes of an earlier server still serve, and where cannot be "
            "read: try again soon, or give FILE or --port",
            err.msg);
    if (rc < 0)
        fprintf(stderr, "salver: serve: %s\n", err.msg);
    else
        fprintf(stderr,
                "salver: nothing is deployed yet; `salver deploy FILE --state %s` says what to "
                "serve\n",
                s->state_dir);
    if (conf_load_bytes("defaults", nothing, sizeof nothing - 1, &s->conf, &err) < 0)
        BUG("an empty text does not load: %s", err.msg);
    return CLI_OK;
}

// The command line over the file.
static int apply(struct serve *s, struct err *err)
{
    int rc = take_port("--port", s->port, &s->conf.http.port, err);
    if (rc == 0)
        rc = take_port("--admin-port", s->admin_port, &s->conf.admin.port, err);
    if (rc < 0)
        return rc;
    if (s->host)
        s->conf.http.host = s->host;
    if (s->log)
        s->conf.logging.json = strcmp(s->log, "json") == 0;
    s->conf.http.allow_unauthenticated = s->allow_unauthenticated;
    return 0;
}

static uint64_t longest_grace_ms(const struct conf_file *f)
{
    double longest_s = 0;
    for (uint32_t i = 0; i < f->n_apps; i++)
        longest_s =
            fmax(longest_s, f->apps[i].deployments[f->apps[i].active].graceful_shutdown_timeout_s);
    return (uint64_t)(longest_s * 1000);
}

// What control must know; see control/desired.c. The caller frees it.
static char *control_orders(const struct serve *s)
{
    cJSON *j = cJSON_CreateObject();
    if (s->file)
        cJSON_AddStringToObject(j, "file", s->file_path);
    if (s->plugin)
        cJSON_AddStringToObject(j, "plugin", s->plugin);
    cJSON *options = cJSON_AddObjectToObject(j, "options");
    for (uint32_t i = 0; i < s->n_options; i++)
        cJSON_AddStringToObject(options, s->keys[i], s->values[i]);
    cJSON_AddStringToObject(j, "host", s->conf.http.host);
    if (s->admin_port)
        cJSON_AddNumberToObject(j, "admin_port", s->conf.admin.port);
    if (s->plugins)
        cJSON_AddStringToObject(j, "plugins", s->plugins);
    char *text = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    return text;
}

static void hand_down_logging(const struct conf_logging *l)
{
    static const char *const names[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warning", [LOG_ERROR] = "error"};
    char text[32];
    snprintf(text, sizeof text, "%s:%s", l->json ? "json" : "text",
             names[l->level >= LOG_DEBUG && l->level <= LOG_ERROR ? l->level : LOG_INFO]);
    setenv("SALVER_LOG", text, 1);
}

static int become_supervisor(struct serve *s)
{
    char exe[PATH_MAX], port[16], ingress[16], grace[32];
    struct err err;
    if (os_self_path(exe, sizeof exe, &err) < 0)
        return cli_fail(CLI_FAILED, "%s", err.msg);
    snprintf(port, sizeof port, "%u", s->conf.http.port);
    snprintf(ingress, sizeof ingress, "%u", s->conf.http.num_ingress);
    snprintf(grace, sizeof grace, "%llu", (unsigned long long)longest_grace_ms(&s->conf));
    hand_down_logging(&s->conf.logging);
    char *orders = control_orders(s);
    const char *argv[] = {"salver",          "supervisor", "--state",  s->state_dir, "--host",
                          s->conf.http.host, "--port",     port,       "--ingress",  ingress,
                          "--grace-ms",      grace,        "--orders", orders,       NULL};
    execv(exe, (char *const *)(uintptr_t)argv);
    return cli_fail(CLI_FAILED, "starting '%s': %s", exe, err_errno(errno));
}
