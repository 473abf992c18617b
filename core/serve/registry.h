// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * registry - every model of every application, by each name that it is called.
 *
 * Built    anew from each snapshot: registry_add in the snapshot's order, then registry_sort.
 * Names    an id stands once: the first application that names it has it, one that failed to deploy
 *          only when no other does.
 * Shown    but for those of an application that failed and has no ready replica.
 * Bounds   the snapshot's. Names are compared byte by byte.
 * Owner    models and applications are borrowed from whoever adds them, until registry_finish.
 * Thread   loop thread only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dispatch;
struct dispatch_refusal;
struct model_field;
struct snapshot_model;

enum {
    REGISTRY_SHOWN = 20,        // known names in a refusal, at most,
    REGISTRY_SHOWN_BYTES = 256, // and bytes of each name
    REGISTRY_TEXT = 2560        // bytes of the whole text
};

struct registry_entry {
    const struct snapshot_model *model;
    struct dispatch *d; // who answers for it
    size_t len;         // of the id
    bool failed;        // its application has, so says the snapshot
    bool taken;         // another entry has this id
};

struct registry {
    struct registry_entry *entries; // owned, in the order in which they were added
    uint32_t *by_id;                // owned; those that are not taken, by id
    uint32_t n, n_by_id, room;
    struct dispatch *root; // the application at `/`, or NULL
    struct dispatch *only; // the one application that names models; NULL: none, or several do
    bool several;          // applications name models
    bool root_names;       // the one at `/` does
};

void registry_add(struct registry *r, const struct snapshot_model *model, struct dispatch *d,
                  bool failed);
void registry_set_root(struct registry *r, struct dispatch *d);
void registry_sort(struct registry *r);
void registry_finish(struct registry *r); // `= {0}` is an empty one

const struct registry_entry *registry_find(const struct registry *r, const char *id, size_t n);
bool registry_shows(const struct registry_entry *e);

/*
 * Who answers a request that goes by model, by the name that its body says:
 *   known       whoever has it
 *   unknown     the application at `/` if it names no models itself, else 404
 *   no name     the application at `/`, else the only one that names models, else 400
 * NULL: nobody, and why. `field` NULL: it has no body. The text of *ret holds until the next call.
 */
struct dispatch *registry_choose(const struct registry *r, const struct model_field *field,
                                 struct dispatch_refusal *ret);
// The 404 for a name that nobody has; as borrowed as above.
void registry_unknown(const struct registry *r, const char *id, size_t n,
                      struct dispatch_refusal *ret);
