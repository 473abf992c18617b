// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * front - what a client's message meets first: the routes, the models, and behind each its
 * dispatch.
 *
 * A message finds its way when its head is there, so that a request nobody can take is refused
 * before its body is read. The core's own paths are answered here.
 *
 * Which application: a route prefix longer than `/` that matches; else, of the paths that go by
 * model (/v1/..., /tokenize, /detokenize), whoever names the body's `model`; else the one at `/`.
 * By model  the body waits, within its limits, until the name is found (model_field.h). For an
 *           application whose bodies stream in it is then streamed; any other gets it whole.
 *           Without a name: the application at `/`, else the only one with models, else 400. A name
 *           that nobody has: the application at `/` if it names no models itself, else 404. While
 *           no application names models nothing goes by model.
 * Owner   the snapshot, the tables, the dispatches, the HTTP server; peers are on its list.
 * Thread  loop thread only.
 */
#include "base/list.h"
#include "http/http.h"
#include "serve/core_endpoints.h"
#include "serve/registry.h"
#include "serve/route.h"
#include "serve/snapshot.h"
#include "serve/tally.h"

#include <stdbool.h>
#include <stdint.h>

struct dispatch;
struct inflight;
struct peer;

enum { FRONT_CODES = 32 }; // refused requests are counted by code; the table of those seen

struct front_way {      // where one message goes
    struct dispatch *d; // NULL: to the core, or nowhere
    const char *path;   // below the route prefix, or for the core below the root
    bool core;
    bool by_model; // what its body says decides
};

struct front {
    struct inflight *all;       // borrowed
    const char *root_path;      // borrowed
    struct http_server *server; // NULL until front_listen and after front_destroy_server
    struct snapshot snapshot;
    bool has_snapshot;
    struct route_table routes;    // entries point to dispatches
    struct registry registry;     // so do these
    uint64_t body_limit;          // bytes; the greatest of any application
    struct dispatch **dispatches; // owned, one for each application of the snapshot
    uint32_t n_dispatches;
    struct list peers;    // of all living workers
    struct tally nowhere; // requests without a route
    struct core_endpoints core;
    struct page_metric *connections, *accepted;
    char ingress_label[64];
    struct {
        int code;
        struct page_metric *count;
    } bad[FRONT_CODES];
    uint32_t n_bad;
    char bad_id[17]; // of the last message that http refused before it was whole
    struct {
        const struct http_msg *m;
        uint64_t started_ns, epoch;
        struct front_way way;
    } last;         // what on_head found, for the on_request that follows
    uint64_t epoch; // of the routes
};

void front_init(struct front *f, struct inflight *all, uint32_t place, const char *root_path);
void front_finish(struct front *f); // no server, no peers, no requests

void front_set_snapshot(struct front *f, struct snapshot *own_snapshot);
void front_add_peer(struct front *f, struct peer *p);
void front_drop_peer(struct front *f, struct peer *p);
int front_listen(struct front *f, int own_fd, const struct http_limits *limits, struct err *err);
