// SPDX-License-Identifier: Apache-2.0
#include "control/version.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void sort_names(struct version *v);

struct version *version_create(struct deploy *d, struct doc *doc)
{
    struct version *v = xcalloc(1, sizeof *v);
    v->refs = 1;
    v->control = d->control;
    v->deploy = d;
    v->doc = doc_ref(doc);
    v->app = doc_app(doc, d->name);
    CHECK(v->app);
    v->conf = &v->app->deployments[v->app->active];
    v->wall_ns = clock_wall_ns();
    v->numbers = numbers_resolve(v->conf, &(struct plan){.batch_wait_s = -1});
    return v;
}

struct version *version_ref(struct version *v)
{
    v->refs++;
    return v;
}

void version_unref(struct version *v)
{
    if (!v || --v->refs > 0)
        return;
    v->control->copies_due = true;
    cJSON_Delete(v->probed);
    xfree(v->names);
    doc_unref(v->doc);
    xfree(v);
}

static double number(const cJSON *j, const char *key, double fallback)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 ? v->valuedouble : fallback;
}

static uint32_t count(const cJSON *j, const char *key)
{
    double v = number(j, key, 0);
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static const char *text(const cJSON *j, const char *key)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    return v ? v : "";
}

// A plugin that knows nothing of GPUs leaves in its plan what it was offered.
static uint32_t devices_of(const struct version *v, const cJSON *said)
{
    bool means_it = number(said, "device_bytes", 0) > 0 || v->conf->num_gpus > 0;
    return means_it ? count(said, "devices") : 0;
}

static bool is_live(const cJSON *option)
{
    const cJSON *flags = cJSON_GetObjectItemCaseSensitive(option, "flags");
    return cJSON_IsNumber(flags) && ((unsigned)flags->valuedouble & SV_LIVE);
}

// "a.b.c" out of nested objects.
static void drop(cJSON *config, const char *dotted)
{
    char key[256];
    size_t n = strcspn(dotted, ".");
    snprintf(key, sizeof key, "%.*s", (int)n, dotted);
    if (dotted[n] == '\0') {
        cJSON_DeleteItemFromObjectCaseSensitive(config, key);
        return;
    }
    cJSON *inner = cJSON_GetObjectItemCaseSensitive(config, key);
    if (inner)
        drop(inner, dotted + n + 1);
}

static void hash_text(struct sha256 *h, const char *s)
{
    sha256_add(h, s, strlen(s) + 1);
}

static void hash_config(struct sha256 *h, const struct version *v)
{
    cJSON *config = cJSON_Parse(v->config_json ? v->config_json : "{}");
    const cJSON *option;
    cJSON_ArrayForEach(option, cJSON_GetObjectItemCaseSensitive(v->probed, "options"))
    {
        if (is_live(option))
            drop(config, text(option, "name"));
    }
    char *rest = cJSON_PrintUnformatted(config);
    hash_text(h, rest ? rest : "");
    cJSON_free(rest);
    cJSON_Delete(config);
}

static void make_id(struct version *v)
{
    char hex[SHA256_HEX], dir[STASH_PATH_MAX];
    struct sha256 *h = sha256_create();
    const uint32_t numbers[] = {v->numbers.concurrency, v->plan.devices, v->plan.stream_in};
    snprintf(dir, sizeof dir, "%s", v->stash.dir);
    hash_text(h, control_build());
    hash_text(h, v->app->name);
    hash_text(h, v->conf->name);
    hash_text(h, basename(dir)); // the hash of the plugin's files
    sha256_add(h, numbers, sizeof numbers);
    hash_config(h, v);
    sha256_destroy(h, hex);
    snprintf(v->id, sizeof v->id, "%.*s", VERSION_ID - 1, hex);
}

int version_digest(struct version *v, struct err *err)
{
    const cJSON *said = cJSON_GetObjectItemCaseSensitive(v->probed, "plan");
    if (!*text(v->probed, "stash_path") || !*text(v->probed, "name"))
        return err_set(err, SV_E_INTERNAL, "the inspection of plugin '%s' gave no name",
                       v->conf->plugin);
    snprintf(v->stash.path, sizeof v->stash.path, "%s", text(v->probed, "stash_path"));
    snprintf(v->stash.dir, sizeof v->stash.dir, "%s", text(v->probed, "stash_dir"));
    snprintf(v->plugin, sizeof v->plugin, "%s %s", text(v->probed, "name"),
             text(v->probed, "version"));
    v->plan = (struct plan){.max_batch = count(said, "max_batch"),
                            .concurrency = count(said, "concurrency"),
                            .max_inflight = count(said, "max_inflight"),
                            .batch_wait_s = number(said, "batch_wait_us", -1e6) / 1e6,
                            .devices = devices_of(v, said),
                            .device_bytes = (uint64_t)number(said, "device_bytes", 0),
                            .stream_in =
                                cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "stream_in"))};
    v->numbers = numbers_resolve(v->conf, &v->plan);
    if (*v->numbers.warning)
        LOGW("application %s: %s", v->app->name, v->numbers.warning);
    make_id(v);
    sort_names(v);
    return gpus_check(&v->control->gpus, v->plan.devices, v->plan.device_bytes, err);
}

int version_check_options(struct version *v, const char *found, struct err *err)
{
    cJSON *j = cJSON_Parse(found);
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(j, "options"));
    int rc =
        conf_check_options(&v->doc->conf, v->conf, options ? options : "[]", &v->config_json, err);
    cJSON_free(options);
    cJSON_Delete(j);
    doc_warn(v->doc, false);
    return rc;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_names(struct version *v)
{
    const cJSON *models = cJSON_GetObjectItemCaseSensitive(v->probed, "models"), *m;
    uint32_t n = (uint32_t)cJSON_GetArraySize(models);
    v->names = xrealloc(v->names, (n + 1) * sizeof *v->names);
    v->n_names = 0;
    cJSON_ArrayForEach(m, models) v->names[v->n_names++] = text(m, "id");
    qsort(v->names, v->n_names, sizeof *v->names, compare_names);
    char *json = n > 0 ? cJSON_PrintUnformatted(models) : NULL;
    v->models_bytes = json ? (uint32_t)strlen(json) : 0;
    cJSON_free(json);
}

bool version_names(const struct version *v, const char *model)
{
    return v->n_names > 0 && bsearch(&model, v->names, v->n_names, sizeof *v->names, compare_names);
}

const char *version_shared(const struct version *a, const struct version *b)
{
    for (uint32_t i = 0, k = 0; i < a->n_names && k < b->n_names;) {
        int c = strcmp(a->names[i], b->names[k]);
        if (c == 0)
            return a->names[i];
        i += c < 0;
        k += c > 0;
    }
    return NULL;
}
