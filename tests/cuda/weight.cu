// SPDX-License-Identifier: Apache-2.0
/*
 * weight - what the backend makes of stored weights, against kernels/cpu/dequant.c rounded to bf16:
 * bit for bit, for every type, out of memory that stays (a mapped file, at odd places) and memory
 * that goes. `weight small` leaves out what is larger than a registered piece.
 */
#include "cuda/upload.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

extern "C" void dequant(uint32_t dtype, const void *stored, size_t n, float *out);

static const sv_kernels *const k = &sv_kernels_v1;
static sv_dev *dev;
static uint64_t luck = 1;
static char why[SV_WHY_MAX];

static uint32_t draw()
{
    luck ^= luck << 13;
    luck ^= luck >> 7;
    luck ^= luck << 17;
    return (uint32_t)(luck >> 16);
}

static uint64_t stored_bytes(uint32_t dtype, uint64_t n)
{
    sv_dtype_info t = sv_dtype(dtype);
    return n / t.elements * t.bytes;
}

// Random bytes whose f16 scales and elements are finite.
static void fill(uint32_t dtype, uint8_t *p, uint64_t n)
{
    sv_dtype_info t = sv_dtype(dtype);
    for (uint64_t b = 0; b < n / t.elements; b++, p += t.bytes) {
        for (uint32_t i = 0; i < t.bytes; i++)
            p[i] = (uint8_t)draw();
        if (dtype == SV_F32 || dtype == SV_BF16)
            p[t.bytes - 1] &= 0xbf; // exponent below 2^1
        else if (dtype == SV_Q6_K)
            p[209] &= 0xbf;
        else
            p[1] &= 0xbf;
        if (dtype == SV_Q4_1 || dtype == SV_Q5_1 || dtype == SV_Q4_K || dtype == SV_Q5_K)
            p[3] &= 0xbf;
    }
}

static uint16_t rounded(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static std::vector<uint16_t> wanted(uint32_t dtype, const uint8_t *p, uint64_t n)
{
    std::vector<float> f(n);
    std::vector<uint16_t> w(n);
    dequant(dtype, p, n, f.data());
    for (uint64_t i = 0; i < n; i++)
        w[i] = rounded(f[i]);
    return w;
}

// The bytes in a mapped file, `offset` bytes into it: pages are shared with what lies beside.
static uint8_t *map(const std::vector<uint8_t> &bytes, size_t offset)
{
    char path[] = "/tmp/weight-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    if (fd < 0 || ftruncate(fd, (off_t)(offset + bytes.size())) < 0 ||
        pwrite(fd, bytes.data(), bytes.size(), (off_t)offset) != (ssize_t)bytes.size())
        abort();
    void *p = mmap(NULL, offset + bytes.size(), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return (uint8_t *)p + offset;
}

static uint64_t differing(const std::vector<uint16_t> &want, const bf16 *at)
{
    std::vector<uint16_t> got(want.size());
    // weight() only enqueues, on a stream that cudaMemcpy does not wait for.
    if (cudaStreamSynchronize(dev->stream) != cudaSuccess ||
        cudaMemcpy(got.data(), at, 2 * got.size(), cudaMemcpyDeviceToHost) != cudaSuccess)
        return want.size();
    uint64_t bad = 0;
    for (size_t i = 0; i < got.size(); i++)
        bad += got[i] != want[i];
    return bad;
}

static bool report(const char *what, uint32_t dtype, uint64_t rows, uint64_t cols, uint64_t bad)
{
    printf("%-10s %-5s %8llu x %-6llu %llu differ%s\n", what, sv_dtype(dtype).name,
           (unsigned long long)rows, (unsigned long long)cols, (unsigned long long)bad,
           bad ? "  FAILED" : "");
    return bad == 0;
}

// Three parts behind one another, with a bias each.
static bool matrix(uint32_t dtype, uint64_t rows, uint64_t cols, bool keep)
{
    enum { PARTS = 3 };
    sv_weight_desc d = {sizeof d, SV_QKV, PARTS, keep, cols};
    std::vector<uint8_t> all(stored_bytes(dtype, PARTS * rows * cols)), biases(PARTS * rows * 4);
    fill(dtype, all.data(), PARTS * rows * cols);
    fill(SV_F32, biases.data(), PARTS * rows);
    std::vector<uint8_t> passing = all, passing_biases = biases;
    const uint8_t *p = keep ? map(all, 6) : passing.data();
    const uint8_t *b = keep ? map(biases, 8) : passing_biases.data();
    for (uint32_t i = 0; i < PARTS; i++)
        d.part[i] = {p + stored_bytes(dtype, i * rows * cols), rows, dtype, SV_F32,
                     b + i * rows * 4};
    sv_weight *w;
    if (k->weight(dev, &d, &w, why) < 0) {
        printf("FAILED: %s\n", why);
        return false;
    }
    memset(passing.data(), 0xee, passing.size()); // as if it were gone
    memset(passing_biases.data(), 0xee, passing_biases.size());
    uint64_t bad = differing(wanted(dtype, all.data(), PARTS * rows * cols), w->data);
    std::vector<uint8_t> got(biases.size());
    if (cudaMemcpy(got.data(), w->bias, got.size(), cudaMemcpyDeviceToHost) != cudaSuccess ||
        got != biases)
        bad++;
    return report(keep ? "mapped" : "passing", dtype, PARTS * rows, cols, bad);
}

static bool vector(uint32_t dtype, uint64_t cols, bool keep)
{
    sv_weight_desc d = {sizeof d, SV_VECTOR, 1, keep, cols};
    std::vector<uint8_t> all(stored_bytes(dtype, cols));
    std::vector<float> want(cols), got(cols);
    fill(dtype, all.data(), cols);
    dequant(dtype, all.data(), cols, want.data());
    d.part[0] = {keep ? map(all, 2) : all.data(), 1, dtype, 0, NULL};
    sv_weight *w;
    uint64_t bad = cols;
    if (k->weight(dev, &d, &w, why) == 0 && cudaStreamSynchronize(dev->stream) == cudaSuccess &&
        cudaMemcpy(got.data(), w->vector, 4 * cols, cudaMemcpyDeviceToHost) == cudaSuccess) {
        bad = 0;
        for (uint64_t i = 0; i < cols; i++)
            bad += memcmp(&want[i], &got[i], 4) != 0;
    }
    return report("vector", dtype, 1, cols, bad);
}

static bool made_up(uint64_t rows, uint64_t cols)
{
    sv_weight_desc d = {sizeof d, SV_GATE_UP, 2, 0, cols};
    d.seed = draw();
    d.part[0] = d.part[1] = {NULL, rows, SV_BF16, 0, NULL};
    std::vector<uint16_t> want(2 * rows * cols);
    float scale = sqrtf(3 / (float)cols);
    for (size_t i = 0; i < want.size(); i++) {
        float f = scale * sv_made_up(d.seed, i);
        uint32_t u;
        memcpy(&u, &f, 4);
        want[i] = (uint16_t)(u >> 16);
    }
    sv_weight *w;
    uint64_t bad = k->weight(dev, &d, &w, why) == 0 ? differing(want, w->data) : want.size();
    return report("made up", SV_BF16, 2 * rows, cols, bad);
}

static bool try_all(bool small)
{
    bool ok = true;
    for (uint32_t dtype = 0; dtype < SV_DTYPES; dtype++)
        for (bool keep : {false, true})
            for (uint64_t rows : {1, 3, 96})
                ok &= matrix(dtype, rows, rows == 3 ? 768 : 256, keep);
    for (uint32_t dtype : {SV_F32, SV_F16, SV_BF16})
        ok &= vector(dtype, 8, false) && vector(dtype, 4097, true);
    ok &= made_up(5, 64) && made_up(300, 1000);
    if (small)
        return ok;
    for (uint32_t dtype : {SV_F32, SV_BF16, SV_Q4_0, SV_Q6_K}) // several scratches and pieces
        ok &= matrix(dtype, 4096, 5120, true) && matrix(dtype, 2048, 5120, false);
    return ok;
}

int main(int argc, char **argv)
{
    sv_dev_options o = {sizeof o};
    if (k->open(&o, &dev, why) < 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    bool ok = true, small = argc > 1 && strcmp(argv[1], "small") == 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        luck = seed * 0x9e3779b97f4a7c15u;
        ok &= try_all(small);
        int rest = 0;
        while (k->idle(dev) == 1)
            rest++;
        printf("seed %llu: %d pieces given back, %s\n", (unsigned long long)seed, rest,
               k->about(dev));
    }
    k->close(dev);
    return ok ? 0 : 1;
}
