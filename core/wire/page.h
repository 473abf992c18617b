// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * page - the shared page: what a process's neighbours may know of it, also after its death.
 *
 * Form    a memfd of exactly sizeof(struct page), sealed against resizing, mapped shared by its
 *         writer (one process) and its readers. Made by the supervisor before the child starts.
 * Writers requests[], doing[], heartbeat: lock-free atomics. A reader sees a request as GIVEN
 *         before the plugin can see it, and FREE only after its END is on its way; so after a death
 *         "GIVEN and not ended" is exactly what the plugin had.
 * Trust   none: readers clamp every count and check every string (page_str).
 * Version PAGE_VERSION in the head; readers of another version use nothing but the head.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum {
    PAGE_MAGIC = 0x53565047, // "SVPG"
    PAGE_VERSION = 1,
    PAGE_REQUESTS = 4096, // most requests one worker may hold: bounds max_ongoing_requests
    PAGE_THREADS = 64,    // most instance threads: bounds concurrency
    PAGE_LOG_LINES = 50,
    PAGE_LOG_LINE = 256,
    PAGE_METRICS = 2048,
    PAGE_BUCKETS = 32,
};

enum page_request_state {
    PR_FREE = 0,
    PR_HELD = 1,  // holds a slot, not yet given to the plugin: safe to queue again
    PR_GIVEN = 2, // the plugin has it
};

// What an instance thread is doing; the names are the ABI's callbacks.
enum page_doing {
    PD_IDLE = 0,
    PD_CREATE,
    PD_PLAN,
    PD_LOAD,
    PD_WARM,
    PD_RECONFIGURE,
    PD_HEALTH,
    PD_DRAIN,
    PD_UNLOAD,
    PD_DESTROY,
    PD_RUN,
    PD_SUBMIT,
    PD_INPUT,
    PD_CANCEL,
    PD_WRITABLE,
    PD_STEP,
    PD_POST,
    PD_BATCH_KEY,
    PD_DLOPEN,
    PD_EXTENSION,
    PD_COUNT,
};
extern const char *const page_doing_names[PD_COUNT];

struct page_request {
    _Atomic uint64_t id; // written before state
    _Atomic uint32_t state;
    _Atomic uint32_t next; // free list: slot after this one plus 1, or 0
};

struct page_thread {
    _Atomic uint32_t doing; // enum page_doing
    _Atomic uint32_t tid;
    _Atomic uint64_t since_ns; // when `doing` began
    _Atomic uint64_t sign_ns;  // last host call from inside it
};

// PM_DROPPED counts recordings, whatever their value: what had no room goes there.
enum page_metric_kind { PM_COUNTER = 0, PM_GAUGE = 1, PM_HISTOGRAM = 2, PM_DROPPED = 3 };
struct page_metric {
    char name[64];    // without labels; "" = unused
    char labels[256]; // as exposed, without braces: app="a",deployment="d"
    char help[128];
    uint32_t kind, n_bounds;
    _Atomic uint64_t value;                     // a double's bits: counter, gauge, histogram's sum
    double bounds[PAGE_BUCKETS];                // ascending upper bounds of a histogram
    _Atomic uint64_t buckets[PAGE_BUCKETS + 1]; // not cumulative; +Inf is [PAGE_BUCKETS]
};

struct page_last_words {
    _Atomic uint32_t signal; // 0: none
    int32_t code;            // si_code
    uint64_t address;        // si_addr
    uint32_t tid, doing;     // of the thread that fell, enum page_doing
    char why[256];           // "stalled in step() for 10.0 s", fail() text, ...
    char backtrace[4096];    // text, a line a frame
};

struct page {
    uint32_t magic, version;
    uint32_t role;          // enum wire_role
    _Atomic uint32_t state; // enum wire_status
    uint64_t child_id, started_ns;
    _Atomic uint64_t pid;
    char name[128];                // app/deployment/index, ingress/0
    char plugin[128];              // name and version of the plugin
    _Atomic uint64_t heartbeat_ns; // the I/O thread's, every second at least
    _Atomic uint32_t in_flight;
    _Atomic uint32_t folded;                // its counters are in the fold page
    _Atomic uint32_t n_threads, n_requests; // of the arrays below, in use
    _Atomic uint64_t free_requests;         // count of changes << 32 | first free slot plus 1
    struct page_thread threads[PAGE_THREADS];
    struct page_request requests[PAGE_REQUESTS];
    _Atomic uint32_t log_next; // lines ever written
    char log[PAGE_LOG_LINES][PAGE_LOG_LINE];
    struct page_last_words last;
    _Atomic uint32_t seq;       // fold page: odd while its writer is at work
    _Atomic uint32_t n_metrics; // entries [0, n) are complete
    struct page_metric metrics[PAGE_METRICS];
};

int page_create(const char *name, struct err *err);       // a memfd with a written head; the fd
int page_map(int fd, struct page **ret, struct err *err); // checks size, seals, magic, version
void page_unmap(struct page *p);

// Requests. Slot index or -1 when full. page_request_find: of a request id, or -1.
int page_request_take(struct page *p, uint64_t id); // -> PR_HELD
void page_request_give(struct page *p, int slot);   // -> PR_GIVEN
void page_request_free(struct page *p, int slot);
enum page_request_state page_request_state_of(const struct page *p, uint64_t id);
// Ids with that state, at most max: how many there are in all.
uint32_t page_request_ids(const struct page *p, enum page_request_state st, uint64_t *out,
                          uint32_t max);

void page_log(struct page *p, const char *line, size_t n);
// Line i of the last ones, oldest first, copied with a NUL; false at the end.
bool page_log_line(const struct page *p, uint32_t i, char out[PAGE_LOG_LINE]);
void page_str(const char *src, size_t cap, char *out, size_t out_cap); // copies a hostile string

double page_metric_value(const struct page_metric *m);
void page_metric_add(struct page_metric *m, double v); // atomic
void page_metric_set(struct page_metric *m, double v);
void page_metric_observe(struct page_metric *m, double v);
