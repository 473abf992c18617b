// SPDX-License-Identifier: Apache-2.0
#include "conf/cross.h"

#include "base/buf.h"
#include "base/check.h"
#include "conf/tables.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char name_chars[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

enum { AUTO_MAX_REPLICAS = 100 }; // Ray's num_replicas: auto

static void check_host(struct conf_file *f);
static void check_admin(struct conf_file *f);
static void check_bodies(struct conf_file *f);
static void check_prefix(struct conf_file *f, struct place at, const char *key, const char *prefix);
static void check_app(struct conf_file *f, struct conf_app *app, const struct yaml_node *node);
static void check_deployment(struct conf_file *f, struct conf_deployment *d,
                             const struct yaml_node *node);
static void check_finite(struct conf_file *f, const struct yaml_node *node);

// Where the value of a key stands, or the mapping that lacks it.
static struct place place_in(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *value = yaml_get(map, key);
    return value ? value->at : map->at;
}

static void check_unique(struct conf_file *f, const struct conf_app *app, uint32_t i,
                         const struct yaml_node *node, const struct yaml_node *list)
{
    for (uint32_t k = 0; k < i; k++) {
        const struct conf_app *other = &f->apps[k];
        const struct yaml_node *first = list->items[k];
        if (app->name && other->name && strcmp(app->name, other->name) == 0)
            report_error(f->report, place_in(node, "name"),
                         "application '%s' stands here twice; the first is at line %u", app->name,
                         place_in(first, "name").line);
        if (app->route_prefix && other->route_prefix &&
            strcmp(app->route_prefix, other->route_prefix) == 0)
            report_error(f->report, place_in(node, "route_prefix"),
                         "route_prefix '%s' is taken by application '%s' at line %u%s",
                         app->route_prefix, other->name ? other->name : "",
                         place_in(first, "route_prefix").line,
                         yaml_get(node, "route_prefix") ? "" : " (it is the default)");
    }
}

void cross_check(struct conf_file *f)
{
    const struct yaml_node *list = yaml_get(f->root, "applications");
    const struct yaml_node *http = yaml_get(f->root, "http_options");

    check_host(f);
    check_admin(f);
    check_bodies(f);
    if (*f->http.root_path)
        check_prefix(f, place_in(http, "root_path"), "root_path", f->http.root_path);
    for (uint32_t i = 0; i < f->n_apps; i++) {
        if (list->items[i]->kind != YAML_MAP)
            continue;
        check_unique(f, &f->apps[i], i, list->items[i], list);
        check_app(f, &f->apps[i], list->items[i]);
    }
}

// --- http_options

static void check_bodies(struct conf_file *f)
{
    const struct conf_http *h = &f->http;
    if (h->max_buffered_bytes < h->max_body_bytes)
        report_error(f->report, place_in(yaml_get(f->root, "http_options"), "max_buffered_bytes"),
                     "max_buffered_bytes (%llu) is smaller than max_body_bytes (%llu): a body of "
                     "that size would never fit; raise the first or lower the second",
                     (unsigned long long)h->max_buffered_bytes,
                     (unsigned long long)h->max_body_bytes);
}

static void check_host(struct conf_file *f)
{
    const char *host = f->http.host;
    unsigned char address[sizeof(struct in6_addr)];

    if (strcmp(host, "localhost") == 0 || inet_pton(AF_INET, host, address) == 1 ||
        inet_pton(AF_INET6, host, address) == 1)
        return;
    report_error(f->report, place_in(yaml_get(f->root, "http_options"), "host"),
                 "'host' wants an address such as 127.0.0.1, 0.0.0.0, ::1 or localhost, not '%s'",
                 host);
}

// Whoever reaches it may run any plugin, that is any code.
static void check_admin(struct conf_file *f)
{
    if (conf_is_loopback(f->admin.host))
        return;
    report_error(f->report, place_in(yaml_get(f->root, "admin"), "host"),
                 "'host' of the admin API wants a loopback address such as 127.0.0.1, ::1 or "
                 "localhost, not '%s': whoever reaches it decides what this server runs; forward a "
                 "port to it instead",
                 f->admin.host);
}

// --- names and prefixes

static bool has_dot_segment(const char *prefix)
{
    for (const char *s = strchr(prefix, '/'); s; s = strchr(s + 1, '/')) {
        size_t n = strcspn(s + 1, "/");
        if ((n == 1 && s[1] == '.') || (n == 2 && s[1] == '.' && s[2] == '.'))
            return true;
    }
    return false;
}

// What is wrong with a prefix, or NULL.
static const char *prefix_fault(const char *prefix)
{
    size_t n = strlen(prefix);

    if (*prefix != '/')
        return "must begin with '/'";
    if (n > CONF_PREFIX_MAX)
        return "is longer than 256 bytes";
    if (n > 1 && prefix[n - 1] == '/')
        return "must not end with '/'";
    if (strpbrk(prefix, "{}"))
        return "is a plain text: patterns with { } are not known";
    if (strpbrk(prefix, "?#%*\\"))
        return "is a path alone: without ? # % * or \\";
    if (strstr(prefix, "//") || has_dot_segment(prefix))
        return "must not have empty, . or .. segments";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)prefix[i] <= ' ' || prefix[i] == 0x7f)
            return "must not have blanks";
    return NULL;
}

static void check_prefix(struct conf_file *f, struct place at, const char *key, const char *prefix)
{
    static const char *const own[] = {"/health", "/metrics", "/version"};
    const char *fault = prefix_fault(prefix);

    if (fault)
        report_error(f->report, at, "%s '%s' %s", key, prefix, fault);
    else if (strcmp(prefix, "/-") == 0 || strncmp(prefix, "/-/", 3) == 0)
        report_error(f->report, at, "%s '%s' is the server's own: paths below /-/ are reserved",
                     key, prefix);
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (strcmp(prefix, own[i]) == 0)
            report_warn(f->report, at, "%s '%s' is never reached: the server answers this path",
                        key, prefix);
}

static void check_name(struct conf_file *f, struct place at, const char *what, const char *name)
{
    size_t n = name ? strlen(name) : 1;

    if (n == 0)
        report_error(f->report, at, "the name of %s is empty", what);
    else if (n > CONF_NAME_MAX)
        report_error(f->report, at, "the name of %s has %zu bytes; at most %d are taken", what, n,
                     CONF_NAME_MAX);
    else if (name && strspn(name, name_chars) != n)
        report_error(f->report, at,
                     "the name of %s, '%s', may have letters, digits, '.', '_' and '-' alone", what,
                     name);
}

// --- applications

static void check_plugin(struct conf_file *f, const struct conf_app *app,
                         const struct yaml_node *node)
{
    const struct yaml_pair *python = yaml_pair(node, "import_path");
    const char *plugin = app->plugin;

    for (uint32_t i = 0; i < app->n_deployments && !plugin; i++)
        plugin = app->deployments[i].plugin;
    if (plugin && !*plugin)
        report_error(f->report, place_in(node, "plugin"), "'plugin' is empty: write its name");
    else if (plugin && python)
        report_warn(f->report, python->at,
                    "'import_path' means nothing here and is ignored: 'plugin: %s' stands in its "
                    "place",
                    plugin);
    else if (python)
        report_error(f->report, python->at,
                     "'import_path: %s' names Python code, which is not run here: write 'plugin: "
                     "NAME' in its place (NAME.so in a plugin folder)",
                     python->value->text ? python->value->text : "");
    else if (!plugin && !yaml_get(node, "plugin"))
        report_error(f->report, node->at,
                     "application '%s' names no plugin: add 'plugin: NAME' (NAME.so in a plugin "
                     "folder)",
                     app->name ? app->name : "");
}

const char *cross_name(struct arena *arena, const char *text)
{
    char *name = arena_strndup(arena, *text ? text : "-", CONF_NAME_MAX);

    for (char *c = name; *c; c++)
        if (!strchr(name_chars, *c))
            *c = '-';
    return name;
}

// Without `deployments`: one that is called as the plugin's file is.
static void add_deployment(struct conf_file *f, struct conf_app *app)
{
    struct conf_deployment *d = arena_alloc(&f->arena, sizeof *d);
    const char *slash = app->plugin ? strrchr(app->plugin, '/') : NULL;
    const char *base = slash ? slash + 1 : app->plugin ? app->plugin : "";
    size_t n = strlen(base);

    if (n > 3 && strcmp(base + n - 3, ".so") == 0)
        base = arena_strndup(&f->arena, base, n - 3);
    field_defaults(&conf_deployment_table, d, &f->arena);
    d->name = cross_name(&f->arena, base);
    d->plugin = app->plugin;
    d->where = d->config_where = app->where;
    app->deployments = d;
    app->n_deployments = 1;
}

static void choose_active(struct conf_file *f, struct conf_app *app)
{
    const char *why = "it is the first";

    for (uint32_t i = 0; i < app->n_deployments; i++) {
        if (app->deployments[i].num_gpus > 0) {
            app->active = i;
            why = "it asks for GPUs";
            break;
        }
    }
    const struct conf_deployment *active = &app->deployments[app->active];
    for (uint32_t i = 0; i < app->n_deployments; i++) {
        const struct conf_deployment *d = &app->deployments[i];
        if (i != app->active && d->name && active->name)
            report_warn(f->report, d->where,
                        "deployment '%s' does nothing here: an application runs one, and '%s' "
                        "counts because %s",
                        d->name, active->name, why);
    }
}

static void check_app(struct conf_file *f, struct conf_app *app, const struct yaml_node *node)
{
    const struct yaml_node *list = yaml_get(node, "deployments");

    app->where = node->at;
    check_name(f, place_in(node, "name"), "an application", app->name);
    if (app->route_prefix)
        check_prefix(f, place_in(node, "route_prefix"), "route_prefix", app->route_prefix);
    check_plugin(f, app, node);
    for (uint32_t i = 0; i < app->n_deployments; i++) {
        struct conf_deployment *d = &app->deployments[i];
        const struct yaml_node *item = list->items[i];
        if (item->kind == YAML_MAP)
            check_deployment(f, d, item);
        d->plugin_where = place_in(d->plugin ? item : node, "plugin");
        if (!d->plugin)
            d->plugin = app->plugin;
        for (uint32_t k = 0; k < i; k++)
            if (d->name && app->deployments[k].name &&
                strcmp(d->name, app->deployments[k].name) == 0)
                report_error(f->report, d->where,
                             "deployment '%s' stands here twice; the first is "
                             "at line %u",
                             d->name, app->deployments[k].where.line);
    }
    if (!app->n_deployments) {
        add_deployment(f, app);
        app->deployments->plugin_where = place_in(node, "plugin");
    }
    choose_active(f, app);
}

// --- deployments

static void check_autoscaling(struct conf_file *f, struct conf_autoscaling *a,
                              const struct yaml_node *node)
{
    bool has_initial = a->initial_replicas != UINT32_MAX;

    if (!has_initial)
        a->initial_replicas = a->min_replicas;
    if (a->downscale_to_zero_delay_s < 0)
        a->downscale_to_zero_delay_s = a->downscale_delay_s;
    if (a->min_replicas > a->max_replicas)
        report_error(f->report, place_in(node, "min_replicas"),
                     "'min_replicas' %u is more than 'max_replicas' %u%s", a->min_replicas,
                     a->max_replicas, yaml_get(node, "max_replicas") ? "" : " (its default)");
    else if (has_initial && a->initial_replicas < a->min_replicas)
        report_error(f->report, place_in(node, "initial_replicas"),
                     "'initial_replicas' %u is less than 'min_replicas' %u", a->initial_replicas,
                     a->min_replicas);
    else if (has_initial && a->initial_replicas > a->max_replicas)
        report_error(f->report, place_in(node, "initial_replicas"),
                     "'initial_replicas' %u is more than 'max_replicas' %u", a->initial_replicas,
                     a->max_replicas);
}

static void check_replicas(struct conf_file *f, struct conf_deployment *d,
                           const struct yaml_node *node)
{
    const struct yaml_node *number = yaml_get(node, "num_replicas");
    const struct yaml_node *scaling = yaml_get(node, "autoscaling_config");
    bool automatic = d->num_replicas == 0;

    if (d->has_autoscaling && !automatic && number && number->kind != YAML_NULL)
        report_error(f->report, number->at,
                     "'num_replicas: %u' and 'autoscaling_config' exclude each other: remove one, "
                     "or write 'num_replicas: auto'",
                     d->num_replicas);
    if (automatic && !yaml_get(scaling, "max_replicas"))
        d->autoscaling.max_replicas = AUTO_MAX_REPLICAS;
    d->has_autoscaling = d->has_autoscaling || automatic;
    if (!d->has_autoscaling)
        return;
    check_autoscaling(f, &d->autoscaling, scaling ? scaling : node);
    d->num_replicas = d->autoscaling.initial_replicas;
}

static bool is_visible(const char *text, char from)
{
    for (; *text; text++)
        if (*text < from || *text > '~')
            return false;
    return true;
}

// The bytes of its body.
static size_t check_warmup(struct conf_file *f, const struct conf_warmup *w,
                           const struct yaml_node *node)
{
    struct buf json = {0};

    if (*w->path != '/' || strlen(w->path) > CONF_WARMUP_PATH_MAX || !is_visible(w->path, '!'))
        report_error(f->report, place_in(node, "path"),
                     "'path' of a warm-up request begins with '/' and has at most %d visible ASCII "
                     "bytes",
                     CONF_WARMUP_PATH_MAX);
    if (w->content_type && (strlen(w->content_type) > 256 || !is_visible(w->content_type, ' ')))
        report_error(f->report, place_in(node, "content_type"),
                     "'content_type' has at most 256 visible ASCII bytes");
    if (w->body && w->json)
        report_error(f->report, place_in(node, "json"),
                     "'body' and 'json' exclude each other: remove one");
    if (w->json) {
        check_finite(f, w->json);
        yaml_json(w->json, &json);
    }
    size_t n = w->body ? strlen(w->body) : buf_len(&json);
    buf_finish(&json);
    if (n > CONF_WARMUP_BODY_MAX)
        report_error(f->report, place_in(node, w->body ? "body" : "json"),
                     "the body of a warm-up request has %zu bytes; at most %d are taken", n,
                     CONF_WARMUP_BODY_MAX);
    return n;
}

static void check_warmups(struct conf_file *f, const struct conf_deployment *d,
                          const struct yaml_node *list)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < d->n_warmups; i++)
        if (list->items[i]->kind == YAML_MAP)
            bytes += check_warmup(f, &d->warmups[i], list->items[i]);
    if (bytes > CONF_WARMUP_BODIES_MAX)
        report_error(f->report, list->at,
                     "the bodies of all warm-up requests have %zu bytes; at most %d are taken",
                     bytes, CONF_WARMUP_BODIES_MAX);
}

static void check_finite(struct conf_file *f, const struct yaml_node *node)
{
    if (node->kind == YAML_NUM && !isfinite(node->number))
        report_error(f->report, node->at, "%s is no finite number", node->text);
    for (uint32_t i = 0; i < node->n; i++)
        check_finite(f, node->kind == YAML_SEQ ? node->items[i] : node->pairs[i].value);
}

static void check_deployment(struct conf_file *f, struct conf_deployment *d,
                             const struct yaml_node *node)
{
    d->where = node->at;
    check_name(f, place_in(node, "name"), "a deployment", d->name);
    if (d->plugin && !*d->plugin)
        report_error(f->report, place_in(node, "plugin"), "'plugin' is empty: write its name");
    check_replicas(f, d, node);
    check_warmups(f, d, yaml_get(node, "warmup_requests"));
    d->config_node = yaml_merge(&f->arena, d->config_node, d->user_config_node);
    d->user_config_node = NULL;
    d->config_where = d->config_node ? d->config_node->at : d->where;
    if (d->config_node)
        check_finite(f, d->config_node);
    if (d->max_ongoing_requests && d->max_batch_size > d->max_ongoing_requests)
        report_warn(f->report, place_in(node, "max_batch_size"),
                    "'max_batch_size' %u is never reached: 'max_ongoing_requests' is %u",
                    d->max_batch_size, d->max_ongoing_requests);
}
