// SPDX-License-Identifier: Apache-2.0
// Cut into pieces anywhere a body names the same model; where cJSON takes it for JSON, the one that
// cJSON finds. The first byte of the input says how it is cut and whether the rest is a form.
#include "base/check.h"
#include "serve/model_field.h"

#include <cjson/cJSON.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void in_pieces(struct model_field *f, const char *type, const char *p, size_t n,
                      uint32_t random)
{
    model_field_init(f, type);
    while (n > 0) {
        random = random * 1664525 + 1013904223;
        size_t k = 1 + (random >> 20) % (random & 1 << 16 ? 3 : 40);
        k = k < n ? k : n;
        char *piece = malloc(k); // so that a sanitizer sees what is read behind it
        memcpy(piece, p, k);
        model_field_feed(f, piece, k);
        free(piece);
        p += k;
        n -= k;
    }
}

static const char *by_cjson(const cJSON *root)
{
    const char *name = NULL;
    const cJSON *v;
    cJSON_ArrayForEach(v, root) if (strcmp(v->string, "model") == 0) name = cJSON_GetStringValue(v);
    return name;
}

// NUL ends a text of cJSON's, and it takes \u with anything behind it.
static bool comparable(const char *p, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        if (p[i] == '\\' && p[i + 1] == 'u') {
            char hex[5] = {0}, *end;
            memcpy(hex, p + i + 2, n - i - 2 < 4 ? n - i - 2 : 4);
            if (!isxdigit((unsigned char)hex[0]) || strtoul(hex, &end, 16) == 0 || end != hex + 4)
                return false;
        }
    return !memchr(p, '\0', n);
}

static void compare(const struct model_field *f, const char *p, size_t n)
{
    const char *end;
    cJSON *root = comparable(p, n) ? cJSON_ParseWithLengthOpts(p, n, &end, 0) : NULL;
    if (cJSON_IsObject(root)) {
        const char *want = by_cjson(root);
        CHECK(f->has == (want != NULL) && f->done);
        if (want && strlen(want) > MODEL_FIELD_MAX)
            CHECK(f->too_long && memcmp(f->text, want, MODEL_FIELD_MAX) == 0);
        else if (want)
            CHECK(!f->too_long && f->n == strlen(want) && memcmp(f->text, want, f->n) == 0);
    }
    cJSON_Delete(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool form = data[0] & 1;
    const char *type = form ? "multipart/form-data; boundary=XX" : "application/json";
    const char *p = (const char *)data + 1;
    size_t n = size - 1;
    static struct model_field whole, cut;
    model_field_init(&whole, type);
    model_field_feed(&whole, p, n);
    in_pieces(&cut, type, p, n, data[0]);
    CHECK(whole.has == cut.has && whole.done == cut.done && whole.n <= MODEL_FIELD_MAX);
    if (whole.has)
        CHECK(whole.n == cut.n && whole.too_long == cut.too_long &&
              memcmp(whole.text, cut.text, whole.n) == 0);
    if (!form)
        compare(&whole, p, n);
    return 0;
}
