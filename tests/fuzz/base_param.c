// SPDX-License-Identifier: Apache-2.0
// links: core_base
// A parameter of any header is found or not, whatever room there is for it, and nothing is read or
// written beyond.
#include "base/check.h"
#include "base/param.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"name", "filename", "boundary"};
    char *text = malloc(size + 1);
    if (size)
        memcpy(text, data, size);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ptrdiff_t n = param_find(text, size, names[i], NULL, 0);
        CHECK(n >= -1 && n <= (ptrdiff_t)size);
        if (n <= 0)
            continue;
        char *all = malloc((size_t)n), *half = malloc((size_t)n / 2 + 1);
        CHECK(param_find(text, size, names[i], all, (size_t)n) == n);
        CHECK(param_find(text, size, names[i], half, (size_t)n / 2) == n);
        CHECK(memcmp(all, half, (size_t)n / 2) == 0);
        free(all);
        free(half);
    }
    free(text);
    return 0;
}
