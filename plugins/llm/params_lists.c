// SPDX-License-Identifier: Apache-2.0
#include "llm/params_lists.h"

#include "llm/refusal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool params_int(yyjson_val *v, int64_t *ret)
{
    if (yyjson_is_sint(v)) {
        *ret = yyjson_get_sint(v);
        return true;
    }
    if (yyjson_is_uint(v)) {
        *ret = (int64_t)yyjson_get_uint(v);
        return yyjson_get_uint(v) <= INT64_MAX;
    }
    double x = yyjson_is_real(v) ? yyjson_get_real(v) : 0.5;
    if (x != floor(x) || fabs(x) > 9e15) // 2^53: beyond, a double is not exact
        return false;
    *ret = (int64_t)x;
    return true;
}

const char *params_show(yyjson_val *v, char out[PARAMS_SHOWN])
{
    if (!v)
        snprintf(out, PARAMS_SHOWN, "nothing");
    else if (yyjson_is_str(v))
        snprintf(out, PARAMS_SHOWN, "'%.60s%s'", yyjson_get_str(v),
                 yyjson_get_len(v) > 60 ? "..." : "");
    else if (yyjson_is_uint(v))
        snprintf(out, PARAMS_SHOWN, "%llu", (unsigned long long)yyjson_get_uint(v));
    else if (yyjson_is_sint(v))
        snprintf(out, PARAMS_SHOWN, "%lld", (long long)yyjson_get_sint(v));
    else if (yyjson_is_real(v))
        snprintf(out, PARAMS_SHOWN, "%.15g", yyjson_get_real(v));
    else if (yyjson_is_bool(v))
        snprintf(out, PARAMS_SHOWN, "%s", yyjson_get_bool(v) ? "true" : "false");
    else if (yyjson_is_arr(v))
        snprintf(out, PARAMS_SHOWN, "a list of %zu", yyjson_arr_size(v));
    else
        snprintf(out, PARAMS_SHOWN, "%s", yyjson_is_null(v) ? "null" : "an object");
    return out;
}

static int out_of_vocabulary(struct params_reader *r, const char *name, const char *shown)
{
    return refuse_value(
        r->why, name, "token_id(s) [%s] in %s contain out-of-vocab token ids. Vocabulary size: %u",
        shown, name, r->limits->vocab);
}

int params_read_ids(struct params_reader *r, const char *name, yyjson_val *v, struct id_list *ret)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *e;
    if (!yyjson_is_arr(v))
        return refuse_schema(r->why, name, "`%s` must be a list of token ids, got %s.", name,
                             params_show(v, shown));
    int32_t *ids = arena_alloc(&r->p->arena, yyjson_arr_size(v) * sizeof *ids + 1);
    yyjson_arr_foreach(v, i, n, e)
    {
        int64_t id;
        if (!params_int(e, &id))
            return refuse_schema(r->why, name, "%s[%zu] must be an integer, got %s.", name, i,
                                 params_show(e, shown));
        if (id < 0 || id >= (int64_t)r->limits->vocab)
            return out_of_vocabulary(r, name, params_show(e, shown));
        ids[i] = (int32_t)id;
    }
    *ret = (struct id_list){ids, (uint32_t)yyjson_arr_size(v)};
    return 0;
}

struct bias {
    int32_t id;
    uint32_t place; // in the request
    float value;
};

static int by_id(const void *a, const void *b)
{
    const struct bias *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

// Decimal digits alone.
static bool read_key(yyjson_val *key, int64_t *ret)
{
    const char *s = yyjson_get_str(key);
    size_t n = yyjson_get_len(key);
    if (n == 0 || n > 10)
        return false;
    *ret = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *ret = *ret * 10 + (s[i] - '0');
    }
    return true;
}

static int read_pairs(struct params_reader *r, yyjson_val *v, struct bias *to)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(v, i, n, key, value)
    {
        int64_t id;
        if (!read_key(key, &id))
            return refuse_schema(r->why, "logit_bias",
                                 "the keys of `logit_bias` must be token ids, got %s.",
                                 params_show(key, shown));
        if (!yyjson_is_num(value))
            return refuse_schema(r->why, "logit_bias", "logit_bias[%lld] must be a number, got %s.",
                                 (long long)id, params_show(value, shown));
        if (id >= (int64_t)r->limits->vocab)
            return out_of_vocabulary(r, "logit_bias", params_show(key, shown));
        double x = yyjson_get_num(value);
        x = x < -100 ? -100 : x > 100 ? 100 : x; // as vLLM does
        to[i] = (struct bias){(int32_t)id, (uint32_t)i, (float)x};
    }
    return 0;
}

// Of equal ids the last counts.
int params_read_bias(struct params_reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    struct params *p = r->p;
    if (!yyjson_is_obj(v))
        return refuse_schema(r->why, "logit_bias",
                             "`logit_bias` must be an object from token ids to numbers, got %s.",
                             params_show(v, shown));
    size_t n = yyjson_obj_size(v);
    struct bias *all = arena_alloc(&p->arena, n * sizeof *all + 1);
    int rc = read_pairs(r, v, all);
    if (rc < 0 || n == 0)
        return rc;
    qsort(all, n, sizeof *all, by_id);
    p->bias_ids.v = arena_alloc(&p->arena, n * sizeof(int32_t));
    p->bias = arena_alloc(&p->arena, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && all[i + 1].id == all[i].id)
            continue;
        p->bias_ids.v[p->bias_ids.n] = all[i].id;
        p->bias[p->bias_ids.n++] = all[i].value;
    }
    return 0;
}

static int read_one_stop(struct params_reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    if (!yyjson_is_str(v))
        return refuse_schema(r->why, "stop",
                             "`stop` must be a string or a list of strings, got %s.",
                             params_show(v, shown));
    size_t n = yyjson_get_len(v);
    if (n == 0)
        return refuse_value(r->why, "stop", "stop cannot contain an empty string.");
    if (n > PARAMS_STOP_MAX)
        return refuse_value(r->why, "stop", "a stop string has %zu bytes; at most %d are taken.", n,
                            PARAMS_STOP_MAX);
    stops_add(&r->p->stops, &r->p->arena, yyjson_get_str(v), n);
    return 0;
}

int params_read_stop(struct params_reader *r, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(v))
        return read_one_stop(r, v);
    if (yyjson_arr_size(v) > STOPS_MAX)
        return refuse_schema(r->why, "stop", "`stop` must have at most %d strings, got %zu.",
                             STOPS_MAX, yyjson_arr_size(v));
    yyjson_arr_foreach(v, i, n, one)
    {
        int rc = read_one_stop(r, one);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int bad_prompt(struct params_reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    return refuse_schema(r->why, "prompt",
                         "`prompt` must be a string, a list of strings, a list of token ids or a "
                         "list of lists of token ids, got %s.",
                         params_show(v, shown));
}

static int check_id_prompt(struct params_reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *e;
    if (yyjson_arr_size(v) == 0)
        return refuse_schema(r->why, "prompt", "a prompt has no tokens");
    yyjson_arr_foreach(v, i, n, e)
    {
        int64_t id;
        if (!params_int(e, &id))
            return bad_prompt(r, e);
        if (id < 0 || id >= (int64_t)r->limits->vocab)
            return refuse_value(r->why, "prompt",
                                "Token id %s is out of vocabulary: the ids are 0 to %u",
                                params_show(e, shown), r->limits->vocab - 1);
    }
    return 0;
}

int params_check_prompt(struct params_reader *r, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *one;
    if (yyjson_is_str(v))
        return 0;
    yyjson_val *first = yyjson_arr_get_first(v);
    if (!first)
        return yyjson_is_arr(v) ? refuse_schema(r->why, "prompt", "`prompt` is an empty list")
                                : bad_prompt(r, v);
    if (yyjson_is_num(first))
        return check_id_prompt(r, v);
    if (yyjson_arr_size(v) > PARAMS_PROMPTS)
        return refuse_schema(r->why, "prompt",
                             "prompt list length %zu exceeds the maximum allowed count of %d.",
                             yyjson_arr_size(v), PARAMS_PROMPTS);
    yyjson_arr_foreach(v, i, n, one)
    {
        if (yyjson_get_type(one) != yyjson_get_type(first))
            return bad_prompt(r, one);
        int rc = yyjson_is_str(one)   ? 0
                 : yyjson_is_arr(one) ? check_id_prompt(r, one)
                                      : bad_prompt(r, one);
        if (rc < 0)
            return rc;
    }
    return 0;
}
