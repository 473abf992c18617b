// SPDX-License-Identifier: Apache-2.0
#include "control/doc.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <string.h>

static const char unnamed[] = "request"; // stands for the path in messages

static void finish(struct doc *d)
{
    conf_finish(&d->conf);
    xfree(d->record);
    xfree(d);
}

// Takes the JSON over.
static struct doc *seal(struct doc *d, cJSON *record)
{
    char *text = cJSON_PrintUnformatted(record);
    d->record = xstrdup(text);
    cJSON_free(text);
    cJSON_Delete(record);
    struct sha256 *h = sha256_create();
    sha256_add(h, d->record, strlen(d->record));
    sha256_destroy(h, d->sha);
    d->refs = 1;
    return d;
}

int doc_from_text(const char *path, const char *text, size_t n, struct doc **ret, struct err *err)
{
    struct doc *d = xcalloc(1, sizeof *d);
    if (memchr(text, '\0', n)) {
        xfree(d);
        return err_set(err, SV_E_INVALID, "%s: holds a NUL byte", *path ? path : unnamed);
    }
    int rc = conf_load_bytes(*path ? path : unnamed, text, n, &d->conf, err);
    if (rc < 0) {
        finish(d);
        return rc;
    }
    cJSON *j = cJSON_CreateObject();
    char *copy = xstrndup(text, n);
    cJSON_AddStringToObject(j, "path", path);
    cJSON_AddStringToObject(j, "text", copy);
    xfree(copy);
    *ret = seal(d, j);
    return 0;
}

int doc_from_flags(const char *plugin, const struct cJSON *options, struct doc **ret,
                   struct err *err)
{
    struct doc *d = xcalloc(1, sizeof *d);
    uint32_t n = (uint32_t)cJSON_GetArraySize(options), i = 0;
    const char **keys = xcalloc(n + 1, sizeof *keys), **values = xcalloc(n + 1, sizeof *values);
    const cJSON *o;
    cJSON_ArrayForEach(o, options)
    {
        keys[i] = o->string;
        values[i++] = cJSON_GetStringValue(o);
    }
    int rc = conf_from_flags(plugin, keys, values, n, &d->conf, err);
    xfree(keys);
    xfree(values);
    if (rc < 0) {
        finish(d);
        return rc;
    }
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "plugin", plugin);
    cJSON_AddItemToObject(j, "options", cJSON_Duplicate(options, true));
    *ret = seal(d, j);
    return 0;
}

int doc_from_record(const char *record, struct doc **ret, struct err *err)
{
    cJSON *j = cJSON_Parse(record);
    const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "path"));
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "text"));
    const char *plugin = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "plugin"));
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(j, "options");
    int rc;
    if (path && text)
        rc = doc_from_text(path, text, strlen(text), ret, err);
    else if (plugin)
        rc = doc_from_flags(plugin, options, ret, err);
    else
        rc = err_set(err, SV_E_INTERNAL, "the store's text has neither 'path' nor 'plugin'");
    cJSON_Delete(j);
    return rc;
}

struct doc *doc_ref(struct doc *d)
{
    d->refs++;
    return d;
}

void doc_unref(struct doc *d)
{
    if (d && --d->refs == 0)
        finish(d);
}

void doc_warn(struct doc *d, bool quiet)
{
    struct report *r = d->conf.report;
    for (uint32_t i = 0; i < r->n; i++) {
        if (!quiet && r->lines[i].warning && !r->lines[i].told)
            LOGW("%s", r->lines[i].text);
        r->lines[i].told = true;
    }
}

const struct conf_app *doc_app(const struct doc *d, const char *name)
{
    for (uint32_t i = 0; i < d->conf.n_apps; i++)
        if (strcmp(d->conf.apps[i].name, name) == 0)
            return &d->conf.apps[i];
    return NULL;
}
