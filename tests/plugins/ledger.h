// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * ledger - what the test plugins `ledger` and `streams` write down where kill -9 can't reach it.
 *
 * A file that the test made with its final size and that every replica maps shared: a head, then
 * one row per request in the order in which they began. The test reads it while replicas live and
 * after they died. The layout is repeated in tests/e2e/harness.py.
 */
#include "plugin.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum ledger_outcome { LEDGER_OPEN = 0, LEDGER_ENDED = 1, LEDGER_CANCELLED = 2 };

struct ledger_row {
    _Atomic uint64_t id;     // ?id= of the request, 0 without
    uint64_t request_id;     // sv_req.id
    uint64_t start_ns;       // CLOCK_MONOTONIC when the plugin got it
    _Atomic uint64_t end_ns; // when the plugin was done with it
    uint32_t pid;
    uint32_t batch;   // number of the run() call over all replicas, from 1
    uint32_t n_batch; // requests in that call
    _Atomic uint32_t outcome;
    uint32_t attempt;
    uint32_t unused[3];
};

struct ledger {
    _Atomic uint64_t rows;         // ever begun
    _Atomic uint64_t batches;      // calls of run()
    _Atomic uint64_t most_at_once; // requests that one process had at the same time
    _Atomic uint64_t cancels;      // calls of cancel()
    _Atomic uint64_t ends;         // calls of end()
    _Atomic uint64_t events;       // messages sent
    _Atomic uint64_t paused;       // times that send() said SV_AGAIN
    uint64_t capacity;             // rows, written by the test
    struct ledger_row row[];
};

_Static_assert(sizeof(struct ledger_row) == 64 && sizeof(struct ledger) == 64,
               "read by harness.py");

static inline uint64_t ledger_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline struct ledger *ledger_open(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *p = MAP_FAILED;
    if (fstat(fd, &st) == 0)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static inline struct ledger_row *ledger_begin(struct ledger *l, const sv_req *r, uint64_t batch,
                                              uint32_t n_batch)
{
    char text[24] = "0";
    uint64_t at = atomic_fetch_add(&l->rows, 1);
    struct ledger_row *row = &l->row[at < l->capacity ? at : l->capacity - 1];
    sv_query(r, "id", text, sizeof text);
    row->request_id = r->id;
    row->start_ns = ledger_now();
    row->pid = (uint32_t)getpid();
    row->batch = (uint32_t)batch;
    row->n_batch = n_batch;
    row->attempt = r->attempt;
    atomic_store(&row->id, strtoull(text, NULL, 10));
    return row;
}

static inline void ledger_end(struct ledger *l, struct ledger_row *row, uint32_t outcome)
{
    atomic_store(&row->end_ns, ledger_now());
    atomic_store(&row->outcome, outcome);
    atomic_fetch_add(&l->ends, 1);
}

static inline void ledger_at_once(struct ledger *l, uint64_t now)
{
    uint64_t most = atomic_load(&l->most_at_once);
    while (now > most && !atomic_compare_exchange_weak(&l->most_at_once, &most, now))
        ;
}
