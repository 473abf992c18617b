// SPDX-License-Identifier: Apache-2.0
/*
 * skinny_plan - which cut of a product is the cheapest, reckoned.
 *
 * The weights cost the same whatever the cut. Against one another stand: reading x, which each CTA
 * does for its columns (M * k / cluster), so that few tokens of few columns want no cluster; and
 * what clusters cost, a barrier and M * 4 bytes a row and CTA of partial sums from SM to SM. With
 * the norm inside, x is f32 and twice as long, and a kernel less.
 * Measured, two CTAs are the best or next to it for all shapes of a layer up to 16 tokens, the norm
 * inside; more are for x that fits no other way. Above, cuBLASLt is the faster but for small
 * weights (gemm.h).
 */
#include "cuda/skinny.h"

#include <algorithm>

/*
 * Bytes a ns and ns on an H100; bench/cuda/gemm.cu prints times by cluster to choose them by.
 */
enum {
    SM_SHARE = 23,    // of a SM when all read weights
    SM_ALONE = 50,    // of a SM when others have ended
    X_RATE = 40,      // of a SM from the L2, all at once
    SUMS_RATE = 60,   // of a SM to others, which overlaps with its ring in part
    CLUSTER_NS = 400, // a cluster's barriers
    MEMBER_NS = 75,   // a CTA's that waits for the slowest
    FAR_NS = 2500,    // a cluster of more than two CTAs: they leave SMs idle, and wait for more
    NORM_NS = 2000,   // a norm of its own
    ALONE_NS = 1500   // no second CTA fits a SM: nothing overlaps with the kernel before
};

static float cost_of(const skinny_machine &s, const gemm &g, const skinny_plan &p)
{
    const float rows = (float)p.tiles * TILE,
                most = (float)((p.tiles + p.clusters - 1) / p.clusters) * TILE; // of a cluster
    const float all = rows * (float)p.blocks * LINE / (float)(s.sms * SM_SHARE),
                longest = most * (float)p.width / SM_ALONE;
    const float x = (float)g.m * (float)p.width * (g.x || p.normed ? 1 : 2);
    float ns = std::max(all, longest) + x / X_RATE;
    if (p.normed)
        ns += NORM_NS;
    if (p.bytes > s.half)
        ns += ALONE_NS;
    if (p.cluster > 1) {
        const float sums = most * (float)p.tokens * 4 * (float)(p.cluster - 1) / (float)p.cluster;
        ns += CLUSTER_NS + (float)(p.cluster * MEMBER_NS) + sums / SUMS_RATE;
        if (p.cluster > 2)
            ns += FAR_NS;
    }
    return ns;
}

static skinny_plan cut(const gemm &g, uint32_t cluster, uint32_t clusters)
{
    skinny_plan p = {};
    p.tokens = g.m <= 8 ? 8 : g.m <= 16 ? 16 : 32;
    p.walk = g.end == GEMM_GATE_UP ? skinny_walk{~0u, 0, 1, g.n, true}
                                   : skinny_walk{1, TILE, 1, TILE / 2, false};
    p.tiles = g.end == GEMM_GATE_UP ? g.n / (TILE / 2) : (g.n + TILE - 1) / TILE;
    p.blocks = (g.k + COLUMNS - 1) / COLUMNS;
    p.cluster = cluster;
    p.clusters = std::min(clusters, p.tiles);
    p.width = (p.blocks + cluster - 1) / cluster * LINE;
    p.bytes = ring_of(p.tokens) + GATE_BYTES + p.tokens / 8 * SUMS_EIGHT +
              CLUSTER_MOST * p.tokens * 4 + p.tokens * p.width;
    return p;
}

bool skinny_choose(const skinny_machine &s, const gemm &g, uint32_t cluster, uint32_t normed,
                   skinny_plan *best)
{
    float least = -1;
    for (uint32_t i = 0; i < 4; i++) {
        if ((cluster && cluster != 1u << i) || s.clusters[i] == 0)
            continue;
        skinny_plan p = cut(g, 1u << i, s.clusters[i]);
        if (p.bytes > s.bytes || p.blocks < p.cluster)
            continue;
        for (uint32_t before = 0; before <= (g.x ? 0 : 1); before++) {
            p.normed = before == 1;
            const float ns = cost_of(s, g, p);
            if ((normed && !g.x && normed != 1 + before) || (least >= 0 && ns >= least))
                continue;
            least = ns;
            *best = p;
        }
    }
    return least >= 0;
}
