// SPDX-License-Identifier: Apache-2.0
/*
 * mega - steps of one token in one kernel beside the same steps by kernels of their own, each of
 * which has an oracle in double precision.
 *
 * Models   small, random, of every kind that mega takes: head sizes, groups, norms of heads,
 *          biases, both orders of RoPE, windows, columns that no block divides, few rows
 * Steps    a prompt of some length by other programs, then tokens one by one, at every edge of a
 *          tile, of a warp's, a CTA's and all ranges of keys
 * Draws    greedy, by the head's word (entry.h): the first best of the logits of every step, also
 *          where each token has a twin with the same logit
 * Checked  relative error of the logits; they are numbers; a step again gives the same bits; what
 *          steps wrote into the KV blocks, by the steps that come after
 * Usage    mega [small | race | PROMPT...]: small: two layers and few steps, for compute-sanitizer;
 *          race: mega alone, behind keys that are zeros, for racecheck, under which a step takes
 *          many times as long.
 */
#include "stepping.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

using namespace stepping;

namespace
{
// Both round activations to bf16, in unlike places; the other kernels do it before heads are
// normed.
constexpr double ERROR_MOST = 2e-2;

bool small, failed;

double difference(const std::vector<float> &a, const std::vector<float> &b)
{
    double all = 0, off = 0;
    for (size_t i = 0; i < a.size(); i++) {
        if (!std::isfinite(a[i]))
            return INFINITY;
        all += (double)b[i] * b[i];
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return std::sqrt(off / all);
}

// From a prompt of `from` tokens on, `steps` one by one.
double follow(runner *mega, runner *plain, uint32_t from, uint32_t steps)
{
    double worst = 0;
    for (uint32_t at = 0; at < from; at += CHUNK) {
        const uint32_t n = from - at < CHUNK ? from - at : (uint32_t)CHUNK;
        if (n == 1)
            break; // with the single ones
        mega->step(at, n);
        plain->step(at, n);
    }
    const uint32_t first = from % CHUNK == 1 ? from - 1 : from;
    for (uint32_t pos = first; pos < from + steps; pos++) {
        const std::vector<float> a = mega->step(pos, 1), b = plain->step(pos, 1);
        const double off = difference(a, b);
        worst = off > worst ? off : worst;
        if (mega->step(pos, 1) != a) {
            printf("mega: token %u: not the same bits again\n", pos);
            failed = true;
        }
    }
    return worst;
}

void run(const shape &s, const std::vector<uint32_t> &prompts)
{
    sv_dev_options options = {};
    options.size = sizeof options;
    sv_dev *d;
    must(k->open(&options, &d, why), "open");
    model m(d, s);
    for (uint32_t prompt : prompts) {
        const uint32_t steps = small ? 2 : prompt == 0 ? 35 : 4, context = prompt + steps;
        runner mega(d, s, m, context, true), plain(d, s, m, context, false);
        const double off = follow(&mega, &plain, prompt, steps);
        const bool good = off < ERROR_MOST && mega.false_draws() + plain.false_draws() == 0;
        printf("%-24s %6u + %2u  %.2e%s\n", s.name.c_str(), prompt, steps, off,
               good ? "" : "  FAILED");
        fflush(stdout);
        failed = failed || !good;
    }
    k->close(d);
}

// At a tile's end; with several ranges, with tiles for more than half of the warps.
void race(const shape &s)
{
    constexpr uint32_t LAST = 1100;
    sv_dev_options options = {};
    options.size = sizeof options;
    sv_dev *d;
    must(k->open(&options, &d, why), "open");
    model m(d, s);
    runner mega(d, s, m, LAST + 1, true);
    for (uint32_t pos : {15u, 16u, LAST}) {
        const std::vector<float> a = mega.step(pos, 1);
        const bool good = std::isfinite(a[0]) && mega.step(pos, 1) == a;
        printf("%-24s at %4u  %s\n", s.name.c_str(), pos, good ? "same bits" : "FAILED");
        fflush(stdout);
        failed = failed || !good;
    }
    k->close(d);
}

const shape shapes[] = {
    {"d64, group 4", 3, 512, 8, 2, 64, 1024, 1000, SV_ROPE_HALF, 0, false, false, false, true},
    {"d128, group 4", 3, 1024, 8, 2, 128, 2048, 2048, SV_ROPE_HALF, 0, false, false},
    {"d128, norms, group 2", 3, 256, 16, 8, 128, 768, 512, SV_ROPE_HALF, 0, true, false},
    {"d128, biases, group 7", 3, 896, 7, 1, 128, 1232, 640, SV_ROPE_HALF, 0, false, true},
    {"d64, pairs, group 8", 3, 512, 16, 2, 64, 1000, 512, SV_ROPE_PAIRS, 0, false, true},
    {"d64, no rope, group 1", 3, 200, 3, 3, 64, 328, 304, SV_ROPE_NONE, 0, true, true},
    {"d128, window 100", 3, 512, 6, 2, 128, 512, 512, SV_ROPE_PAIRS, 100, true, false},
    {"d64, window 700", 3, 2048, 4, 4, 64, 512, 512, SV_ROPE_HALF, 700, false, false},
};
} // namespace

int main(int argc, char **argv)
{
    small = argc > 1 && strcmp(argv[1], "small") == 0;
    const bool races = argc > 1 && strcmp(argv[1], "race") == 0;
    std::vector<uint32_t> prompts = {0, 255, 511, 2045, 2557, 4094, 6000};
    if (argc > 1)
        prompts.clear();
    for (int i = 1; i < argc && !small && !races; i++)
        prompts.push_back((uint32_t)atoi(argv[i]));
    for (shape s : shapes) {
        if (small || races)
            s.layers = 2;
        if (races) {
            race(s);
            continue;
        }
        if (small) {
            // A tile's end; several ranges, of wide shapes with tiles for more than half the warps.
            prompts = {0, 15, s.hidden < 1024 ? 300u : 1040u};
        }
        run(s, prompts);
    }
    // Beyond what a CTA of each range takes in its warps' first tiles.
    if (argc < 2) {
        run(shapes[0], {40000});
        run(shapes[3], {70000});
    }
    printf("mega: %s\n", failed ? "FAILED" : "good");
    return failed;
}
