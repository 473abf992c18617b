// SPDX-License-Identifier: MIT
/*
 * plugin.h - everything that Salver's core and a plugin say to each other.
 *
 * C11 and C++11 or later, no dependencies, no symbols to link against. One .so is one plugin and
 * exports one object, sv_plugin_v1, which SV_PLUGIN makes. The smallest plugin:
 *
 *     #include "plugin.h"
 *     static int run(void *self, sv_req **reqs, uint32_t n)
 *     {
 *         (void)self;
 *         for (uint32_t i = 0; i < n; i++)
 *             sv_send(reqs[i], "hello", 5);
 *         return SV_OK;
 *     }
 *     SV_PLUGIN(.name = "hello", .run = run);
 *
 *     cc -std=c11 -fPIC -shared -fvisibility=hidden -o hello.so hello.c
 *
 * Process  a plugin is alone in its process, with its devices. It may bring any version of any
 *          library (found through host->plugin_dir), may leak, and is never unloaded.
 *          stdout and stderr become log lines.
 * Life     create -> plan -> load -> warm -> serve -> drain -> unload -> destroy; load..unload may
 *          repeat. create and plan also run in a process of their own, without devices, to check
 *          and to place: they must be cheap and give the same answer again.
 * Serving  (a) run: the core collects batches and waits for run() to return.
 *          (b) submit + step: the plugin batches by itself, as a language model does.
 *          (c) input, beside (b): pieces of a body that streams in, or websocket messages.
 * Threads  tags at each function:
 *          [inst] the instance thread: always the same OS thread and never two calls at once
 *                 (only run() overlaps itself, and only when `concurrency` is above 1);
 *          [any]  every thread, but one at a time for one request;
 *          [pure] every thread, also while [inst] is busy: quick, no locks, no side effects.
 * Owner    whoever allocated frees. Descriptor, options and their strings are static. Host and cfg
 *          live until destroy() returns, place and devices until unload() returns, a request and
 *          all it points to until its end(). What is passed to a call lives as long as the call.
 * Codes    >= 0 is success. Failures are negated HTTP statuses, any in 400..599.
 * Growth   MAJOR is in the symbol's name: a breaking change is a new symbol, and a .so may export
 *          both. MINOR counts what was added at the end of a struct. Each struct starts with its
 *          size as its owner compiled it; what lies beyond does not exist (SV_HAS). Zero means
 *          "default" everywhere.
 * Don'ts   no C++ exception or longjmp through a callback; no exit(), fork() without exec, chdir(),
 *          setlocale(), or handlers for SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT.
 */
#ifndef SV_PLUGIN_H
#define SV_PLUGIN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SV_ABI_MAJOR 1
#define SV_ABI_MINOR 0

// Whether *p, as big as its owner made it, has the field f.
#define SV_HAS(p, f) ((const char *)(&(p)->f + 1) <= (const char *)(p) + (p)->size)

enum {
    SV_OK = 0,
    SV_AGAIN = 1, // done, but pause: send() above the high-water mark, input() has enough
    SV_E_INVALID = -400,
    SV_E_NOT_FOUND = -404,
    SV_E_TOO_LARGE = -413,
    SV_E_OVERLOADED = -429, // from submit(): not now; the core queues it or goes elsewhere
    SV_E_CANCELLED = -499,
    SV_E_INTERNAL = -500,
    SV_E_UNSUPPORTED = -501,
    SV_E_UNAVAILABLE = -503, // from submit(): as SV_E_OVERLOADED
    SV_E_TIMEOUT = -504,
    SV_E_NOMEM = -507, // from load(): the plan's device_bytes or host_bytes were too low
    SV_E_FATAL = -599  // from anywhere: this replica is poisoned, replace it at once
};

enum { SV_DEBUG = 0, SV_INFO = 1, SV_WARN = 2, SV_ERROR = 3 }; // log levels
enum { SV_COUNTER = 0, SV_GAUGE = 1, SV_HISTOGRAM = 2 };       // metric kinds
enum { SV_CPU = 0, SV_CUDA = 1 };                              // device kinds
enum {
    SV_FIN = 1u,   // the last message of its direction
    SV_TEXT = 2u,  // websocket: a text message, else binary
    SV_FLUSH = 4u, // out: leave now, don't wait for the end of this step() or run()
    SV_RAW = 8u    // out: bytes as they are, the plugin frames them (SSE ids, event names)
};
enum {
    SV_REQ_WEBSOCKET = 1u,   // input() brings messages, send() makes messages
    SV_REQ_STREAM_IN = 2u,   // input() brings the body in pieces; body_len is 0
    SV_REQ_WARMUP = 4u,      // made by the core before this replica is ready
    SV_REQ_WANTS_STREAM = 8u // the client accepts text/event-stream
};
enum { SV_PLAN_STREAM_IN = 1u }; // sv_plan.flags: don't collect bodies, bring them by input()
enum {                           // option types
    SV_STR = 0,
    SV_INT = 1,
    SV_NUM = 2,
    SV_BOOL = 3,
    SV_BYTES = 4, // 16MiB, 1GB; a bare number is bytes
    SV_TIME = 5,  // 10ms, 2.5s, 1min; a bare number is seconds
    SV_PATH = 6,  // a file; the plugin sees an absolute local path
    SV_JSON = 7   // any subtree
};
enum {
    SV_REQUIRED = 1u, // sv_option.flags
    SV_LIVE = 2u      // may change while serving: reconfigure()
};
#define SV_IDLE INT64_MAX // from step(): wake me only for events

typedef struct sv_host sv_host;
typedef struct sv_cfg sv_cfg;       // opaque: the `config:` block of this deployment
typedef struct sv_metric sv_metric; // opaque: lives in shared memory, survives a crash

/*
 * One exchange: an HTTP call, an SSE stream or a websocket. The plugin's from run() or submit()
 * until its one end(). All fields but `user` are read-only and stay put for that whole time.
 */
typedef struct sv_req {
    uint32_t size, flags; // SV_REQ_*
    const sv_host *host;
    uint64_t id; // the id in logs and in the x-request-id header
    const char *method;
    const char *path;         // below the route prefix, starts with '/'
    const char *query;        // what follows '?', not decoded; "" without. See sv_query()
    const char *content_type; // of the body, "" without
    const void *body;         // in one piece, always one NUL after the end
    size_t body_len;
    uint64_t deadline_ns; // CLOCK_MONOTONIC; 0 = none
    int32_t priority;     // higher first
    uint32_t attempt;     // > 0: an earlier replica died or gave it back
    const char *tenant;   // name of the caller's key, "" without
    void *user;           // the plugin's
} sv_req;

// One assigned device.
typedef struct sv_device {
    uint32_t size, kind; // SV_CPU, SV_CUDA
    int32_t index, numa; // index as the vendor's API counts in this process
    uint64_t bytes;
    uint64_t bytes_limit; // this replica's share
    const char *uuid, *name;
} sv_device;

// Where load() must put the model.
typedef struct sv_place {
    uint32_t size, n_devices;
    const sv_device *const *devices;
    uint32_t rank, world;  // a replica over several nodes; else 0 of 1
    const char *cache_dir; // of this node, kept: compiled kernels, engines
} sv_place;

/*
 * What the plugin needs. Filled with defaults, then by plan(), then from YAML, which wins.
 * `devices` and `device_bytes_max` come as what is offered: num_gpus, else 1 where there is a GPU,
 * else 0; and the bytes of the smallest. A plan that leaves device_bytes 0 gets GPUs only by
 * num_gpus.
 */
typedef struct sv_plan {
    uint32_t size, flags;      // SV_PLAN_*
    uint32_t max_batch;        // run(): requests a call
    uint32_t batch_wait_us;    // run(): how long to wait for more
    uint32_t concurrency;      // run(): calls side by side, each on a thread of its own
    uint32_t max_inflight;     // open requests this replica accepts; 0 = the core's rule
    uint32_t devices;          // devices a process; 0: it runs on the processor
    uint32_t ranks;            // nodes a replica spans (1)
    uint64_t device_bytes;     // of each device, without its CUDA context: must have
    uint64_t device_bytes_max; // likewise: can use; 0 = the same
    uint64_t host_bytes;
} sv_plan;

// One key of the `config:` block. The core checks it, fills it in, suggests it and documents it.
typedef struct sv_option {
    uint32_t type, flags;
    const char *name;     // dotted for nested keys: "cache.bytes"
    const char *fallback; // as it would stand in YAML; NULL = none
    double min, max;      // both 0 = any
    const char *help;     // one line, with the unit
} sv_option;

/*
 * What the core lends. One table for each instance, valid from create() to the end of destroy().
 * Functions of a request never wait. Each call is also a sign of life: without one for
 * stall_timeout_s in submit, input or step, run_timeout_s in run, or load_timeout_s in load and
 * warm, the process counts as hung and is replaced.
 */
struct sv_host {
    uint32_t size;
    uint16_t abi_major, abi_minor;
    const char *app, *deployment, *replica, *core_version;
    const char *plugin_dir; // where this .so and what it brings were installed

    // [any] One log line.
    void (*log)(const sv_host *, int level, const char *text);
    // [any] Says why a callback is about to fail; shown in `salver status` or sent to the client.
    // Returns code, so that `return h->fail(h, SV_E_NOMEM, "...")` is one step.
    int (*fail)(const sv_host *, int code, const char *text);

    // [pure] Options by name; fallback where the file says nothing and the option has none.
    // cfg_int also reads SV_BOOL and SV_BYTES, cfg_num also SV_TIME (seconds).
    const char *(*cfg_str)(const sv_cfg *, const char *key, const char *fallback);
    int64_t (*cfg_int)(const sv_cfg *, const char *key, int64_t fallback);
    double (*cfg_num)(const sv_cfg *, const char *key, double fallback);
    const char *(*cfg_json)(const sv_cfg *, const char *key); // the subtree as JSON, or NULL

    // [any] A header of the request, any case; NULL if absent.
    const char *(*header_in)(const sv_req *, const char *name);
    // [any] Status and content type, before anything is sent. Without: 200 and
    // application/octet-stream. "text/event-stream" makes each message one SSE event.
    int (*head)(sv_req *, int status, const char *content_type);
    // [any] One more response header, before anything is sent.
    int (*header)(sv_req *, const char *name, const char *value);
    // [any] One message: one HTTP chunk, one SSE event or one websocket message. Copies and always
    // takes it. SV_AGAIN: pause this request until writable(). SV_E_CANCELLED: nobody listens.
    int (*send)(sv_req *, const void *data, size_t len, uint32_t flags);
    // [any] The same without a copy: write into the memory given, then commit() what was used. One
    // at a time for each request; NULL when cancelled or out of memory.
    void *(*reserve)(sv_req *, size_t len);
    int (*commit)(sv_req *, size_t len, uint32_t flags);
    // [any] Ends the request, exactly once; it is gone when this returns. A code < 0 before any
    // output is that status with a JSON error body; after output it is an SSE error event, a
    // websocket close 1011 or an aborted body. text may be NULL.
    int (*end)(sv_req *, int code, const char *text);
    // [any] The client is gone or the deadline has passed. Stop soon, and end it.
    bool (*cancelled)(const sv_req *);
    // [any] More input, please, after input() returned SV_AGAIN.
    void (*resume)(sv_req *);
    // [any] A number for the access log and traces: "tokens", 17.
    void (*note)(sv_req *, const char *key, double value);

    // [any] Calls fn(self, arg) on the instance thread, in delay_ns or later: wake-up and timer.
    int (*post)(const sv_host *, uint64_t delay_ns, void (*fn)(void *self, void *arg), void *arg);
    // [any] How far load() or warm() has come, 0 to 1, and what it does.
    void (*progress)(const sv_host *, double done, const char *what);
    // [any] How full the plugin is, 0 to 1: for choosing replicas and scaling.
    void (*pressure)(const sv_host *, double full);

    // [any] Finds or makes a metric, shown on the core's /metrics with app, deployment and replica.
    // The name may carry labels: tokens_total{kind="prompt"}. bounds: SV_HISTOGRAM, or the core's.
    sv_metric *(*metric)(const sv_host *, int kind, const char *name, const char *help,
                         const double *bounds, uint32_t n_bounds);
    // [any] Adds, sets or observes, by the metric's kind.
    void (*record)(sv_metric *, double value);

    // [any] A struct of functions that not every core has, by name; NULL if unknown. See form.h.
    const void *(*extension)(const sv_host *, const char *id);
};

/*
 * What the plugin is. Only `name` and one of run and submit are required; NULL is a good default
 * for every other function. Made by SV_PLUGIN, never written by hand.
 */
typedef struct sv_plugin {
    uint32_t size;
    uint16_t abi_major, abi_minor; // the header that this was built with
    uint32_t min_host_minor;       // the oldest core it can live with
    uint32_t flags;                // none yet
    const char *name, *version, *about;
    const sv_option *options; // NULL = any key is taken, unchecked
    uint32_t n_options, option_size;

    // [inst] Reads the config and makes *self. No devices, no big files.
    int (*create)(const sv_host *, const sv_cfg *, void **self);
    // [inst] Says what it needs. The struct comes with the core's defaults.
    int (*plan)(void *self, sv_plan *);
    // [inst] Makes the model ready on these devices. Slow is fine: call progress(). May start
    // threads; unload() joins them.
    int (*load)(void *self, const sv_place *);
    // [inst] Dummy runs, before the first request.
    int (*warm)(void *self);
    // [inst] New values of SV_LIVE options; < 0: refused, the old ones stay.
    int (*reconfigure)(void *self, const sv_cfg *);
    // [inst] Between calls: 0 good, > 0 degraded (no new work), < 0 replace me.
    int (*health)(void *self);
    // [inst] No new work follows; what is open should end by then, or is cancelled.
    void (*drain)(void *self, uint64_t deadline_ns);
    void (*unload)(void *self);  // [inst] Gives the devices back.
    void (*destroy)(void *self); // [inst]

    // (a) The core batches.
    // [inst] Answers all n; may block. What it leaves open the core ends with its result: OK if
    // something was sent, 500 "no answer" if not, or the code it returned.
    int (*run)(void *self, sv_req **reqs, uint32_t n);
    // [pure] Only requests with equal keys share a batch. *cost comes as 1; a batch's costs sum up
    // to max_batch at most.
    uint64_t (*batch_key)(void *self, const sv_req *, uint32_t *cost);

    // (b) The plugin batches.
    // [inst] Takes a request. < 0: not taken. SV_E_OVERLOADED and SV_E_UNAVAILABLE: the core tries
    // again, here or elsewhere; any other is the client's answer, with the text of fail().
    int (*submit)(void *self, sv_req *);
    // [inst] (c) A piece of body or a websocket message of an open request, SV_FIN with the last
    // (which may be empty). SV_AGAIN: taken, but no more until resume().
    int (*input)(void *self, sv_req *, const void *data, size_t len, uint32_t flags);
    // [inst] A hint, once: cancelled() has become true. The plugin still ends the request.
    void (*cancel)(void *self, sv_req *);
    // [inst] After send() gave SV_AGAIN: below the low-water mark again.
    void (*writable)(void *self, sv_req *);
    // [inst] Advances all open requests by bounded work. Returns ns until the next call, 0 = at
    // once, SV_IDLE = when something happens. NULL: the plugin has threads of its own.
    int64_t (*step)(void *self);

    // [pure] Structs that this plugin offers by name, or NULL.
    const void *(*extension)(const char *id);
} sv_plugin;

#ifdef __cplusplus
#define SV_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define SV_EXPORT extern __attribute__((visibility("default")))
#endif

// SV_PLUGIN(.name = "x", SV_OPTIONS(options), .run = run); in C, and in C++20, where compilers
// would warn of every callback that is not there.
#ifdef __cplusplus
#define SV_QUIET _Pragma("GCC diagnostic ignored \"-Wmissing-field-initializers\"")
#define SV_PUSH  _Pragma("GCC diagnostic push")
#define SV_POP   _Pragma("GCC diagnostic pop")
#else
#define SV_QUIET
#define SV_PUSH
#define SV_POP
#endif
#define SV_PLUGIN(...)                                                                             \
    SV_EXPORT const sv_plugin sv_plugin_v1;                                                        \
    SV_PUSH SV_QUIET const sv_plugin sv_plugin_v1 = {.size = sizeof(sv_plugin),                    \
                                                     .abi_major = SV_ABI_MAJOR,                    \
                                                     .abi_minor = SV_ABI_MINOR,                    \
                                                     __VA_ARGS__};                                 \
    SV_POP SV_EXPORT const sv_plugin sv_plugin_v1
#define SV_OPTIONS(table)                                                                          \
    .options = (table), .n_options = sizeof(table) / sizeof *(table), .option_size = sizeof *(table)

#ifdef __cplusplus
// C++11 to 17: SV_PLUGIN_FILL(p) { p.name = "x"; p.run = run; SV_FILL_OPTIONS(p, options); }
#define SV_PLUGIN_FILL(p)                                                                          \
    static void sv_fill(sv_plugin &);                                                              \
    static sv_plugin sv_make()                                                                     \
    {                                                                                              \
        sv_plugin made = sv_plugin();                                                              \
        made.size = sizeof made;                                                                   \
        made.abi_major = SV_ABI_MAJOR;                                                             \
        made.abi_minor = SV_ABI_MINOR;                                                             \
        sv_fill(made);                                                                             \
        return made;                                                                               \
    }                                                                                              \
    SV_EXPORT const sv_plugin sv_plugin_v1;                                                        \
    const sv_plugin sv_plugin_v1 = sv_make();                                                      \
    static void sv_fill(sv_plugin &p)

#define SV_FILL_OPTIONS(p, table)                                                                  \
    ((p).options = (table), (p).n_options = sizeof(table) / sizeof *(table),                       \
     (p).option_size = sizeof *(table))
#endif

// Sugar from here on. It is compiled into the plugin and is no part of the ABI.

// Sends a piece of the answer; the request stays open.
static inline int sv_send(sv_req *r, const void *data, size_t len)
{
    return r->host->send(r, data, len, 0);
}

static inline int sv_end(sv_req *r)
{
    return r->host->end(r, SV_OK, NULL);
}

// The whole answer at once.
static inline int sv_reply(sv_req *r, const char *content_type, const void *data, size_t len)
{
    r->host->head(r, 200, content_type);
    r->host->send(r, data, len, SV_FIN);
    return sv_end(r);
}

// Ends the request with an error: sv_fail(r, SV_E_INVALID, "n is %d; at most 8", n).
__attribute__((format(printf, 3, 4))) static inline int sv_fail(sv_req *r, int code,
                                                                const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return r->host->end(r, code, text);
}

__attribute__((format(printf, 3, 4))) static inline void sv_log(const sv_host *h, int level,
                                                                const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    h->log(h, level, text);
}

static inline int sv_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Decodes len bytes of `a+b%20c` into out. Its length, or -1: it needs more than cap - 1 bytes.
static inline int sv_decode(const char *p, size_t len, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = p[i] == '+' ? ' ' : p[i];
        if (c == '%' && i + 2 < len && sv_hex(p[i + 1]) >= 0 && sv_hex(p[i + 2]) >= 0) {
            c = (char)(sv_hex(p[i + 1]) * 16 + sv_hex(p[i + 2]));
            i += 2;
        }
        if (n + 1 >= cap)
            return -1;
        out[n++] = c;
    }
    if (cap == 0)
        return -1;
    out[n] = 0;
    return (int)n;
}

// Copies the decoded value of the first ?name=value into out. Its length, or -1: absent, or it
// needs more than cap - 1 bytes. Bodies of forms: extension "sv.form/1" in form.h.
static inline int sv_query(const sv_req *r, const char *name, char *out, size_t cap)
{
    const char *p = r->query ? r->query : "";
    size_t want = strlen(name);
    while (*p) {
        size_t len = strcspn(p, "&");
        if (len > want && p[want] == '=' && memcmp(p, name, want) == 0)
            return sv_decode(p + want + 1, len - want - 1, out, cap);
        p += len;
        if (*p)
            p++;
    }
    return -1;
}
#endif
