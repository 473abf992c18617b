// SPDX-License-Identifier: Apache-2.0
// links: plugin_llm
// A tokenizer.json of any bytes is refused, or is a tokenizer that encodes and decodes within its
// promises: ids below its vocabulary, text in valid UTF-8, id by id the same as at once.
#include "base/check.h"
#include "base/err.h"
#include "base/str.h"
#include "llm/tokenizer_parts.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_decode(const struct tokenizer *t, const struct ids *ids, bool skip)
{
    struct buf all = {0}, parts = {0};
    struct detok d;
    tokenizer_decode(t, ids->v, ids->n, skip, &all);
    detok_init(&d, t, skip);
    buf_reserve(&parts, 1);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = buf_len(&parts);
        detok_push(&d, ids->v[i], &parts);
        CHECK(str_valid_utf8(buf_head(&parts) + before, buf_len(&parts) - before));
    }
    detok_flush(&d, &parts);
    CHECK(buf_len(&all) == buf_len(&parts));
    CHECK(buf_len(&all) == 0 || memcmp(buf_head(&all), buf_head(&parts), buf_len(&all)) == 0);
    buf_finish(&all);
    buf_finish(&parts);
}

static void use(const struct tokenizer *t, const char *text, const struct span *spans,
                size_t n_spans)
{
    struct ids ids = {0};
    struct err err = {0};
    int rc = tokenizer_encode(t, text, strlen(text), true, spans, n_spans, 500, &ids, &err);
    CHECK(rc == 0 || err.code == rc);
    CHECK(ids.n <= 500);
    for (size_t i = 0; i < ids.n; i++) {
        CHECK(ids.v[i] >= 0 && (uint32_t)ids.v[i] < tokenizer_vocab(t));
        CHECK(spans || n_spans || !tokenizer_is_special(t, ids.v[i]) || i < t->n_head ||
              i + t->n_tail >= ids.n || ids.v[i] == t->bpe.unknown ||
              ids.v[i] == t->unigram.unknown || ids.v[i] == t->wordpiece.unknown);
    }
    check_decode(t, &ids, false);
    check_decode(t, &ids, true);
    ids_finish(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {
        "", "a", "Hello, world! 12345  \n\n it's <|im_start|><s>[CLS]",
        "\xe4\xbd\xa0\xe5\xa5\xbd e\xcc\x81\xf0\x9f\x98\x80",
        "\xe2\x96\x81\xe2\x96\x81 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct tokenizer *t = NULL;
    struct err err = {0};
    if (size > 1 << 16 || tokenizer_from_json((const char *)data, size, "fuzz", &t, &err) < 0)
        return 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        use(t, texts[i], NULL, 0);
        use(t, texts[i], NULL, 1);
        use(t, texts[i], (struct span[]){{1, 3}, {3, 9}}, 2);
    }
    tokenizer_destroy(t);
    return 0;
}
