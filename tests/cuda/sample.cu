// SPDX-License-Identifier: Apache-2.0
/*
 * sample - the sampler against a plain reference: sorting, sums in double.
 *
 * Token    the reference knows the random number: the token must hold it in the running sum of what
 *          the reference keeps, ids ascending, to within NEAR; so a wrong set, weight or order
 *          shows in every draw. Greedy tokens are exact
 * Logprob  to within 2e-5; ranks, alternatives and their order are exact
 * Repeat   each case runs alone, in a batch of ROWS among others, and by the other path of the
 *          kernel: bits are equal, but logprobs of the other path
 * Word     each case once more with the head's word, by both paths: the same bits. With a false
 *          word, rows that ask for the best logit alone believe it, and no others
 * Draws    chi-squared of 102,400 draws with 64 seeds over a small vocabulary
 * Usage    sample [small]: a few rows for compute-sanitizer, which between them reach all that the
 *          others do but lists that one CTA overfills. For racecheck, which slows shared memory
 * some hundred times, they are few, not repeated, and launched without rows to spare
 */
#include "tests/cuda/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>

namespace
{
using sampling::answer;
using sampling::params;
using sampling::world;
using floats = std::vector<float>;

enum { ROWS = 64, CONTEXT = 4096, SEEDS = 3, DRAWS = 1600, MANY = 3000 };
constexpr double NEAR = 2e-5, LOGPROB_NEAR = 2e-5;

struct row_case {
    std::string name;
    params p;
    floats logits;
    int32_t want = SV_DRAW;
    bool told = false; // the head's word is there in every run
};

uint64_t mixed(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

struct random_source {
    uint64_t state;

    uint64_t next()
    {
        return mixed(state++);
    }
    uint32_t below(uint32_t n)
    {
        return (uint32_t)(next() % n);
    }
    double uniform()
    {
        return (double)((next() >> 11) + 1) * 0x1p-53;
    }
    double normal()
    {
        double a = uniform(), b = uniform();
        return sqrt(-2 * log(a)) * cos(6.283185307179586 * b);
    }
};

// Philox4x32-10's first 64 bits.
uint64_t philox(uint64_t seed, uint64_t number)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c[4] = {(uint32_t)number, (uint32_t)(number >> 32), 0, 0};
    for (int i = 0; i < 10; i++) {
        const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
                                  (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return (uint64_t)c[1] << 32 | c[0];
}

bool word_ends(const params &p, const int32_t *word, uint32_t n)
{
    const uint32_t output = (uint32_t)p.history.size() - p.a.prompt_len;
    return n - 1 <= output && std::equal(word, word + n - 1, p.history.end() - (n - 1));
}

// Logits after all processors, in f32 as these are defined.
floats processed(const row_case &c)
{
    const params &p = c.p;
    const sv_sampling &a = p.a;
    const size_t vocab = c.logits.size();
    floats x = c.logits;
    std::vector<bool> open(vocab, p.allowed.empty());
    std::vector<uint32_t> times(vocab), in_prompt(vocab);
    for (int32_t id : p.allowed)
        open[(size_t)id] = true;
    for (uint32_t i = 0; i < p.bad.size(); i += 1 + (uint32_t)p.bad[i])
        if (word_ends(p, &p.bad[i + 1], (uint32_t)p.bad[i]))
            open[(size_t)p.bad[i + (uint32_t)p.bad[i]]] = false;
    if (p.history.size() - a.prompt_len < a.min_tokens)
        for (int32_t id : p.stop)
            open[(size_t)id] = false;
    for (size_t i = 0; i < vocab; i++)
        x[i] = open[i] ? x[i] : -INFINITY;
    for (size_t i = 0; i < p.bias.size(); i++)
        x[(size_t)p.bias_id[i]] += p.bias[i];
    for (size_t i = 0; i < p.history.size(); i++)
        (i < a.prompt_len ? in_prompt : times)[(size_t)p.history[i]]++;
    for (size_t i = 0; i < vocab; i++) {
        if (in_prompt[i] || times[i])
            x[i] = x[i] > 0 ? x[i] / a.repetition : x[i] * a.repetition;
        if (times[i])
            x[i] = x[i] - a.frequency * (float)times[i] - a.presence;
    }
    return x;
}

// What each id weighs in the draw.
std::vector<double> weights(const row_case &c, const floats &x)
{
    const sv_sampling &a = c.p.a;
    const size_t vocab = x.size();
    std::vector<double> w(vocab);
    floats sorted = x;
    std::sort(sorted.begin(), sorted.end(), std::greater<float>());
    const float kth = a.top_k && a.top_k < vocab ? sorted[a.top_k - 1] : -INFINITY;
    double total = 0, sum = 0;
    for (size_t i = 0; i < vocab; i++) {
        w[i] = exp(((double)x[i] - sorted[0]) / a.temperature);
        w[i] = x[i] < kth || w[i] < a.min_p ? 0 : w[i];
        total += w[i];
    }
    if (!(a.top_p < 1))
        return w;
    std::vector<uint32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t i, uint32_t j) { return x[i] > x[j]; });
    for (size_t i = 0; i < vocab; i++) {
        const double before = sum;
        sum += w[order[i]];
        if (i > 0 && before >= (double)a.top_p * total)
            w[order[i]] = 0;
    }
    return w;
}

bool finite(const floats &x)
{
    return std::all_of(x.begin(), x.end(), [](float f) { return std::isfinite(f); });
}

size_t best_of(const floats &x)
{
    return (size_t)(std::max_element(x.begin(), x.end()) - x.begin()); // the lowest of equal ones
}

// What a head leaves of a row.
enum word { NONE, BEST, FALSE_ONE };

uint64_t entry_of(float f, size_t id)
{
    f = f == 0 ? 0 : f;
    uint32_t bits = 0;
    memcpy(&bits, &f, 4);
    const uint32_t key = !std::isfinite(f) ? ~0u : bits >> 31 ? ~bits : bits | 1u << 31;
    return (uint64_t)key << 32 | ~(uint32_t)id;
}

size_t false_best(const row_case &c)
{
    return (best_of(c.logits) + 1) % c.logits.size();
}

uint64_t word_of(const row_case &c, word w)
{
    if (w == NONE)
        return 0;
    if (w == FALSE_ONE)
        return entry_of(1, false_best(c));
    for (size_t i = 0; i < c.logits.size(); i++)
        if (!std::isfinite(c.logits[i]))
            return entry_of(c.logits[i], i);
    const size_t best = best_of(c.logits);
    return entry_of(c.logits[best], best);
}

// Nothing is asked for but the best of the raw logits, or whether they are numbers.
bool best_alone(const row_case &c)
{
    const params &p = c.p;
    const bool late =
        !p.stop.empty() && p.history.size() - (size_t)p.a.prompt_len < (size_t)p.a.min_tokens;
    const bool plain = p.allowed.empty() && p.bias.empty() && p.bad.empty() && !late &&
                       p.a.repetition == 1 && p.a.frequency == 0 && p.a.presence == 0;
    return p.a.logprobs == 0 && (c.want != SV_DRAW || (plain && p.a.temperature < 1e-5f));
}

// NULL: the token is right.
const char *token_fault(const row_case &c, int32_t token)
{
    const sv_sampling &a = c.p.a;
    if (!finite(c.logits))
        return token == -1 ? NULL : "drawn from what is no number";
    if (c.want != SV_DRAW)
        return token == c.want ? NULL : "not what was asked for";
    const floats x = processed(c);
    const float most = x[best_of(x)];
    if (!(most > -INFINITY) || most == INFINITY)
        return token == -1 ? NULL : "drawn where all is banned";
    if (token < 0 || (size_t)token >= x.size())
        return "no token";
    if (a.temperature < 1e-5f)
        return (size_t)token == best_of(x) ? NULL : "not the best";
    const std::vector<double> w = weights(c, x);
    const double total = std::accumulate(w.begin(), w.end(), 0.0);
    const double before = std::accumulate(w.begin(), w.begin() + token, 0.0);
    const uint64_t number = c.p.history.size() - a.prompt_len;
    const double at = (double)philox(a.seed, number) * 0x1p-64 * total;
    if (at < before - NEAR * total || at > before + w[(size_t)token] + NEAR * total)
        return "not the token of this random number";
    // At the edge of the kept set its weight may be rounded away, but not beyond.
    const double least = exp(((double)x[(size_t)token] - most) / a.temperature);
    const double edge = *std::min_element(
        w.begin(), w.end(), [](double p, double q) { return (p > 0 ? p : 2) < (q > 0 ? q : 2); });
    return w[(size_t)token] > 0 || least >= edge * (1 - NEAR) ? NULL : "not in the kept set";
}

// The n best ids, best first.
std::vector<uint32_t> top_of(const floats &x, size_t n)
{
    std::vector<uint32_t> order(x.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + (long)n, order.end(),
                      [&](uint32_t i, uint32_t j) { return x[i] != x[j] ? x[i] > x[j] : i < j; });
    order.resize(n);
    return order;
}

const char *logprob_fault(const row_case &c, const answer &a)
{
    const floats &x = c.logits;
    const double most = x[best_of(x)];
    double sum = 0;
    int32_t rank = 1;
    for (float f : x) {
        sum += exp(f - most);
        rank += f > x[(size_t)a.token];
    }
    const double norm = most + log(sum);
    auto far = [&](float got, size_t id) { return !(fabs(got - (x[id] - norm)) < LOGPROB_NEAR); };
    if (far(a.logprob, (size_t)a.token))
        return "another logprob";
    if (a.rank != rank)
        return "another rank";
    const size_t n = std::min<size_t>(c.p.a.logprobs - 1, x.size());
    const std::vector<uint32_t> top = top_of(x, n);
    for (size_t i = 0; i < n; i++)
        if (a.top_id[i] != (int32_t)top[i] || far(a.top_logprob[i], top[i]))
            return "another alternative";
    return NULL;
}

const char *fault_of(const row_case &c, const answer &a)
{
    const char *fault = token_fault(c, a.token);
    return fault || a.token < 0 || c.p.a.logprobs == 0 ? fault : logprob_fault(c, a);
}

floats random_logits(uint32_t vocab, double scale, uint64_t seed)
{
    random_source r = {seed * 1000003};
    floats x(vocab);
    for (float &f : x)
        f = (float)(r.normal() * scale);
    return x;
}

params random_slot(uint32_t vocab, random_source &r)
{
    params p = sampling::plain_params();
    p.a.seed = r.next();
    p.history.resize(2 + r.below(300));
    for (int32_t &id : p.history)
        id = (int32_t)r.below(r.below(4) ? std::min(vocab, 40u) : vocab); // many of some
    p.a.prompt_len = 1 + r.below((uint32_t)p.history.size());
    return p;
}

// Every processor on, logits of many equal ones.
row_case all_on(uint32_t vocab, random_source &r)
{
    row_case c = {"all", random_slot(vocab, r), {}};
    params &p = c.p;
    sv_sampling &a = p.a;
    a.temperature = 0.8f;
    a.top_k = 50;
    a.top_p = 0.9f;
    a.min_p = 0.01f;
    a.repetition = 1.2f;
    a.frequency = 0.3f;
    a.presence = 0.4f;
    a.logprobs = 6;
    a.min_tokens = 1000;
    for (int i = 0; i < 9; i++) {
        p.stop.push_back((int32_t)r.below(vocab));
        p.bias_id.push_back((int32_t)r.below(std::min(vocab, 20u))); // some twice
        p.bias.push_back(i == 3 ? -INFINITY : (float)r.normal());
    }
    for (uint32_t i = 0; i < vocab; i++)
        if (r.below(4))
            p.allowed.push_back((int32_t)i);
    const int32_t last = p.history.back(), other = (int32_t)r.below(vocab);
    p.bad = {1, other, 2, last, (int32_t)r.below(vocab), 3, other, last, 0, 2, last, 1};
    c.logits = random_logits(vocab, 4, r.next());
    for (float &f : c.logits)
        f = roundf(f * 8) / 8;
    return c;
}

// With one thing set, over logits of that scale.
row_case one(const char *name, uint32_t vocab, double scale, random_source &r,
             const std::function<void(params &)> &set)
{
    row_case c = {name, random_slot(vocab, r), random_logits(vocab, scale, r.next())};
    c.p.a.temperature = 1;
    set(c.p);
    return c;
}

void add_thresholds(std::vector<row_case> &v, uint32_t vocab, random_source &r)
{
    for (double scale : {0.01, 1.0, 3.0, 30.0}) {
        v.push_back(one("temperature", vocab, scale, r, [](params &p) { p.a.temperature = 0.7f; }));
        for (uint32_t k : {1u, 7u, 50u, 600u, 5000u})
            v.push_back(one("top_k", vocab, scale, r, [k](params &p) { p.a.top_k = k; }));
        for (float share : {0.0f, 1e-6f, 0.5f, 0.9f, 0.999f})
            v.push_back(one("top_p", vocab, scale, r, [share](params &p) { p.a.top_p = share; }));
        v.push_back(one("min_p", vocab, scale, r, [](params &p) { p.a.min_p = 0.05f; }));
        v.push_back(one("top_k, top_p", vocab, scale, r, [](params &p) {
            p.a.top_k = 40;
            p.a.top_p = 0.8f;
            p.a.temperature = 1.5f;
        }));
        v.push_back(one("logprobs", vocab, scale, r, [](params &p) { p.a.logprobs = 21; }));
    }
    // All equal: every cut goes through ties.
    for (uint32_t k : {0u, 5u}) {
        row_case c = one("all equal", vocab, 0, r, [k](params &p) {
            p.a.top_k = k;
            p.a.top_p = 0.7f;
            p.a.logprobs = 21;
        });
        v.push_back(c);
    }
    row_case c = one("two values", vocab, 0, r, [](params &p) { p.a.top_p = 0.6f; });
    for (uint32_t i = 0; i < vocab; i += 3)
        c.logits[i] = 0.5f;
    v.push_back(c);
}

void add_processors(std::vector<row_case> &v, uint32_t vocab, random_source &r)
{
    for (int i = 0; i < 6; i++) {
        v.push_back(all_on(vocab, r));
        if (i == 1)
            v.back().p.a.temperature = 0;
        if (i == 2)
            v.back().p.a.logprobs = 0;
        if (i == 3)
            v.back().p.a.top_k = 0;
        if (i == 4)
            v.back().p.a.top_k = 0, v.back().p.a.top_p = 1, v.back().p.a.min_p = 0;
    }
    v.push_back(one("greedy", vocab, 3, r, [](params &p) { p.a.temperature = 0; }));
    v.push_back(one("greedy, logprobs", vocab, 3, r, [](params &p) {
        p.a.temperature = 0;
        p.a.logprobs = 1;
    }));
    v.push_back(one("penalties", vocab, 3, r, [](params &p) {
        p.a.frequency = -0.5f;
        p.a.presence = 1;
        p.a.temperature = 0;
    }));
    v.push_back(one("repetition", vocab, 3, r, [](params &p) { p.a.repetition = 0.5f; }));
    for (int i = 0; i < 2; i++) { // in an even row and in an odd one
        v.push_back(one("the last tokens", vocab, 3, r, [&](params &p) {
            p.history = {0, (int32_t)(vocab / 2), (int32_t)(vocab / 3)};
            p.a.prompt_len = 1;
            p.a.presence = 60;
            p.a.temperature = 0;
        }));
        v.back().logits[vocab / 2] = 40;
        v.back().logits[vocab / 3] = 50;
    }
    v.push_back(
        one("one allowed", vocab, 3, r, [&](params &p) { p.allowed = {(int32_t)(vocab - 1)}; }));
    v.push_back(one("all banned", vocab, 3, r, [&](params &p) {
        p.allowed = {3};
        p.bias_id = {3};
        p.bias = {-INFINITY};
    }));
    v.push_back(one("past min_tokens", vocab, 3, r, [&](params &p) {
        p.a.min_tokens = 1;
        p.history.resize(9, 1);
        p.a.prompt_len = 5;
        p.stop = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
        p.a.temperature = 0;
    }));
    for (uint32_t logprobs : {0u, 4u}) {
        v.push_back(one("asked for", vocab, 3, r, [&](params &p) { p.a.logprobs = logprobs; }));
        v.back().want = (int32_t)r.below(vocab);
    }
}

// What a list of the largest values must hold: many equal ones, more than it has room for, fewer
// than are asked for, all of them in one place.
void add_lists(std::vector<row_case> &v, uint32_t vocab, random_source &r)
{
    for (uint32_t k : {1u, 2u, 3u, 64u, 99u, 100u, 101u, 128u, 129u, 512u, vocab - 1, vocab}) {
        row_case c = one("top_k of coarse logits", vocab, 3, r, [&](params &p) {
            p.a.top_k = k;
            p.a.top_p = r.below(3) ? 0.95f : 1;
            p.a.min_p = r.below(2) ? 0.02f : 0;
            p.a.logprobs = r.below(2) * (1 + r.below(21));
            p.a.frequency = r.below(2) ? 0.1f : 0;
        });
        for (float &f : c.logits)
            f = roundf(f * 8) / 8;
        v.push_back(c);
    }
    for (uint32_t n : {60u, 300u, 900u, 2000u}) {
        const uint32_t here = std::min(n, vocab), from = r.below(vocab - here + 1);
        for (uint32_t k : {0u, 50u, 100u}) {
            row_case c = one("the best in one place", vocab, 1, r, [&](params &p) {
                p.a.top_k = k;
                p.a.top_p = 0.9f;
                p.a.logprobs = r.below(2) ? 21 : 0;
                p.a.presence = r.below(2) ? 0.5f : 0;
            });
            for (uint32_t i = from; i < from + here; i++)
                c.logits[i] = r.below(2) ? 20 : 20 + (float)r.normal() / 8;
            v.push_back(c);
        }
    }
    for (uint32_t k : {5u, 50u})
        v.push_back(one("fewer than k", vocab, 3, r, [&](params &p) {
            p.a.top_k = k;
            p.a.top_p = 0.99f;
            for (int i = 0; i < 7; i++)
                p.allowed.push_back((int32_t)r.below(vocab));
        }));
    for (uint32_t k : {0u, 3u, 40u}) {
        row_case c = one("zeros of both signs", vocab, 0, r, [&](params &p) {
            p.a.top_k = k;
            p.a.top_p = 0.8f;
            p.a.logprobs = k ? 21 : 0;
        });
        for (float &f : c.logits)
            f = r.below(50) ? r.below(2) ? 0.0f : -0.0f : -1;
        c.logits[r.below(vocab)] = 1;
        v.push_back(c);
    }
    v.push_back(one("long history", vocab, 3, r, [&](params &p) {
        p.history.resize(CONTEXT);
        for (int32_t &id : p.history)
            id = (int32_t)r.below(r.below(2) ? vocab : std::min(vocab, 9u));
        p.a.prompt_len = CONTEXT / 3;
        p.a.repetition = 1.3f;
        p.a.frequency = 0.01f;
        p.a.presence = 0.2f;
        p.a.top_k = 20;
        p.a.logprobs = 3;
    }));
}

// One of each list; ids are few, so that lists meet.
row_case any(uint32_t vocab, random_source &r)
{
    row_case c = {"any", random_slot(vocab, r), random_logits(vocab, 2, r.next())};
    params &p = c.p;
    sv_sampling &a = p.a;
    auto of = [&](const floats &v) { return v[r.below((uint32_t)v.size())]; };
    const uint32_t few = r.below(2) ? 4 : vocab;
    for (int32_t &id : p.history)
        id = (int32_t)((uint32_t)id % few);
    if (r.below(2)) // an output of few tokens
        a.prompt_len = (uint32_t)p.history.size() - r.below(3);
    a.temperature = of({0, 0.3f, 1, 1.7f});
    a.top_k = (uint32_t)of({0, 0, 1, 5, 20, 1000});
    a.top_p = of({1, 1, 0.3f, 0.9f});
    a.min_p = of({0, 0, 0.1f});
    a.repetition = of({1, 1, 1.3f, 0.7f});
    a.frequency = of({0, 0, 0.5f, -0.2f});
    a.presence = of({0, 0, 0.7f});
    a.logprobs = (uint32_t)of({0, 0, 1, 4, 21});
    a.min_tokens = r.below(6);
    for (uint32_t n = r.below(4); n > 0; n--)
        p.stop.push_back((int32_t)r.below(vocab));
    for (uint32_t n = r.below(5); n > 0; n--) {
        p.bias_id.push_back((int32_t)r.below(few));
        p.bias.push_back(r.below(9) ? (float)r.normal() : -INFINITY);
    }
    for (uint32_t i = 0, some = r.below(2); some && i < vocab; i++)
        if (r.below(2))
            p.allowed.push_back((int32_t)i);
    for (uint32_t n = r.below(4); n > 0; n--) {
        p.bad.push_back(1 + (int32_t)r.below(3));
        for (int32_t left = p.bad.back(); left > 0; left--)
            p.bad.push_back((int32_t)r.below(4));
    }
    const float grain = of({1e-4f, 0.25f});
    for (float &f : c.logits)
        f = roundf(f / grain) * grain;
    for (int i = 0; i < 4; i++)
        c.logits[i] += 2; // what is said of these shows
    return c;
}

// Greedy rows, whose best logit is hard to tell.
void add_greedy(std::vector<row_case> &v, uint32_t vocab, random_source &r)
{
    auto add = [&](const char *name, const std::function<float(float)> &of) {
        for (uint32_t logprobs : {0u, 1u}) {
            v.push_back(one(name, vocab, 3, r, [&](params &p) {
                p.a.temperature = 0;
                p.a.logprobs = logprobs;
            }));
            for (float &f : v.back().logits)
                f = of(f);
        }
    };
    add("greedy, ties", [](float f) { return std::min(roundf(f), 3.0f); });
    add("greedy, all equal", [](float) { return -1.5f; });
    add("greedy, zeros of both signs", [&](float f) { return f < 0 ? -0.0f : 0.0f; });
    add("greedy, zeros are best", [&](float f) { return f > 4 ? r.below(2) ? 0 : -0.0f : -1; });
    add("greedy, negative", [](float f) { return f - 1000; });
    add("greedy, all banned", [](float) { return -INFINITY; });
    v.push_back(one("greedy, huge", vocab, 3, r, [](params &p) { p.a.temperature = 0; }));
    for (float &f : v.back().logits)
        f = f > 0 ? 3e38f : -3e38f;
    for (float f : {NAN, -INFINITY}) {
        v.push_back(one("asked for, no number", vocab, 3, r, [](params &) {}));
        v.back().want = (int32_t)r.below(vocab);
        v.back().logits[r.below(vocab)] = f;
    }
}

std::vector<row_case> cases_of(uint32_t vocab, uint64_t seed)
{
    random_source r = {seed << 32 | vocab};
    std::vector<row_case> v;
    add_greedy(v, vocab, r);
    add_processors(v, vocab, r);
    add_thresholds(v, vocab, r);
    add_lists(v, vocab, r);
    for (float f : {NAN, INFINITY, -INFINITY}) {
        v.push_back(one("no number", vocab, 3, r, [](params &p) { p.a.logprobs = 2; }));
        v.back().logits[r.below(vocab)] = f;
        v.push_back(one("no number, greedy", vocab, 3, r, [](params &p) { p.a.temperature = 0; }));
        v.back().logits[vocab - 1] = f;
    }
    return v;
}

// The answers of all cases, `batch` of them at once.
template <class F>
std::vector<answer> answers_of(world &w, std::vector<row_case> &cases, uint32_t batch, F sample,
                               word left = NONE)
{
    std::vector<answer> all;
    for (size_t at = 0; at < cases.size(); at += batch) {
        const size_t n = std::min<size_t>(batch, cases.size() - at);
        std::vector<int32_t> pos, want;
        for (size_t i = 0; i < n; i++) {
            row_case &c = cases[at + i];
            w.set((uint32_t)i, c.p);
            w.logits((uint32_t)i, c.logits);
            w.word((uint32_t)i, word_of(c, c.told && left == NONE ? BEST : left));
            pos.push_back((int32_t)c.p.history.size() - 1);
            want.push_back(c.want);
        }
        w.batch(pos, want);
        const std::vector<answer> got = w.run(sample);
        all.insert(all.end(), got.begin(), got.begin() + (long)n);
    }
    return all;
}

bool same_bits(const row_case &c, const answer &a, const answer &b, bool logprobs)
{
    if (a.token != b.token)
        return false;
    if (a.token < 0 || c.p.a.logprobs == 0)
        return true;
    const size_t n = std::min<size_t>(c.p.a.logprobs - 1, c.logits.size());
    return a.rank == b.rank && memcmp(a.top_id, b.top_id, n * 4) == 0 &&
           (!logprobs || (memcmp(&a.logprob, &b.logprob, 4) == 0 &&
                          memcmp(a.top_logprob, b.top_logprob, n * 4) == 0));
}

// a: by a head that left a false word; b: by one that left none.
bool same_but_for_word(const row_case &c, const answer &a, const answer &b)
{
    if (!best_alone(c))
        return same_bits(c, a, b, true);
    return a.token == (c.want == SV_DRAW ? (int32_t)false_best(c) : c.want);
}

// small: one launch of each kernel for all of them.
int check(uint32_t vocab, uint64_t seed, std::vector<row_case> cases, bool small = false)
{
    const uint32_t rows = small ? (uint32_t)cases.size() : (uint32_t)ROWS;
    world w(vocab, rows, CONTEXT);
    const std::vector<answer> together = answers_of(w, cases, rows, sample_run);
    const std::vector<answer> alone = small ? together : answers_of(w, cases, 1, sample_run);
    const uint32_t others = small ? rows : rows - 1;
    const std::vector<answer> other = answers_of(w, cases, others, sample_run_ctas);
    auto with = [&](word left, auto sample, uint32_t batch, const std::vector<answer> &none) {
        return small ? none : answers_of(w, cases, batch, sample, left);
    };
    const std::vector<answer> told = with(BEST, sample_run, rows, together),
                              told_other = with(BEST, sample_run_ctas, others, other),
                              misled = with(FALSE_ONE, sample_run, rows, together),
                              misled_other = with(FALSE_ONE, sample_run_ctas, others, other);
    int failures = 0;
    auto tell = [&](size_t i, const char *fault) {
        printf("sample: vocab %u, seed %llu, case %zu (%s): %s (token %d, alone %d, other %d)\n",
               vocab, (unsigned long long)seed, i, cases[i].name.c_str(), fault, together[i].token,
               alone[i].token, other[i].token);
        failures++;
    };
    for (size_t i = 0; i < cases.size(); i++) {
        if (const char *fault = fault_of(cases[i], together[i]))
            tell(i, fault);
        else if (!same_bits(cases[i], together[i], other[i], true))
            if (const char *of_other = fault_of(cases[i], other[i]))
                tell(i, of_other);
        if (!same_bits(cases[i], together[i], alone[i], true))
            tell(i, "not the same alone");
        if (!same_bits(cases[i], together[i], other[i], false))
            tell(i, "not the same by a single CTA");
        if (!same_bits(cases[i], together[i], told[i], true) ||
            !same_bits(cases[i], other[i], told_other[i], true))
            tell(i, "not the same with the head's word");
        if (!small && (!same_but_for_word(cases[i], misled[i], together[i]) ||
                       !same_but_for_word(cases[i], misled_other[i], other[i])))
            tell(i, "believes the head's word where it should not, or does not where it should");
    }
    printf("sample: vocab %u, seed %llu, %zu rows: %s\n", vocab, (unsigned long long)seed,
           cases.size(), failures ? "FAILED" : "ok");
    fflush(stdout);
    return failures;
}

std::vector<row_case> many(uint32_t vocab, uint32_t n)
{
    random_source r = {vocab};
    std::vector<row_case> v;
    while (v.size() < n)
        v.push_back(any(vocab, r));
    return v;
}

// The numbers that are read of a row: all processors, lists of every kind, both searches.
std::vector<row_case> some(uint32_t vocab)
{
    random_source r = {vocab};
    std::vector<row_case> v;
    v.push_back(all_on(vocab, r)); // a list of raw logits, and one of what becomes of them
    v.push_back(all_on(vocab, r));
    v.back().p.a.logprobs = 0;
    v.back().p.a.top_k = 0; // the whole row
    v.push_back(one("greedy", vocab, 3, r, [](params &p) { p.a.temperature = 0; }));
    v.push_back(v.back());
    v.back().told = true;
    v.push_back(one("a list for both", vocab, 3, r, [](params &p) {
        p.a.top_k = 7;
        p.a.top_p = 0.9f;
        p.a.logprobs = 4;
    }));
    v.push_back(one("a longer list", vocab, 3, r, [](params &p) { p.a.top_k = 90; }));
    v.push_back(one("a large k", vocab, 3, r, [](params &p) { p.a.top_k = 300; }));
    v.push_back(one("asked for", vocab, 3, r, [](params &p) { p.a.logprobs = 1; }));
    v.back().want = (int32_t)(vocab / 2);
    v.push_back(one("all equal", vocab, 0, r, [](params &p) { // bins, or a long list
        p.a.top_k = 5;
        p.a.top_p = 0.7f;
        p.a.logprobs = 3;
    }));
    return v;
}

// Standard normal deviate of a chi-squared (Wilson and Hilferty).
double deviate(double chi, double freedom)
{
    const double a = 2 / (9 * freedom);
    return (cbrt(chi / freedom) - (1 - a)) / sqrt(a);
}

// Logits are multiples of `grain`: where it is coarse, a cut goes through equal ones.
int check_draws(uint32_t vocab, const char *name, float grain,
                const std::function<void(params &)> &set)
{
    world w(vocab, ROWS, CONTEXT);
    row_case c = {name, sampling::plain_params(), random_logits(vocab, 1.5, vocab)};
    c.p.a.temperature = 1;
    set(c.p);
    for (float &f : c.logits)
        f = roundf(f / grain) * grain;
    std::vector<int32_t> pos(ROWS), want(ROWS, SV_DRAW);
    for (uint32_t i = 0; i < ROWS; i++) {
        c.p.a.seed = mixed(i);
        w.set(i, c.p);
        w.logits(i, c.logits);
    }
    std::vector<double> found(vocab);
    for (int32_t turn = 0; turn < DRAWS; turn++) {
        std::fill(pos.begin(), pos.end(), turn);
        w.batch(pos, want);
        for (const answer &a : w.run(sample_run))
            if (a.token >= 0 && a.token < (int32_t)vocab)
                found[(size_t)a.token]++;
    }
    const std::vector<double> weight = weights(c, c.logits);
    const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
    double chi = 0, rest = 0, rest_found = 0;
    uint32_t bins = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        const double expected = weight[i] / total * ROWS * DRAWS;
        if (expected < 8) { // too few to be a bin of its own
            rest += expected;
            rest_found += found[i];
            continue;
        }
        chi += (found[i] - expected) * (found[i] - expected) / expected;
        bins++;
    }
    const bool impossible = rest == 0 && rest_found > 0;
    if (rest > 0) {
        chi += (rest_found - rest) * (rest_found - rest) / rest;
        bins++;
    }
    const double z = deviate(chi, bins - 1);
    const bool ok = !impossible && fabs(z) < 5;
    printf("sample: %d draws of %u, %s: chi-squared %.1f in %u bins, deviate %.2f: %s\n",
           ROWS * DRAWS, vocab, name, chi, bins, z, ok ? "ok" : "FAILED");
    return !ok;
}
} // namespace

int main(int argc, char **argv)
{
    int failures = 0;
    if (argc > 1 && strcmp(argv[1], "small") == 0) {
        for (uint32_t vocab : {1000u, 1537u}) // whole quads, and not
            failures += check(vocab, 0, some(vocab), true);
        return failures > 0;
    }
    for (uint32_t vocab : {32u, 1000u, 1537u, 49152u, 50257u, 128256u, 151936u})
        for (uint64_t seed = 1; seed <= (vocab > 50000 ? 1 : SEEDS); seed++)
            failures += check(vocab, seed, cases_of(vocab, seed));
    for (uint32_t vocab : {32u, 400u})
        failures += check(vocab, 0, many(vocab, MANY));
    failures += check_draws(32, "plain", 1e-3f, [](params &) {});
    failures += check_draws(1000, "plain", 1e-3f, [](params &) {});
    failures += check_draws(1000, "top_k, top_p", 1e-3f, [](params &p) {
        p.a.top_k = 100;
        p.a.top_p = 0.9f;
    });
    failures += check_draws(32, "top_p through ties", 1, [](params &p) { p.a.top_p = 0.6f; });
    failures += check_draws(32, "top_k through ties", 1, [](params &p) { p.a.top_k = 7; });
    return failures > 0;
}
