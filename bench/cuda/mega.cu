// SPDX-License-Identifier: Apache-2.0
/*
 * mega - where a step of one token spends its time, operation by operation, and by how much it is
 * above its floor: weights and keys over the bandwidth that is measured first.
 */
#include "bench/cuda/timing.h"
#include "kernels/cuda/mega.h"
#include "tests/cuda/stepping.h"

#include <algorithm>

using namespace stepping;

namespace
{
enum { CONTEXT = 1024, STEPS = 200, OPS = 5 };

const char *const names[OPS] = {"qkv", "attend", "o", "gate up", "down"};

const shape shapes[] = {
    {"Llama-3.2-1B", 16, 2048, 32, 8, 64, 8192, 128256, SV_ROPE_HALF, 0, false, false, true},
    {"Qwen3-0.6B", 28, 1024, 16, 8, 128, 3072, 151936, SV_ROPE_HALF, 0, true, false, true},
    {"Llama-3.1-8B", 32, 4096, 32, 8, 128, 14336, 128256, SV_ROPE_HALF, 0, false, false, true},
    {"Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, SV_ROPE_HALF, 0, false, true, true},
};

double bytes_of(const shape &s)
{
    const double q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    const double layer = (q + 2 * kv) * s.hidden + q * s.hidden + 3.0 * s.d_ff * s.hidden;
    return 2 * (s.layers * layer + (double)s.vocab * s.hidden) +
           4.0 * s.layers * kv * (CONTEXT + STEPS / 2);
}

// Mean microseconds of each part of an operation, over all CTAs and layers; of the last step.
void tell(const uint64_t *t, uint32_t ops, uint32_t ctas)
{
    auto at = [&](uint32_t op, uint32_t which, uint32_t cta) {
        return (double)t[((uint64_t)op * MEGA_STAMPS + which) * ctas + cta] * 1e-3;
    };
    printf("%-10s %8s %8s %8s %8s %8s %8s\n", "us", "all", "waits", "longest", "stages", "works",
           "longest");
    for (uint32_t kind = 0; kind <= OPS; kind++) {
        double waits = 0, stages = 0, works = 0, longest_wait = 0, longest_work = 0, all = 0;
        uint32_t n = 0;
        for (uint32_t op = kind; op < ops; op += OPS) {
            if ((kind == 0 && op + 1 == ops) || (kind == OPS && op + 1 != ops))
                continue; // the head has a line of its own
            double most_wait = 0, most_work = 0, begin = 1e30, end = 0;
            for (uint32_t c = 0; c < ctas; c++) {
                const bool attends = kind == 1;
                const double came = at(op, MEGA_COMES, c), waited = at(op, MEGA_WAITED, c),
                             done = at(op, MEGA_DONE, c),
                             staged = attends ? waited : at(op, MEGA_STAGED, c);
                waits += (waited - came) / ctas;
                stages += (staged - waited) / ctas;
                works += (done - staged) / ctas;
                most_wait = std::max(most_wait, waited - came);
                most_work = std::max(most_work, done - staged);
                begin = std::min(begin, waited);
                end = std::max(end, done);
            }
            longest_wait += most_wait;
            longest_work += most_work;
            all += end - begin;
            n++;
        }
        printf("%-10s %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f\n", kind == OPS ? "head" : names[kind],
               all / n, waits / n, longest_wait / n, stages / n, works / n, longest_work / n);
    }
}

void run(const shape &s, double rate)
{
    sv_dev_options options = {};
    options.size = sizeof options;
    sv_dev *d;
    must(k->open(&options, &d, why), "open");
    const uint32_t ctas = (uint32_t)d->prop.multiProcessorCount, ops = s.layers * OPS + 1;
    uint64_t *trace;
    cudaMallocManaged(&trace, sizeof *trace * ops * MEGA_STAMPS * ctas);
    model m(d, s);
    runner plain(d, s, m, CONTEXT + STEPS, false), mega(d, s, m, CONTEXT + STEPS, true);
    d->mega_trace = trace;
    runner traced(d, s, m, CONTEXT + STEPS, true);
    const double floor = bytes_of(s) / rate * 1e3, other = plain.time(CONTEXT, STEPS),
                 ms = mega.time(CONTEXT, STEPS);
    traced.time(CONTEXT, 20);
    printf("%-14s step %.3f ms, by kernels of their own %.3f, floor %.3f, share %.1f%%\n",
           s.name.c_str(), ms, other, floor, 100 * floor / ms);
    tell(trace, ops, ctas);
    cudaFree(trace);
    k->close(d);
}
} // namespace

int main(int argc, char **argv)
{
    const double rate = measured_bandwidth();
    printf("read %.3f TB/s\n", rate * 1e-12);
    for (const shape &s : shapes)
        if (argc < 2 || strstr(s.name.c_str(), argv[1]))
            run(s, rate);
    return 0;
}
