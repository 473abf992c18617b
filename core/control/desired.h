// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * desired - what should run: accepted texts in the store, and the deploys that follow from them.
 *
 * Store   under the keys of control/record.h
 * Put     one transaction: texts, applications, what goes away. Durable before it is acknowledged;
 *         what is inspected and started follows.
 */
#include "control/control.h"

struct buf;
struct deploy;

// What is accepted, whole: an application that is not in it goes away.
struct deploy_text {
    const char *text;
    size_t n;
    const char *path; // names it in messages; its folder is the base of relative paths. "": none
    bool json;        // the text must be JSON
};

// 0: it is in the store. -400 with file:line:column, -507 and others: nothing changed.
int desired_put(struct control *c, const struct deploy_text *t, struct err *err);
// {"applications":{NAME:{"action":"add|remove|none|update","changes":[{"field","class"}]}}}
int desired_dry_run(struct control *c, const struct deploy_text *t, struct buf *ret_json,
                    struct err *err);
// One application, or with NULL all of them. SV_E_NOT_FOUND names the known ones.
int desired_delete(struct control *c, const char *app, struct err *err);
// NAME: the application as it was written, into the object.
void desired_config(struct control *c, struct cJSON *into);

// BOOT came: reads the store and, in a server's first control, FILE.
int desired_load(struct control *c, struct bytes orders, struct err *err);
// LISTED came: specs of the ingresses, versions inspected or, from an earlier control, known.
void desired_start(struct control *c);

// For later controls. A failure to write is logged.
void desired_note_good(struct deploy *d);
void desired_note_failed(struct deploy *d);
void desired_note_probes(struct control *c);  // probes.json, for this life of the server: it is due
void desired_write_probes(struct control *c); // if it is: at a pass's end, or during many
                                              // inspections once a second
void desired_note_gpus(struct control *c);    // gpus.json
