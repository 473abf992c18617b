// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * peer - one worker process, as an ingress sees it: its link, its page, what it has lent us.
 *
 * Open    has a grant, says READY, and its page does not say otherwise. Nobody else gets a request.
 * Death   the link's end: every frame that arrived is handled, then each request that it held goes
 *         where the page sends it (inflight.h), then the peer is forgotten.
 * Trust   none: a frame that breaks the rules breaks the link, which is a death to us. Control is
 *         told, so that it becomes one: the link is never made again.
 * Owner   the list it is on; freed when the link has closed.
 * Thread  loop thread only.
 */
#include "base/list.h"
#include "wire/link.h"

#include <stdbool.h>
#include <stdint.h>

struct dispatch;
struct inflight;
struct page;
struct page_metric;

struct peer {
    struct link link;
    struct list node; // whoever keeps all peers
    uint64_t child_id;
    uint32_t generation;
    char name[128];          // app/deployment/index
    const struct page *page; // borrowed: unmapped after PAGE_GONE, when the peer is long dead
    struct inflight *all;
    struct dispatch *d;   // NULL: no application has it
    struct list requests; // submitted, not ended
    enum wire_status state;
    uint32_t used;      // requests of ours there
    uint32_t grants;    // slots lent to us and unused
    uint32_t want_left; // of our last WANT
    uint32_t load;      // in flight there over all ingresses: its last word, then our own changes
    uint32_t cap;
    struct page_metric *ongoing;
    bool dead;
    // Requests are settled; the peer must leave its list and `d`. fault: it is not dead, but lied,
    // or does not read; NULL: its end.
    void (*on_gone)(struct peer *, const struct err *fault);
};

struct peer_conf {
    uint64_t child_id;
    uint32_t generation;
    const char *name;
    const struct page *page;
    struct inflight *all;
    void (*on_gone)(struct peer *, const struct err *fault);
};

// Takes own_fd, on success only.
int peer_open(const struct peer_conf *c, int own_fd, const char *own_name, struct peer **ret,
              struct err *err);
void peer_close(struct peer *p); // without on_gone; must hold no request

bool peer_is_open(const struct peer *p);
bool peer_is_ready(const struct peer *p);
// Says WANT, if the last one is used up or says less than half of it.
void peer_want(struct peer *p, uint32_t count, uint64_t deadline_ns);
void peer_want_nothing(struct peer *p);         // takes back what is left of the last WANT
void peer_let_go(struct peer *p);               // the same, and its unused grants go back
void peer_set_used(struct peer *p, int change); // a request came or ended
