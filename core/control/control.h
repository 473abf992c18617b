// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * control - desired state and what became of it: decides what runs, asks the supervisor for the
 * processes, tells every ingress the routes, writes obituaries, answers the admin API.
 *
 * May die at any time: nobody waits for it on a request's way. What was accepted stands in the
 * store before it is acknowledged; a later control reads it, asks the supervisor what runs (LIST:
 * specs with their orders, children, graves), and adopts it. It says nothing to the ingresses
 * before it knows as much as the one before it did. With a store that cannot be read it changes
 * nothing: what runs goes on, and the admin API says why.
 *
 * A pass    after every change: each deployment's deciders (scale, roll) compare what should be
 *           with what is, and what they answer is done. Then the routes go out, if they differ.
 * Parts     doc (an accepted text), version (what replicas run), deploy (versions, replicas, the
 *           pass), desired (store and deploys), probe (plugins looked at), refresh (plugin files
 *           that change), copies (those that nobody uses), load (what ingresses report), member
 *           (channels to the other processes), texts (orders, snapshot), gpus, obituary, status,
 *           admin, swap (SIGHUP).
 * Thread    one loop; probes and the count of GPUs run on libuv's pool.
 */
#include "base/err.h"
#include "base/list.h"
#include "base/sha256.h"
#include "base/turn.h"
#include "control/gpus.h"
#include "wire/link.h"
#include "wire/page.h"

struct cJSON;
struct admin;
struct deploy;
struct doc;
struct replica;
struct store;

enum {
    CONTROL_NAME_MAX = 128,
    CONTROL_WATCH_MS = 1000,                   // heartbeats and plugin files are looked at so often
    CONTROL_LIVE_MS = 2000,                    // the first snapshot waits so long for inspections
    CONTROL_LOADS_MAX = 1000,                  // applications an ingress may report
    CONTROL_ROUTES_MAX = WIRE_FRAME_MAX - 1024 // bytes, so that a SNAPSHOT holds them
};

// What one ingress says of one application.
struct load {
    char app[CONTROL_NAME_MAX];
    uint32_t queued, ongoing;
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
    uint64_t drain_deadline_ns;
    struct page *page;
    enum wire_status state;
    char killed_why[256];
    struct load *loads; // owned; of an ingress
    uint32_t n_loads;
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
    struct store *store;         // NULL: cannot be read, store_why says why
    char store_why[ERR_MSG_MAX]; // then nothing is planned
    struct doc *server;          // never NULL
                                 // the text whose http options, logging and time limits hold
    char host[256];              // what the server listens on
    uint32_t port;
    struct cJSON *desired;          // owned: what the store says, or NULL
    uint64_t desired_revision, seq; // seq: of the last accepted text
    struct doc *first;              // FILE of a server's first control, until it is known what runs
    bool loaded, listed, live;      // live: snapshots may go out
    struct gpus gpus;
    bool gpus_counted;     // else probes wait before they ask for a plan
    struct list uncounted; // of struct probe
    uint32_t n_probes;     // under way
    bool probes_due;       // to be written to probes.json
    bool copies_due;       // plugin copies may be unused, see copies.h
    struct list deploys;   // of struct deploy, in the order of their texts
    struct list members;
    struct turn_item pass; // something changed
    uv_timer_t again;      // the deciders' next look
    uint64_t snapshot_version;
    char *snapshot_body;  // owned: the last one without its version
    bool routes_too_long; // what came after it is not told
    struct admin *admin;
    uv_timer_t watch, live_timer;
    uint64_t watched_ns, woke_ns; // woke: the last round of the watch that came far too late
    struct buf to_bury;           // child ids of folded pages, oldest first
    size_t bury_now;              // so many of them at the next round of the watch
    struct {
        char *path;              // owned; NULL: none was asked for
        bool asked;              // no answer yet
        char error[ERR_MSG_MAX]; // why it was refused; "" = it was not
    } upgrade;
    struct swap {
        bool running, again;
        bool due; // an ingress of another build was found
        uint32_t place, old_generation;
    } swap;
};

int control_main(const char *name); // exit status

// The supervisor is asked to become that executable. 0: asked; what it answers stands in
// control.upgrade until another one is asked for, and when it agrees this control is replaced.
int control_upgrade(struct control *c, const char *path, struct err *err);

// Something that a decider, the ingresses or the gauges should know has changed.
void control_changed(struct control *c);
void control_say_kill(struct control *c, struct member *m, const char *why);
// The spec ends with that child; child_id 0: whatever runs under the name.
void control_say_retire(struct control *c, const char *name, uint64_t child_id);
void control_say_spec(struct control *c, const char *name, enum wire_role role, uint32_t place,
                      const char *orders);
void control_send_snapshot(struct control *c, struct member *m);
void control_count_restart(struct control *c, const char *name);
// In a build's orders: a process of another build is replaced. Borrowed.
const char *control_build(void);
