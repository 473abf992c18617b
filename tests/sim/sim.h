// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sim - a server of fakes around the real deciders: control/scale, control/roll, control/replica,
 * supervise/restart, worker/slots, serve/queue, serve/pick. One virtual clock, one seed.
 *
 * Model   as many ingresses as places, one control, one supervisor that never dies, workers that
 *         load, serve, fall ill, hang, crash. Frames travel in order on each channel, with delays.
 * Law     check.c: looked at after every event, or every CHECK_NS where it is about everything.
 * Replay  the seed is the whole story: same seed, same hash.
 *
 * Names   a deployment is its number, a replica {deployment, index}, a worker (one life of a
 *         process) a number that is never used again.
 */
#include "base/clock.h"
#include "control/replica.h"
#include "control/roll.h"
#include "control/scale.h"
#include "heap.h"
#include "plan.h"
#include "serve/queue.h"
#include "supervise/restart.h"
#include "worker/slots.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    VERSIONS_MAX = 64,
    REPLICAS_MAX = 256, // control's records
    INDEX_MAX = 128,    // replica numbers of a deployment
    JOBS_MAX = 64,      // the largest max_ongoing_requests
    PEERS_MAX = 64,     // workers of a deployment that an ingress knows
    STARTS_KEPT = 32,
    NOBODY = -1,
};
#define CHECK_NS      (20 * NS_PER_MS)
#define STALL_NS      (10 * NS_PER_S) // a hang is found so late (stall_timeout_s)
#define LOAD_LIMIT_NS (6 * NS_PER_S)  // load_timeout_s
#define GRACE_NS      (20 * NS_PER_S) // graceful_shutdown_timeout_s
#define SERVICE_MAX   (8 * NS_PER_S)

// ---- events: a, b, c, d of each ----
enum event_kind {
    EV_PHASE,         // deployment, phase
    EV_ARRIVE,        // deployment, phase
    EV_DEED,          // number
    EV_DEADLINE,      // request, generation
    EV_CLIENT_GONE,   // request, generation
    EV_TO_WORKER,     // worker, ingress, message | ingress generation << 8, payload
    EV_TO_INGRESS,    // worker, ingress, message | ingress generation << 8, payload
    EV_ATTACH,        // worker, ingress, ingress generation
    EV_SERVED,        // worker, job, job generation
    EV_WORKER,        // worker, what, its count of such
    EV_LOAD_DUE,      // ingress, generation
    EV_SNAPSHOT,      // ingress, generation, snapshot
    EV_INGRESS_UP,    // ingress
    EV_TO_CONTROL,    // message, number, control's generation, payload
    EV_TO_SUPERVISOR, // message, deployment, index, payload
    EV_DRAIN,         // worker
    EV_START,         // spec, its timer
    EV_STEP,          // control's generation
    EV_TIMER,         // control's generation, deployment

    EV_CONTROL_UP,
    EV_CHECK,
    EV_COUNT,
};

enum to_worker { W_SUBMIT, W_WANT, W_GIVE, W_CANCEL, W_LEFT };
enum to_ingress { I_GRANT, I_RECALL, I_END, I_STATE, I_EOF };
enum worker_event { WK_LOADED, WK_BROKEN, WK_CRASH, WK_HANG, WK_SICK, WK_WELL, WK_SLOTS, WK_LATE };
enum to_control { C_LOAD, C_STATE, C_CHILD, C_ATTACHED, C_DIED, C_SPEC, C_LISTED };
enum to_supervisor { S_SPEC, S_RETIRE, S_KILL, S_LIST };

// ---- what is ----
enum request_state { RQ_FREE, RQ_QUEUED, RQ_SUBMITTED };
enum outcome { OK, LOST, TIMEOUT, CLIENT_GONE, REMOVED, FAILED, INGRESS_DIED, STOPPED, OUTCOMES };

struct request {
    struct queue_item wait;
    uint32_t number, generation;
    enum request_state state;
    bool done;    // has its outcome; stays until the worker lets it go
    bool arrived; // at the worker: it may have been given to the plugin
    uint32_t ingress, deployment, worker, crashes;
    uint64_t order; // wait.seq when it came
    int avoid;      // worker or NOBODY
    uint64_t arrived_ns, deadline_ns, service_ns;
    struct request *prev, *next; // of pair.first, or the free list
};

// One ingress and one worker: each side's view of their channel.
struct pair {
    bool up, gone; // attached; the worker's end was seen
    uint32_t ingress_generation;
    int peer; // in the worker's slots, NOBODY: left
    uint32_t grants, want_left, used, load;
    bool asked; // the worker's recall is under way
    bool ready; // as the worker said
    uint64_t ready_ns;
    struct request *first;
    uint64_t to_worker_ns, to_ingress_ns; // nothing arrives before
};

enum worker_state { WS_LOADS, WS_READY, WS_SICK, WS_DRAINS, WS_FAILED, WS_DEAD };
struct job {
    bool on, late; // late: its client is gone
    uint32_t request, request_generation, ingress, generation;
    int peer;
};

struct worker {
    uint32_t number, deployment, index, version, spec;
    enum worker_state state;
    bool hangs, retired;
    uint64_t started_ns, ready_ns, hung_ns, drain_ns, moved_ns;
    uint32_t turns; // of WK_SLOTS
    uint64_t to_control_ns;
    struct slots slots;
    struct pair pairs[INGRESSES_MAX];
    struct job jobs[JOBS_MAX];
};

struct front { // one application in one ingress
    bool known, failed, wanting;
    struct queue queue;
    size_t bytes; // what the queue should say
    uint32_t queued, ongoing, told_queued, told_ongoing;
    uint64_t index[INDEX_MAX / 64]; // replicas that the snapshot names
    uint32_t peers[PEERS_MAX];      // workers
    uint32_t n_peers;
    uint64_t waits_ns; // since when nobody left the queue while it wasn't empty
    uint64_t random;
};

struct ingress {
    bool up, armed; // armed: EV_LOAD_DUE is on its way
    uint32_t generation;
    struct front fronts[DEPLOYMENTS_MAX];
    uint64_t to_control_ns, from_control_ns;
};

struct spec {
    bool on;
    uint32_t deployment, index, version, timer;
    int worker; // or NOBODY
    uint64_t started_ns;
    struct restart ends;
    uint64_t starts[STARTS_KEPT];
    uint32_t n_starts; // since one lived for RESTART_STABLE_NS
    uint32_t unready;  // ends before READY, since the last READY
    uint32_t soon;     // ends after READY, within ROLL_PROVE_NS of it
};

struct record { // control's replica
    bool on, draining, has_gpu, waits_gpu, gone;
    uint32_t key, deployment, index, version, crashes;
    struct replica_life life;
    int worker; // or NOBODY
    uint64_t ready_since_ns;
    uint64_t gone_ns; // draining without a process: forgotten then
};

struct view { // control's deployment
    struct scale scale;
    struct scale_out scaled;
    uint64_t timer_ns;
    uint32_t queued[INGRESSES_MAX], ongoing[INGRESSES_MAX];
    bool was_healthy, update_failed;
};

struct stored { // survives control
    bool exists, rolled_back;
    uint32_t target;
    int good; // version or NOBODY
    uint32_t max;
    int owed;            // what it would be at now, had `target` never come; NOBODY: nothing
    uint64_t due_ns;     // since when it should roll back; 0: it need not
    uint64_t surplus_ns; // since when an old one could go; 0: none
};

struct control {
    bool up, listed, stepping;
    uint32_t generation, next_key;
    uint64_t up_ns, to_supervisor_ns, from_supervisor_ns;
    struct record records[REPLICAS_MAX];
    struct view views[DEPLOYMENTS_MAX];
};

struct snapshot {
    struct { // no padding: compared as bytes
        uint32_t exists, failed;
        uint64_t index[INDEX_MAX / 64];
    } apps[DEPLOYMENTS_MAX];
};

struct history; // check.c: loads as control heard of them

struct sim {
    uint64_t seed, now, random, hash, events;
    bool trace, quiet; // quiet: load and deeds have stopped
    struct plan plan;
    struct heap heap;
    struct version versions[DEPLOYMENTS_MAX][VERSIONS_MAX];
    uint32_t n_versions[DEPLOYMENTS_MAX];
    struct request **blocks; // of REQUEST_BLOCK
    uint32_t n_requests;
    struct request *free;
    struct worker **workers; // owned
    uint32_t n_workers, room_workers;
    struct ingress ingresses[INGRESSES_MAX];
    struct spec specs[REPLICAS_MAX];
    struct control control;
    struct stored stored[DEPLOYMENTS_MAX];
    struct snapshot *snapshots; // owned
    uint32_t n_snapshots;
    uint64_t accepted, refused, open, outcomes[OUTCOMES], roll_backs, retried, starts;
    uint32_t phase[DEPLOYMENTS_MAX];
    struct history *history; // owned, DEPLOYMENTS_MAX
};

// sim.c
void sim_run(struct sim *s); // the plan is there; to the end, or sim_fail
void sim_finish(struct sim *s);
void sim_at(struct sim *s, uint64_t at_ns, enum event_kind kind, uint32_t a, uint32_t b, uint32_t c,
            uint64_t d);
uint64_t sim_random(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n); // [0, n)
bool sim_chance(struct sim *s, double p);
uint64_t sim_spread(struct sim *s, uint64_t mean_ns); // exponential
uint64_t sim_delay(struct sim *s);
// When a frame sent now arrives on the channel whose last arrival is *last_ns.
uint64_t sim_arrival(struct sim *s, uint64_t *last_ns);
__attribute__((noreturn, format(printf, 3, 4))) void sim_fail(struct sim *s, const char *law,
                                                              const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void sim_say(const struct sim *s, const char *fmt,
                                                   ...); // with --trace
#define HOLDS(s, cond, law, ...) ((cond) ? (void)0 : sim_fail(s, law, __VA_ARGS__))

// ingress.c
void ingress_on_event(struct sim *s, const struct event *e);
void ingress_arrive(struct sim *s, uint32_t deployment);
void ingress_kill(struct sim *s, uint32_t i);
void ingress_finish(struct sim *s);
bool ingress_sees_ready(const struct sim *s, uint32_t i, const struct worker *w);
struct request *request_at(const struct sim *s, uint32_t number);

// worker.c
struct worker *worker_create(struct sim *s, const struct spec *spec, uint32_t spec_number);
void worker_on_event(struct sim *s, const struct event *e);
void worker_die(struct sim *s, struct worker *w, const char *why);
void worker_hang(struct sim *s, struct worker *w);
void worker_attach(struct sim *s, struct worker *w, uint32_t ingress);

// supervisor.c
void supervisor_on_event(struct sim *s, const struct event *e);
void supervisor_ended(struct sim *s, struct worker *w);
void supervisor_tell(struct sim *s, enum to_control m, uint32_t number, uint64_t payload);

// control.c
void control_on_event(struct sim *s, const struct event *e);
void control_kill(struct sim *s);
void control_load(struct sim *s, uint32_t ingress, uint32_t deployment, uint32_t queued,
                  uint32_t ongoing);
void control_deploy(struct sim *s, const struct deed *d);
uint32_t control_wanted(const struct sim *s, uint32_t deployment);

// check.c
void check_event(struct sim *s, const struct event *e);
void check_all(struct sim *s);         // every CHECK_NS
const char *check_rest(struct sim *s); // NULL: at rest; else what is not
void check_popped(struct sim *s, const struct queue *q, const struct request *r);
void check_adopted(struct sim *s, uint32_t deployment, uint32_t found);
void check_failed(struct sim *s,
                  uint32_t deployment); // the ingresses are told that nobody will answer
void check_started(struct sim *s, struct spec *spec);
void check_back(struct sim *s, uint32_t deployment, uint32_t index); // by this replica's fault
void check_load(struct sim *s, uint32_t deployment, double load);
void check_scaled(struct sim *s, uint32_t deployment, uint32_t before, const struct scale_out *out);
void check_rolled(struct sim *s, uint32_t deployment, const struct roll_in *in,
                  const struct roll_out *out, const uint32_t *drain);
// Bounds have changed, or control is new and knows no load.
void check_forget(struct sim *s, uint32_t deployment, bool new_control);
void check_finish(struct sim *s);
uint64_t check_rest_ns(const struct sim *s); // how long it may take to come to rest
