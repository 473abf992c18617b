// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * slots - who may use the places of this worker: the owner's book of `max_ongoing_requests`.
 *
 * Law     free + sum(granted[i] + used[i]) == cap + over, always; over > 0 only while free == 0.
 *         So no more than cap requests are ever here, however many ingresses there are, but for
 *         those that a smaller cap found here: `over` is what it waits for. What comes back pays
 *         that off first, and unused grants are asked back for it.
 * Policy  a free slot goes to the want with the earliest deadline; a want without one counts as
 *         SLOTS_PATIENCE_NS after it was said, so it grows more urgent and nobody starves. Wants
 *         within SLOTS_TIE_NS of the earliest share by how much each still wants (a smooth weighted
 *         round robin), so that those who ask together wait equally long. What
 *         nobody wants is lent evenly in advance, cap / peers each; the remainder stays free for
 *         whoever asks. While somebody wants and nothing is free, unused grants are asked back:
 *         those lent in advance at once, those that were wanted after SLOTS_SETTLE_NS (a SUBMIT is
 *         on its way) unless the ingress says that nothing waits there any more, and who gave back
 *         less than asked is left alone for SLOTS_QUIET_NS.
 * Bounds  SLOTS_PEERS ingresses.
 * Pure    a decider: no clock, no I/O, no allocation. slots_decide says what to send and has
 *         already entered it in the book.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLOTS_PEERS = 128 };
#define SLOTS_PATIENCE_NS 60000000000ull
#define SLOTS_TIE_NS      10000000ull
#define SLOTS_SETTLE_NS   1000000ull
#define SLOTS_QUIET_NS    10000000ull

struct slots_peer {
    bool on;            // linked
    bool taken;         // this entry is in use: linked, or gone with requests still here
    bool asked;         // a recall is under way
    uint32_t granted;   // lent, not used
    uint32_t used;      // requests here
    uint32_t want;      // at least so many wait there
    uint64_t urgent_ns; // deadline that stands for all of `want`
    uint32_t more;      // said later: wait there behind them, until their turn comes as a whole
    uint64_t more_urgent_ns;
    uint64_t quiet_ns; // nothing is asked back before
    int64_t credit;    // of the round robin, in wants; 0 while it wants nothing
};

struct slots {
    uint32_t cap, free;
    uint32_t over;     // lent or used above cap since it shrank
    uint32_t top;      // peers[0, top) may be in use
    bool closed;       // nothing is lent, everything is asked back
    uint64_t again_ns; // decide again then, if nothing happens before; 0: no need
    struct slots_peer peers[SLOTS_PEERS];
};

struct slots_act {
    uint32_t peer, count;
    bool recall; // else a grant
};

void slots_init(struct slots *s, uint32_t cap);
int slots_join(struct slots *s);                   // a peer number, or -1: too many
void slots_leave(struct slots *s, uint32_t peer);  // its grants are free at once
bool slots_submit(struct slots *s, uint32_t peer); // false: it holds no grant
void slots_end(struct slots *s, uint32_t peer);    // a request of it is over, also after its leave
void slots_want(struct slots *s, uint32_t peer, uint32_t count, uint64_t deadline_ns, uint64_t now);
bool slots_give(struct slots *s, uint32_t peer, uint32_t count,
                uint64_t now);                  // false: more than it held
void slots_close(struct slots *s, bool closed); // drain, or not healthy
// A new cap, at once: a larger one lends more, a smaller one holds as grants and requests end.
void slots_resize(struct slots *s, uint32_t cap);

// At most one grant and one recall for each peer: room for 2 * SLOTS_PEERS. How many were written.
uint32_t slots_decide(struct slots *s, uint64_t now, struct slots_act *out);

uint32_t slots_used(const struct slots *s);
uint32_t slots_granted(const struct slots *s);
