// SPDX-License-Identifier: Apache-2.0
#include "cuda/gemm.h"
#include "cuda/gemm_state.h"
#include "cuda/program.h"

#include <stdlib.h>

cudaError_t gemm_run(sv_dev *d, const session_view &v, const gemm &g, cudaStream_t q)
{
    if (gemv_takes(d, g))
        return gemv_run(d, v, g, q);
    gemm normed = g;
    if (!g.x) {
        norm_run(v, g.residual, g.norm, g.eps, g.offset, g.normed, g.k, g.m, g.rows, q);
        normed.x = g.normed;
    }
    return skinny_takes(d, g) ? skinny_run(d, normed, q) : lt_run(d, normed, 0, q);
}

gemm_split gemm_split_of(const sv_dev *d)
{
    return d->gemm->split;
}

gemm_state *gemm_open(sv_dev *d, char *why)
{
    uint32_t ctas = (uint32_t)d->prop.multiProcessorCount;
    uint64_t tickets = round_up(ctas * sizeof(uint32_t), 256);
    char *scratch = (char *)device_alloc(d, tickets + 2ull * ctas * SKINNY_PARTIAL, why);
    if (!scratch)
        return NULL;
    gemm_state *s = (gemm_state *)calloc(1, sizeof *s);
    if (!s)
        return fail(why, -507, "no memory"), nullptr;
    s->split = {ctas, (uint32_t *)scratch, scratch + tickets};
    s->ahead = GEMM_AHEAD;
    return s;
}

void gemm_close(gemm_state *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_plans; i++)
        free(s->plans[i]);
    free(s);
}
