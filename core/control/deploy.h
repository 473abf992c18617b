// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * deploy - one application's deployment: its versions, its replicas, and the pass that makes what
 * is into what should be.
 *
 *   offered --> next (probing) --accepted--> target --healthy--> good
 *                    |                          |
 *                    +--failed: target stays    +--roll.c says so: good is the target again
 *
 * next      is inspected; a newer offer takes its place.
 * target    what every replica should run. NULL: no version was ever accepted.
 * good      the last version that had all its replicas running: where a roll-back leads.
 * previous  what was good before, until a replica of `good` is proven (roll.h). One that breaks
 *           before that, or refuses ORDERS, leads there.
 * A new version with the target's id is told to the replicas by ORDERS, one with another id rolls.
 * Routes    speak of the good version while replicas of it are there, so that a prefix or a model
 *           name of a version that breaks costs nobody anything.
 *
 * Replicas  `app/deployment/index`; the index is the lowest that is free, and a replica keeps its
 *           version. A control that took over knows a replica's version by its orders alone.
 * Owner     control.deploys, until the last replica of a deleted one is gone.
 */
#include "base/list.h"
#include "control/control.h"
#include "control/replica.h"
#include "control/roll.h"
#include "control/scale.h"
#include "control/version.h"

enum {
    DEPLOY_LINGER_MS = 1000, // a name is free so long after the RETIRE of a replica without process
    DEPLOY_OVERDUE_MS = 5000 // past the drain's deadline a worker is killed
};

struct page_metric;

struct replica {
    struct replica_life life;
    char name[CONTROL_NAME_MAX];
    uint32_t index, born; // born: a higher one is newer
    struct deploy *deploy;
    struct member *member; // the newest process under its name, or NULL
    char version[VERSION_ID];
    char copy[SHA256_HEX]; // of its plugin: the name of the copy's folder
    char *orders;          // owned: as the supervisor has them
    char *live;            // owned: what of them a running worker can be told
    double stall_s, grace_s;
    uint32_t restarts, crashes; // crashes: early ends, see roll.h
    uint64_t ready_ns, start_ns;
    uint64_t restart_at_ns; // WAITING: when the supervisor starts it again
    bool waits_for_gpu;     // WAITING: was not started yet; last_error says for how many
    bool owed_orders;       // has changed ones to be told once the link is there
    bool leaving;           // drained, or about to be: in no route
    uint64_t gone_at_ns;    // leaving without a process: forgotten then
    double progress;
    char last_error[ERR_MSG_MAX];
    struct cJSON *last_words; // owned, of its last death, or NULL
};

struct deploy {
    struct list node;
    struct control *control;
    char name[CONTROL_NAME_MAX];
    uint64_t order; // of the text that brought it, then its place there: who claims a name first
    uint64_t seq;   // of its text
    struct version *next, *target, *good;
    struct version *previous;  // good before `good`, until that is proven; or of the same id
    struct version *refused;   // the last that failed, while there is no target
    char failed[ERR_MSG_MAX];  // the last version that failed, why; "" = none
    bool rolled_back;          // good took over from it
    char good_doc[SHA256_HEX]; // the text of the good version that the store names
    bool failed_file;          // it was of a new plugin file, not of a new text
    bool deleting;             // in no text any more: leaves when its replicas have
    bool was_healthy;          // since the target was set
    bool proven;               // the target is, see roll.h
    bool deployed;             // since it was made
    struct replica **replicas;
    uint32_t n_replicas;
    bool scales,
        adopted; // adopted: by a control that took over, so there are as many as there were
    struct scale scale;
    enum scale_why scale_why;
    double load;             // queued and ongoing over all ingresses
    uint32_t wanted;         // replicas, by the last pass
    uint32_t born;           // replicas made so far
    char waits[ERR_MSG_MAX]; // what the rolling update waits for; "" = nothing
    double start_s;          // how long the last start took; 0: unknown
    uint64_t stamp_seen;     // of the plugin's file, at the last look
    uint64_t stamp_tried;    // that was inspected, whatever came of it; 0: none
    uint64_t orders_version; // revision of the last ORDERS
    uint64_t deployed_wall_ns;
    struct page_metric *gauges[RS_COUNT], *target_gauge;
};

struct deploy *deploy_find(struct control *c, const char *app); // NULL: unknown
struct deploy *deploy_create(struct control *c, const char *app);
void deploy_offer(struct deploy *d, struct version *own_v);   // inspected, then accepted or not
void deploy_restore(struct deploy *d, struct version *own_v); // accepted before: the target at once
// A text under which the target would be inspected as it was: it is the target without that. False:
// it is to be offered.
bool deploy_keep(struct deploy *d, struct version *v);
void deploy_delete(struct deploy *d);
// What it is, or would be: target, next, good, refused; NULL only before the first offer.
const struct version *deploy_version(const struct deploy *d);
const char *deploy_deployment(const struct deploy *d);       // its deployment's name
const struct version *deploy_routed(const struct deploy *d); // as deploy_version, for the routes
bool deploy_can_go_back(const struct deploy *d);             // to a version other than the target

// The inspection's end.
void deploy_accepted(struct deploy *d, struct version *v);
void deploy_refused(struct deploy *d, struct version *v);

// What is decided now is done. When to look again; 0: when something changes.
uint64_t deploy_pass(struct deploy *d, uint64_t now_ns);
struct deployment_sum deploy_sum(const struct deploy *d);
// Why it failed, or what it waits for: the last error of a replica that does not run; "" = nothing.
void deploy_explain(const struct deploy *d, char ret_text[ERR_MSG_MAX]);
// Gone for good: deleted, and no replica left. It is freed.
bool deploy_bury(struct deploy *d);

struct replica *deploy_replica(struct control *c, const char *name); // NULL: unknown
// A spec of an earlier control's: adopted, or retired when nothing is known of its application.
void deploy_adopt(struct control *c, const char *name, struct bytes orders);
void deploy_started(struct replica *r, struct member *m); // a process under its name
void deploy_leaves(struct replica *r); // its worker drains: an earlier control has drained it
// Its last process is gone. starts_again: the supervisor will make the next.
void deploy_ended(struct replica *r, bool crashed, bool starts_again);
void deploy_gpus_back(struct control *c, const char *replica);
// What a worker said to its ORDERS.
void deploy_ordered(struct replica *r, uint64_t revision, int code, const char *text);
uint64_t deploy_grace_ns(const struct control *c); // the longest of all
