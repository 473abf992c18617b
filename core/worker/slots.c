// SPDX-License-Identifier: Apache-2.0
#include "worker/slots.h"

#include "base/check.h"

void slots_init(struct slots *s, uint32_t cap)
{
    *s = (struct slots){.cap = cap, .free = cap};
}

int slots_join(struct slots *s)
{
    for (uint32_t i = 0; i < SLOTS_PEERS; i++)
        if (!s->peers[i].taken) {
            s->peers[i] = (struct slots_peer){.on = true, .taken = true};
            if (i >= s->top)
                s->top = i + 1;
            return (int)i;
        }
    return -1;
}

static struct slots_peer *peer_at(struct slots *s, uint32_t peer)
{
    CHECK(peer < SLOTS_PEERS && s->peers[peer].taken);
    return &s->peers[peer];
}

// Slots that nobody holds any more.
static void regain(struct slots *s, uint32_t n)
{
    uint32_t paid = n < s->over ? n : s->over;
    s->over -= paid;
    s->free += n - paid;
}

void slots_resize(struct slots *s, uint32_t cap)
{
    uint32_t out = s->cap + s->over - s->free; // lent and used
    s->cap = cap;
    s->over = out > cap ? out - cap : 0;
    s->free = out > cap ? 0 : cap - out;
}

void slots_leave(struct slots *s, uint32_t peer)
{
    struct slots_peer *p = peer_at(s, peer);
    regain(s, p->granted);
    *p = (struct slots_peer){.taken = p->used > 0, .used = p->used};
}

bool slots_submit(struct slots *s, uint32_t peer)
{
    struct slots_peer *p = peer_at(s, peer);
    if (p->granted == 0)
        return false;
    p->granted--;
    p->used++;
    return true;
}

void slots_end(struct slots *s, uint32_t peer)
{
    struct slots_peer *p = peer_at(s, peer);
    CHECK(p->used > 0);
    p->used--;
    regain(s, 1);
    p->taken = p->on || p->used > 0;
}

static void want_nothing(struct slots_peer *p, uint64_t now)
{
    p->want = p->more = 0;
    p->credit = 0;
    p->quiet_ns = now; // nothing waits there: what it was lent may be asked back at once
}

void slots_want(struct slots *s, uint32_t peer, uint32_t count, uint64_t deadline_ns, uint64_t now)
{
    struct slots_peer *p = peer_at(s, peer);
    uint64_t urgent = deadline_ns ? deadline_ns : now + SLOTS_PATIENCE_NS;
    if (count == 0) {
        want_nothing(p, now);
        return;
    }
    if (p->want == 0 || urgent < p->urgent_ns)
        p->urgent_ns = urgent;
    if (p->want == 0 || count < p->want)
        p->want = count;
    if (p->more == 0)
        p->more_urgent_ns = urgent;
    p->more = count - p->want;
}

bool slots_give(struct slots *s, uint32_t peer, uint32_t count, uint64_t now)
{
    struct slots_peer *p = peer_at(s, peer);
    bool honest = count <= p->granted;
    if (!honest)
        count = p->granted;
    p->granted -= count;
    regain(s, count);
    p->asked = false;
    if (p->granted > 0)
        p->quiet_ns = now + SLOTS_QUIET_NS;
    return honest;
}

void slots_close(struct slots *s, bool closed)
{
    s->closed = closed;
}

static bool wants(const struct slots_peer *p)
{
    return p->on && p->want > 0;
}

// The next of those whose turn it is, by smooth weighted round robin.
static struct slots_peer *next_want(struct slots *s)
{
    uint64_t earliest = UINT64_MAX;
    for (uint32_t i = 0; i < s->top; i++)
        if (wants(&s->peers[i]) && s->peers[i].urgent_ns < earliest)
            earliest = s->peers[i].urgent_ns;
    struct slots_peer *best = NULL;
    int64_t total = 0;
    for (uint32_t i = 0; i < s->top; i++) {
        struct slots_peer *p = &s->peers[i];
        if (!wants(p) || p->urgent_ns - earliest > SLOTS_TIE_NS)
            continue;
        p->credit += p->want;
        total += p->want;
        if (!best || p->credit > best->credit)
            best = p;
    }
    if (best)
        best->credit -= total;
    return best;
}

static void lend(struct slots *s, struct slots_peer *p, uint32_t *granted, uint32_t n)
{
    s->free -= n;
    p->granted += n;
    granted[p - s->peers] += n;
}

static void took_wanted(struct slots_peer *p)
{
    if (--p->want > 0)
        return;
    p->want = p->more;
    p->urgent_ns = p->more_urgent_ns;
    p->more = 0;
    if (p->want == 0)
        p->credit = 0;
}

static void serve_wants(struct slots *s, uint64_t now, uint32_t *granted)
{
    for (struct slots_peer *p; s->free > 0 && (p = next_want(s));) {
        lend(s, p, granted, 1);
        took_wanted(p);
        p->quiet_ns = now + SLOTS_SETTLE_NS;
    }
}

static void lend_evenly(struct slots *s, uint32_t *granted)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->top; i++)
        n += s->peers[i].on;
    uint32_t share = n ? s->cap / n : 0;
    for (uint32_t i = 0; i < s->top && s->free > 0; i++) {
        struct slots_peer *p = &s->peers[i];
        uint32_t has = p->granted + p->used;
        if (!p->on || has >= share)
            continue;
        lend(s, p, granted, share - has < s->free ? share - has : s->free);
    }
}

// How many to ask back in all: what is wanted or above the cap, and not on its way back already.
static uint32_t missing(const struct slots *s)
{
    uint64_t want = 0, coming = 0;
    for (uint32_t i = 0; i < s->top; i++) {
        want += (uint64_t)s->peers[i].want + s->peers[i].more;
        coming += s->peers[i].asked ? s->peers[i].granted : 0;
    }
    if (s->closed)
        return s->cap + s->over;
    want = (want > s->cap ? s->cap : want) + s->over;
    return want > coming ? (uint32_t)(want - coming) : 0;
}

static uint32_t ask_back(struct slots *s, uint64_t now, struct slots_act *out, uint32_t n_out)
{
    uint32_t left = missing(s);
    for (uint32_t i = 0; i < s->top && left > 0; i++) {
        struct slots_peer *p = &s->peers[i];
        if (!p->on || p->granted == 0 || p->asked)
            continue;
        if (p->quiet_ns > now) {
            if (!s->again_ns || p->quiet_ns < s->again_ns)
                s->again_ns = p->quiet_ns;
            continue;
        }
        uint32_t count = p->granted < left ? p->granted : left;
        p->asked = true;
        left -= count;
        out[n_out++] = (struct slots_act){.peer = i, .count = count, .recall = true};
    }
    return n_out;
}

uint32_t slots_decide(struct slots *s, uint64_t now, struct slots_act *out)
{
    uint32_t granted[SLOTS_PEERS] = {0}, n = 0;
    s->again_ns = 0;
    if (!s->closed) {
        serve_wants(s, now, granted);
        lend_evenly(s, granted);
    }
    for (uint32_t i = 0; i < s->top; i++)
        if (granted[i])
            out[n++] = (struct slots_act){.peer = i, .count = granted[i]};
    return s->free == 0 || s->closed ? ask_back(s, now, out, n) : n;
}

uint32_t slots_used(const struct slots *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->top; i++)
        n += s->peers[i].used;
    return n;
}

uint32_t slots_granted(const struct slots *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->top; i++)
        n += s->peers[i].granted;
    return n;
}
