// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_sort.h"

#include "llm/jinja_operator.h"

#include <string.h>

// Merges [from, middle) and [middle, to) of `in` into `out`.
static void merge(struct jinja *j, const struct jv *keys, const size_t *in, size_t *out,
                  size_t from, size_t middle, size_t to, bool reverse)
{
    size_t a = from, b = middle;
    for (size_t k = from; k < to; k++) {
        bool second = a == middle;
        if (a < middle && b < to)
            second = reverse ? joperator_less(j, keys[in[a]], keys[in[b]])
                             : joperator_less(j, keys[in[b]], keys[in[a]]);
        out[k] = second ? in[b++] : in[a++];
    }
}

struct jv jsort(struct jinja *j, struct jv items, struct jv keys, bool reverse)
{
    size_t n = items.l->n;
    size_t *order = jinja_array(j, n + 1, sizeof *order),
           *other = jinja_array(j, n + 1, sizeof *other);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += width * 2) {
            size_t middle = from + width < n ? from + width : n;
            size_t to = from + width * 2 < n ? from + width * 2 : n;
            merge(j, keys.l->v, order, other, from, middle, to, reverse);
        }
        size_t *swap = order;
        order = other;
        other = swap;
    }
    struct jv sorted = jv_list(j, n);
    for (size_t i = 0; i < n; i++)
        jv_push(j, sorted, items.l->v[order[i]]);
    return sorted;
}
