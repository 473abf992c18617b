// SPDX-License-Identifier: Apache-2.0
/*
 * sample - the sampler by rows and by what is asked of it (K9), at a vocabulary of 128,256.
 *
 * Bytes   of the logits, once: the floor, in front of each table. Logits are normal, of standard
 *         deviation 3, so flat that top_p alone keeps thousands; they come from memory, or, where
 *         it says so, from the L2, as in a step whose head has just written them
 * Overlap what a call does before it needs logits, it does while the one before it runs, as in a
 *         step beside the head
 * Head    greedy rows take the best logit from the head's word where it has left one: mega and gemv
 *         do, that is, steps of up to 4 rows
 * Torch   bench/cuda/sample_torch.py
 */
#include "bench/cuda/timing.h"
#include "tests/cuda/sampling.h"

#include <functional>
#include <string>

namespace
{
using sampling::params;
using sampling::world;

enum : uint32_t { VOCAB = 128256, CONTEXT = 2048, HISTORY = 1024 };
constexpr float SCALE = 3;

struct mode {
    const char *name;
    std::function<void(params &)> set;
    bool told; // by the head
};

void all_on(params &p)
{
    p.a.top_k = 50;
    p.a.top_p = 0.9f;
    p.a.min_p = 0.01f;
    p.a.repetition = 1.1f;
    p.a.frequency = 0.1f;
    p.a.presence = 0.1f;
    p.a.min_tokens = CONTEXT;
    p.stop = {128001, 128008, 128009};
    p.bias_id = {11, 13, 30};
    p.bias = {1, -1, 0.5f};
    p.bad = {2, 5, 6, 1, 7};
    for (int32_t id = 0; id < (int32_t)VOCAB; id += 2)
        p.allowed.push_back(id);
}

const mode modes[] = {
    {"greedy", [](params &p) { p.a.temperature = 0; }},
    {"greedy, the head's best", [](params &p) { p.a.temperature = 0; }, true},
    {"greedy, 20 logprobs",
     [](params &p) {
         p.a.temperature = 0;
         p.a.logprobs = 21;
     }},
    {"temperature", [](params &) {}},
    {"top_k", [](params &p) { p.a.top_k = 50; }},
    {"top_k of 1000", [](params &p) { p.a.top_k = 1000; }},
    {"top_p", [](params &p) { p.a.top_p = 0.9f; }},
    {"top_k, top_p, min_p",
     [](params &p) {
         p.a.top_k = 50;
         p.a.top_p = 0.9f;
         p.a.min_p = 0.01f;
     }},
    {"penalties",
     [](params &p) {
         p.a.frequency = 0.1f;
         p.a.repetition = 1.1f;
     }},
    {"all processors", all_on},
    {"all processors, 20 logprobs",
     [](params &p) {
         all_on(p);
         p.a.logprobs = 21;
     }},
};

void time_rows(uint32_t rows)
{
    const uint64_t n = (uint64_t)rows * VOCAB;
    const size_t copies = std::min<size_t>(copies_beyond_l2(4 * n), timing::CALLS);
    const float *logits = random_f32(n * copies, 1, SCALE);
    world w(VOCAB, rows, CONTEXT);
    printf("%u row%s: %.2f MB of logits, floor %.2f us\n", rows, rows > 1 ? "s" : "",
           4e-6 * (double)n, 4e6 * (double)n / measured_bandwidth());
    w.batch(std::vector<int32_t>(rows, HISTORY - 1), std::vector<int32_t>(rows, SV_DRAW));
    for (const mode &m : modes) {
        params p = sampling::plain_params();
        p.a.temperature = 0.8f;
        for (uint32_t i = 0; i < HISTORY; i++)
            p.history.push_back((int32_t)(i * 7919 % 4001 * 32));
        p.history.resize(HISTORY);
        p.a.prompt_len = HISTORY / 2;
        m.set(p);
        for (uint32_t i = 0; i < rows; i++) {
            p.a.seed = i;
            w.set(i, p);
            w.word(i, m.told ? 1ull << 63 | ~i : 0); // id i
        }
        sampling::must(cudaStreamSynchronize(w.stream()), "slots");
        for (bool cold : {true, false}) {
            if (!cold && rows > 64)
                continue;
            session_view v = w.view();
            const double s = seconds_of([&](int turn, cudaStream_t q) {
                v.logits = (float *)logits + (cold ? (size_t)turn % copies * n : 0);
                sample_run(v, rows, q);
            });
            const std::string name = std::to_string(rows) + (rows > 1 ? " rows, " : " row, ") +
                                     m.name + (cold ? "" : ", in L2");
            table_row(name.c_str(), s, 4.0 * (double)n, 0, 0);
        }
    }
    sampling::must(cudaFree((void *)logits), "cudaFree");
}
} // namespace

int main()
{
    table_begin("sample (K9)");
    for (uint32_t rows : {1u, 8u, 64u, 256u})
        time_rows(rows);
    return 0;
}
