// SPDX-License-Identifier: Apache-2.0
// A GGUF file of any bytes is opened or refused; all that an opened one says can be read.
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/gguf.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned sum; // so that reads are made

static void touch(const void *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        sum += ((const unsigned char *)p)[i];
}

static void check_tensors(const struct tensors *t)
{
    for (uint32_t i = 0; i < tensors_count(t); i++) {
        const struct tensor *at = tensors_at(t, i);
        CHECK(tensors_find(t, at->name) == at);
        touch(at->data, at->bytes);
    }
}

static void check_key(const struct gguf *g, const char *key)
{
    uint64_t u, n = gguf_array_strs(g, key), m = gguf_array_nums(g, key);
    double f;
    bool b;
    struct bytes s, *strs = xcalloc((size_t)n + 1, sizeof *strs);
    double *nums = xcalloc((size_t)m + 1, sizeof *nums);
    gguf_u64(g, key, &u);
    gguf_f64(g, key, &f);
    gguf_bool(g, key, &b);
    if (gguf_str(g, key, &s))
        touch(s.p, s.n);
    gguf_array_get_strs(g, key, strs, n);
    for (uint64_t i = 0; i < n; i++)
        touch(strs[i].p, strs[i].n);
    gguf_array_get_nums(g, key, nums, m);
    xfree(strs);
    xfree(nums);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"general.alignment",
                                       "general.architecture",
                                       "llama.context_length",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.scores",
                                       "k",
                                       ""};
    struct gguf *g;
    struct err err = {0};
    char path[64];
    int fd = memfd_create("gguf", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(path, &g, &err) == 0) {
        check_tensors(gguf_tensors(g));
        for (size_t i = 0; i < ARRAY_LEN(keys); i++)
            check_key(g, keys[i]);
        gguf_close(g);
    } else {
        CHECK(err.code < 0 && err.msg[0]);
    }
    close(fd);
    return 0;
}
