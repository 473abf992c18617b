// SPDX-License-Identifier: Apache-2.0
#include "base/mem.h"
#include "llm/tokenizer.h"

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 64;
        a->v = xrealloc(a->v, a->cap * sizeof *a->v);
    }
    a->v[a->n++] = id;
}

void ids_finish(struct ids *a)
{
    xfree(a->v);
    *a = (struct ids){0};
}
