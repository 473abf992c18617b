// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * apps - the applications of a running server, as its admin API names them.
 */
#include "cli/ask.h"

#define APPS_PATH "/api/serve/applications/"

struct cJSON;

// `applications` of Ray's ServeInstanceDetails, the caller's (cJSON_Delete); or NULL.
struct cJSON *apps_get(struct ask_server *s, struct err *err);
