// SPDX-License-Identifier: Apache-2.0
/*
 * matrix - how fast the CPU backend multiplies, beside what this machine's memory and arithmetic
 * give.
 *
 *     matrix [threads=1] [isa=best] [act=auto|int8|f32] [type=Q4_1] [shape=576x1536] [tokens=1]
 *
 * Copies of each matrix fill as many bytes as a small model has and are taken in turn, so that
 * weights come from where they would in use. `stream` is the same number of bytes read by plain
 * loads on as many threads; `peak` what independent multiply-adds reach: bytes (VNNI, or
 * vpmaddubsw and what goes with it) for quantised types, else f32. 16-bit activations take two
 * byte products for one, so their share of the peak is at most half.
 */
#include "cpu/matrix.h"
#include "kernels/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    BYTES = 96 << 20, // of all copies
    THREADS_MAX = 64,
    TOKENS_MAX = 512,
    PASS_NS = 60000000 // a measurement lasts at least this long
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct {
    uint32_t threads, act;
    enum isa isa;
    const char *type, *shape;
    size_t tokens;
} options = {.threads = 1};

// Every thread does its share `rounds` times; none waits for another.
struct share {
    void (*work)(struct share *);
    void *of;
    uint32_t index;
    uint64_t round0, rounds;
    uint64_t result;
};

static void *share_main(void *arg)
{
    struct share *s = arg;
    s->work(s);
    return NULL;
}

static uint64_t run_ns(void (*work)(struct share *), void *of, uint64_t rounds)
{
    static uint64_t round0;
    pthread_t threads[THREADS_MAX];
    struct share shares[THREADS_MAX];
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < options.threads; i++) {
        shares[i] = (struct share){work, of, i, round0, rounds, 0};
        if (i + 1 < options.threads && pthread_create(&threads[i], NULL, share_main, &shares[i]))
            abort();
    }
    share_main(&shares[options.threads - 1]);
    for (uint32_t i = 0; i + 1 < options.threads; i++)
        pthread_join(threads[i], NULL);
    round0 += rounds;
    return now_ns() - start;
}

// ns of a round: the best of five measurements, each long enough.
static double best_ns(void (*work)(struct share *), void *of)
{
    uint64_t rounds = 1, ns;
    while ((ns = run_ns(work, of, rounds)) < PASS_NS)
        rounds = ns < PASS_NS / 16 ? rounds * 8 : rounds * PASS_NS / ns + 1;
    double best = (double)ns / (double)rounds;
    for (int i = 0; i < 4; i++) {
        double one = (double)run_ns(work, of, rounds) / (double)rounds;
        best = one < best ? one : best;
    }
    return best;
}

static void stream(struct share *s)
{
    const size_t words = BYTES / sizeof(uint64_t) / options.threads / 32 * 32;
    const uint64_t *p = (const uint64_t *)s->of + words * s->index;
    for (uint64_t r = 0; r < s->rounds; r++) {
        uint64_t sum[32] = {0}; // independent, so that compilers use vectors
        for (size_t i = 0; i < words; i += 32) {
            for (size_t k = 0; k < 32; k += 8)
                __builtin_prefetch(p + i + 512 + k);
            for (size_t k = 0; k < 32; k++)
                sum[k] ^= p[i + k];
        }
        for (size_t k = 0; k < 32; k++)
            s->result += sum[k];
    }
}

// As a backend keeps all weights of a model.
static void *large(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, 2 << 20, bytes))
        abort();
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static double stream_gb(void)
{
    void *p = large(BYTES);
    memset(p, 1, BYTES);
    double ns = best_ns(stream, p);
    free(p);
    return BYTES / ns;
}

enum { PEAK_STEPS = 1 << 16 };

#if defined(__x86_64__)
// Operations that depend on nothing but their own last result: more of them than two a cycle keep
// under way.
enum { CHAINS = 12 };
#define ALL(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define KEEP(c) __asm__ volatile("" : "+v"(acc##c));
#define PEAK(name, isa, type, start, operation)                                                    \
    __attribute__((target(isa))) static void name(struct share *s)                                 \
    {                                                                                              \
        const uint64_t steps = s->rounds * PEAK_STEPS;                                             \
        const type one = start;                                                                    \
        ALL(DECLARE_##type)                                                                        \
        for (uint64_t i = 0; i < steps; i++) {                                                     \
            ALL(operation)                                                                         \
            ALL(KEEP)                                                                              \
        }                                                                                          \
    }
#define DECLARE___m512i(c) __m512i acc##c = one;
#define DECLARE___m512(c)  __m512 acc##c = one;
#define DECLARE___m256i(c) __m256i acc##c = one;
#define DECLARE___m256(c)  __m256 acc##c = one;
#define VNNI(c)            acc##c = _mm512_dpbusd_epi32(acc##c, one, one);
#define FMA512(c)          acc##c = _mm512_fmadd_ps(acc##c, one, one);
#define PAIRS(c)           acc##c = _mm256_add_epi16(acc##c, _mm256_maddubs_epi16(one, acc##c));
#define FMA256(c)          acc##c = _mm256_fmadd_ps(acc##c, one, one);

PEAK(bytes_avx512, "avx512f,avx512vnni", __m512i, _mm512_set1_epi8(1), VNNI)
PEAK(floats_avx512, "avx512f", __m512, _mm512_set1_ps(1), FMA512)
PEAK(bytes_avx2, "avx2", __m256i, _mm256_set1_epi8(1), PAIRS)
PEAK(floats_avx2, "avx2,fma", __m256, _mm256_set1_ps(1), FMA256)
#endif

// Multiply-adds a ns; 0: not known.
static double peak(bool bytes)
{
#if defined(__x86_64__)
    if (options.isa == ISA_AVX512)
        return (double)CHAINS * PEAK_STEPS * (bytes ? 64 : 16) * options.threads /
               best_ns(bytes ? bytes_avx512 : floats_avx512, NULL);
    if (options.isa == ISA_AVX2)
        return (double)CHAINS * PEAK_STEPS * (bytes ? 32 : 8) * options.threads /
               best_ns(bytes ? bytes_avx2 : floats_avx2, NULL);
#endif
    return 0;
}

struct product {
    struct matrix *m; // copies
    char *memory;
    double pack_gb; // stored bytes a ns, one thread
    size_t copies, tokens;
    void *operands;
    float *y;
};

static void multiply(struct share *s)
{
    const struct product *p = s->of;
    uint64_t tiles = matrix_tiles(p->m);
    uint64_t begin = tiles * s->index / options.threads;
    uint64_t end = tiles * (s->index + 1) / options.threads;
    for (uint64_t r = 0; r < s->rounds; r++)
        matrix_mul(&p->m[(s->round0 + r) % p->copies], p->operands, p->tokens, begin, end, p->y,
                   p->m->rows);
}

// Scales and floats below 1, none of them subnormal.
static void random_bytes(uint8_t *p, size_t n, uint32_t dtype)
{
    uint64_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005 + 1442695040888963407;
        uint8_t byte = (uint8_t)(s >> 56);
        bool top = dtype == SV_F32 ? i % 4 == 3 : i % 2 == 1;
        p[i] = dtype > SV_BF16 ? byte & 0x3f : top ? 0x3c : byte;
    }
}

static void product_init(struct product *p, uint32_t dtype, uint64_t rows, uint64_t cols)
{
    sv_dtype_info info = sv_dtype(dtype);
    size_t stored = rows * cols / info.elements * info.bytes;
    uint8_t *data = malloc(stored);
    random_bytes(data, stored, dtype);
    uint64_t bytes = matrix_bytes(options.isa, options.act, dtype, rows, cols);
    p->copies = (size_t)(BYTES / bytes + 1);
    p->m = calloc(p->copies, sizeof *p->m);
    p->memory = large(p->copies * bytes);
    memset(p->memory, 1, p->copies * bytes);
    uint64_t start = now_ns();
    for (size_t i = 0; i < p->copies; i++) {
        if (matrix_place(&p->m[i], options.isa, options.act, dtype, rows, cols,
                         p->memory + i * bytes))
            abort();
        matrix_pack_tiles(&p->m[i], data, 0, matrix_tiles(&p->m[i]));
    }
    p->pack_gb = (double)(p->copies * stored) / (double)(now_ns() - start);
    free(data);
    size_t operand = matrix_operand_bytes(p->m);
    p->operands = aligned_alloc(64, operand * TOKENS_MAX);
    float *x = malloc(cols * sizeof *x);
    for (size_t t = 0; t < TOKENS_MAX; t++) {
        for (uint64_t k = 0; k < cols; k++)
            x[k] = (float)rand() / (float)RAND_MAX - 0.5f;
        matrix_operand(p->m, x, (char *)p->operands + t * operand);
    }
    free(x);
    p->y = aligned_alloc(64, (rows * TOKENS_MAX * sizeof(float) + 63) / 64 * 64);
    memset(p->y, 0, rows * TOKENS_MAX * sizeof(float));
}

static void product_finish(struct product *p)
{
    free(p->memory);
    free(p->m);
    free(p->operands);
    free(p->y);
}

static void measure(uint32_t dtype, uint64_t rows, uint64_t cols, double gb, const double peaks[2])
{
    static const size_t counts[] = {1, 2, 4, 8, 16, 128, 512};
    char shape[64];
    (void)snprintf(shape, sizeof shape, "%llux%llu", (unsigned long long)rows,
                   (unsigned long long)cols);
    if (options.shape && strcmp(options.shape, shape) != 0)
        return;
    if (!matrix_bytes(options.isa, options.act, dtype, rows, cols))
        return;
    struct product p;
    product_init(&p, dtype, rows, cols);
    printf("%-5s %-10s packed at %.1f GB/s\n", sv_dtype(dtype).name, shape, p.pack_gb);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (options.tokens && options.tokens != counts[i])
            continue;
        p.tokens = counts[i];
        double ns = best_ns(multiply, &p);
        double macs = (double)(rows * cols * p.tokens) / ns, read = (double)p.m->bytes / ns;
        double most = peaks[dtype > SV_BF16];
        printf("%-5s %-10s %4zu %10.1f us %7.1f GB/s %4.0f %% %8.1f GMAC/s", sv_dtype(dtype).name,
               shape, p.tokens, ns / 1e3, read, 100 * read / gb, macs);
        if (most > 0)
            printf(" %4.0f %%", 100 * macs / most);
        printf("\n");
        (void)fflush(stdout);
    }
    product_finish(&p);
}

static int option(const char *arg)
{
    static const char *const acts[] = {"auto", "f32", "int8"};
    const char *value = strchr(arg, '=');
    if (!value++)
        return -1;
    if (strncmp(arg, "threads=", 8) == 0)
        options.threads = (uint32_t)strtoul(value, NULL, 10);
    else if (strncmp(arg, "isa=", 4) == 0)
        options.isa = (enum isa)isa_find(value);
    else if (strncmp(arg, "type=", 5) == 0)
        options.type = value;
    else if (strncmp(arg, "shape=", 6) == 0)
        options.shape = value;
    else if (strncmp(arg, "tokens=", 7) == 0)
        options.tokens = strtoul(value, NULL, 10);
    else if (strncmp(arg, "act=", 4) == 0)
        while (options.act <= SV_ACT_INT8 && strcmp(acts[options.act], value) != 0)
            options.act++;
    else
        return -1;
    return options.threads >= 1 && options.threads <= THREADS_MAX && isa_here(options.isa) &&
                   options.act <= SV_ACT_INT8
               ? 0
               : -1;
}

int main(int argc, char **argv)
{
    static const uint64_t shapes[][2] = {
        {576, 576}, {1536, 576}, {576, 1536}, {49152, 576}, {4096, 4096}};
    options.isa = isa_best();
    for (int i = 1; i < argc; i++)
        if (option(argv[i])) {
            (void)fprintf(stderr, "matrix: can't use '%s'; see the head of bench/matrix.c\n",
                          argv[i]);
            return 2;
        }
    double gb = stream_gb(), peaks[2] = {peak(false), peak(true)};
    printf("%s, %u threads; stream %.1f GB/s; peak %.0f GMAC/s in f32, %.0f in bytes\n",
           isa_name(options.isa), options.threads, gb, peaks[0], peaks[1]);
    printf("type  shape    tokens       time        read  of stream  products  of peak\n");
    for (uint32_t dtype = 0; dtype < SV_DTYPES; dtype++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            if (!options.type || strcmp(options.type, sv_dtype(dtype).name) == 0)
                measure(dtype, shapes[i][0], shapes[i][1], gb, peaks);
    return 0;
}
