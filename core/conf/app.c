// SPDX-License-Identifier: Apache-2.0
#include "conf/app.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "conf/cross.h"
#include "conf/resolve.h"
#include "conf/tables.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void load_tree(struct conf_file *f, struct yaml_node *root);

static void file_init(struct conf_file *f, const char *path)
{
    *f = (struct conf_file){0};
    arena_init(&f->arena, 0); // the file's size, nodes and texts are bounded
    f->report = arena_alloc(&f->arena, sizeof *f->report);
    report_init(f->report, &f->arena);
    f->path = arena_strdup(&f->arena, path);
}

// The folder of `path`, absolute where it exists.
static void set_dir(struct conf_file *f)
{
    const char *slash = strrchr(f->path, '/');
    char full[PATH_MAX];
    const char *dir = !slash ? "."
                      : slash == f->path
                          ? "/"
                          : arena_strndup(&f->arena, f->path, (size_t)(slash - f->path));

    f->dir = arena_strdup(&f->arena, realpath(dir, full) ? full : slash ? dir : "");
}

static int read_file(const char *path, struct buf *out, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t got = 1;

    if (fd < 0)
        return err_set(err, SV_E_INVALID, "%s: %s", path, err_errno(errno));
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return err_set(err, SV_E_INVALID, "%s: is a folder; name the YAML file in it", path);
    }
    while (got > 0 && buf_len(out) <= CONF_FILE_MAX) {
        got = read(fd, buf_reserve(out, 64 << 10), 64 << 10);
        if (got > 0)
            buf_commit(out, (size_t)got);
        else if (got < 0 && errno == EINTR)
            got = 1;
    }
    int why = errno;
    close(fd);
    if (got < 0)
        return err_set(err, SV_E_INVALID, "%s: %s", path, err_errno(why));
    return 0;
}

int conf_load(const char *path, struct conf_file *ret, struct err *err)
{
    struct buf text = {0};
    struct err why = {0};
    int rc;

    if (read_file(path, &text, &why) < 0) {
        file_init(ret, path);
        report_error(ret->report, (struct place){ret->path, 0, 0}, "%s",
                     why.msg + strlen(path) + 2);
        rc = report_result(ret->report, err);
    } else {
        rc = conf_load_bytes(path, buf_head(&text), buf_len(&text), ret, err);
    }
    buf_finish(&text);
    return rc;
}

int conf_load_bytes(const char *path, const char *p, size_t n, struct conf_file *ret,
                    struct err *err)
{
    file_init(ret, path);
    set_dir(ret);
    if (n > CONF_FILE_MAX) {
        report_error(ret->report, (struct place){ret->path, 0, 0},
                     "larger than %d KiB, which a configuration may have", CONF_FILE_MAX >> 10);
    } else {
        struct yaml_node *root = yaml_parse(path, p, n, ret->report);
        if (root)
            load_tree(ret, root);
    }
    report_sort(ret->report);
    return report_result(ret->report, err);
}

// --- from a tree to structs

// A RayService holds our file as the text below one of its keys.
static bool is_wrapped(struct conf_file *f, const struct yaml_node *root)
{
    if (!yaml_get(root, "serveConfigV2") &&
        !(yaml_get(root, "apiVersion") && yaml_get(root, "kind")))
        return false;
    report_error(f->report, root->at,
                 "this is a Kubernetes resource; put what stands below its 'serveConfigV2: |' into "
                 "a file of its own");
    return true;
}

static void resolve_config(struct resolve *r, const struct yaml_node *deployment)
{
    static const char *const keys[] = {"config", "user_config"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct yaml_node *config = yaml_get(deployment, keys[i]);
        if (config)
            resolve_files(r, config);
    }
}

static void resolve_tree(struct conf_file *f, struct yaml_node *root)
{
    struct resolve r = {.report = f->report, .dir = f->dir};
    const struct yaml_node *apps = yaml_get(root, "applications");

    resolve_env(&r, root);
    for (uint32_t i = 0; apps && apps->kind == YAML_SEQ && i < apps->n; i++) {
        const struct yaml_node *list = yaml_get(apps->items[i], "deployments");
        for (uint32_t k = 0; list && list->kind == YAML_SEQ && k < list->n; k++)
            resolve_config(&r, list->items[k]);
    }
}

static void set_config(struct conf_file *f, struct conf_deployment *d)
{
    struct buf json = {0};

    if (d->config_node)
        yaml_json(d->config_node, &json);
    else
        buf_puts(&json, "{}");
    d->config_json = arena_strndup(&f->arena, buf_head(&json), buf_len(&json));
    d->config = cJSON_Parse(d->config_json);
    buf_finish(&json);
}

static void load_tree(struct conf_file *f, struct yaml_node *root)
{
    struct field_reader reader = {.report = f->report, .root = &conf_root_table};

    f->root = root;
    if (root->kind != YAML_MAP) {
        report_error(f->report, root->at, "%s; a configuration begins with 'applications:'",
                     root->kind == YAML_NULL ? "the file is empty" : "the file is no mapping");
        return;
    }
    if (is_wrapped(f, root))
        return;
    resolve_tree(f, root);
    field_defaults(&conf_root_table, f, &f->arena);
    field_read(&reader, &conf_root_table, root, f);
    cross_check(f);
    if (f->report->n_errors)
        return;
    for (uint32_t i = 0; i < f->n_apps; i++)
        for (uint32_t k = 0; k < f->apps[i].n_deployments; k++)
            set_config(f, &f->apps[i].deployments[k]);
}

void conf_finish(struct conf_file *f)
{
    for (uint32_t i = 0; i < f->n_apps; i++)
        for (uint32_t k = 0; k < f->apps[i].n_deployments; k++)
            cJSON_Delete((cJSON *)(uintptr_t)f->apps[i].deployments[k].config);
    arena_finish(&f->arena);
    *f = (struct conf_file){0};
}

void conf_print(const struct conf_file *f, struct buf *out)
{
    uint32_t shown = 0;

    for (uint32_t i = 0; f->report && i < f->report->n; i++) {
        buf_printf(out, "%s\n", f->report->lines[i].text);
        shown += !f->report->lines[i].warning;
    }
    if (f->report && f->report->n_errors > shown)
        buf_printf(out, "%s: %u more errors\n", f->path, f->report->n_errors - shown);
}

// --- a plugin and its options as flags

// Option names have '_' where a shell's user writes '-'.
static char *flag_key(struct conf_file *f, const char *flag)
{
    char *key = arena_strdup(&f->arena, flag);

    for (char *c = key; *c; c++)
        if (*c == '-')
            *c = '_';
    return key;
}

static struct yaml_node *flag_value(struct conf_file *f, struct place at, const char *text)
{
    if (!str_valid_utf8(text, strlen(text)) || strlen(text) > CONF_FILE_MAX) {
        report_error(f->report, at, "the value is no UTF-8 text of at most %d bytes",
                     CONF_FILE_MAX);
        return NULL;
    }
    if (*text == '[' || *text == '{')
        return yaml_parse(at.file, text, strlen(text), f->report);
    struct yaml_node *node = yaml_scalar(&f->arena, at, text);
    if (!*text) { // an empty argument is an empty text, not nothing
        node->kind = YAML_TEXT;
        node->plain = false;
    }
    return node;
}

static struct yaml_node *flags_config(struct conf_file *f, const char *const *keys,
                                      const char *const *values, uint32_t n)
{
    struct yaml_node *config = yaml_map(&f->arena, (struct place){f->path, 0, 0}, n);

    for (uint32_t i = 0; i < n; i++) {
        struct place at = {arena_printf(&f->arena, "--%s", keys[i]), 0, 0};
        const char *key = flag_key(f, keys[i]);
        struct yaml_node *value = flag_value(f, at, values[i]);
        if (yaml_get(config, key))
            report_error(f->report, at, "stands here twice");
        else if (value)
            yaml_add(config, key, value);
    }
    return config;
}

// models/Qwen2.5-0.5B.gguf -> Qwen2.5-0.5B: an extension begins with a letter.
static const char *model_name(struct conf_file *f, const char *model)
{
    char *path = arena_strdup(&f->arena, model);
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        path[--n] = '\0';
    char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    if (dot && dot > base && ((dot[1] >= 'a' && dot[1] <= 'z') || (dot[1] >= 'A' && dot[1] <= 'Z')))
        *dot = '\0';
    return cross_name(&f->arena, base);
}

static struct yaml_node *list_of(struct arena *arena, struct yaml_node *item)
{
    struct yaml_node *list = arena_alloc(arena, sizeof *list);

    list->kind = YAML_SEQ;
    list->at = item->at;
    list->items = arena_alloc(arena, sizeof(struct yaml_node *));
    list->items[0] = item;
    list->n = 1;
    return list;
}

static struct yaml_node *flags_tree(struct conf_file *f, const char *plugin,
                                    struct yaml_node *config)
{
    struct place at = {f->path, 0, 0}, named = {"--plugin", 0, 0};
    struct arena *arena = &f->arena;
    const struct yaml_node *model = yaml_get(config, "model");
    const char *base = strrchr(plugin, '/');
    const char *name = model && model->text ? model->text : base ? base + 1 : plugin;
    struct yaml_node *root = yaml_map(arena, at, 1), *app = yaml_map(arena, at, 2),
                     *deployment = yaml_map(arena, at, 2);

    yaml_add(deployment, "name", yaml_scalar(arena, named, model_name(f, name)));
    yaml_add(deployment, "config", config);
    yaml_add(app, "plugin", yaml_scalar(arena, named, plugin));
    yaml_add(app, "deployments", list_of(arena, deployment));
    yaml_add(root, "applications", list_of(arena, app));
    return root;
}

int conf_from_flags(const char *plugin, const char *const *keys, const char *const *values,
                    uint32_t n, struct conf_file *ret, struct err *err)
{
    file_init(ret, "command line");
    set_dir(ret);
    if (n > CONF_FLAGS_MAX)
        report_error(ret->report, (struct place){ret->path, 0, 0},
                     "%u options; at most %d are taken", n, CONF_FLAGS_MAX);
    else
        load_tree(ret, flags_tree(ret, plugin, flags_config(ret, keys, values, n)));
    return report_result(ret->report, err);
}

// --- places

struct place conf_where_of(const struct conf_deployment *d, const char *dotted)
{
    const struct yaml_node *node = d->config_node;
    const struct yaml_pair *pair = yaml_pair(node, dotted);
    const char *rest = dotted;

    while (!pair && node && strchr(rest, '.')) {
        size_t n = strcspn(rest, ".");
        const struct yaml_node *inner = NULL;
        for (uint32_t i = 0; node->kind == YAML_MAP && i < node->n; i++)
            if (strlen(node->pairs[i].key) == n && strncmp(node->pairs[i].key, rest, n) == 0)
                inner = node->pairs[i].value;
        rest += n + 1;
        node = inner;
        pair = yaml_pair(node, rest);
    }
    return pair ? pair->value->at : d->config_where;
}

// --- who may connect

bool conf_is_loopback(const char *host)
{
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

int conf_host_check(struct conf_file *f, bool strict, struct err *err)
{
    const struct yaml_node *http = yaml_get(f->root, "http_options"),
                           *host = yaml_get(http, "host");
    bool from_file = host && host->text && strcmp(host->text, f->http.host) == 0;
    struct place at = from_file ? host->at : (struct place){"--host", 0, 0};

    if (conf_is_loopback(f->http.host) || f->http.allow_unauthenticated)
        return 0;
    const char *text = arena_printf(
        &f->arena,
        "host %s lets everybody who reaches this machine use the models, since no keys "
        "are set: listen on 127.0.0.1, or allow it with --allow-unauthenticated",
        f->http.host);
    if (strict)
        report_error(f->report, at, "%s", text);
    else
        report_warn(f->report, at, "%s", text);
    report_sort(f->report);
    return report_result(f->report, err);
}
