// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * control - desired state and what became of it. Reads one file, asks the supervisor for the
 * processes it needs, tells every ingress the routes, writes obituaries, answers `salver status`.
 *
 * May die at any time: nobody waits for it on a request's way. The first control loads FILE and
 * copies it to <state>/accepted.yaml, and what the inspections said to <state>/probes.json; a later
 * one reads these, never FILE or the plugins, asks the supervisor what runs (LIST), and adopts it.
 * (The supervisor starts with these files gone: they belong to one life of a server.) It says
 * nothing to the ingresses before it knows as much as the one before it did.
 *
 * Parts   probe (plugins looked at), numbers, orders (texts of specs and snapshot), gpus (who has
 * which), member (channels to the other processes), replica (states), obituary, status, admin (the
 * socket), swap (SIGHUP). Thread  one loop; probes and the count of GPUs run on libuv's pool.
 */
#include "base/err.h"
#include "base/list.h"
#include "base/turn.h"
#include "conf/app.h"
#include "control/gpus.h"
#include "control/numbers.h"
#include "control/replica.h"
#include "control/stash.h"
#include "wire/link.h"
#include "wire/page.h"

struct cJSON;
struct admin;
struct page_metric;

enum {
    CONTROL_NAME_MAX = 128,
    CONTROL_WATCH_MS = 1000, // heartbeats are looked at so often
    CONTROL_LIVE_MS = 2000,  // the first snapshot waits so long for inspections
};

// Another process of the server, as control sees it. On control.members until its DIED.
struct member {
    struct list node;
    struct control *control;
    char name[CONTROL_NAME_MAX];
    uint64_t child_id, pid, started_ns;
    enum wire_role role;
    uint32_t generation;
    struct link link;
    bool has_link, link_dead, gone, draining;
    struct page *page;
    enum wire_status state;
    char killed_why[256];
};

struct replica {
    struct replica_life life;
    char name[CONTROL_NAME_MAX];
    struct deploy *deploy;
    struct member *member; // the newest process under its name, or NULL
    uint32_t restarts;
    uint64_t restart_at_ns; // WAITING: when the supervisor starts it again
    bool waits_for_gpu;     // WAITING: was not started yet; last_error says for how many
    double progress;
    char last_error[ERR_MSG_MAX];
    struct cJSON *last_words; // owned, of its last death, or NULL
};

enum deploy_phase { DP_PROBING, DP_ACCEPTED, DP_FAILED };

// One application's deployment that counts.
struct deploy {
    const struct conf_app *app;
    const struct conf_deployment *conf;
    enum deploy_phase phase;
    char message[ERR_MSG_MAX]; // why it failed
    struct cJSON *probed;      // owned: what the inspection said; probes.json holds it
    char plugin[128];          // name and version
    struct stash stash;
    struct plan plan;
    struct numbers numbers;
    const char *config_json; // with the options' fallbacks; on the file's arena
    struct replica *replicas;
    uint32_t n_replicas;
    bool was_healthy;
    uint64_t deployed_wall_ns;
    struct page_metric *gauges[RS_COUNT];
};

struct control {
    uv_loop_t loop;
    struct turn turn;
    struct link supervisor;
    struct page *page, *fold;
    char *state_dir;
    uint32_t generation;
    struct control_orders {
        char *file, *host, *plugins_dir, *plugin; // owned; NULL = not given
        struct cJSON *options;                    // of serve --plugin: {"key": "value"}
        struct cJSON *text;                       // owned: the whole
    } orders;
    struct conf_file conf;
    bool loaded, listed, live; // live: snapshots may go out
    struct gpus gpus;
    bool gpus_counted;     // else probes wait before they ask for a plan
    struct list uncounted; // of struct probe
    struct deploy *deploys;
    uint32_t n_deploys;
    struct list members;
    struct turn_item push; // a snapshot is due
    uint64_t snapshot_version;
    char *snapshot_body; // owned: the last one without its version
    struct admin *admin;
    uv_timer_t watch, live_timer;
    uint64_t watched_ns;
    struct buf to_bury; // child ids of folded pages, oldest first
    size_t bury_now;    // so many of them at the next round of the watch
    struct swap {
        bool running, again;
        uint32_t place, old_generation;
    } swap;
};

int control_main(const char *name); // exit status

// Something that the ingresses or the gauges should know has changed.
void control_changed(struct control *c);
void control_say_kill(struct control *c, struct member *m, const char *why);
void control_say_retire(struct control *c, const struct member *m);
void control_say_spec(struct control *c, const char *name, enum wire_role role, uint32_t place,
                      char *own_orders);
void control_send_snapshot(struct control *c, struct member *m);
void control_count_restart(struct control *c, const char *name);
void control_accept(struct control *c, struct deploy *d); // inspected: run its replicas
// The replica's last process is gone for good: its GPUs are the next one's.
void control_gpus_back(struct control *c, const char *replica);
struct replica *control_replica(struct control *c, const char *name); // NULL: unknown
struct deployment_sum control_sum(const struct deploy *d);
uint64_t control_grace_ns(const struct control *c); // the longest graceful_shutdown_timeout_s
