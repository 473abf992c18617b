// SPDX-License-Identifier: Apache-2.0
#include "cli/check.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "conf/app.h"
#include "conf/report.h"
#include "control/stash.h"
#include "worker/inspect.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <string.h>

static int look_at(struct conf_file *f, const struct conf_deployment *d, const char *plugins_dir,
                   struct err *err);
static int check_against(struct conf_file *f, const struct conf_deployment *d, const char *found,
                         struct err *err);

int check_options(struct conf_file *f, const char *plugins_dir, struct err *err)
{
    int worst = CLI_OK;
    for (uint32_t i = 0; i < f->n_apps; i++) {
        const struct conf_app *app = &f->apps[i];
        struct err one = {0};
        int status = look_at(f, &app->deployments[app->active], plugins_dir, &one);
        if (status == CLI_OK)
            continue;
        if (worst == CLI_OK)
            *err = one;
        if (status == CLI_FAILED)
            report_warn(f->report, app->deployments[app->active].where, "application '%s': %s",
                        app->name, one.msg);
        worst = status == CLI_USAGE ? CLI_USAGE : worst == CLI_OK ? CLI_FAILED : worst;
    }
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

static int look_at(struct conf_file *f, const struct conf_deployment *d, const char *plugins_dir,
                   struct err *err)
{
    char path[STASH_PATH_MAX], *found = NULL;
    if (stash_find(d->plugin, f->dir, plugins_dir, path, err) < 0) {
        report_error(f->report, d->plugin_where, "%s", err->msg);
        return CLI_USAGE;
    }
    if (inspect_run(path, d->config_json, &found, err) < 0)
        return CLI_FAILED;
    int rc = check_against(f, d, found, err);
    xfree(found);
    return rc < 0 ? CLI_USAGE : CLI_OK;
}

static int check_against(struct conf_file *f, const struct conf_deployment *d, const char *found,
                         struct err *err)
{
    cJSON *j = cJSON_Parse(found);
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(j, "options"));
    const char *config;
    int rc = conf_check_options(f, d, options ? options : "[]", &config, err);
    cJSON_free(options);
    cJSON_Delete(j);
    return rc;
}
