// SPDX-License-Identifier: Apache-2.0
// links: plugin_llm
// Any text through tokenizers of each kind: byte-level ones give it back, spans never let a special
// token through that they do not hold, and a smaller bound gives a start of the same ids. The first
// byte of the input chooses the tokenizer, the second and third the span.
#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/str.h"
#include "llm/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KINDS = 6, LEVELS = 3 }; // the first of them give every text back

static struct tokenizer *kinds[KINDS];

static void load(void)
{
    static const char *const names[KINDS] = {"gpt2",   "llama3",        "o200k",
                                             "sp_bpe", "unigram_bytes", "wordpiece_odd"};
    const char *folder = getenv("LLM_TOKENIZERS");
    for (int i = 0; i < KINDS; i++) {
        char path[512];
        struct err err = {0};
        snprintf(path, sizeof path, "%s/%s", folder ? folder : LLM_DATA "/tokenizers", names[i]);
        if (tokenizer_from_folder(path, &kinds[i], &err) < 0) {
            fprintf(stderr, "%s\n", err.msg);
            abort();
        }
    }
}

static void check_back(const struct tokenizer *t, const struct ids *ids, const char *text, size_t n)
{
    struct buf out = {0};
    tokenizer_decode(t, ids->v, ids->n, false, &out);
    CHECK(buf_len(&out) == n && (n == 0 || memcmp(buf_head(&out), text, n) == 0));
    buf_finish(&out);
}

static size_t count_special(const struct tokenizer *t, const struct ids *ids)
{
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        n += tokenizer_is_special(t, ids->v[i]);
    return n;
}

static void check_bound(const struct tokenizer *t, const char *text, size_t n,
                        const struct ids *all)
{
    struct ids some = {0};
    size_t most = all->n / 2;
    int rc = tokenizer_encode(t, text, n, false, NULL, 0, most, &some, NULL);
    CHECK(rc == (all->n > most ? SV_E_TOO_LARGE : 0));
    CHECK(some.n <= most && (some.n == 0 || memcmp(some.v, all->v, some.n * sizeof *some.v) == 0));
    ids_finish(&some);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!kinds[0])
        load();
    if (size < 3 || size > 4096 || !str_valid_utf8((const char *)data + 3, size - 3))
        return 0;
    int kind = data[0] % KINDS;
    const struct tokenizer *t = kinds[kind];
    size_t n = size - 3;
    char *text = malloc(n + 1); // its end is where a sanitizer looks
    memcpy(text, data + 3, n);
    struct ids none = {0}, some = {0}, all = {0};
    struct span span = {data[1], data[1] + (size_t)data[2]};
    CHECK(tokenizer_encode(t, text, n, false, NULL, 0, SIZE_MAX, &none, NULL) == 0);
    CHECK(tokenizer_encode(t, text, n, false, &span, 1, SIZE_MAX, &some, NULL) == 0);
    CHECK(tokenizer_encode(t, text, n, false, NULL, 1, SIZE_MAX, &all, NULL) == 0);
    if (kind < LEVELS) {
        CHECK(count_special(t, &none) == 0 && count_special(t, &some) <= count_special(t, &all));
        CHECK(data[2] >= 7 || count_special(t, &some) == 0); // the shortest has 7 bytes
        if (!memmem(text, n, "</tool>", 7))                  // takes the spaces behind it away
            check_back(t, &none, text, n);
    }
    check_bound(t, text, n, &none);
    ids_finish(&none);
    ids_finish(&some);
    ids_finish(&all);
    free(text);
    return 0;
}
