// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * app - what one YAML file asks for, checked: the structs whose tables stand in tables.c.
 *
 * Source   Ray Serve's serveConfigV2 (names, defaults) with `plugin:` for `import_path:`; our own
 *          keys are marked "ours" in the tables.
 * Owner    everything hangs on conf_file.arena; nothing here changes after conf_load.
 * Thread   one at a time while it is loaded, then read-only.
 */
#include "base/arena.h"
#include "conf/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct cJSON;
struct err;
struct yaml_node;

enum {
    CONF_FILE_MAX = 1 << 20, // bytes of a YAML file
    CONF_DEPTH_MAX = 32,     // nesting
    CONF_NODES_MAX = 100000, // scalars and containers, aliases counted each time
    CONF_APPS_MAX = 1000,
    CONF_DEPLOYMENTS_MAX = 64, // an application
    CONF_INGRESS_MAX = 64,
    CONF_ONGOING_MAX = 4096,             // max_ongoing_requests: what a worker's page has room for
    CONF_CONCURRENCY_MAX = 64,           // instance threads of a worker
    CONF_NAME_MAX = 56,                  // bytes of a name; app/deployment/index has 127
    CONF_PREFIX_MAX = 256,               // bytes of a route prefix
    CONF_FLAGS_MAX = 256,                // --KEY VALUE pairs
    CONF_WARMUPS_MAX = 16,               // warmup_requests of a deployment
    CONF_WARMUP_BODY_MAX = 64 << 10,     // bytes of one's body,
    CONF_WARMUP_BODIES_MAX = 256 << 10,  // of all together: they travel in a worker's orders
    CONF_WARMUP_PATH_MAX = 2048,         // bytes of its path, with what follows '?'
    CONF_QUEUE_DEFAULT = 10000,          // max_queued_requests: -1 means this many an ingress,
    CONF_QUEUE_BYTES_DEFAULT = 256 << 20 // and this many bytes
};

struct conf_http {
    const char *host;                     // 127.0.0.1
    uint32_t port;                        // 8000
    const char *root_path;                // ""
    double request_timeout_s;             // 0 = none
    double keep_alive_timeout_s;          // 90
    uint32_t num_ingress;                 // ours: 1
    bool allow_unauthenticated;           // set by --allow-unauthenticated alone
    uint32_t max_connections;             // ours: 10000
    uint32_t max_connections_per_address; // ours: 256, loopback is not counted
    uint32_t max_request_line_bytes;      // ours: 8 KiB
    uint32_t max_header_bytes;            // ours: 32 KiB
    uint32_t max_headers;                 // ours: 64
    uint64_t max_body_bytes;              // ours: 16 MiB
    uint64_t max_buffered_bytes;          // ours: 1 GiB, all bodies of one ingress together
    double header_timeout_s;              // ours: 10
    double body_timeout_s;                // ours: 10 s without 1 KiB/s
    double write_timeout_s; // ours: 30: a client that takes nothing for so long is cut off
};

struct conf_admin {   // ours: the admin API on TCP
    const char *host; // 127.0.0.1; loopback alone
    uint32_t port;    // 8265; 0 = the socket in the state folder alone
};

struct conf_logging {
    bool json;       // encoding: TEXT | JSON
    int level;       // enum log_level; log_level: DEBUG INFO WARNING ERROR
    bool access_log; // enable_access_log: true
};

struct conf_autoscaling { // control/scale.h says what follows from it
    uint32_t min_replicas, max_replicas, initial_replicas;
    double target_ongoing_requests, look_back_period_s, upscale_delay_s, downscale_delay_s,
        downscale_to_zero_delay_s, upscaling_factor, downscaling_factor;
    int aggregation; // 0 mean, 1 max, 2 min
};

// A request that a worker makes of itself before it is READY.
struct conf_warmup {
    int method;               // index in conf_warmup_methods: POST
    const char *path;         // below the route prefix: "/"
    const char *content_type; // NULL: by the body
    const char *body;         // NULL: `json`, or none
    struct yaml_node *json;   // NULL: `body`, or none
    uint32_t expect_status;   // 0: anything below 500
};
extern const char *const conf_warmup_methods[]; // NULL-terminated

struct conf_deployment {
    const char *name;
    const char *plugin;    // its own or the application's
    uint32_t num_replicas; // 1; "auto" and autoscaling: initial or min, which may be 0
    bool has_autoscaling;
    struct conf_autoscaling autoscaling;
    uint32_t max_ongoing_requests;      // 0 = not in the file: the plugin's plan says
    int64_t max_queued_requests;        // -1 = CONF_QUEUE_DEFAULT
    uint64_t max_queued_bytes;          // ours
    double graceful_shutdown_timeout_s; // 20
    double graceful_shutdown_wait_loop_s, health_check_period_s, health_check_timeout_s;
    bool retry_safe;                    // ours: retry: never | safe
    uint32_t max_batch_size;            // ours: 0 = the plan says
    double batch_wait_timeout_s;        // ours: < 0 = the plan says
    uint32_t concurrency;               // ours: 0 = the plan says
    double load_timeout_s;              // ours: 60 since the last progress
    double stall_timeout_s;             // ours: 10
    double run_timeout_s;               // ours: 300
    uint64_t max_response_buffer_bytes; // ours: 4 MiB a request
    double rolling_update_percentage;   // 0.2: of the replicas, replaced at a time
    struct conf_warmup *warmups;        // ours: warmup_requests
    uint32_t n_warmups;
    double num_gpus;                    // ray_actor_options.num_gpus; < 0 = not said
    const char *config_json;            // `config:` with `user_config:` on top, as a JSON object
    const struct cJSON *config;         // the same as a tree
    struct yaml_node *config_node;      // the same with places; conf_where_of reads it
    struct yaml_node *user_config_node; // only while it is loaded; then part of config_node
    struct place where, config_where, plugin_where;
};

struct conf_app {
    const char *name;         // "default"
    const char *route_prefix; // "/"; NULL = not exposed
    const char *plugin;
    struct conf_deployment *deployments; // the one that counts is deployments[active]
    uint32_t n_deployments, active;
    struct place where;
};

struct conf_file {
    struct arena arena;
    const char *path, *dir; // dir: relative paths in `config:` start here; "" = current folder
    struct conf_http http;
    struct conf_admin admin;
    struct conf_logging logging;
    double orphan_timeout_s; // 60
    struct conf_app *apps;
    uint32_t n_apps;
    const struct yaml_node *root; // for places
    struct report *report;        // every error and warning; NULL in a dead object
};

/*
 * Reads, resolves ${ENV} and file: references, checks against the tables (not the plugins' options:
 * conf_check_options). On failure err holds the first "file:line:column: text" and how many more
 * there are, and ret->report all of them (conf_print). conf_finish is due in both cases.
 */
int conf_load(const char *path, struct conf_file *ret, struct err *err);
// The same for bytes; `path` names them in messages and gives the folder.
int conf_load_bytes(const char *path, const char *p, size_t n, struct conf_file *ret,
                    struct err *err);
void conf_finish(struct conf_file *f);

// What `salver check` prints: a line for each warning and error, by place.
void conf_print(const struct conf_file *f, struct buf *out);

/*
 * A plugin's options against a deployment's config: type, range, required, unknown keys with a
 * suggestion, each with file:line:column. `options_json` is the array that `salver inspect --json`
 * prints under "options": [{"name","type","flags","fallback","min","max","help"}]. No options
 * (NULL or []) = any key is taken. SV_PATH values become absolute (relative to the file's folder);
 * a missing one is a warning. *ret_json: the config with fallbacks filled in, dotted names nested,
 * on f->arena. Adds what it finds to f->report; err as conf_load's.
 */
int conf_check_options(struct conf_file *f, const struct conf_deployment *d,
                       const char *options_json, const char **ret_json, struct err *err);

// The file of `salver serve --plugin NAME --KEY VALUE ...` (design section 4). A KEY may be written
// with '-' for '_'. Messages name --KEY where a file's would name a line.
int conf_from_flags(const char *plugin, const char *const *keys, const char *const *values,
                    uint32_t n, struct conf_file *ret, struct err *err);

bool conf_is_loopback(const char *host); // "localhost" or a numeric address

// Everybody who reaches another address than loopback may use the models, since no keys are set:
// strict refuses that unless http.allow_unauthenticated, else it is a warning in f->report.
int conf_host_check(struct conf_file *f, bool strict, struct err *err);

// Where the key `dotted` of a deployment's config was written; the config's own place if nowhere.
struct place conf_where_of(const struct conf_deployment *d, const char *dotted);

// What holds, defaults and all, as YAML that loads to the same. Secrets are shown as ***.
void conf_dump(const struct conf_file *f, struct buf *out);
void conf_defaults(struct buf *out); // every key, default, unit and meaning, as YAML that loads
void conf_doc(struct buf *out);      // docs/config.md
void conf_http_json(const struct conf_file *f, struct buf *out); // "http" of an ingress's orders
// "warmup_requests" of a worker's orders: [{"method","path","content_type","body","expect_status"}]
void conf_warmups_json(const struct conf_deployment *d, struct buf *out);
