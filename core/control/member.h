// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * member - the other processes: channels, pages, states, deaths.
 */
#include "control/control.h"

// From the supervisor's CHILD: known, maybe not connected yet.
struct member *member_get(struct control *c, uint64_t child_id); // NULL: unknown
void member_child(struct control *c, const struct wire_child *m);
// Takes both descriptors.
void member_attach(struct control *c, const struct wire_attach *m, int own_socket, int own_page);
void member_died(struct control *c, const struct wire_died *m, int own_page);

// The replica is known now: of an earlier control's.
void member_take(struct control *c, const struct replica *r);
// All of an earlier control's replicas are known: what is nobody's leaves after its work.
void member_listed(struct control *c);
void member_drain(struct member *m, uint64_t deadline_ns);
// False: there is no link with it yet, or any more.
bool member_send_orders(struct member *m, uint64_t revision, const char *json);
void member_send_snapshot(struct member *m, uint64_t version, struct bytes json);
// The newest ingress at that place, or NULL.
struct member *member_ingress(struct control *c, uint32_t place);
// Once a round of the watch: BURIED for those that died before the last round.
void member_bury(struct control *c);
void member_watch(struct control *c, uint64_t now_ns); // kills who shows no heartbeat
