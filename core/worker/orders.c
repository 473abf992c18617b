// SPDX-License-Identifier: Apache-2.0
#include "worker/orders.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "wire/page.h"
#include "worker/batch.h"

#include <cjson/cJSON.h>

#include <stdlib.h>

static const struct {
    const char *key;
    size_t at;
    bool needed;
} texts[] = {
    {"app", offsetof(struct orders, app), true},
    {"deployment", offsetof(struct orders, deployment), true},
    {"replica", offsetof(struct orders, replica), true},
    {"plugin", offsetof(struct orders, plugin), false},
    {"plugin_path", offsetof(struct orders, plugin_path), true},
    {"plugin_dir", offsetof(struct orders, plugin_dir), false},
    {"cache_dir", offsetof(struct orders, cache_dir), false},
};

static const struct {
    const char *key;
    size_t at;
    double fallback, max;
} times[] = {
    {"batch_wait_s", offsetof(struct orders, batch_wait_s), -1, 3600},
    {"load_timeout_s", offsetof(struct orders, load_timeout_s), 60, 1e6},
    {"stall_timeout_s", offsetof(struct orders, stall_timeout_s), 10, 1e6},
    {"run_timeout_s", offsetof(struct orders, run_timeout_s), 300, 1e6},
    {"graceful_shutdown_timeout_s", offsetof(struct orders, shutdown_timeout_s), 20, 1e6},
    {"orphan_timeout_s", offsetof(struct orders, orphan_timeout_s), 60, 1e6},
    {"health_check_period_s", offsetof(struct orders, health_period_s), 10, 1e6},
};

static const struct {
    const char *key;
    size_t at;
    double fallback, max;
    bool wide;
} counts[] = {
    {"max_ongoing_requests", offsetof(struct orders, max_ongoing), 0, PAGE_REQUESTS, false},
    {"max_batch_size", offsetof(struct orders, max_batch), 0, BATCH_MAX, false},
    {"concurrency", offsetof(struct orders, concurrency), 0, PAGE_THREADS - 1, false},
    {"max_response_buffer_bytes", offsetof(struct orders, max_response_buffer), 4 << 20, 1e12,
     true},
    {"max_body_bytes", offsetof(struct orders, max_body), 16 << 20, 1e12, true},
    {"plan_devices", offsetof(struct orders, plan_devices), 0, ORDERS_DEVICES_MAX, false},
    {"plan_device_bytes", offsetof(struct orders, plan_device_bytes), 0, 1e15, true},
};

static int read_texts(struct orders *o, const cJSON *tree, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, texts[i].key));
        if (!v && texts[i].needed)
            return err_set(err, SV_E_INVALID, "the orders lack '%s'", texts[i].key);
        *(char **)(void *)((char *)o + texts[i].at) = xstrdup(v ? v : "");
    }
    cJSON *config = cJSON_GetObjectItemCaseSensitive(tree, "config");
    char *text = config ? cJSON_PrintUnformatted(config) : NULL;
    o->config = xstrdup(text ? text : "{}");
    cJSON_free(text);
    return 0;
}

static double number(const cJSON *tree, const char *key, double fallback, double max)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(tree, key);
    double n = cJSON_IsNumber(v) ? v->valuedouble : fallback;
    return n < max ? n : max;
}

static void read_numbers(struct orders *o, const cJSON *tree)
{
    for (size_t i = 0; i < ARRAY_LEN(times); i++)
        *(double *)(void *)((char *)o + times[i].at) =
            number(tree, times[i].key, times[i].fallback, times[i].max);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        double v = number(tree, counts[i].key, counts[i].fallback, counts[i].max);
        void *at = (char *)o + counts[i].at;
        if (counts[i].wide)
            *(uint64_t *)at = v > 0 ? (uint64_t)v : 0;
        else
            *(uint32_t *)at = v > 0 ? (uint32_t)v : 0;
    }
}

static char *take_text(const cJSON *tree, const char *key)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, key));
    return xstrdup(v ? v : "");
}

static void read_devices(struct orders *o, const cJSON *tree)
{
    const cJSON *one;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(tree, "devices"))
    {
        if (o->n_devices == ORDERS_DEVICES_MAX)
            return;
        uint64_t bytes = (uint64_t)number(one, "bytes", 0, 1e15);
        o->device[o->n_devices] = (sv_device){.size = sizeof(sv_device),
                                              .kind = SV_CUDA,
                                              .index = (int32_t)o->n_devices,
                                              .numa = -1,
                                              .bytes = bytes,
                                              .bytes_limit = bytes,
                                              .uuid = take_text(one, "uuid"),
                                              .name = take_text(one, "name")};
        o->n_devices++;
    }
}

int orders_parse(struct orders *o, struct bytes json, struct err *err)
{
    *o = (struct orders){0};
    cJSON *tree = cJSON_ParseWithLength(json.p, json.n);
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return err_set(err, SV_E_INVALID, "the orders are not a JSON object");
    }
    int rc = read_texts(o, tree, err);
    read_numbers(o, tree);
    read_devices(o, tree);
    cJSON_Delete(tree);
    if (rc < 0)
        orders_finish(o);
    return rc;
}

// sv_device's texts are const for the plugin; here they are ours.
static char *own(const char *text)
{
    return (char *)(uintptr_t)text;
}

void orders_finish(struct orders *o)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        xfree(*(char **)(void *)((char *)o + texts[i].at));
    xfree(o->config);
    for (uint32_t i = 0; i < o->n_devices; i++) {
        xfree(own(o->device[i].uuid));
        xfree(own(o->device[i].name));
    }
    *o = (struct orders){0};
}

void orders_show_devices(const struct orders *o)
{
    struct buf list = {0};
    for (uint32_t i = 0; i < o->n_devices; i++)
        buf_printf(&list, "%s%s", i ? "," : "", o->device[i].uuid);
    if (o->n_devices)
        setenv("CUDA_VISIBLE_DEVICES", buf_cstr(&list), 1);
    buf_finish(&list);
}
