// SPDX-License-Identifier: Apache-2.0
// links: core_worker
// A form body of any bytes is parsed or refused; every part lies within the body or the arena. The
// first line of the input is the content type.
#include "base/check.h"
#include "worker/form.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const sv_part *p, struct bytes body, bool multipart)
{
    CHECK(p->size == sizeof *p && p->name && p->content_type && p->data);
    CHECK(strlen(p->name) <= body.n && strlen(p->content_type) <= body.n);
    const char *at = p->data;
    CHECK(!multipart || (at >= body.p && at + p->len <= body.p + body.n));
    volatile char sum = 0;
    for (size_t i = 0; i < p->len; i++) // a sanitizer sees what is out of bounds
        sum = (char)(sum + at[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *eol = memchr(data, '\n', size);
    if (!eol)
        return 0;
    size_t n = (size_t)(eol - data);
    char *type = calloc(1, n + 1), *copy = malloc(size - n);
    memcpy(type, data, n);
    memcpy(copy, eol + 1, size - n - 1);
    struct bytes body = {copy, size - n - 1};
    struct arena a;
    struct form f;
    arena_init(&a, 0);
    int code = form_parse(&f, &a, type, body);
    CHECK(code == f.code && code <= SV_FORM_PARTS && (code < 0 || f.n == (uint32_t)code));
    for (uint32_t i = 0; code >= 0 && i < f.n; i++)
        check_part(&f.parts[i], body, type[0] == 'm' || type[0] == 'M');
    arena_finish(&a);
    free(type);
    free(copy);
    return 0;
}
