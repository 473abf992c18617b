// SPDX-License-Identifier: Apache-2.0
#include "llm/unigram.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/unicode.h"

#include <math.h>
#include <string.h>

static const double UNKNOWN_PENALTY = 10; // below the lowest score

static void make_edges(struct unigram *u, uint32_t size)
{
    u->edges = xcalloc(size, sizeof *u->edges);
    u->mask = size - 1;
}

void unigram_init(struct unigram *u, uint32_t ids)
{
    *u = (struct unigram){.unknown = -1, .lowest = INFINITY};
    u->score = xcalloc(ids + 1u, sizeof *u->score);
    make_edges(u, 1024);
    u->node_room = 256;
    u->piece = xrealloc(NULL, u->node_room * sizeof *u->piece);
    u->piece[0] = -1;
    u->n_nodes = 1;
    memset(u->byte, 0xff, sizeof u->byte);
}

void unigram_finish(struct unigram *u)
{
    xfree(u->score);
    xfree(u->edges);
    xfree(u->piece);
    *u = (struct unigram){0};
}

static struct unigram_edge *edge_of(const struct unigram *u, uint32_t node, uint8_t byte)
{
    uint64_t key = (uint64_t)node << 8 | byte;
    uint32_t at = (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & u->mask;
    while (u->edges[at].child && (u->edges[at].node != node || u->edges[at].byte != byte))
        at = (at + 1) & u->mask;
    return &u->edges[at];
}

static void grow_edges(struct unigram *u)
{
    struct unigram_edge *old = u->edges;
    uint32_t size = u->mask + 1;
    make_edges(u, size * 2);
    for (uint32_t i = 0; i < size; i++)
        if (old[i].child)
            *edge_of(u, old[i].node, old[i].byte) = old[i];
    xfree(old);
}

static uint32_t add_child(struct unigram *u, uint32_t node, uint8_t byte)
{
    struct unigram_edge *e = edge_of(u, node, byte);
    if (e->child)
        return e->child;
    if (u->n_nodes == u->node_room) {
        u->node_room *= 2;
        u->piece = xrealloc(u->piece, u->node_room * sizeof *u->piece);
    }
    u->piece[u->n_nodes] = -1;
    uint32_t child = u->n_nodes++;
    *e = (struct unigram_edge){node, child, byte};
    if (++u->n_edges * 2 > u->mask)
        grow_edges(u);
    return child;
}

int unigram_add(struct unigram *u, const struct vocab *v, int32_t id, struct err *err)
{
    struct bytes t = vocab_text(v, id);
    uint32_t node = 0;
    for (size_t i = 0; i < t.n; i++) {
        if (u->n_nodes >= UNIGRAM_NODES)
            return err_set(err, SV_E_INVALID, "the pieces need more than %d nodes", UNIGRAM_NODES);
        node = add_child(u, node, (uint8_t)t.p[i]);
    }
    if (t.n > 0)
        u->piece[node] = id;
    return 0;
}

void unigram_work_finish(struct unigram_work *w)
{
    xfree(w->best);
    xfree(w->pieces);
    *w = (struct unigram_work){0};
}

static void offer(const struct unigram *u, struct unigram_best *to, double before, double score,
                  uint32_t begin, int32_t id)
{
    double sum = before + score;
    if (u->single)
        sum = (double)(float)sum;
    if (to->id < 0 || sum > to->score)
        *to = (struct unigram_best){sum, begin, id};
}

// All pieces that begin at `at`, and the unknown token if none of them is one character.
static void offer_from(const struct unigram *u, struct unigram_best *best, const char *word,
                       size_t n, size_t at, size_t character)
{
    double before = best[at].score;
    bool has_single = false;
    uint32_t node = 0;
    for (size_t i = at; i < n; i++) {
        node = edge_of(u, node, (uint8_t)word[i])->child;
        if (!node)
            break;
        int32_t id = u->piece[node];
        if (id < 0)
            continue;
        offer(u, &best[i + 1], before, u->score[id], (uint32_t)at, id);
        has_single |= i + 1 - at == character;
    }
    if (!has_single)
        offer(u, &best[at + character], before, u->lowest - UNKNOWN_PENALTY, (uint32_t)at,
              u->unknown);
}

// What the unknown token covers: once for a run, in bytes if all of them have a token.
static void put_unknown(const struct unigram *u, const struct vocab *v, const char *text, size_t n,
                        struct ids *out)
{
    int32_t id = u->single ? -1 : vocab_find_piece(v, text, n);
    bool bytes = u->byte_fallback && id < 0;
    for (size_t i = 0; bytes && i < n; i++)
        bytes = u->byte[(uint8_t)text[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        ids_push(out, u->byte[(uint8_t)text[i]]);
    if (!bytes)
        ids_push(out, id >= 0 ? id : u->unknown);
}

static void put_best(const struct unigram *u, const struct vocab *v, struct unigram_work *w,
                     const char *word, size_t n, struct ids *out)
{
    size_t count = 0;
    for (size_t end = n; end > 0; end = w->best[end].begin) {
        bool joins = count > 0 && w->best[end].id == u->unknown &&
                     w->best[w->pieces[count - 1].end].id == u->unknown;
        if (joins)
            w->pieces[count - 1].begin = w->best[end].begin;
        else
            w->pieces[count++] = (struct span){w->best[end].begin, end};
    }
    while (count-- > 0) {
        struct span p = w->pieces[count];
        int32_t id = w->best[p.end].id;
        if (id == u->unknown)
            put_unknown(u, v, word + p.begin, p.end - p.begin, out);
        else
            ids_push(out, id);
    }
}

void unigram_encode(const struct unigram *u, const struct vocab *v, struct unigram_work *w,
                    const char *word, size_t n, struct ids *out)
{
    if (n == 0)
        return;
    if (n + 1 > w->room) {
        w->room = n + 1 > 2 * w->room ? n + 1 : 2 * w->room;
        w->best = xrealloc(w->best, w->room * sizeof *w->best);
        w->pieces = xrealloc(w->pieces, w->room * sizeof *w->pieces);
    }
    for (size_t i = 0; i <= n; i++)
        w->best[i] = (struct unigram_best){0, 0, -1};
    for (size_t i = 0, len; i < n; i += len) {
        unicode_get(word + i, n - i, &len);
        offer_from(u, w->best, word, n, i, len);
    }
    put_best(u, v, w, word, n, out);
}
