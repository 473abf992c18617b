// SPDX-License-Identifier: Apache-2.0
#include "cuda/gemm.h"
#include "cuda/gemm_state.h"
#include "cuda/program.h"

#include <stdlib.h>

bool skinny_wins(const sv_dev *d, const gemm &g)
{
    const uint64_t rows = g.end == GEMM_GATE_UP ? 2ull * g.n : g.n, mib = rows * g.k * 2 >> 20;
    const uint64_t most = g.m <= 16 ? SKINNY_MIB_16 : SKINNY_MIB_32;
    return mib <= most || d->gemm->skinny_cluster || d->gemm->skinny_normed;
}

cudaError_t gemm_run(sv_dev *d, const session_view &v, const gemm &g, cudaStream_t q)
{
    if (gemv_takes(d, g))
        return gemv_run(d, v, g, q);
    if (skinny_wins(d, g) && skinny_takes(d, g))
        return skinny_run(d, v, g, q);
    gemm normed = g;
    if (!g.x) {
        norm_run(v, g.residual, g.norm, g.eps, g.offset, g.normed, g.k, g.m, g.rows, q);
        normed.x = g.normed;
    }
    return lt_run(d, normed, LT_BEST, q);
}

gemm_state *gemm_open(char *why)
{
    gemm_state *s = (gemm_state *)calloc(1, sizeof *s);
    if (!s)
        return fail(why, -507, "no memory"), nullptr;
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
