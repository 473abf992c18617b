// SPDX-License-Identifier: Apache-2.0
/*
 * lt_choose - which of cuBLASLt's candidates for a shape takes the least time on this device.
 *
 * when     the device has nothing to do, since it takes some milliseconds a shape: until then a
 *          program has the first candidate by cuBLASLt's own reckoning. program.cu then records
 *          again those that get another. What is in y is lost
 * how      each candidate as a graph of a few calls, the weights of all layers in turn so that
 *          they come from memory; once to load it, once by events. At most CHOICE_US a shape
 * numbers  another candidate has other bits: a process changes a shape's once at most, while no
 *          step is under way, and the next process chooses anew
 */
#include "cuda/gemm_state.h"

#include <algorithm>
#include <time.h>

enum {
    LT_CHOSEN_TOKENS = 512, // above, choosing would take too long
    CALLS_MOST = 32,
    CALLS_BYTES = 128 << 20, // of weights that a graph reads at least: beyond the L2
    CHOICE_US = 8000         // then no further candidate is begun
};

struct trial {
    const sv_dev *d;
    lt_plan *p;
    const bf16 *w[CALLS_MOST], *x;
    void *y;
    int n_w, calls;
    cudaStream_t q;
    cudaEvent_t begin, end;
};

static uint64_t now_us(void)
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void find_weights(trial *t, const bf16 *w)
{
    const uint64_t calls = CALLS_BYTES / (2ull * t->p->n * t->p->k) + 1;
    t->calls = (int)std::clamp<uint64_t>(calls, 2, CALLS_MOST);
    t->w[t->n_w++] = w;
    for (const sv_weight *i = t->d->weights; i && t->n_w < t->calls; i = i->next)
        if (i->data && i->data != w && i->rows == t->p->n && i->cols == t->p->k)
            t->w[t->n_w++] = i->data;
}

static cudaGraphExec_t graph_of(const trial &t, int which)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (cudaStreamBeginCapture(t.q, cudaStreamCaptureModeRelaxed) != cudaSuccess)
        return NULL;
    bool ok = true;
    for (int i = 0; i < t.calls && ok; i++)
        ok = lt_product(t.d, t.p, which, t.w[i % t.n_w], t.x, t.y, t.q);
    ok = cudaStreamEndCapture(t.q, &graph) == cudaSuccess && ok;
    if (ok && cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
        exec = NULL;
    if (graph)
        cudaGraphDestroy(graph);
    return exec;
}

// Negative: it doesn't work.
static float milliseconds(const trial &t, int which)
{
    cudaGraphExec_t exec = graph_of(t, which);
    float ms = -1;
    if (!exec)
        return ms;
    if (cudaGraphLaunch(exec, t.q) != cudaSuccess || cudaEventRecord(t.begin, t.q) != cudaSuccess ||
        cudaGraphLaunch(exec, t.q) != cudaSuccess || cudaEventRecord(t.end, t.q) != cudaSuccess ||
        cudaEventSynchronize(t.end) != cudaSuccess ||
        cudaEventElapsedTime(&ms, t.begin, t.end) != cudaSuccess)
        ms = -1;
    cudaGraphExecDestroy(exec);
    return ms;
}

static void try_all(const trial &t)
{
    const uint64_t begin = now_us();
    float best = -1;
    for (int i = 0; i < t.p->found && now_us() - begin < CHOICE_US; i++) {
        const float ms = milliseconds(t, i);
        if (ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            t.p->best = i;
        }
    }
}

static void choose(sv_dev *d, lt_plan *p)
{
    p->chosen = true; // whatever comes of it: once
    if (p->found < 2)
        return;
    trial t = {};
    t.d = d;
    t.p = p;
    t.x = p->first_x;
    t.y = p->first_y;
    find_weights(&t, p->first_w);
    if (cudaStreamCreateWithFlags(&t.q, cudaStreamNonBlocking) == cudaSuccess &&
        cudaEventCreateWithFlags(&t.begin, cudaEventBlockingSync) == cudaSuccess &&
        cudaEventCreateWithFlags(&t.end, cudaEventBlockingSync) == cudaSuccess)
        try_all(t);
    if (p->best != 0)
        p->changed = ++d->gemm->changes;
    if (t.end)
        cudaEventDestroy(t.end);
    if (t.begin)
        cudaEventDestroy(t.begin);
    if (t.q)
        cudaStreamDestroy(t.q);
    cudaGetLastError(); // a candidate's failure is nobody else's
}

bool lt_choose_next(sv_dev *d)
{
    gemm_state *s = d->gemm;
    for (uint32_t i = 0; i < s->n_plans; i++) {
        lt_plan *p = s->plans[i];
        if (p->chosen || !p->first_w || p->m > LT_CHOSEN_TOKENS)
            continue;
        choose(d, p);
        return true;
    }
    return false;
}

bool lt_outdated(const sv_dev *d, uint32_t changes, uint32_t tokens, uint32_t rows)
{
    const gemm_state *s = d->gemm;
    for (uint32_t i = 0; i < s->n_plans; i++) {
        const lt_plan *p = s->plans[i];
        if (p->changed > changes && (p->m == tokens || p->m == rows))
            return true;
    }
    return false;
}
