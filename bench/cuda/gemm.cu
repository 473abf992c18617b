// SPDX-License-Identifier: Apache-2.0
/*
 * gemm - projections of three models by tokens (K1, K2, K5), and of a whole layer in succession.
 *
 * Reference  cuBLASLt's bare product of the same shape: the fastest of its first 8, timed here.
 *            Ours has the norm before it and the activation or the sum after it included.
 * Layer      qkv, o, gate_up and down one after the other, as in a step without attention: what
 *            overlap leaves of the gaps. Its reference is the sum of the four by cuBLASLt.
 * Choice     up to 32 tokens ours is gemm.cu's choice; the lines below it are what it chose from:
 *            skinny, and cuBLASLt with the kernels beside it, its algorithm chosen by time.
 * Cut        skinny's time by how many CTAs share the columns, with the norm inside and before it:
 *            what the numbers in skinny_plan.cu are to be chosen by.
 * Usage      gemm [quick]: one model, fewer sizes. gemm skinny: 8 to 32 tokens alone.
 */
#include "bench/cuda/timing.h"
#include "kernels/cuda/gemm_state.h"
#include "kernels/cuda/program.h"

#include <cstring>
#include <string>

namespace
{
enum { X_MOST = 8192, PROJECTIONS = 6, LAYER = 4, LARGE_CALLS = 3, PAUSE = 10000 };

struct projection {
    const char *name;
    gemm_end end;
    uint32_t n, k; // gate_up: n of y
};

struct model {
    const char *name;
    projection of[PROJECTIONS]; // a layer's, the head, and perhaps another
};

const model models[] = {
    {"1B",
     {{"qkv", GEMM_BF16, 3072, 2048},
      {"o", GEMM_ADD, 2048, 2048},
      {"gate_up", GEMM_GATE_UP, 8192, 2048},
      {"down", GEMM_ADD, 2048, 8192},
      {"head", GEMM_F32, 128256, 2048}}},
    {"8B",
     {{"qkv", GEMM_BF16, 6144, 4096},
      {"o", GEMM_ADD, 4096, 4096},
      {"gate_up", GEMM_GATE_UP, 14336, 4096},
      {"down", GEMM_ADD, 4096, 14336},
      {"head", GEMM_F32, 128256, 4096},
      {"of 2752 rows", GEMM_BF16, 2752, 4096}}},
    {"0.6B",
     {{"qkv", GEMM_BF16, 4096, 1024},
      {"o", GEMM_ADD, 1024, 2048},
      {"gate_up", GEMM_GATE_UP, 3072, 1024},
      {"down", GEMM_ADD, 1024, 3072},
      {"head", GEMM_F32, 151936, 1024}}},
};

sv_dev *dev;

// Activations, as large as any case needs them.
struct activations {
    bf16 *x, *normed, *wide, *ff;
    float *residual, *norm, *logits;
    session_view v;
};

uint64_t weight_rows(const projection &p)
{
    return p.end == GEMM_GATE_UP ? 2ull * p.n : p.n;
}

double weight_bytes_of(const projection &p)
{
    return 2.0 * (double)weight_rows(p) * p.k;
}

activations make_activations()
{
    const uint64_t k = 14336, wide = 2 * 14336, heads = 151936;
    activations a = {};
    a.x = random_bf16(X_MOST * k, 1, 1);
    a.normed = random_bf16(X_MOST * k, 2, 1);
    a.wide = random_bf16(X_MOST * wide, 3, 1);
    a.ff = random_bf16(X_MOST * k, 4, 1);
    a.residual = random_f32(X_MOST * 4096, 5, 1);
    a.norm = random_f32(4096, 6, 1);
    a.logits = random_f32(256 * heads, 7, 1);
    uint32_t counts[4] = {X_MOST, 1, 256, 0};
    int32_t tokens[256];
    for (int i = 0; i < 256; i++) {
        tokens[i] = i;
    }
    using timing::must;
    must(cudaMalloc((void **)&a.v.counts, sizeof counts), "cudaMalloc");
    must(cudaMalloc((void **)&a.v.row_token, sizeof tokens), "cudaMalloc");
    must(cudaMalloc((void **)&a.v.best, 256 * sizeof *a.v.best), "cudaMalloc");
    must(cudaMemset(a.v.best, 0, 256 * sizeof *a.v.best), "cudaMemset");
    must(cudaMemcpy(a.v.counts, counts, sizeof counts, cudaMemcpyHostToDevice), "cudaMemcpy");
    must(cudaMemcpy(a.v.row_token, tokens, sizeof tokens, cudaMemcpyHostToDevice), "cudaMemcpy");
    return a;
}

gemm gemm_of(const activations &a, const projection &p, const bf16 *w, uint32_t m)
{
    gemm g = {m, p.n, p.k, p.end, SV_SILU};
    g.w = w;
    if (p.end == GEMM_ADD) {
        g.x = a.ff;
    } else {
        g.residual = a.residual;
        g.norm = a.norm;
        g.eps = 1e-5f;
    }
    g.rows = p.end == GEMM_F32;
    g.best = g.rows ? a.v.best : NULL;
    g.y = p.end == GEMM_ADD       ? (void *)a.residual
          : p.end == GEMM_F32     ? (void *)a.logits
          : p.end == GEMM_GATE_UP ? (void *)a.ff
                                  : (void *)a.wide;
    g.normed = a.normed;
    g.wide = a.wide;
    return g;
}

// The bare product of that shape, bf16 out, or f32 where ours is.
gemm bare(const activations &a, const projection &p, const bf16 *w, uint32_t m)
{
    gemm g = gemm_of(a, p, w, m);
    g.x = a.x;
    g.n = (uint32_t)weight_rows(p);
    g.end = p.end == GEMM_F32 ? GEMM_F32 : GEMM_BF16;
    g.y = p.end == GEMM_F32 ? (void *)a.logits : (void *)a.wide;
    return g;
}

int calls_of(uint32_t m)
{
    return m > 128 ? (int)LARGE_CALLS : (int)timing::CALLS;
}

// *first: of what its own reckoning prefers.
double best_of_cublaslt(const activations &a, const projection &p, const bf16 *w, size_t copies,
                        uint32_t m, double *first)
{
    const uint64_t elements = weight_rows(p) * p.k;
    double best = 0;
    for (int which = 0; which < LT_CANDIDATES; which++) {
        if (lt_run(dev, bare(a, p, w, m), which, timing::stream()) != cudaSuccess) {
            break;
        }
        const double s = seconds_of(
            [&](int turn, cudaStream_t q) {
                lt_run(dev, bare(a, p, w + (uint64_t)turn % copies * elements, m), which, q);
            },
            calls_of(m));
        best = best == 0 || s < best ? s : best;
        *first = which == 0 ? s : *first;
    }
    return best;
}

double ours(const activations &a, const projection &p, const bf16 *w, size_t copies, uint32_t m)
{
    const uint64_t elements = weight_rows(p) * p.k;
    return seconds_of(
        [&](int turn, cudaStream_t q) {
            const gemm g = gemm_of(a, p, w + (uint64_t)turn % copies * elements, m);
            timing::must(gemm_run(dev, a.v, g, q), "gemm_run");
        },
        calls_of(m));
}

// By cuBLASLt's best, with what we have to put beside it.
double with_kernels(const activations &a, const projection &p, const bf16 *w, size_t copies,
                    uint32_t m)
{
    const uint32_t usual = dev->gemm->skinny_cluster;
    dev->gemm->skinny_cluster = SKINNY_NONE;
    const double s = ours(a, p, w, copies, m);
    dev->gemm->skinny_cluster = usual;
    return s;
}

// 0: skinny doesn't take it.
double by_skinny(const activations &a, const projection &p, const bf16 *w, size_t copies,
                 uint32_t m)
{
    const uint64_t elements = weight_rows(p) * p.k;
    if (!skinny_takes(dev, gemm_of(a, p, w, m))) {
        return 0;
    }
    return seconds_of([&](int turn, cudaStream_t q) {
        const gemm g = gemm_of(a, p, w + (uint64_t)turn % copies * elements, m);
        timing::must(skinny_run(dev, a.v, g, q), "skinny_run");
    });
}

// One line: skinny's time by how it is cut.
void bench_cuts(const activations &a, const projection &p, const bf16 *w, size_t copies, uint32_t m,
                const char *name)
{
    printf("%s, us by cluster", name);
    for (uint32_t normed = 1; normed <= (p.end == GEMM_ADD ? 1 : 2); normed++) {
        dev->gemm->skinny_normed = normed;
        printf(normed == 1 ? "" : "; norm before");
        for (uint32_t cluster = 1; cluster <= 8; cluster *= 2) {
            dev->gemm->skinny_cluster = cluster;
            const double s = by_skinny(a, p, w, copies, m);
            printf(s > 0 ? " %u: %.2f" : " %u: -", cluster, s * 1e6);
        }
    }
    printf("\n");
    fflush(stdout);
    dev->gemm->skinny_cluster = dev->gemm->skinny_normed = 0;
}

// What gemm.cu chooses from.
void bench_choice(const activations &a, const projection &p, const bf16 *w, size_t copies,
                  uint32_t m, double reference, const std::string &name)
{
    const double s = by_skinny(a, p, w, copies, m);
    if (s > 0) {
        table_row((name + " skinny").c_str(), s, weight_bytes_of(p), weight_bytes_of(p) * m,
                  reference);
    }
    table_row((name + " cuBLASLt, its kernels").c_str(), with_kernels(a, p, w, copies, m),
              weight_bytes_of(p), weight_bytes_of(p) * m, reference);
    if (s > 0) {
        bench_cuts(a, p, w, copies, m, name.c_str());
    }
}

size_t copies_of(const projection &p)
{
    const size_t copies = copies_beyond_l2((size_t)weight_bytes_of(p));
    return std::min<size_t>(copies, timing::CALLS);
}

// Adds the reference's seconds of each size to those of the layer.
void bench_projection(const activations &a, const model &mo, const projection &p,
                      const std::vector<uint32_t> &sizes, std::vector<double> *layer_reference)
{
    const size_t copies = copies_of(p);
    const uint64_t elements = weight_rows(p) * p.k;
    bf16 *w = random_bf16(copies * elements, 11, 0.02f);
    std::vector<sv_weight> layers(copies); // so that the choice of an algorithm sees them all
    for (size_t i = 0; i < copies; i++) {
        layers[i].next = i + 1 < copies ? &layers[i + 1] : NULL;
        layers[i].rows = weight_rows(p);
        layers[i].cols = p.k;
        layers[i].data = w + i * elements;
    }
    dev->weights = layers.data();
    for (size_t i = 0; i < sizes.size(); i++) {
        const uint32_t m = sizes[i];
        if (p.end == GEMM_F32 && m > 256) {
            continue;
        }
        double first = 0;
        const double reference = best_of_cublaslt(a, p, w, copies, m, &first);
        if (&p - mo.of < LAYER) {
            (*layer_reference)[i] += reference;
        }
        const std::string name = std::string(mo.name) + " " + p.name + " M=" + std::to_string(m);
        table_row(name.c_str(), ours(a, p, w, copies, m), weight_bytes_of(p),
                  weight_bytes_of(p) * m, reference);
        if (m > GEMV_TOKENS && m <= SKINNY_TOKENS) {
            bench_choice(a, p, w, copies, m, reference, name);
        } else if (m > GEMV_TOKENS) {
            table_row((name + " cuBLASLt's first").c_str(), first, weight_bytes_of(p),
                      weight_bytes_of(p) * m, reference);
        }
    }
    dev->weights = NULL;
    timing::must(cudaFree(w), "cudaFree");
}

// Weights of copies of a layer, in succession.
struct layer_weights {
    uint64_t at[LAYER + 1]; // of each projection, in elements; of all
    size_t copies;
    bf16 *w;
};

layer_weights make_layer(const model &mo)
{
    layer_weights l = {};
    for (int i = 0; i < LAYER; i++) {
        l.at[i + 1] = l.at[i] + weight_rows(mo.of[i]) * mo.of[i].k;
    }
    l.copies = copies_beyond_l2(2 * l.at[LAYER]);
    l.w = random_bf16(l.copies * l.at[LAYER], 12, 0.02f);
    return l;
}

__global__ void pause()
{
    let_next_start();
    wait_previous();
    const long long begin = clock64();
    while (clock64() - begin < PAUSE) {
    }
}

void run_layer(const activations &a, const model &mo, const layer_weights &l, int turn, uint32_t m,
               bool paused, cudaStream_t q)
{
    const bf16 *w = l.w + (uint64_t)turn % l.copies * l.at[LAYER];
    for (int i = 0; i < LAYER; i++) {
        timing::must(gemm_run(dev, a.v, gemm_of(a, mo.of[i], w + l.at[i], m), q), "gemm_run");
        if (i == 0 && paused) {
            timing::must(enqueue(pause, dim3(132), dim3(128), 0, q), "pause");
        }
    }
}

void bench_layer(const activations &a, const model &mo, const layer_weights &l,
                 const std::vector<uint32_t> &sizes, const std::vector<double> &reference)
{
    for (size_t i = 0; i < sizes.size(); i++) {
        const uint32_t m = sizes[i];
        const double s =
            seconds_of([&](int turn, cudaStream_t q) { run_layer(a, mo, l, turn, m, false, q); });
        const std::string name = std::string(mo.name) + " layer M=" + std::to_string(m);
        table_row(name.c_str(), s, 2.0 * (double)l.at[LAYER], 2.0 * (double)l.at[LAYER] * m,
                  reference[i]);
        if (m <= GEMV_TOKENS) {
            continue;
        }
        dev->gemm->skinny_cluster = SKINNY_NONE;
        const double lt =
            seconds_of([&](int turn, cudaStream_t q) { run_layer(a, mo, l, turn, m, false, q); });
        dev->gemm->skinny_cluster = 0;
        table_row((name + " cuBLASLt, its kernels").c_str(), lt, 2.0 * (double)l.at[LAYER],
                  2.0 * (double)l.at[LAYER] * m, reference[i]);
    }
}

void bench_ahead(const activations &a, const model &mo, const layer_weights &l)
{
    const uint32_t usual = dev->gemm->ahead;
    for (uint32_t m : {1u, 8u}) {
        for (uint32_t kib : {0u, 32u, 64u, 128u, 256u}) {
            dev->gemm->ahead = kib << 10;
            const double s = seconds_of(
                [&](int turn, cudaStream_t q) { run_layer(a, mo, l, turn, m, true, q); });
            const std::string name = std::string(mo.name) +
                                     " layer with a pause M=" + std::to_string(m) + " ahead " +
                                     std::to_string(kib) + " KiB";
            table_row(name.c_str(), s, 2.0 * (double)l.at[LAYER], 0, 0);
        }
    }
    dev->gemm->ahead = usual;
}
} // namespace

int main(int argc, char **argv)
{
    const bool quick = argc > 1 && !strcmp(argv[1], "quick");
    const bool skinny = argc > 1 && !strcmp(argv[1], "skinny");
    char why[SV_WHY_MAX] = "";
    sv_dev_options options = {};
    options.size = sizeof options;
    if (sv_kernels_v1.open(&options, &dev, why) < 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    std::vector<uint32_t> few = {1, 2, 4, 8, 16, 32, 64};
    const std::vector<uint32_t> many = {128, 512, 2048, 8192};
    if (skinny) {
        few = {8, 16, 32};
    }
    table_begin("projections: norm and activation in; reference the best of 8 of cuBLASLt, bare");
    const activations a = make_activations();
    skinny_takes(dev, bare(a, models[0].of[0], NULL, 8)); // asks for clusters: not in a capture
    for (const model &mo : models) {
        if (quick && &mo != models) {
            break;
        }
        std::vector<double> reference(few.size()), unused(many.size());
        for (const projection &p : mo.of) {
            if (p.name) {
                bench_projection(a, mo, p, few, &reference);
            }
        }
        const layer_weights layer = make_layer(mo);
        bench_layer(a, mo, layer, few, reference);
        bench_ahead(a, mo, layer);
        timing::must(cudaFree(layer.w), "cudaFree");
        if (quick) {
            break;
        }
        for (const projection &p : mo.of) {
            if (p.name && !skinny) {
                bench_projection(a, mo, p, many, &unused);
            }
        }
    }
    sv_kernels_v1.close(dev);
    return 0;
}
