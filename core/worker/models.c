// SPDX-License-Identifier: Apache-2.0
#include "worker/models.h"

#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"

#include <cjson/cJSON.h>

#include <math.h>

struct told { // so far
    size_t bytes;
    struct map by_id; // hash of an id -> the text
};

// Empty where the rules allow that alone.
static int check_text(const char *text, const char *what, struct err *err)
{
    size_t n = text ? strnlen(text, SV_MODEL_NAME + 1) : 0;
    if (n == 0 || n > SV_MODEL_NAME)
        return err_set(err, SV_E_INVALID, "%s has %s; use 1 to %d bytes", what,
                       n ? "too many bytes" : "no bytes", SV_MODEL_NAME);
    if (!str_valid_utf8(text, n))
        return err_set(err, SV_E_INVALID, "%s is not valid UTF-8", what);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return err_set(err, SV_E_INVALID, "byte %zu of %s is 0x%02x: a control character", i,
                           what, (unsigned char)text[i]);
    return 0;
}

static int check_twice(struct told *t, const char *id, struct err *err)
{
    const char *old = map_put(&t->by_id, hash_bytes(id, strlen(id), 0), (char *)(uintptr_t)id);
    if (old && strcmp(old, id) == 0)
        return err_set(err, SV_E_INVALID, "two models have the id '%s'", id);
    return 0;
}

static int check_model(struct told *t, const sv_model *m, struct err *err)
{
    int rc = check_text(m->id, "its id", err);
    if (rc == 0 && m->root)
        rc = check_text(m->root, "its root", err);
    if (rc == 0 && m->alias_of)
        rc = check_text(m->alias_of, "its alias_of", err);
    if (rc < 0)
        return rc;
    t->bytes +=
        strlen(m->id) + (m->root ? strlen(m->root) : 0) + (m->alias_of ? strlen(m->alias_of) : 0);
    if (t->bytes > SV_MODELS_BYTES)
        return err_set(err, SV_E_TOO_LARGE, "the names have more than %d bytes together",
                       SV_MODELS_BYTES);
    return check_twice(t, m->id, err);
}

static int check_gauge(const char *name, struct err *err)
{
    size_t n = strnlen(name, MODELS_GAUGE_MAX + 1);
    bool good = n > 0 && n <= MODELS_GAUGE_MAX && (name[0] < '0' || name[0] > '9');
    for (size_t i = 0; good && i < n; i++)
        good = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:", name[i]);
    return good ? 0
                : err_set(err, SV_E_INVALID,
                          "queue_gauge must be a metric's name of 1 to %d letters, digits, '_' "
                          "and ':'",
                          MODELS_GAUGE_MAX);
}

static void put_model(const sv_model *m, double created_s, cJSON *list)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "id", m->id);
    cJSON_AddStringToObject(j, "root", m->root ? m->root : m->id);
    cJSON_AddNumberToObject(j, "max_model_len", m->max_model_len);
    cJSON_AddNumberToObject(j, "created", created_s);
    if (m->alias_of)
        cJSON_AddStringToObject(j, "alias_of", m->alias_of);
    cJSON_AddItemToArray(list, j);
}

static int ask_each(const sv_models *m, void *self, double created_s, cJSON *list, struct err *err)
{
    struct told told = {0};
    sv_model one;
    uint32_t n = m->count(self);
    int rc = 0;
    if (n > SV_MODELS_COUNT)
        return err_set(err, SV_E_TOO_LARGE, "the plugin names %u models; at most %d are taken", n,
                       SV_MODELS_COUNT);
    for (uint32_t i = 0; rc >= 0 && i < n; i++) {
        one = (sv_model){.size = sizeof one};
        rc = m->get(self, i, &one);
        if (rc < 0)
            rc = err_set(err, rc, "%s", "");
        else if ((rc = check_model(&told, &one, err)) < 0)
            rc = err_ctx(err, "model %u that the plugin names", i);
        else
            put_model(&one, created_s, list);
    }
    map_finish(&told.by_id);
    return rc;
}

int models_ask(const sv_models *m, void *self, double created_s, struct cJSON *answer,
               struct err *err)
{
    if (m->size < offsetof(sv_models, queue_gauge) || !m->count || !m->get)
        return err_set(err, SV_E_INVALID,
                       "its %s has %u bytes and %s count() and get(); %zu and both are needed",
                       SV_MODELS, m->size, m->count && m->get ? "has" : "lacks",
                       offsetof(sv_models, queue_gauge));
    int rc = ask_each(m, self, created_s, cJSON_AddArrayToObject(answer, "models"), err);
    if (rc < 0 || !SV_HAS(m, queue_gauge) || !m->queue_gauge)
        return rc;
    rc = check_gauge(m->queue_gauge, err);
    if (rc == 0)
        cJSON_AddStringToObject(answer, "queue_gauge", m->queue_gauge);
    return rc;
}

static const char *text_of(const cJSON *j, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

static bool is_whole(const cJSON *j, const char *key, double max)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= max &&
           !(v->valuedouble < floor(v->valuedouble) || v->valuedouble > floor(v->valuedouble));
}

int models_check(const struct cJSON *answer, struct err *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, "models"), *j;
    const cJSON *gauge = cJSON_GetObjectItemCaseSensitive(answer, "queue_gauge");
    struct told told = {0};
    int rc = 0;
    if (list && (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > SV_MODELS_COUNT))
        return err_set(err, SV_E_INVALID, "'models' is no array of at most %d", SV_MODELS_COUNT);
    cJSON_ArrayForEach(j, list)
    {
        sv_model one = {
            .id = text_of(j, "id"), .root = text_of(j, "root"), .alias_of = text_of(j, "alias_of")};
        if (!one.root || !is_whole(j, "max_model_len", UINT32_MAX) || !is_whole(j, "created", 1e12))
            rc = err_set(err, SV_E_INVALID, "an entry of 'models' lacks a root or a number");
        else
            rc = check_model(&told, &one, err);
        if (rc < 0)
            break;
    }
    map_finish(&told.by_id);
    if (rc == 0 && gauge)
        rc = check_gauge(cJSON_IsString(gauge) ? gauge->valuestring : "", err);
    return rc;
}
