// SPDX-License-Identifier: Apache-2.0
/*
 * tokenize FOLDER|FILE.gguf - a tokenizer behind a pipe, for the tests that compare it with others.
 *
 * Asked on stdin, answered on stdout, all numbers little-endian u32:
 *   'e' flags n text[n]     encode; flags 1: add_special, 2: special tokens are text
 *                           -> count ids[count]
 *   'd' flags n ids[n]      decode; flags 1: skip_special, 2: id by id through detok
 *                           -> bytes text[bytes]
 */
#include "base/err.h"
#include "base/mem.h"
#include "common/gguf.h"
#include "llm/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "tokenize: %s\n", what);
    exit(2);
}

static struct tokenizer *load(const char *path)
{
    struct tokenizer *t = NULL;
    struct err err = {0};
    size_t n = strlen(path);
    uint64_t start = cpu_ns();
    if (n > 5 && strcmp(path + n - 5, ".gguf") == 0) {
        struct gguf *g;
        must(gguf_open(path, &g, &err) == 0, err.msg);
        start = cpu_ns();
        must(tokenizer_from_gguf(g, &t, &err) == 0, err.msg);
        gguf_close(g);
    } else {
        must(tokenizer_from_folder(path, &t, &err) == 0, err.msg);
    }
    if (getenv("TOKENIZE_TIME"))
        fprintf(stderr, "built in %.2f ms\n", (double)(cpu_ns() - start) / 1e6);
    return t;
}

static uint32_t get_u32(void)
{
    uint32_t v;
    must(fread(&v, 4, 1, stdin) == 1, "the question is cut off");
    return v;
}

static void put_u32(uint32_t v)
{
    must(fwrite(&v, 4, 1, stdout) == 1, "cannot answer");
}

static void encode(const struct tokenizer *t, uint32_t flags, const char *text, uint32_t n)
{
    struct ids ids = {0};
    struct err err = {0};
    int rc = tokenizer_encode(t, text, n, flags & 1, NULL, flags & 2 ? 0 : 1, SIZE_MAX, &ids, &err);
    must(rc == 0, err.msg);
    put_u32((uint32_t)ids.n);
    must(ids.n == 0 || fwrite(ids.v, 4, ids.n, stdout) == ids.n, "cannot answer");
    ids_finish(&ids);
}

static void decode(const struct tokenizer *t, uint32_t flags, const int32_t *ids, uint32_t n)
{
    struct buf out = {0};
    if (flags & 2) {
        struct detok d;
        detok_init(&d, t, flags & 1);
        for (uint32_t i = 0; i < n; i++)
            detok_push(&d, ids[i], &out);
        detok_flush(&d, &out);
    } else {
        tokenizer_decode(t, ids, n, flags & 1, &out);
    }
    put_u32((uint32_t)buf_len(&out));
    fwrite(buf_head(&out), 1, buf_len(&out), stdout);
    buf_finish(&out);
}

static bool answer(const struct tokenizer *t)
{
    int op = getchar();
    if (op == EOF)
        return false;
    uint32_t flags = get_u32(), n = get_u32();
    size_t bytes = op == 'd' ? (size_t)n * 4 : n;
    char *data = xcalloc(bytes + 1, 1);
    must(fread(data, 1, bytes, stdin) == bytes, "the question is cut off");
    if (op == 'e')
        encode(t, flags, data, n);
    else
        decode(t, flags, (const int32_t *)(const void *)data, n);
    xfree(data);
    return true;
}

int main(int argc, char **argv)
{
    must(argc == 2, "usage: tokenize FOLDER|FILE.gguf");
    struct tokenizer *t = load(argv[1]);
    while (answer(t))
        continue;
    tokenizer_destroy(t);
    return 0;
}
