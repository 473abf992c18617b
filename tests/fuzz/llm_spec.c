// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file, or as config.json and (after a NUL) generation_config.json: a spec that
// is accepted keeps its bounds, has frequencies that are numbers, and its tensors are checked.
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/gguf.h"
#include "common/json.h"
#include "llm/rope.h"
#include "llm/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_spec(const struct spec *s)
{
    CHECK(s->row && s->arch[0] && spec_check(s, NULL) == 0);
    CHECK(s->n_eos <= SPEC_EOS_MAX && weights_count(s) >= 2);
    float *f = xcalloc(s->rope.dims / 2, sizeof *f);
    rope_frequencies(&s->rope, f);
    for (uint32_t i = 0; i < s->rope.dims / 2; i++)
        CHECK(isfinite(f[i]));
    CHECK(isfinite(rope_scale(&s->rope)));
    xfree(f);
}

static void try_gguf(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct spec s;
    struct err err = {0};
    char path[64];
    int fd = memfd_create("gguf", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(path, &g, &err) == 0) {
        if (spec_from_gguf(g, &s, &err) == 0) {
            check_spec(&s);
            if (weights_check(&s, FORMAT_GGUF, gguf_tensors(g), &err) < 0)
                CHECK(err.code < 0 && err.msg[0]);
        } else {
            CHECK(err.code < 0 && err.msg[0]);
        }
        gguf_close(g);
    }
    close(fd);
}

static void try_config(const char *text, size_t n)
{
    const char *end = memchr(text, 0, n);
    size_t first = end ? (size_t)(end - text) : n;
    yyjson_doc *config, *generation = NULL;
    struct spec s;
    struct err err = {0};
    if (json_parse(text, first, n, &config, NULL) < 0)
        return;
    if (end)
        json_parse(end + 1, n - first - 1, n, &generation, NULL);
    if (spec_from_config(yyjson_doc_get_root(config), yyjson_doc_get_root(generation), &s, &err) ==
        0)
        check_spec(&s);
    else
        CHECK(err.code < 0 && err.msg[0]);
    yyjson_doc_free(config);
    yyjson_doc_free(generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 4 && !memcmp(data, "GGUF", 4))
        try_gguf(data, size);
    else
        try_config((const char *)data, size);
    return 0;
}
