// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * keep - what is to run, what runs, and who has died.
 *
 * spec   a name that is kept running, with the orders its process gets at each start.
 * grave  a child that ended, until control has buried it: its page holds metrics and last words.
 *
 * Owner  the supervisor's lists. A spec goes when its retired child has ended.
 * Bounds KEEP_GRAVES_MAX graves; with control away for longer the oldest is given up, in the log.
 */
#include "supervise/child.h"
#include "supervise/restart.h"
#include "supervise/supervisor.h"

enum {
    KEEP_GRAVES_MAX = 256,
    KEEP_SPECS_MAX = 4096,
    KEEP_ORDERS_EACH = WIRE_FRAME_MAX - (64 << 10), // bytes: they fit into ORPHAN and KEPT
    KEEP_ORDERS_MAX = 32 << 20 // bytes of orders of all specs: the answer to LIST holds them all
};
enum { RESTART_RETIRED = -2 }; // died.restart_in_ms

struct spec {
    struct list node;
    struct supervisor *s;
    char name[CHILD_NAME_MAX];
    enum wire_role role;
    uint32_t place; // of an ingress: its listener
    bool restart;
    struct buf orders;
    uint32_t generation; // of its next child
    struct restart ends;
    struct child *child; // the one that is started again when it ends, or NULL
    uv_timer_t timer;    // the wait before the next start
    bool closing;
};

struct grave {
    struct list node;
    char name[CHILD_NAME_MAX];
    uint64_t child_id;
    enum wire_role role;
    uint32_t generation, signal;
    int status, page_fd; // owned
    bool former;         // of an earlier server
    int64_t restart_in_ms;
    struct buf output;
};

// Makes the spec, or gives it new orders for the next start. Starts it when it is new.
int keep_spec(struct supervisor *s, const char *name, enum wire_role role, uint32_t place,
              bool restart, struct bytes orders, struct err *err);
// A second child beside the first, which from now on is not started again.
void keep_replace(struct supervisor *s, const char *name);
void keep_retire(struct supervisor *s, const char *name, uint64_t child_id);
void keep_bury(struct supervisor *s, uint64_t child_id);
void keep_close(struct supervisor *s); // at the end: all specs and graves

// An introduced guest becomes a child, and what it runs with a spec, unless it is leaving.
void keep_adopt(struct supervisor *s, struct child *guest, struct bytes orders, bool leaving);
// Graves of those that ended while there was no supervisor: an introduced guest, a page. Takes
// own_page.
void keep_adopt_dead(struct supervisor *s, struct child *guest);
void keep_grave(struct supervisor *s, const struct wire_held *who, int own_page);

// What the program that was in our place before had written down (resume.c).
int keep_resume_child(struct supervisor *s, const struct wire_living *m, struct child **ret,
                      struct err *err);
void keep_resume_spec(struct supervisor *s, const struct wire_kept *m); // after the children
void keep_resume_grave(struct supervisor *s, const struct wire_grave *m);

struct bytes keep_orders(const struct spec *spec);                // borrowed until its next orders
struct child *keep_find(struct supervisor *s, uint64_t child_id); // NULL: gone
struct grave *keep_find_grave(struct supervisor *s, uint64_t child_id);
