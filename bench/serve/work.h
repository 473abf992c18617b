// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * work - the requests of a serving benchmark: lengths out of a file, random ids, times of arrival.
 *
 * File     JSON: a list of [prompt tokens, output tokens].
 * Arrival  all at 0 s, or after gaps of an exponential distribution (Poisson), stretched so that
 * the last of n comes at n / rate, as `vllm bench serve` does. Ids      a pure function of (seed,
 * job, place): whoever drives the same work sends the same.
 */
#include <stdint.h>

enum { WORK_JOBS_MAX = 1 << 20, WORK_TOKENS_MAX = 1 << 20 };

struct job {
    uint32_t prompt, output; // tokens
    uint32_t cancel_after;   // tokens received; 0: never
    double at_s;
};

struct work {
    struct job *jobs; // owned
    uint32_t n;
    uint32_t low, high; // ids are in [low, high)
    uint64_t seed;
};

// n jobs, the file's again and again; 0: the file's once. Ends the program with a word on failure.
void work_read(struct work *w, const char *path, uint32_t n);
void work_finish(struct work *w);
void work_arrivals(struct work *w, double rate); // per second; 0: all at once
// That share of the jobs ends early, after a random part of its output.
void work_cancels(struct work *w, double share);
int32_t work_id(const struct work *w, uint32_t job, uint32_t place);
