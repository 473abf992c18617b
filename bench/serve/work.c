// SPDX-License-Identifier: Apache-2.0
#include "serve/work.h"

#include <yyjson.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum purpose { ARRIVALS = 1, CANCELS, IDS }; // each its own stream of numbers

static void die(const char *path, const char *what)
{
    fprintf(stderr, "work: %s: %s\n", path, what);
    exit(1);
}

// splitmix64: number i of a stream.
static uint64_t mix(uint64_t stream, uint64_t i)
{
    uint64_t z = stream * 0xd1342543de82ef95u + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t stream, uint64_t i) // (0, 1]
{
    return (double)((mix(stream, i) >> 11) + 1) * 0x1p-53;
}

static uint64_t stream_of(const struct work *w, enum purpose purpose)
{
    return mix(w->seed, purpose);
}

static uint32_t tokens_at(yyjson_val *pair, size_t i, const char *path)
{
    int64_t n = yyjson_get_sint(yyjson_arr_get(pair, i));
    if (yyjson_arr_size(pair) != 2 || n < 1 || n > WORK_TOKENS_MAX)
        die(path, "not a list of [prompt tokens, output tokens]");
    return (uint32_t)n;
}

void work_read(struct work *w, const char *path, uint32_t n)
{
    yyjson_read_err e;
    yyjson_doc *doc = yyjson_read_file(path, 0, NULL, &e);
    if (!doc)
        die(path, e.msg);
    yyjson_val *root = yyjson_doc_get_root(doc);
    size_t listed = yyjson_arr_size(root);
    if (listed < 1 || listed > WORK_JOBS_MAX || n > WORK_JOBS_MAX)
        die(path, "too few or too many requests");
    w->n = n ? n : (uint32_t)listed;
    w->jobs = calloc(w->n, sizeof *w->jobs);
    if (!w->jobs)
        die(path, "no memory");
    for (uint32_t i = 0; i < w->n; i++) {
        yyjson_val *pair = yyjson_arr_get(root, i % listed);
        w->jobs[i] =
            (struct job){.prompt = tokens_at(pair, 0, path), .output = tokens_at(pair, 1, path)};
    }
    yyjson_doc_free(doc);
}

void work_finish(struct work *w)
{
    free(w->jobs);
    *w = (struct work){0};
}

void work_arrivals(struct work *w, double rate)
{
    uint64_t stream = stream_of(w, ARRIVALS);
    double at = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        at += rate > 0 ? -log(uniform(stream, i)) : 0;
        w->jobs[i].at_s = at;
    }
    double stretch = at > 0 ? w->n / rate / at : 0;
    for (uint32_t i = 0; i < w->n; i++)
        w->jobs[i].at_s *= stretch;
}

void work_cancels(struct work *w, double share)
{
    uint64_t stream = stream_of(w, CANCELS);
    for (uint32_t i = 0; i < w->n; i++) {
        struct job *j = &w->jobs[i];
        bool cancelled = uniform(stream, UINT64_C(2) * i) <= share && j->output > 1;
        j->cancel_after =
            cancelled ? 1 + (uint32_t)(mix(stream, UINT64_C(2) * i + 1) % (j->output - 1)) : 0;
    }
}

int32_t work_id(const struct work *w, uint32_t job, uint32_t place)
{
    uint64_t stream = mix(stream_of(w, IDS), job);
    return (int32_t)(w->low + mix(stream, place) % (w->high - w->low));
}
