// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * score - what became of each request of a serving benchmark, and the figures of all of them.
 *
 * Figures, as `vllm bench serve` defines them, over the requests that were answered in full:
 *   TTFT   from the sending to the first event with choices
 *   ITL    between two events with choices of a request; two in one read are 0 apart
 *   TPOT   (last event - first event) / (output tokens - 1), for more than one output token
 *   rates  over the time from the first sending to the last end; output tokens are the server's
 *          usage; total tokens are those of the prompts and of the outputs
 * Quantiles are interpolated linearly. An event may carry several tokens, which flatters nothing
 * but TPOT's looks: tokens an event are printed too. Cancelled requests count in `slices` and
 * nowhere else.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum ended { UNDER_WAY = 0, ANSWERED, CANCELLED, FAILED };

struct outcome {
    uint64_t sent_ns, first_ns, last_ns; // CLOCK_MONOTONIC; first, last: of events with choices
    uint32_t prompt, output;             // tokens; output: by the server's usage
    uint32_t events;
    enum ended ended;
};

struct gap {
    float at_s, ms; // at_s: since the begin
};

struct score {
    struct outcome *outcomes; // owned, [n]
    uint32_t n, ended;
    struct gap *gaps; // owned, [n_gaps]
    size_t n_gaps, cap_gaps;
    uint64_t begin_ns, end_ns;
};

void score_init(struct score *s, uint32_t n);
void score_finish(struct score *s);
void score_event(struct score *s, struct outcome *o, uint64_t now_ns); // an event with choices
void score_end(struct score *s, struct outcome *o, enum ended how, uint64_t now_ns);

void score_header(FILE *out);
void score_row(const struct score *s, const char *label, FILE *out);
void score_json(const struct score *s, const char *label, FILE *out); // one line
// One line for each `seconds`: events a second, and the gaps.
void score_slices(const struct score *s, double seconds, FILE *out);
