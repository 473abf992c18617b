// SPDX-License-Identifier: Apache-2.0
#include "control/gpus.h"

#include "abi/plugin.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint32_t gpus_offer(const struct gpus *g, double num_gpus)
{
    if (g->n == 0 || num_gpus < 0)
        return g->n > 0;
    uint32_t whole = (uint32_t)num_gpus;
    return whole + (num_gpus > whole); // none is shared yet: a part is a whole one
}

uint64_t gpus_bytes(const struct gpus *g)
{
    uint64_t least = 0;
    for (uint32_t i = 0; i < g->n; i++)
        if (i == 0 || g->gpu[i].bytes < least)
            least = g->gpu[i].bytes;
    return least;
}

uint32_t gpus_free(const struct gpus *g)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++)
        n += !*g->gpu[i].replica;
    return n;
}

int gpus_check(const struct gpus *g, uint32_t n, uint64_t bytes, struct err *err)
{
    uint64_t there = gpus_bytes(g);
    if (n > g->n)
        return err_set(err, SV_E_UNAVAILABLE,
                       "a replica needs %" PRIu32 " GPU%s, but this machine has %" PRIu32 "%s%s", n,
                       n == 1 ? "" : "s", g->n, *g->why ? ": " : "", g->why);
    if (n > 0 && bytes > 0 && bytes + GPU_CONTEXT_BYTES > there)
        return err_set(
            err, SV_E_NOMEM,
            "a replica needs %" PRIu64 " MiB of GPU memory (%" PRIu64
            " by its plan, %d for the CUDA context), but the smallest GPU has %" PRIu64 " MiB",
            (bytes + GPU_CONTEXT_BYTES) >> 20, bytes >> 20, GPU_CONTEXT_BYTES >> 20, there >> 20);
    return 0;
}

uint32_t gpus_held(const struct gpus *g, const char *replica)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++)
        n += strcmp(g->gpu[i].replica, replica) == 0;
    return n;
}

bool gpus_take(struct gpus *g, const char *replica, uint32_t n)
{
    uint32_t has = gpus_held(g, replica);
    if (has > n)
        gpus_give_back(g, replica);
    uint32_t lacks = has > n ? n : n - has;
    if (gpus_free(g) < lacks)
        return false;
    for (uint32_t i = 0; i < g->n && lacks > 0; i++) {
        if (*g->gpu[i].replica)
            continue;
        snprintf(g->gpu[i].replica, sizeof g->gpu[i].replica, "%s", replica);
        lacks--;
    }
    return true;
}

bool gpus_give_back(struct gpus *g, const char *replica)
{
    bool any = false;
    for (uint32_t i = 0; i < g->n; i++)
        if (strcmp(g->gpu[i].replica, replica) == 0) {
            *g->gpu[i].replica = '\0';
            any = true;
        }
    return any;
}

cJSON *gpus_json(const struct gpus *g)
{
    cJSON *j = cJSON_CreateObject(), *all = cJSON_AddArrayToObject(j, "gpus");
    cJSON_AddStringToObject(j, "why", g->why);
    for (uint32_t i = 0; i < g->n; i++) {
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "uuid", g->gpu[i].uuid);
        cJSON_AddStringToObject(one, "name", g->gpu[i].name);
        cJSON_AddNumberToObject(one, "bytes", (double)g->gpu[i].bytes);
        if (*g->gpu[i].replica)
            cJSON_AddStringToObject(one, "replica", g->gpu[i].replica);
        else
            cJSON_AddNullToObject(one, "replica");
        cJSON_AddItemToArray(all, one);
    }
    return j;
}

static void copy(const cJSON *j, const char *key, char *to, size_t cap)
{
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    snprintf(to, cap, "%s", v ? v : "");
}

bool gpus_from_json(const cJSON *j, struct gpus *ret)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(j, "gpus"), *one;
    *ret = (struct gpus){0};
    if (!cJSON_IsArray(all))
        return false;
    copy(j, "why", ret->why, sizeof ret->why);
    cJSON_ArrayForEach(one, all)
    {
        struct gpu *g = &ret->gpu[ret->n];
        const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(one, "bytes");
        if (ret->n == GPUS_MAX || !cJSON_IsNumber(bytes) || bytes->valuedouble < 0)
            return false;
        g->bytes = (uint64_t)bytes->valuedouble;
        copy(one, "uuid", g->uuid, sizeof g->uuid);
        copy(one, "name", g->name, sizeof g->name);
        copy(one, "replica", g->replica, sizeof g->replica);
        ret->n++;
    }
    return true;
}
