// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * record - desired state in the store, and back.
 *
 *   desired        {"doc","server","seq","apps":{NAME:{"doc","order","seq","deployed_s"}}}: what
 * should run, one value, so that a change is one comparison. doc: the last text with http options
 * and the like; server: the one whose http options hold since the server was started; seq: of the
 * last text. docs/<sha256>  a text (control/doc.h); those that nothing names go with a later change
 * good/<app>
 * {"order","doc","probed"}: the version a roll-back leads to failed/<app>   {"seq","message"}: that
 * text's version was given up; holds for that seq alone
 */
#include "control/control.h"

struct deploy;

enum { RECORD_SWEEP_MAX = 64 }; // stale keys that go with one change

int record_put(struct control *c, struct doc *doc, struct err *err);    // control.seq is the text's
int record_delete(struct control *c, const char *app, struct err *err); // NULL: all
// Deploys with what was accepted as their `next`, with `good` and `rolled_back`.
int record_recall(struct control *c, struct err *err);
int record_note_good(struct deploy *d, struct err *err);
int record_note_failed(struct deploy *d, struct err *err);

// The last text that the store of a state folder without a server holds. 1: there is none.
int record_last(const char *state_dir, struct doc **ret, struct err *err);

uint64_t record_order(uint64_t seq, uint32_t place);
// The application as it was written; secrets are shown as ***. The caller's.
struct cJSON *record_config(const struct doc *doc, const char *app);
