// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * channel - a child's link to its supervisor, and to the next one.
 *
 * The child's end of fd 3. When the supervisor is gone, the child serves on and looks every
 * CHANNEL_RETRY_MS for a new one at `<state>/supervisor.sock`. The connection becomes the channel:
 * HELLO, what introduce() puts (FOLD, HELD), ORPHAN with the descriptors a supervisor keeps of its
 * child. With ADOPTED it has a supervisor again; should the connection end before, it goes on
 * looking. While no descriptor is free for what the supervisor may send, it waits unread
 * (link.h, Spares).
 *
 *   OPEN --end--> SEEKING --connected--> ASKED --ADOPTED--> OPEN
 *                    ^                     |
 *                    +-------- end --------+
 *
 * Alone   after `timeout_s` without a supervisor on_alone() comes, once: drain and leave. It goes
 * on looking even then, so that a new supervisor knows who is still there. Trust   the new
 * supervisor must have our uid; what it says is checked like every frame. Thread  the loop's.
 */
#include "wire/link.h"

enum { // descriptors of a child that both sides of the channel know; ARCHITECTURE.md has them all
    CHANNEL_FD = 3,
    CHANNEL_FD_PAGE = 4,
    CHANNEL_FD_LOG = 5,
    CHANNEL_FD_OUTPUT = 6,     // worker
    CHANNEL_FD_FOLD = 7,       // ingress, control
    CHANNEL_FD_KIN = 8,        // ingress, worker: held open it says that they live
    CHANNEL_FD_KIN_CONTROL = 9 // the same of control, which nobody takes over
};
enum { CHANNEL_RETRY_MS = 100, CHANNEL_DIR_MAX = 4096 };
#define CHANNEL_SOCKET "supervisor.sock" // in the state folder

struct channel;
struct channel_words { // of ORPHAN
    uint32_t place;    // of an ingress
    bool draining;
    int kept_fd;      // lent: a worker's output pipe, an ingress's listener; -1: none
    struct buf peers; // child ids
};

struct channel_ops {
    void (*on_frame)(struct channel *, struct wire_frame *); // all but ADOPTED
    void (*on_orphan)(struct channel *, const struct err *); // the supervisor is gone; err or NULL
    void (*on_alone)(struct channel *);
    void (*introduce)(struct channel *, struct channel_words *); // zeroed, kept_fd -1
};

enum channel_state { CS_OPEN, CS_CLOSING, CS_SEEKING, CS_ASKED, CS_OVER };

struct channel {
    struct link link; // open in CS_OPEN and CS_ASKED
    const struct channel_ops *ops;
    void *ctx; // its holder
    uv_loop_t *loop;
    struct turn *turn;
    uv_timer_t timer;
    enum channel_state state;
    enum wire_role role;
    const char *name;  // borrowed from argv
    double timeout_s;  // the holder's to set, once it knows its orders
    uint64_t since_ns; // without a supervisor
    bool alone;
    // From BOOT.
    bool booted;
    char state_dir[CHANNEL_DIR_MAX];
    uint64_t child_id;
    uint32_t generation;
    struct buf orders;
};

// Opens fd 3. fd 4 stays open as long as the channel.
int channel_open(struct channel *c, uv_loop_t *loop, struct turn *turn, enum wire_role role,
                 const char *name, const struct channel_ops *ops, void *ctx, struct err *err);
// The orders that it runs with now, when they are no longer those of BOOT.
void channel_set_orders(struct channel *c, struct bytes orders);
// A frame with a copy of fd goes out: `put` it right after this. False: there is no descriptor.
bool channel_put_copy(struct channel *c, int fd);
void channel_close(struct channel *c); // at the end of the process
