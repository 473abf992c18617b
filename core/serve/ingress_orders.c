// SPDX-License-Identifier: Apache-2.0
#include "serve/ingress_orders.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdio.h>

enum kind { K_U32, K_U64, K_SECONDS };
struct number {
    const char *name;
    enum kind kind;
    size_t at;
};

#define N(name, kind, member)                                                                      \
    {                                                                                              \
#name, kind, offsetof(struct ingress_orders, member)                                       \
    }
static const struct number numbers[] = {
    N(max_request_line_bytes, K_U32, limits.request_line_bytes),
    N(max_header_bytes, K_U32, limits.header_bytes),
    N(max_headers, K_U32, limits.headers),
    N(max_body_bytes, K_U64, limits.body_bytes),
    N(max_buffered_bytes, K_U64, limits.buffered_bytes),
    N(max_connections, K_U32, limits.connections),
    N(max_connections_per_address, K_U32, limits.per_address),
    N(header_timeout_s, K_SECONDS, limits.header_timeout_s),
    N(body_timeout_s, K_SECONDS, limits.body_timeout_s),
    N(keep_alive_timeout_s, K_SECONDS, limits.keep_alive_timeout_s),
    N(write_timeout_s, K_SECONDS, limits.write_timeout_s),
    N(request_timeout_s, K_SECONDS, request_timeout_s),
};

static int parse(const cJSON *root, struct ingress_orders *o, struct err *err);
static int get_number(const cJSON *http, const struct number *n, struct ingress_orders *o,
                      struct err *err);
static int get_text(const cJSON *from, const char *name, char *out, size_t cap, struct err *err);

int ingress_orders_parse(struct bytes json, struct ingress_orders *ret, struct err *err)
{
    cJSON *root = cJSON_ParseWithLength(json.p, json.n);
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return err_set(err, SV_E_INVALID, "the orders are not a JSON object");
    }
    struct ingress_orders o = {
        .limits = http_limits_default, .orphan_timeout_s = 60, .access_log = true};
    int rc = parse(root, &o, err);
    cJSON_Delete(root);
    if (rc < 0)
        return err_ctx(err, "orders of the ingress");
    if (o.limits.body_bytes < UINT32_MAX)
        o.limits.ws_message_bytes = (uint32_t)o.limits.body_bytes;
    *ret = o;
    return 0;
}

static int parse(const cJSON *root, struct ingress_orders *o, struct err *err)
{
    const cJSON *place = cJSON_GetObjectItemCaseSensitive(root, "place");
    const cJSON *http = cJSON_GetObjectItemCaseSensitive(root, "http");
    const cJSON *log = cJSON_GetObjectItemCaseSensitive(root, "access_log");
    static const struct number orphan = N(orphan_timeout_s, K_SECONDS, orphan_timeout_s);
    if (cJSON_IsNumber(place) && place->valuedouble >= 0)
        o->place = (uint32_t)place->valuedouble;
    if (log)
        o->access_log = cJSON_IsTrue(log);
    int rc = get_text(root, "state_dir", o->state_dir, sizeof o->state_dir, err);
    if (rc >= 0)
        rc = get_text(http, "root_path", o->root_path, sizeof o->root_path, err);
    for (size_t i = 0; i < ARRAY_LEN(numbers) && rc >= 0; i++)
        rc = get_number(http, &numbers[i], o, err);
    if (rc >= 0)
        rc = get_number(root, &orphan, o, err);
    return rc;
}

static int get_number(const cJSON *http, const struct number *n, struct ingress_orders *o,
                      struct err *err)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(http, n->name);
    if (!v)
        return 0;
    double d = v->valuedouble, max = n->kind == K_U32 ? UINT32_MAX : 9007199254740992.0;
    bool whole = n->kind == K_SECONDS || d == floor(d);
    if (!cJSON_IsNumber(v) || d < 0 || d > max || !whole)
        return err_set(err, SV_E_INVALID, "http.%s is not a number from 0 to %.0f", n->name, max);
    void *to = (char *)o + n->at;
    if (n->kind == K_U32)
        *(uint32_t *)to = (uint32_t)d;
    else if (n->kind == K_U64)
        *(uint64_t *)to = (uint64_t)d;
    else
        *(double *)to = d;
    return 0;
}

static int get_text(const cJSON *from, const char *name, char *out, size_t cap, struct err *err)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(from, name);
    if (!v || cJSON_IsNull(v))
        return 0;
    if (!cJSON_IsString(v))
        return err_set(err, SV_E_INVALID, "%s is not a string", name);
    int n = snprintf(out, cap, "%s", v->valuestring);
    if (n < 0 || (size_t)n >= cap)
        return err_set(err, SV_E_INVALID, "%s has %d bytes, the limit is %zu", name, n, cap - 1);
    return 0;
}
