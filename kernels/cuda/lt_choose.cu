// SPDX-License-Identifier: Apache-2.0
/*
 * lt_choose - which of cuBLASLt's candidates for a shape takes the least time on this device.
 *
 * when     a program is being recorded: no step in flight still uses y and the workspace, once
 *          those that were launched before have ended. What is in y is lost
 * how      each candidate as a graph of a few calls, the weights of all layers in turn so that
 *          they come from memory; once to load it, once by events. At most CHOICE_US a shape
 * numbers  another candidate has other bits: a process keeps its choice, the next chooses anew
 */
#include "cuda/gemm_state.h"

#include <algorithm>
#include <time.h>

enum {
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

// Those launched so far, which may use y and the workspace.
static void wait_for_steps(const sv_dev *d)
{
    for (const sv_session *s = d->sessions; s; s = s->next)
        for (int i = 0; i < BATCHES; i++)
            cudaEventSynchronize(s->done[i]);
}

void lt_choose(const sv_dev *d, lt_plan *p, const bf16 *w, const bf16 *x, void *y)
{
    p->chosen = true; // whatever comes of it: once
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    trial t = {};
    t.d = d;
    t.p = p;
    t.x = x;
    t.y = y;
    find_weights(&t, w);
    if (cudaThreadExchangeStreamCaptureMode(&mode) != cudaSuccess)
        return;
    wait_for_steps(d);
    if (cudaStreamCreateWithFlags(&t.q, cudaStreamNonBlocking) == cudaSuccess &&
        cudaEventCreateWithFlags(&t.begin, cudaEventBlockingSync) == cudaSuccess &&
        cudaEventCreateWithFlags(&t.end, cudaEventBlockingSync) == cudaSuccess)
        try_all(t);
    if (t.end)
        cudaEventDestroy(t.end);
    if (t.begin)
        cudaEventDestroy(t.begin);
    if (t.q)
        cudaStreamDestroy(t.q);
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaGetLastError(); // a candidate's failure is nobody else's
}
