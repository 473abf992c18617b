// SPDX-License-Identifier: Apache-2.0
#include "common/json.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <string.h>

static int check_depth(const char *text, size_t n, struct err *err);
static int refuse(const char *text, size_t n, const yyjson_read_err *e, struct err *err);

int json_parse(const char *text, size_t n, size_t max, yyjson_doc **ret, struct err *err)
{
    if (n > max)
        return err_set(err, SV_E_TOO_LARGE, "the JSON has %zu bytes; at most %zu", n, max);
    int rc = check_depth(text, n, err);
    if (rc < 0)
        return rc;
    yyjson_read_err e;
    // Without YYJSON_READ_INSITU the text is only read.
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, n, YYJSON_READ_NOFLAG, NULL, &e);
    if (!doc)
        return refuse(text, n, &e, err);
    *ret = doc;
    return 0;
}

// Brackets outside of strings; whether they match is yyjson's business.
static int check_depth(const char *text, size_t n, struct err *err)
{
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"') {
            for (i++; i < n && text[i] != '"'; i++)
                i += text[i] == '\\';
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > JSON_DEPTH)
                return err_set(err, SV_E_INVALID,
                               "the JSON is nested more than %d levels deep, at byte %zu",
                               JSON_DEPTH, i);
        } else if ((text[i] == ']' || text[i] == '}') && depth > 0) {
            depth--;
        }
    }
    return 0;
}

static int refuse(const char *text, size_t n, const yyjson_read_err *e, struct err *err)
{
    if (e->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return err_set(err, SV_E_NOMEM, "no memory for %zu bytes of JSON", n);
    size_t line = 1, column = 1;
    for (size_t i = 0; i < e->pos && i < n; i++) {
        column++;
        if (text[i] == '\n') {
            line++;
            column = 1;
        }
    }
    return err_set(err, SV_E_INVALID, "not valid JSON: %s at line %zu, column %zu (byte %zu)",
                   e->msg, line, column, e->pos);
}

yyjson_val *json_get(yyjson_val *object, const char *key)
{
    yyjson_val *found = NULL, *k;
    yyjson_obj_iter it;
    if (!yyjson_is_obj(object))
        return NULL;
    size_t n = strlen(key);
    yyjson_obj_iter_init(object, &it);
    while ((k = yyjson_obj_iter_next(&it)))
        if (yyjson_equals_strn(k, key, n))
            found = yyjson_obj_iter_get_val(k);
    return found;
}

yyjson_val *json_at(yyjson_val *object, const char *path)
{
    char key[128];
    while (object && *path) {
        size_t n = strcspn(path, ".");
        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = 0;
        object = json_get(object, key);
        path += n + (path[n] == '.');
    }
    return object;
}

const char *json_str(yyjson_val *object, const char *key, const char *fallback)
{
    yyjson_val *v = json_get(object, key);
    return yyjson_is_str(v) ? yyjson_get_str(v) : fallback;
}

int64_t json_int(yyjson_val *object, const char *key, int64_t fallback)
{
    yyjson_val *v = json_get(object, key);
    if (yyjson_is_sint(v))
        return yyjson_get_sint(v);
    if (yyjson_is_uint(v) && yyjson_get_uint(v) <= INT64_MAX)
        return (int64_t)yyjson_get_uint(v);
    return fallback;
}

double json_num(yyjson_val *object, const char *key, double fallback)
{
    yyjson_val *v = json_get(object, key);
    return yyjson_is_num(v) ? yyjson_get_num(v) : fallback;
}

bool json_bool(yyjson_val *object, const char *key, bool fallback)
{
    yyjson_val *v = json_get(object, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}
