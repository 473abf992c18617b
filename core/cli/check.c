// SPDX-License-Identifier: Apache-2.0
#include "cli/check.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "conf/app.h"
#include "conf/report.h"
#include "control/gpus.h"
#include "control/stash.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

struct look {
    struct conf_file *f;
    const char *plugins_dir;
    bool deep;
    char last_path[STASH_PATH_MAX]; // what was looked at last, for applications of one plugin
    char *last_found;               // owned
    struct gpus gpus;               // counted when deep
};

static int look_at(struct look *l, const struct conf_app *app, struct err *err);
static int check_against(struct conf_file *f, const struct conf_deployment *d, const char *found,
                         const char **ret_config, struct err *err);

int check_options(struct conf_file *f, const char *plugins_dir, bool deep, struct err *err)
{
    struct look l = {.f = f, .plugins_dir = plugins_dir, .deep = deep};
    int worst = CLI_OK;
    if (deep)
        gpus_count(&l.gpus);
    for (uint32_t i = 0; i < f->n_apps; i++) {
        const struct conf_app *app = &f->apps[i];
        struct err one = {0};
        int status = look_at(&l, app, &one);
        if (status == CLI_OK)
            continue;
        if (worst == CLI_OK)
            *err = one;
        if (status == CLI_FAILED)
            report_warn(f->report, app->deployments[app->active].where, "application '%s': %s",
                        app->name, one.msg);
        worst = status == CLI_USAGE ? CLI_USAGE : worst == CLI_OK ? CLI_FAILED : worst;
    }
    xfree(l.last_found);
    report_sort(f->report);
    return worst;
}

int check_print(const struct conf_file *f, const struct err *err)
{
    struct buf text = {0};
    if (f->report && f->report->n > 0)
        conf_print(f, &text);
    else
        buf_printf(&text, "salver: %s\n", err->msg);
    fputs(buf_cstr(&text), stderr);
    buf_finish(&text);
    return CLI_USAGE;
}

// What the file says of itself; the same file is asked once.
static int describe(struct look *l, const char *path, struct err *err)
{
    if (l->last_found && strcmp(path, l->last_path) == 0)
        return 0;
    xfree(l->last_found);
    l->last_found = NULL;
    snprintf(l->last_path, sizeof l->last_path, "%s", path);
    const struct inspect_what what = {.plugin_path = path, .config_json = ""};
    return inspect_run(&what, &l->last_found, err);
}

static int look_at(struct look *l, const struct conf_app *app, struct err *err)
{
    const struct conf_deployment *d = &app->deployments[app->active];
    struct inspect_what what = {.app = app->name, .deployment = d->name};
    char path[STASH_PATH_MAX], *found = NULL;
    if (stash_find(d->plugin, l->f->dir, l->plugins_dir, path, err) < 0) {
        report_error(l->f->report, d->plugin_where, "%s", err->msg);
        return CLI_USAGE;
    }
    if (describe(l, path, err) < 0)
        return CLI_FAILED;
    if (check_against(l->f, d, l->last_found, &what.config_json, err) < 0)
        return CLI_USAGE;
    what.plugin_path = path;
    what.devices = gpus_offer(&l->gpus, d->num_gpus);
    what.device_bytes = what.devices ? gpus_bytes(&l->gpus) : 0;
    int rc = l->deep ? inspect_run(&what, &found, err) : 0;
    xfree(found);
    if (rc != SV_E_NOT_FOUND)
        return rc < 0 ? CLI_FAILED : CLI_OK;
    report_warn(l->f->report, d->where, "application '%s': %s", app->name, err->msg);
    return CLI_OK;
}

static int check_against(struct conf_file *f, const struct conf_deployment *d, const char *found,
                         const char **ret_config, struct err *err)
{
    cJSON *j = cJSON_Parse(found);
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(j, "options"));
    int rc = conf_check_options(f, d, options ? options : "[]", ret_config, err);
    cJSON_free(options);
    cJSON_Delete(j);
    return rc;
}
