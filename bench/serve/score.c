// SPDX-License-Identifier: Apache-2.0
#include "serve/score.h"

#include <stdlib.h>

struct spread {
    double mean, p50, p90, p99;
};

struct figures {
    uint32_t by_end[FAILED + 1];
    double seconds, requests, output, total; // output, total: tokens
    double events;
    struct spread ttft, tpot, itl, e2e; // ms
};

static void *must(void *p)
{
    if (p)
        return p;
    fprintf(stderr, "score: no memory\n");
    exit(1);
}

void score_init(struct score *s, uint32_t n)
{
    *s = (struct score){.n = n};
    s->outcomes = must(calloc(n, sizeof *s->outcomes));
    s->cap_gaps = 1 << 16;
    s->gaps = must(malloc(s->cap_gaps * sizeof *s->gaps));
}

void score_finish(struct score *s)
{
    free(s->outcomes);
    free(s->gaps);
    *s = (struct score){0};
}

void score_event(struct score *s, struct outcome *o, uint64_t now_ns)
{
    if (o->events++ == 0)
        o->first_ns = now_ns;
    else {
        if (s->n_gaps == s->cap_gaps) {
            s->cap_gaps *= 2;
            s->gaps = must(realloc(s->gaps, s->cap_gaps * sizeof *s->gaps));
        }
        s->gaps[s->n_gaps++] = (struct gap){.at_s = (float)((double)(now_ns - s->begin_ns) * 1e-9),
                                            .ms = (float)((double)(now_ns - o->last_ns) * 1e-6)};
    }
    o->last_ns = now_ns;
}

void score_end(struct score *s, struct outcome *o, enum ended how, uint64_t now_ns)
{
    o->ended = how;
    s->ended++;
    s->end_ns = now_ns;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double quantile(const double *v, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t low = (size_t)at, high = low + 1 < n ? low + 1 : low;
    return v[low] + (v[high] - v[low]) * (at - (double)low);
}

// Sorts v.
static struct spread spread_of(double *v, size_t n)
{
    struct spread r = {0};
    if (n == 0)
        return r;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++)
        r.mean += v[i] / (double)n;
    r.p50 = quantile(v, n, 0.5);
    r.p90 = quantile(v, n, 0.9);
    r.p99 = quantile(v, n, 0.99);
    return r;
}

static struct spread gaps_between(const struct score *s, double from_s, double to_s, size_t *ret_n)
{
    double *v = must(malloc((s->n_gaps + 1) * sizeof *v));
    size_t n = 0;
    for (size_t i = 0; i < s->n_gaps; i++)
        if ((double)s->gaps[i].at_s >= from_s && (double)s->gaps[i].at_s < to_s)
            v[n++] = (double)s->gaps[i].ms;
    struct spread r = spread_of(v, n);
    free(v);
    *ret_n = n;
    return r;
}

static double ms(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-6;
}

static struct figures figures_of(const struct score *s)
{
    struct figures f = {.seconds = ms(s->begin_ns, s->end_ns) * 1e-3};
    double *ttft = must(calloc(s->n + 1, sizeof *ttft)),
           *tpot = must(calloc(s->n + 1, sizeof *tpot)), *e2e = must(calloc(s->n + 1, sizeof *e2e));
    size_t n = 0, n_tpot = 0, n_gaps;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct outcome *o = &s->outcomes[i];
        f.by_end[o->ended]++;
        if (o->ended != ANSWERED)
            continue;
        f.output += o->output;
        f.total += o->output + o->prompt;
        f.events += o->events;
        ttft[n] = ms(o->sent_ns, o->first_ns);
        e2e[n++] = ms(o->sent_ns, o->last_ns);
        if (o->output > 1)
            tpot[n_tpot++] = ms(o->first_ns, o->last_ns) / (o->output - 1);
    }
    f.requests = (double)n;
    f.ttft = spread_of(ttft, n);
    f.tpot = spread_of(tpot, n_tpot);
    f.e2e = spread_of(e2e, n);
    f.itl = gaps_between(s, 0, 1e9, &n_gaps);
    free(ttft);
    free(tpot);
    free(e2e);
    return f;
}

void score_header(FILE *out)
{
    fprintf(out, "%-28s %7s %9s %9s %15s %13s %13s %6s %6s\n", "", "req/s", "out tok/s",
            "all tok/s", "TTFT p50/p99", "TPOT p50/p99", "ITL p50/p99", "tok/ev", "failed");
}

void score_row(const struct score *s, const char *label, FILE *out)
{
    struct figures f = figures_of(s);
    fprintf(out, "%-28s %7.2f %9.0f %9.0f %7.0f/%7.0f %6.2f/%6.2f %6.2f/%6.2f %6.2f %6u\n", label,
            f.requests / f.seconds, f.output / f.seconds, f.total / f.seconds, f.ttft.p50,
            f.ttft.p99, f.tpot.p50, f.tpot.p99, f.itl.p50, f.itl.p99,
            f.events > 0 ? f.output / f.events : 0, f.by_end[FAILED] + f.by_end[UNDER_WAY]);
    fflush(out);
}

static void json_spread(const char *name, const struct spread *p, FILE *out)
{
    fprintf(out, ",\"%s_ms\":{\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f}", name, p->mean,
            p->p50, p->p90, p->p99);
}

void score_json(const struct score *s, const char *label, FILE *out)
{
    struct figures f = figures_of(s);
    fprintf(out,
            "{\"label\":\"%s\",\"seconds\":%.3f,\"answered\":%u,\"cancelled\":%u,\"failed\":%u,",
            label, f.seconds, f.by_end[ANSWERED], f.by_end[CANCELLED],
            f.by_end[FAILED] + f.by_end[UNDER_WAY]);
    fprintf(out,
            "\"request_throughput\":%.3f,\"output_throughput\":%.1f,\"total_throughput\":%.1f,"
            "\"output_tokens\":%.0f,\"total_tokens\":%.0f,\"events\":%.0f",
            f.requests / f.seconds, f.output / f.seconds, f.total / f.seconds, f.output, f.total,
            f.events);
    json_spread("ttft", &f.ttft, out);
    json_spread("tpot", &f.tpot, out);
    json_spread("itl", &f.itl, out);
    json_spread("e2e", &f.e2e, out);
    fprintf(out, "}\n");
    fflush(out);
}

void score_slices(const struct score *s, double seconds, FILE *out)
{
    double whole = ms(s->begin_ns, s->end_ns) * 1e-3;
    fprintf(out, "%-16s %9s %9s %9s %9s\n", "seconds", "events/s", "ITL mean", "p50", "p99");
    for (uint32_t i = 0; i * seconds < whole; i++) {
        double from = i * seconds, to = from + seconds < whole ? from + seconds : whole;
        size_t n;
        struct spread g = gaps_between(s, from, to, &n);
        fprintf(out, "%7.0f-%-8.0f %9.0f %9.2f %9.2f %9.2f\n", from, to, (double)n / (to - from),
                g.mean, g.p50, g.p99);
    }
    fflush(out);
}
