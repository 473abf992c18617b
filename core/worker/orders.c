// SPDX-License-Identifier: Apache-2.0
#include "worker/orders.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "wire/page.h"
#include "worker/batch.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

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
    bool wide, fixed; // fixed: for the life of a worker
} counts[] = {
    {"max_ongoing_requests", offsetof(struct orders, max_ongoing), 0, PAGE_REQUESTS, false, false},
    {"max_batch_size", offsetof(struct orders, max_batch), 0, BATCH_MAX, false, false},
    {"concurrency", offsetof(struct orders, concurrency), 0, PAGE_THREADS - 1, false, true},
    {"max_response_buffer_bytes", offsetof(struct orders, max_response_buffer), 4 << 20, 1e12, true,
     false},
    {"max_body_bytes", offsetof(struct orders, max_body), 16 << 20, 1e12, true, false},
    {"plan_devices", offsetof(struct orders, plan_devices), 0, ORDERS_DEVICES_MAX, false, true},
    {"plan_device_bytes", offsetof(struct orders, plan_device_bytes), 0, 1e15, true, true},
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

// None is below 0 but a fallback.
static double number(const cJSON *tree, const char *key, double fallback, double max)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(tree, key);
    double n = cJSON_IsNumber(v) && v->valuedouble >= 0 ? v->valuedouble : fallback;
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

static int read_warmups(struct orders *o, const cJSON *tree, struct err *err)
{
    const cJSON *one;
    o->canary = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(tree, "canary"));
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(tree, "warmup_requests"))
    {
        struct orders_warmup *w = &o->warmup[o->n_warmups];
        if (o->n_warmups == ORDERS_WARMUPS_MAX)
            return err_set(err, SV_E_INVALID, "the orders have more than %d warm-up requests",
                           ORDERS_WARMUPS_MAX);
        o->n_warmups++;
        w->method = take_text(one, "method");
        w->path = take_text(one, "path");
        w->content_type = take_text(one, "content_type");
        w->body = take_text(one, "body");
        w->expect_status = (uint32_t)number(one, "expect_status", 0, 599);
        if (!*w->method || *w->path != '/')
            return err_set(err, SV_E_INVALID, "warm-up request %u has no method, or no path",
                           o->n_warmups);
    }
    return 0;
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
    rc = rc < 0 ? rc : read_warmups(o, tree, err);
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
    for (uint32_t i = 0; i < o->n_warmups; i++) {
        xfree(o->warmup[i].method);
        xfree(o->warmup[i].path);
        xfree(o->warmup[i].content_type);
        xfree(o->warmup[i].body);
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

static uint32_t default_cap(const sv_plan *plan, bool runs, uint32_t batches)
{
    if (plan->max_inflight)
        return plan->max_inflight;
    return runs && 2 * batches > 5 ? 2 * batches : 5;
}

struct orders_numbers orders_numbers(const struct orders *o, const sv_plan *plan, bool runs,
                                     uint32_t concurrency)
{
    double wait_s = o->batch_wait_s < 0 ? plan->batch_wait_us / 1e6 : o->batch_wait_s;
    uint32_t max = o->max_batch ? o->max_batch : plan->max_batch ? plan->max_batch : 1;
    max = max < BATCH_MAX ? max : BATCH_MAX;
    uint32_t cap = o->max_ongoing ? o->max_ongoing : default_cap(plan, runs, max * concurrency);
    if (plan->max_inflight && cap > plan->max_inflight)
        cap = plan->max_inflight;
    return (struct orders_numbers){.cap = cap < PAGE_REQUESTS ? cap : PAGE_REQUESTS,
                                   .max_batch = max,
                                   .batch_wait_ns = (uint64_t)(wait_s * (double)NS_PER_S)};
}

static bool same_devices(const struct orders *a, const struct orders *b)
{
    bool same = a->n_devices == b->n_devices;
    for (uint32_t i = 0; same && i < a->n_devices; i++)
        same = strcmp(a->device[i].uuid, b->device[i].uuid) == 0;
    return same;
}

const char *orders_fixed(const struct orders *o, const struct orders *next)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(*(char *const *)(const void *)((const char *)o + texts[i].at),
                   *(char *const *)(const void *)((const char *)next + texts[i].at)) != 0)
            return texts[i].key;
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        if (counts[i].fixed &&
            memcmp((const char *)o + counts[i].at, (const char *)next + counts[i].at,
                   counts[i].wide ? sizeof(uint64_t) : sizeof(uint32_t)) != 0)
            return counts[i].key;
    return same_devices(o, next) ? NULL : "devices";
}

void orders_take_over(struct orders *o, struct orders *next)
{
    for (size_t i = 0; i < ARRAY_LEN(times); i++)
        memcpy((char *)o + times[i].at, (const char *)next + times[i].at, sizeof(double));
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        memcpy((char *)o + counts[i].at, (const char *)next + counts[i].at,
               counts[i].wide ? sizeof(uint64_t) : sizeof(uint32_t));
    char *config = o->config;
    o->config = next->config;
    next->config = config;
}
