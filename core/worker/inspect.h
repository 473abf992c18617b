// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * inspect - a plugin looked at in a throw-away process:
 * `salver inspect-child PATH APP DEPLOYMENT DEVICES DEVICE_BYTES`.
 *
 * Answer   a JSON object: {"name","version","about","abi":"1.0","kind":"run"|"submit",
 *          "callbacks":["create",...],
 *          "options":[{"name","type","flags","fallback","min","max","help"}],"warnings":[...],
 *          "plan":{"max_batch","batch_wait_us","concurrency","max_inflight","devices","stream_in":bool,...}}
 *          from create() and plan() with that config, and what models.h says of a plugin that
 *          offers sv.models/1.
 * Failure  a plugin that crashes, hangs (INSPECT_TIMEOUT_S), breaks a rule or refuses the config is
 * an err with the reason: signal and callback, the failed check, the text of fail(). Child    fd 3
 * takes the answer, 4 is a shared page (what it is doing, last words), 5 the config; its output
 * goes into the err. Thread   any; blocks until the child has ended.
 */
#include <stdint.h>

struct err;

enum { INSPECT_TIMEOUT_S = 30, INSPECT_ANSWER_MAX = 4 << 20, INSPECT_OUTPUT_MAX = 300 }; // s, bytes

struct inspect_what {
    const char *plugin_path;
    // "": nothing of the plugin is called and the answer has no plan: the options are known before
    // there is a config that passed them.
    const char *config_json;
    const char *app, *deployment; // whose config that is, for the plugin to read; NULL: nobody's
    uint32_t devices;             // that plan() is offered
    uint64_t device_bytes;        // of each
};

// *ret_json is the caller's (xfree).
int inspect_run(const struct inspect_what *what, char **ret_json, struct err *err);
int inspect_child_main(int argc, char **argv); // of the role `inspect-child`
