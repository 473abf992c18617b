#pragma once
/*
 * app - what one YAML file asks for, checked: the structs whose tables stand in app.c.
 *
 * Source   Ray Serve's serveConfigV2 (names, defaults) with `plugin:` for `import_path:`; our own
 *          keys are marked "ours" in the tables.
 * Owner    everything hangs on conf_file.arena; nothing here changes after conf_load.
 * Thread   one at a time while it is loaded, then read-only.
 */
#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct cJSON;
struct err;

enum {
    CONF_FILE_MAX = 1 << 20,   // bytes of a YAML file
    CONF_DEPTH_MAX = 32,       // nesting
    CONF_NODES_MAX = 100000,   // scalars and containers, aliases counted each time
    CONF_APPS_MAX = 1000,
    CONF_DEPLOYMENTS_MAX = 64, // an application
    CONF_INGRESS_MAX = 64,
    CONF_QUEUE_DEFAULT = 10000,          // max_queued_requests: -1 means this many an ingress,
    CONF_QUEUE_BYTES_DEFAULT = 256 << 20 // and this many bytes
};

struct conf_http {
    const char *host;          // 127.0.0.1
    uint32_t port;             // 8000
    const char *root_path;     // ""
    double request_timeout_s;  // 0 = none
    double keep_alive_timeout_s;       // 90
    uint32_t num_ingress;              // ours: 1
    bool allow_unauthenticated;        // set by --allow-unauthenticated alone
    uint32_t max_connections;          // ours: 10000
    uint32_t max_connections_per_address; // ours: 256, loopback is not counted
    uint32_t max_request_line_bytes;   // ours: 8 KiB
    uint32_t max_header_bytes;         // ours: 32 KiB
    uint32_t max_headers;              // ours: 64
    uint64_t max_body_bytes;           // ours: 16 MiB
    double header_timeout_s;           // ours: 10
    double body_timeout_s;             // ours: 10 s without 1 KiB/s
    double write_timeout_s;            // ours: 30: a client that takes nothing for so long is cut off
};

struct conf_logging {
    bool json;         // encoding: TEXT | JSON
    int level;         // enum log_level; log_level: DEBUG INFO WARNING ERROR
    bool access_log;   // enable_access_log: true
};

struct conf_autoscaling { // accepted and checked; acted upon when the control plane scales
    uint32_t min_replicas, max_replicas, initial_replicas;
    double target_ongoing_requests, look_back_period_s, upscale_delay_s, downscale_delay_s,
        downscale_to_zero_delay_s, upscaling_factor, downscaling_factor;
};

struct conf_deployment {
    const char *name;
    const char *plugin;         // its own or the application's
    uint32_t num_replicas;      // 1; "auto" and autoscaling: initial or min, at least 1 for now
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
    double num_gpus;                    // ray_actor_options.num_gpus; < 0 = not said
    const char *config_json;            // `config:` with `user_config:` on top, as a JSON object
    struct conf_where {
        const char *file;
        uint32_t line, column;
    } where, config_where;
    const struct cJSON *config;   // the same as a tree; conf_where_of finds the place of a key
};

struct conf_app {
    const char *name;         // "default"
    const char *route_prefix; // "/"; NULL = not exposed
    const char *plugin;
    struct conf_deployment *deployments; // the one that counts is deployments[active]
    uint32_t n_deployments, active;
    struct conf_where where;
};

struct conf_file {
    struct arena arena;
    const char *path, *dir; // dir: relative paths in `config:` start here
    struct conf_http http;
    struct conf_logging logging;
    double orphan_timeout_s; // 60
    struct conf_app *apps;
    uint32_t n_apps;
    char **warnings; // "file:line:column: text", for Ray fields without a meaning here
    uint32_t n_warnings;
    void *doc; // the parsed YAML tree, for places; conf/yaml.h
};

// Reads, resolves ${ENV} and file: references, checks against the tables (not the plugins'
// options: conf_check_options). On failure err holds "file:line:column: ..."; when there are
// several, all are in `err`'s text or, in full, in ret_errors (may be NULL; owned by the caller).
int conf_load(const char *path, struct conf_file *ret, struct err *err);
void conf_finish(struct conf_file *f);

/*
 * A plugin's options against a deployment's config: type, range, required, unknown keys with a
 * suggestion, each with file:line:column. `options_json` is the array that `salver inspect --json`
 * prints under "options": [{"name","type","flags","fallback","min","max","help"}]. No options
 * (NULL or []) = any key is taken. SV_PATH values become absolute (relative to the file's folder).
 * *ret_json: the config with fallbacks filled in, dotted names nested, on f->arena.
 */
int conf_check_options(struct conf_file *f, const struct conf_deployment *d,
                       const char *options_json, const char **ret_json, struct err *err);

// Builds the file of `salver serve --plugin NAME --KEY VALUE ...` (design section 4).
int conf_from_flags(const char *plugin, const char *const *keys, const char *const *values,
                    uint32_t n, struct conf_file *ret, struct err *err);
