// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * link - one end of a socketpair that carries frames, on a libuv loop.
 *
 * Read    always; every frame that is there is handed out before the loop sleeps. In one turn at
 *         most LINK_TURN_BYTES, so that other handles get their share.
 * Write   into link->out by wire_put_*, then link_kick: what one turn produced leaves in one
 *         sendmsg. What the socket does not take waits; windows bound it. More than LINK_OUT_MAX
 *         waiting means a peer that does not read: the link breaks.
 * Fds     link_put_fds before the frame they belong to is put; they are sent with that frame's
 *         first byte and closed here after the send. More than wire_kind_fds of that kind, or
 *         fewer than the frame says, is a broken peer.
 * Spares  with on_starved the link keeps WIRE_FDS_MAX descriptors free for those that come, and
 *         while it cannot it reads nothing: the kernel would throw away what does not fit.
 * Skipped frames of an unknown kind; on_frame never sees them.
 * HELLO   is the link's own: sent on open, checked on arrival before any other frame.
 * End     on_closed is called exactly once, for EOF (err NULL) or a fault; after it no frame comes.
 *         Every whole frame that arrived before EOF is handed out first. Then link_close.
 *         link_close sends what the socket takes at once and forgets the rest.
 * Thread  the loop's.
 */
#include "base/turn.h"
#include "wire/wire.h"

enum {
    LINK_TURN_BYTES = 1 << 20, // bytes
    LINK_OUT_MAX = 64 << 20,   // bytes
    LINK_DIRECT_MIN = 16 << 10 // bytes of a payload that is worth a system call of its own
};

struct link;
struct link_fds;
struct link_ops {
    void (*on_frame)(struct link *, struct wire_frame *); // may close the link
    void (*on_closed)(struct link *, const struct err *err);
    void (*on_turn)(struct link *); // optional: after the last frame of one read burst
    // Optional: no descriptor is free, so nothing is read, not even the end. link_read_again later.
    void (*on_starved)(struct link *);
};

struct link {
    uv_poll_t poll;
    int fd; // owned until link_close
    struct turn *turn;
    struct turn_item item;
    const struct link_ops *ops;
    void *ctx; // its holder
    struct buf in, out;
    int in_fds[16], n_in_fds;
    int spares[WIRE_FDS_MAX], n_spares;
    struct link_fds *out_fds; // owned; those that were not sent yet, in order
    size_t n_out_fds, cap_out_fds;
    uint64_t out_sent; // bytes sent since open: stream position of out's head
    int events;        // what poll watches
    bool greeted, closing, ended;
    bool deaf;     // the peer takes nothing any more; what it said is still to be read
    bool overfull; // LINK_OUT_MAX was passed
    bool starved;  // reads nothing until link_read_again
    uint32_t peer_role;
    uint64_t peer_pid;
    char peer_name[128];
    void (*on_free)(struct link *); // link_close's
};

// Takes own_fd. `name` is this process's, for HELLO.
int link_open(struct link *l, uv_loop_t *loop, struct turn *turn, int own_fd, enum wire_role role,
              const char *name, const struct link_ops *ops, void *ctx, struct err *err);
// The same link in a program that took this one's place by exec: HELLO was said. What was unsent is
// put again, what was unread goes to the end of `in`, then link_kick.
int link_resume(struct link *l, uv_loop_t *loop, struct turn *turn, int own_fd, bool greeted,
                const char *peer_name, const struct link_ops *ops, void *ctx, struct err *err);
struct link_piece { // of what is unsent; zeroed before the first
    struct bytes bytes;
    const int *fds; // that go with its first byte
    int n_fds;
    size_t at, at_fds; // where the next one begins
};
bool link_unsent(struct link *l, struct link_piece *p); // the next piece; false: no more

void link_read_again(struct link *l); // after on_starved, which may come again

void link_kick(struct link *l);                               // there is something in link->out
void link_put_fds(struct link *l, const int *own_fds, int n); // belongs to the next frame put
void link_flush(struct link *l);                              // now, without waiting for the turn
// A BODY or DATA frame. A large payload leaves at once from where it lies, behind all that waits;
// only what the socket does not take is copied. Kicks.
void link_put_raw(struct link *l, enum wire_kind kind, uint64_t id, uint32_t flags, const void *p,
                  size_t n);
// The socket has refused bytes and not yet taken them.
static inline bool link_blocked(const struct link *l)
{
    return l->events & UV_WRITABLE;
}
void link_close(struct link *l, void (*on_free)(struct link *)); // memory is yours again in on_free
