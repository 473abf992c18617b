// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * texts - the JSON that control writes for others: orders of workers and ingresses, the snapshot.
 * Their keys are listed in ARCHITECTURE.md.
 *
 * Owner  each text is the caller's, to be freed with xfree.
 */
#include "control/control.h"

struct version;

// canary: it replaces a version that works, so it must answer one request before it is ready.
char *texts_worker(const struct control *c, const struct version *v, const char *replica,
                   bool canary);
// Of a worker's orders what can change while it runs, so that two can be compared.
char *texts_live(const struct cJSON *orders);
char *texts_ingress(const struct control *c, uint32_t place);
// The routes without the version, so that two can be compared; texts_snapshot adds it.
char *texts_routes(struct control *c);
char *texts_snapshot(const char *routes, uint64_t version);
