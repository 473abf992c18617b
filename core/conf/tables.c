// SPDX-License-Identifier: Apache-2.0
// Names, defaults and reload classes are Ray Serve's (ray.serve.schema) unless marked as ours.
#include "conf/tables.h"

#include "conf/app.h"

#include <math.h>

#define DAY       86400.0
#define YEAR      (366 * DAY)
#define KIB       1024.0
#define MIB       (1024 * KIB)
#define GIB       (1024 * MIB)
#define TIB       (1024 * GIB)
#define COUNT_MAX 1000000.0

static const struct field http_fields[] = {
    FIELD(conf_http, host, TEXT, .def = "127.0.0.1",
          .doc = "Address to listen on: IPv4, IPv6 or localhost. Another one than loopback needs "
                 "--allow-unauthenticated."),
    FIELD(conf_http, port, WHOLE, .min = 1, .max = 65535, .def = "8000",
          .doc = "TCP port to listen on."),
    FIELD(conf_http, root_path, TEXT, .def = "",
          .doc = "Put before every route prefix, such as /api."),
    FIELD(conf_http, request_timeout_s, SECONDS, .max = YEAR, .def = "0", .flags = FIELD_NULLABLE,
          .doc = "A request that is not answered in full by then ends with 504. 0 or null: none."),
    FIELD(conf_http, keep_alive_timeout_s, SECONDS, .min = 1, .max = DAY, .def = "90",
          .doc = "An idle connection is closed after this long."),
    FIELD(conf_http, num_ingress, WHOLE, .min = 1, .max = CONF_INGRESS_MAX, .def = "1",
          .unit = "processes", .flags = FIELD_OURS,
          .doc = "Ingress processes. One carries most machines."),
    FIELD(conf_http, max_connections, WHOLE, .min = 1, .max = COUNT_MAX, .def = "10000",
          .unit = "connections", .flags = FIELD_OURS,
          .doc = "Open connections of one ingress; a further one is answered 503 and closed."),
    FIELD(conf_http, max_connections_per_address, WHOLE, .min = 1, .max = COUNT_MAX, .def = "256",
          .unit = "connections", .flags = FIELD_OURS,
          .doc = "Open connections of one client address. Loopback is not counted."),
    FIELD(conf_http, max_request_line_bytes, BYTES, .min = 256, .max = MIB, .def = "8KiB",
          .flags = FIELD_OURS, .doc = "Method, target and version; longer is 414."),
    FIELD(conf_http, max_header_bytes, BYTES, .min = KIB, .max = MIB, .def = "32KiB",
          .flags = FIELD_OURS, .doc = "All header lines of a request together; more is 431."),
    FIELD(conf_http, max_headers, WHOLE, .min = 8, .max = 1024, .def = "64", .unit = "lines",
          .flags = FIELD_OURS, .doc = "Header lines of a request; more is 431."),
    FIELD(conf_http, max_body_bytes, BYTES, .min = 1, .max = TIB, .def = "16MiB",
          .flags = FIELD_OURS, .doc = "Body of a request; larger is 413."),
    FIELD(conf_http, max_buffered_bytes, BYTES, .min = MIB, .max = TIB, .def = "1GiB",
          .flags = FIELD_OURS,
          .doc = "Bodies of all open requests of one ingress; what would pass it is 503."),
    FIELD(conf_http, header_timeout_s, SECONDS, .min = 0.1, .max = 3600, .def = "10",
          .flags = FIELD_OURS,
          .doc = "From the first byte of a request to the end of its headers."),
    FIELD(conf_http, body_timeout_s, SECONDS, .min = 0.1, .max = 3600, .def = "10",
          .flags = FIELD_OURS, .doc = "A body may come slower than 1 KiB/s for this long."),
    FIELD(conf_http, write_timeout_s, SECONDS, .min = 0.1, .max = 3600, .def = "30",
          .flags = FIELD_OURS,
          .doc = "A client that takes less than 1 KiB/s for this long is cut off."),
#define NO_TLS                                                                                     \
    .type = FIELD_NONE, .flags = FIELD_REFUSED,                                                    \
    .doc = "this server speaks no TLS; let a proxy in front of it do so and remove the line"
    {.name = "ssl_keyfile", NO_TLS},
    {.name = "ssl_certfile", NO_TLS},
    {.name = "ssl_keyfile_password", NO_TLS},
    {.name = "ssl_ca_certs", NO_TLS},
    FIELD_RAY("location", "every machine listens that runs the server."),
    FIELD_RAY("num_cpus", "processes take no reservations."),
    FIELD_RAY("middlewares", "they are Python objects."),
    {0},
};

const struct field_table conf_http_table = {
    .name = "http_options",
    .doc = "How clients reach the server. Read once, when it starts.",
    .size = sizeof(struct conf_http),
    .fields = http_fields,
};

static const struct field admin_fields[] = {
    FIELD(conf_admin, host, TEXT, .def = "127.0.0.1", .flags = FIELD_OURS,
          .doc = "A loopback address: everybody on this machine who reaches it decides what is "
                 "served."),
    FIELD(conf_admin, port, WHOLE, .max = 65535, .def = "8265", .flags = FIELD_OURS,
          .doc = "TCP port. 0: none, the socket in the state folder alone."),
    {0},
};

static const struct field_table admin_table = {
    .name = "admin",
    .doc = "The API to deploy and to ask, at `/api/serve/applications/`; the commands use the "
           "socket `control.sock` in the state folder unless they are told otherwise. Read once, "
           "when the server starts.",
    .size = sizeof(struct conf_admin),
    .fields = admin_fields,
};

static const char *const encodings[] = {"TEXT", "JSON", NULL};
static const char *const levels[] = {"DEBUG", "INFO", "WARNING", "ERROR", NULL};

static const struct field logging_fields[] = {
    FIELD_AS(conf_logging, json, "encoding", CHOICE, .choices = encodings, .def = "TEXT",
             .doc = "Lines for people or for machines."),
    FIELD_AS(conf_logging, level, "log_level", CHOICE, .choices = levels, .def = "INFO",
             .doc = "The least level that is written."),
    FIELD_AS(conf_logging, access_log, "enable_access_log", BOOL, .def = "true",
             .doc = "One line for each request."),
    FIELD_RAY("logs_dir", "logs go to standard error."),
    FIELD_RAY("additional_log_standard_attrs", "they are attributes of Python's logging."),
    {0},
};

static const struct field_table logging_table = {
    .name = "logging_config",
    .doc = "What the server writes to standard error.",
    .size = sizeof(struct conf_logging),
    .fields = logging_fields,
};

static const char *const aggregations[] = {"mean", "max", "min", NULL};

static const struct field autoscaling_fields[] = {
    FIELD(conf_autoscaling, min_replicas, WHOLE, .max = 10000, .def = "1", .unit = "replicas",
          .reload = RELOAD_LIVE,
          .doc = "Never fewer. 0 lets the deployment sleep; its first request then waits for a "
                 "start."),
    FIELD(conf_autoscaling, max_replicas, WHOLE, .min = 1, .max = 10000, .def = "1",
          .unit = "replicas", .reload = RELOAD_LIVE, .doc = "Never more."),
    FIELD(conf_autoscaling, initial_replicas, WHOLE, .max = 10000, .unit = "replicas", .unset = -1,
          .flags = FIELD_PLAN | FIELD_NULLABLE, .reload = RELOAD_LIVE,
          .doc = "At the start; without it min_replicas."),
    FIELD(conf_autoscaling, target_ongoing_requests, NUMBER, .min = 0.01, .max = COUNT_MAX,
          .def = "2", .unit = "requests", .reload = RELOAD_LIVE,
          .doc = "Waiting and running requests per replica that scaling aims at."),
    FIELD(conf_autoscaling, look_back_period_s, SECONDS, .min = 0.1, .max = DAY, .def = "30",
          .reload = RELOAD_LIVE, .doc = "The load is taken over this long."),
    FIELD(conf_autoscaling, upscale_delay_s, SECONDS, .max = DAY, .def = "30",
          .reload = RELOAD_LIVE,
          .doc = "Load must be above the target this long before replicas are added."),
    FIELD(conf_autoscaling, downscale_delay_s, SECONDS, .max = YEAR, .def = "600",
          .reload = RELOAD_LIVE,
          .doc = "Load must be below the target this long before replicas are removed."),
    FIELD(conf_autoscaling, downscale_to_zero_delay_s, SECONDS, .max = YEAR, .unset = -1,
          .flags = FIELD_PLAN | FIELD_NULLABLE, .reload = RELOAD_LIVE,
          .doc = "The same for the last replica; without it downscale_delay_s."),
    FIELD(conf_autoscaling, upscaling_factor, NUMBER, .min = 0.001, .max = 1000, .def = "1",
          .flags = FIELD_NULLABLE, .reload = RELOAD_LIVE,
          .doc = "Gain of each step up; below 1 is gentler."),
    FIELD(conf_autoscaling, downscaling_factor, NUMBER, .min = 0.001, .max = 1000, .def = "1",
          .flags = FIELD_NULLABLE, .reload = RELOAD_LIVE,
          .doc = "Gain of each step down; below 1 is gentler."),
    FIELD_AS(conf_autoscaling, aggregation, "aggregation_function", CHOICE, .choices = aggregations,
             .def = "mean", .reload = RELOAD_LIVE,
             .doc = "How the load over look_back_period_s becomes one figure."),
    FIELD_RENAMED("target_num_ongoing_requests_per_replica", "target_ongoing_requests"),
    FIELD_RENAMED("smoothing_factor", "upscaling_factor", .also = "downscaling_factor"),
    FIELD_RENAMED("upscale_smoothing_factor", "upscaling_factor"),
    FIELD_RENAMED("downscale_smoothing_factor", "downscaling_factor"),
    FIELD_RAY("metrics_interval_s", "load is known at once, not polled."),
    FIELD_RAY("policy", "policies are Python functions."),
    FIELD_RAY("_policy", "policies are Python functions."),
    FIELD_RAY("prometheus_metrics", "they are inputs of Python policies."),
    {0},
};

static const struct field_table autoscaling_table = {
    .name = "applications[].deployments[].autoscaling_config",
    .doc = "How many replicas, by load. Excludes a number in num_replicas.",
    .size = sizeof(struct conf_autoscaling),
    .fields = autoscaling_fields,
};

static const struct field actor_fields[] = {
    FIELD(conf_deployment, num_gpus, NUMBER, .max = 64, .unset = -1, .unit = "GPUs",
          .flags = FIELD_PLAN | FIELD_NULLABLE, .reload = RELOAD_ROLLING,
          .doc = "GPUs of a replica; without it the plugin's plan says."),
    FIELD_RAY("num_cpus", "replicas share the machine's cores."),
    FIELD_RAY("memory", "a replica's memory is what its plugin plans."),
    FIELD_RAY("object_store_memory", "there is no object store."),
    FIELD_RAY("resources", "there are no custom resources."),
    FIELD_RAY("accelerator_type", "a replica takes the GPUs of its machine."),
    FIELD_RAY("label_selector", "machines have no labels."),
    FIELD_RAY("runtime_env", "plugins are native code; what they need is in `config`."),
    {0},
};

static const struct field_table actor_table = {
    .name = "applications[].deployments[].ray_actor_options",
    .doc = "What a replica needs of its machine.",
    .size = sizeof(struct conf_deployment),
    .fields = actor_fields,
};

const char *const conf_warmup_methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", NULL};

static const struct field warmup_fields[] = {
    FIELD(conf_warmup, method, CHOICE, .choices = conf_warmup_methods, .def = "POST",
          .flags = FIELD_OURS, .reload = RELOAD_LIVE, .doc = "Of the request."),
    FIELD(conf_warmup, path, TEXT, .def = "/", .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "Below the route prefix, with a query behind '?' where there is one."),
    FIELD(conf_warmup, content_type, TEXT, .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "Without it application/json for `json`, text/plain for `body`."),
    FIELD(conf_warmup, body, TEXT, .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "As it is sent, 64 KiB at most; all of a deployment 256 KiB."),
    FIELD(conf_warmup, json, TREE, .flags = FIELD_OURS | FIELD_NULLABLE | FIELD_LISTS,
          .reload = RELOAD_LIVE, .doc = "A body that is written as YAML and sent as JSON."),
    FIELD(conf_warmup, expect_status, WHOLE, .min = 200, .max = 499, .unset = 0,
          .flags = FIELD_OURS | FIELD_PLAN | FIELD_NULLABLE, .reload = RELOAD_LIVE,
          .doc = "Any other fails the start; without it one of 500 or more does."),
    {0},
};

static const struct field_table warmup_table = {
    .name = "applications[].deployments[].warmup_requests[]",
    .doc = "A request that each new replica makes of itself, in order, before it takes others. "
           "One that fails, or has no answer for load_timeout_s, fails the start.",
    .size = sizeof(struct conf_warmup),
    .fields = warmup_fields,
};

static const char *const retries[] = {"never", "safe", NULL};

static const struct field deployment_fields[] = {
    FIELD(conf_deployment, name, TEXT, .flags = FIELD_REQUIRED, .reload = RELOAD_ROLLING,
          .doc = "What it is called; unique in its application."),
    FIELD(conf_deployment, plugin, TEXT, .flags = FIELD_OURS, .reload = RELOAD_ROLLING,
          .doc = "A plugin of its own; without it the application's."),
    FIELD(conf_deployment, num_replicas, WHOLE, .min = 1, .max = 10000, .def = "1",
          .unit = "replicas", .flags = FIELD_AUTO | FIELD_NULLABLE, .reload = RELOAD_NONE,
          .unless = 1 + offsetof(struct conf_deployment, has_autoscaling),
          .doc = "Worker processes. auto: 1 to 100 by load."),
    FIELD(conf_deployment, max_ongoing_requests, WHOLE, .min = 1, .max = CONF_ONGOING_MAX,
          .unit = "requests", .flags = FIELD_PLAN, .reload = RELOAD_LIVE,
          .doc = "Requests a replica holds at once, exact over all ingresses; without it the "
                 "plugin's plan says."),
    FIELD(conf_deployment, max_queued_requests, WHOLE, .min = -1, .max = COUNT_MAX, .def = "-1",
          .unit = "requests", .reload = RELOAD_NONE,
          .doc = "Requests that wait in one ingress; more are answered 503. -1: 10000."),
    FIELD(conf_deployment, max_queued_bytes, BYTES, .min = KIB, .max = TIB, .def = "256MiB",
          .flags = FIELD_OURS, .reload = RELOAD_NONE,
          .doc = "Bodies of the requests that wait in one ingress; more are answered 503."),
    FIELD_AS(conf_deployment, config_node, "config", TREE, .flags = FIELD_OURS | FIELD_NULLABLE,
             .reload = RELOAD_ROLLING,
             .doc = "The plugin's options ('salver inspect PLUGIN.so' lists them). Those it marks "
                    "live change without a restart. Text may be ${ENV} or file:PATH."),
    FIELD_AS(conf_deployment, user_config_node, "user_config", TREE, .flags = FIELD_NULLABLE,
             .reload = RELOAD_LIVE, .doc = "Ray's name for options; laid over `config`."),
    FIELD_AS(conf_deployment, autoscaling, "autoscaling_config", TABLE, .table = &autoscaling_table,
             .present = 1 + offsetof(struct conf_deployment, has_autoscaling),
             .flags = FIELD_NULLABLE, .reload = RELOAD_LIVE, .doc = "Replicas by load."),
    {.name = "ray_actor_options",
     .type = FIELD_TABLE,
     .table = &actor_table,
     .flags = FIELD_NULLABLE,
     .reload = RELOAD_ROLLING,
     .doc = "GPUs of a replica."},
    FIELD(conf_deployment, graceful_shutdown_timeout_s, SECONDS, .max = DAY, .def = "20",
          .reload = RELOAD_LIVE, .doc = "A replica that leaves may finish its requests this long."),
    FIELD(conf_deployment, graceful_shutdown_wait_loop_s, SECONDS, .max = DAY, .def = "2",
          .reload = RELOAD_LIVE,
          .doc = "Accepted; the end of the last request is noticed at once."),
    FIELD(conf_deployment, health_check_period_s, SECONDS, .min = 0.1, .max = DAY, .def = "10",
          .reload = RELOAD_LIVE, .doc = "How often an idle replica's plugin is asked."),
    FIELD(conf_deployment, health_check_timeout_s, SECONDS, .min = 0.1, .max = DAY, .def = "30",
          .reload = RELOAD_LIVE, .doc = "A plugin that does not answer by then is replaced."),
    FIELD_AS(conf_deployment, retry_safe, "retry", CHOICE, .choices = retries, .def = "never",
             .flags = FIELD_OURS, .reload = RELOAD_NONE,
             .doc = "safe: a request whose replica died before the first byte of its answer is "
                    "given to another one, once."),
    FIELD(conf_deployment, max_batch_size, WHOLE, .min = 1, .max = CONF_ONGOING_MAX,
          .unit = "requests", .flags = FIELD_OURS | FIELD_PLAN, .reload = RELOAD_LIVE,
          .doc = "Requests of one batch; without it the plugin's plan says."),
    FIELD(conf_deployment, batch_wait_timeout_s, SECONDS, .max = 60, .unset = -1,
          .flags = FIELD_OURS | FIELD_PLAN, .reload = RELOAD_LIVE,
          .doc = "A batch that is not full waits this long; without it the plugin's plan says."),
    FIELD(conf_deployment, concurrency, WHOLE, .min = 1, .max = CONF_CONCURRENCY_MAX,
          .unit = "threads", .flags = FIELD_OURS | FIELD_PLAN, .reload = RELOAD_ROLLING,
          .doc = "Batches a replica runs at once; without it the plugin's plan says."),
    FIELD(conf_deployment, load_timeout_s, SECONDS, .min = 0.1, .max = DAY, .def = "60",
          .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "A plugin that loads and shows no progress for this long is replaced."),
    FIELD(conf_deployment, stall_timeout_s, SECONDS, .min = 0.1, .max = DAY, .def = "10",
          .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "A busy plugin that makes no call for this long is replaced."),
    FIELD(conf_deployment, run_timeout_s, SECONDS, .min = 0.1, .max = DAY, .def = "300",
          .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "A batch that runs longer has its replica replaced."),
    FIELD(conf_deployment, max_response_buffer_bytes, BYTES, .min = 64 * KIB, .max = GIB,
          .def = "4MiB", .flags = FIELD_OURS, .reload = RELOAD_LIVE,
          .doc = "Output of one request that waits for its client; the plugin is held back there."),
    FIELD_AS(conf_deployment, warmups, "warmup_requests", LIST, .table = &warmup_table,
             .count = offsetof(struct conf_deployment, n_warmups), .items_max = CONF_WARMUPS_MAX,
             .flags = FIELD_OURS | FIELD_NULLABLE, .reload = RELOAD_LIVE,
             .doc = "What a new replica must answer before it takes requests."),
    FIELD(conf_deployment, rolling_update_percentage, NUMBER, .min = 0.001, .max = 1, .def = "0.2",
          .reload = RELOAD_NONE,
          .doc = "The share of the replicas that an update replaces at a time, one at least."),
    FIELD_RENAMED("max_concurrent_queries", "max_ongoing_requests"),
    FIELD_RAY("placement_group_bundles", "a replica is one process on one machine."),
    FIELD_RAY("placement_group_strategy", "a replica is one process on one machine."),
    FIELD_RAY("placement_group_bundle_label_selector", "machines have no labels."),
    FIELD_RAY("placement_group_fallback_strategy", "a replica is one process on one machine."),
    FIELD_RAY("max_replicas_per_node", "replicas go where there is room."),
    FIELD_RAY("request_router_config", "requests go to the replica with the fewest in flight."),
    FIELD_RAY("logging_config", "it stands once, at the top of the file."),
    FIELD_RAY("max_constructor_retry_count",
              "a replica that fails is started again, ever more slowly."),
    FIELD_RAY("gang_scheduling_config", "a replica is one process on one machine."),
    FIELD_RAY("deployment_actors", "there are no actors."),
    FIELD_RAY("version", "what changed is seen by itself."),
    FIELD_RAY("is_driver_deployment", "there is no driver."),
    {0},
};

const struct field_table conf_deployment_table = {
    .name = "applications[].deployments[]",
    .doc = "One plugin with its options, and how much of it. An application runs one deployment: "
           "of several under one plugin the one that asks for GPUs counts, else the first.",
    .size = sizeof(struct conf_deployment),
    .fields = deployment_fields,
};

static const struct field app_fields[] = {
    FIELD(conf_app, name, TEXT, .def = "default", .reload = RELOAD_ROLLING,
          .doc = "Unique in the file."),
    FIELD(conf_app, route_prefix, TEXT, .def = "/", .flags = FIELD_NULLABLE, .reload = RELOAD_NONE,
          .doc = "Requests whose path begins with it are this application's; the longest match "
                 "wins. null: not reachable by a path."),
    FIELD(conf_app, plugin, TEXT, .flags = FIELD_OURS, .reload = RELOAD_ROLLING,
          .doc = "NAME of NAME.so in a plugin folder, or a path with a slash, relative to this "
                 "file. Stands in the place of Ray's import_path."),
    FIELD_AS(conf_app, deployments, "deployments", LIST, .table = &conf_deployment_table,
             .count = offsetof(struct conf_app, n_deployments), .items_max = CONF_DEPLOYMENTS_MAX,
             .flags = FIELD_NULLABLE, .reload = RELOAD_NONE,
             .doc = "Without it one deployment with the plugin's name and all defaults."),
    // Warned of or refused in app.c, where it is known whether `plugin` stands there too.
    {.name = "import_path", .type = FIELD_NONE, .doc = "Names Python code; write plugin."},
    FIELD_RAY("runtime_env", "plugins are native code; what they need is in `config`."),
    FIELD_RAY("args", "a plugin's options are its deployment's `config`."),
    FIELD_RAY("logging_config", "it stands once, at the top of the file."),
    FIELD_RAY("autoscaling_policy", "policies are Python functions."),
    FIELD_RAY("external_scaler_enabled", "replicas are counted in this file."),
    {.name = "host",
     .type = FIELD_NONE,
     .flags = FIELD_REFUSED,
     .doc = "all applications share one address; write it under http_options"},
    {.name = "port",
     .type = FIELD_NONE,
     .flags = FIELD_REFUSED,
     .doc = "all applications share one port; write it under http_options"},
    {0},
};

const struct field_table conf_app_table = {
    .name = "applications[]",
    .doc = "A plugin behind a route prefix.",
    .size = sizeof(struct conf_app),
    .fields = app_fields,
};

static const struct field root_fields[] = {
    FIELD_AS(conf_file, http, "http_options", TABLE, .table = &conf_http_table,
             .flags = FIELD_NULLABLE, .doc = "How clients reach the server."),
    FIELD(conf_file, admin, TABLE, .table = &admin_table, .flags = FIELD_NULLABLE | FIELD_OURS,
          .doc = "Where the admin API listens."),
    FIELD_AS(conf_file, logging, "logging_config", TABLE, .table = &logging_table,
             .flags = FIELD_NULLABLE, .doc = "What the server writes."),
    FIELD(conf_file, orphan_timeout_s, SECONDS, .min = 1, .max = DAY, .def = "60",
          .flags = FIELD_OURS,
          .doc = "Without a supervisor the other processes serve on this long, then drain."),
    FIELD_AS(conf_file, apps, "applications", LIST, .table = &conf_app_table,
             .count = offsetof(struct conf_file, n_apps), .items_max = CONF_APPS_MAX,
             .flags = FIELD_REQUIRED, .reload = RELOAD_NONE,
             .doc = "What is served; [] is nothing."),
    FIELD_RAY("proxy_location", "every machine listens that runs the server."),
    FIELD_RAY("grpc_options", "gRPC is not served."),
    FIELD_RAY("target_capacity", "replicas are counted by their deployments."),
    {0},
};

const struct field_table conf_root_table = {
    .doc = "Ray Serve's serveConfigV2 with `plugin` in the place of `import_path`.",
    .size = sizeof(struct conf_file),
    .fields = root_fields,
};
