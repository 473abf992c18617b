// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * ask - one blocking HTTP exchange with a server's admin API.
 *
 * Whom    the socket in a state folder, or http://HOST:PORT.
 * Bounds  ASK_ANSWER_MAX bytes of an answer; ASK_TIMEOUT_S without progress, ASK_CHANGE_TIMEOUT_S
 *         for what changes something (its answer comes after a write to the disk).
 */
#include "base/buf.h"

#include <stdbool.h>

struct err;

enum {
    ASK_ANSWER_MAX = 64 << 20,
    ASK_TIMEOUT_S = 5,
    ASK_CHANGE_TIMEOUT_S = 60,
    ASK_PATIENCE_S = 5,
    ASK_HOST_MAX = 255, // bytes of a host's name
    ASK_PORT = 8265     // of an address that names none
};

struct ask_server {
    char *socket_path;           // owned, or NULL: then
    char host[ASK_HOST_MAX + 1]; // of the address, without brackets
    char port[8];
    char authority[ASK_HOST_MAX + 16]; // for the Host header
    bool answered;                     // the last request, by whatever
};

// Whom the options name: address, else state, else $SALVER_ADDRESS, else the default state folder.
int ask_server_init(struct ask_server *s, const char *state, const char *address, struct err *err);
void ask_server_finish(struct ask_server *s);

struct ask_request {
    const char *method, *path;
    const char *content_type; // NULL: no body
    struct bytes body;
};

// The body of a 200 in ret_body (the caller's). An answer that is an error: its status, negated,
// and the server's message. No answer: SV_E_UNAVAILABLE.
int ask(struct ask_server *s, const struct ask_request *q, struct buf *ret_body, struct err *err);
// Asks again for ASK_PATIENCE_S while the server answers that it cannot yet (503), as one does that
// has just started.
int ask_change(struct ask_server *s, const struct ask_request *q, struct buf *ret_body,
               struct err *err);

void ask_put_escaped(struct buf *out, const char *text); // percent-encoded for a path or a query
