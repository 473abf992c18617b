// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * host - the table of functions that a plugin gets.
 *
 * Used    by a worker, and by an inspection, which has no engine: there post() and request
 *         functions do nothing.
 * Owner   the struct owns its strings. One for each instance.
 * Thread  host_init's; the table's functions as plugin.h says.
 */
#include "abi/plugin.h"

#include <pthread.h>

struct engine;
struct page;

enum { HOST_TEXT_MAX = 512, HOST_LOG_MAX = 3500 };

struct host {
    sv_host pub;
    struct engine *engine;                         // borrowed; NULL in an inspection
    struct page *page;                             // borrowed; metrics live there
    char *app, *deployment, *replica, *plugin_dir; // owned
    char labels[256];
    struct page_metric *pressure;
    pthread_mutex_t lock;
    char text[HOST_TEXT_MAX]; // of fail(), by threads that are not the plugin's instance threads
};

struct host_conf {
    const char *app, *deployment, *replica, *plugin_dir;
    struct engine *engine;
    struct page *page;
};
void host_init(struct host *h, const struct host_conf *c);

void host_clear_text(struct host *h); // before a callback that may fail()
// What fail() said since, on this thread or another that is not ours; `otherwise` without.
const char *host_text(struct host *h, const char *otherwise, char out[HOST_TEXT_MAX]);
