// SPDX-License-Identifier: Apache-2.0
// conf_check_options: a plugin's options against the config of a deployment.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "conf/app.h"
#include "conf/field.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    OPTIONS_MAX = 1024, // of a plugin
    DOTTED_MAX = 512,   // bytes of a dotted name
    LISTED_MAX = 12     // options that a message lists
};

struct option {
    struct field field; // name, range and what it wants, in the engine's words
    int type;           // SV_STR ...
    bool required, seen;
    const char *fallback, *help;
};

struct checker {
    struct conf_file *f;
    const struct conf_deployment *d;
    struct option *options;
    uint32_t n;
    struct yaml_node *out;
};

static int read_options(struct checker *c, const cJSON *list, struct err *err);
static void walk(struct checker *c, const struct yaml_node *map, const char *prefix);
static void fill_in(struct checker *c);

int conf_check_options(struct conf_file *f, const struct conf_deployment *d,
                       const char *options_json, const char **ret_json, struct err *err)
{
    struct checker c = {.f = f, .d = d};
    cJSON *list = options_json ? cJSON_Parse(options_json) : NULL;
    uint32_t errors = f->report->n_errors;
    struct buf json = {0};
    int rc = 0;

    if (options_json && !cJSON_IsArray(list))
        rc = err_set(err, SV_E_INVALID, "the options of plugin '%s' are no JSON array", d->plugin);
    else if (cJSON_GetArraySize(list) == 0)
        *ret_json = d->config_json;
    else
        rc = read_options(&c, list, err);
    if (rc == 0 && c.n) {
        c.out = yaml_map(&f->arena, d->config_where, c.n);
        if (d->config_node)
            walk(&c, d->config_node, "");
        fill_in(&c);
        report_sort(f->report);
        if (f->report->n_errors > errors)
            rc = report_result(f->report, err);
        yaml_json(c.out, &json);
        if (rc == 0)
            *ret_json = arena_strndup(&f->arena, buf_head(&json), buf_len(&json));
    }
    buf_finish(&json);
    cJSON_Delete(list);
    return rc;
}

// --- what the plugin says

static double number_of(const cJSON *row, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static const char *text_of(struct checker *c, const cJSON *row, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsString(v) ? arena_strdup(&c->f->arena, v->valuestring) : NULL;
}

static int read_option(struct checker *c, const cJSON *row, struct option *o, struct err *err)
{
    static const enum field_type types[] = {
        [SV_STR] = FIELD_TEXT,  [SV_INT] = FIELD_WHOLE,   [SV_NUM] = FIELD_NUMBER,
        [SV_BOOL] = FIELD_BOOL, [SV_BYTES] = FIELD_BYTES, [SV_TIME] = FIELD_SECONDS,
        [SV_PATH] = FIELD_TEXT, [SV_JSON] = FIELD_TREE,
    };
    double type = number_of(row, "type");

    o->field.name = text_of(c, row, "name");
    if (!o->field.name || strlen(o->field.name) >= DOTTED_MAX || type < 0 || type > SV_JSON)
        return err_set(err, SV_E_INVALID,
                       "option %u of plugin '%s' has no name, or a type that is not known", c->n,
                       c->d->plugin);
    o->type = (int)type;
    o->field.type = types[o->type];
    o->field.min = number_of(row, "min");
    o->field.max = number_of(row, "max");
    if (o->field.max < o->field.min)
        o->field.max = (double)INFINITY;
    o->required = (uint32_t)number_of(row, "flags") & SV_REQUIRED;
    o->fallback = text_of(c, row, "fallback");
    o->help = text_of(c, row, "help");
    return 0;
}

static struct option *find_option(struct checker *c, const char *name)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (strcmp(c->options[i].field.name, name) == 0)
            return &c->options[i];
    return NULL;
}

static bool has_below(const struct checker *c, const char *prefix)
{
    size_t n = strlen(prefix);

    for (uint32_t i = 0; i < c->n; i++)
        if (strncmp(c->options[i].field.name, prefix, n) == 0 && c->options[i].field.name[n] == '.')
            return true;
    return false;
}

// A name twice, or `a` beside `a.b`, leaves no way to nest the values.
static int check_names(struct checker *c, struct err *err)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const char *name = c->options[i].field.name;
        if (find_option(c, name) != &c->options[i] || has_below(c, name))
            return err_set(err, SV_E_INVALID,
                           "plugin '%s' has the option '%s' twice, or one below "
                           "it",
                           c->d->plugin, name);
    }
    return 0;
}

static int read_options(struct checker *c, const cJSON *list, struct err *err)
{
    int n = cJSON_GetArraySize(list);
    const cJSON *row;

    if (n > OPTIONS_MAX)
        return err_set(err, SV_E_INVALID, "plugin '%s' has %d options; at most %d are taken",
                       c->d->plugin, n, OPTIONS_MAX);
    c->options = arena_alloc(&c->f->arena, (size_t)n * sizeof *c->options);
    cJSON_ArrayForEach(row, list)
    {
        int rc = read_option(c, row, &c->options[c->n], err);
        if (rc < 0)
            return rc;
        c->n++;
    }
    return check_names(c, err);
}

// --- values

// Puts a value under its dotted name, with mappings in between.
static void put(struct checker *c, const char *dotted, struct yaml_node *value)
{
    struct yaml_node *map = c->out;

    for (size_t n; dotted[n = strcspn(dotted, ".")]; dotted += n + 1) {
        const char *part = arena_strndup(&c->f->arena, dotted, n);
        struct yaml_node *inner = yaml_get(map, part);
        if (!inner) {
            inner = yaml_map(&c->f->arena, value->at, c->n);
            yaml_add(map, part, inner);
        }
        map = inner;
    }
    yaml_add(map, dotted, value);
}

// A relative path starts at the YAML file's folder; a URI (hf://, s3://) stays as it is.
static const char *absolute(struct checker *c, const char *path)
{
    const char *dir = c->f->dir;

    CHECK(path);
    if (*path == '/' || !*path || strstr(path, "://"))
        return path;
    return arena_printf(&c->f->arena, "%s/%s", strcmp(dir, "/") == 0 ? "" : *dir ? dir : ".", path);
}

static void warn_missing(struct checker *c, const struct option *o, const struct yaml_node *node,
                         const char *path)
{
    if (*path && !strstr(path, "://") && access(path, F_OK) != 0)
        report_warn(c->f->report, node->at, "'%s' names no file: %s does not exist", o->field.name,
                    node->secret ? "what its reference holds" : path);
}

// The checked value in the form that the plugin reads: bytes and seconds as numbers, paths
// absolute.
static struct yaml_node *convert(struct checker *c, const struct option *o, struct yaml_node *node)
{
    struct yaml_node *out = arena_alloc(&c->f->arena, sizeof *out);
    union field_value v;

    if (o->type == SV_JSON)
        return node;
    if (!field_scalar(c->f->report, &o->field, node, &v))
        return NULL;
    *out = (struct yaml_node){.at = node->at, .secret = node->secret};
    if (o->field.type == FIELD_TEXT) {
        out->kind = YAML_TEXT;
        out->text = o->type == SV_PATH ? absolute(c, v.text) : v.text;
    } else if (o->field.type == FIELD_BOOL) {
        out->kind = YAML_BOOL;
        out->boolean = v.boolean;
    } else if (o->field.type == FIELD_WHOLE || o->field.type == FIELD_BYTES) {
        out->kind = YAML_INT;
        out->whole = v.whole;
    } else {
        out->kind = YAML_NUM;
        out->number = v.number;
    }
    return out;
}

static void take(struct checker *c, struct option *o, const struct yaml_pair *pair)
{
    if (o->seen) {
        report_error(c->f->report, pair->at, "option '%s' stands here twice", o->field.name);
        return;
    }
    if (pair->value->kind == YAML_NULL) // as if it were not there
        return;
    o->seen = true;
    struct yaml_node *value = convert(c, o, pair->value);
    if (!value)
        return;
    if (o->type == SV_PATH && value->text)
        warn_missing(c, o, pair->value, value->text);
    put(c, o->field.name, value);
}

// --- keys

static const char *option_at(void *arg, size_t i)
{
    const struct checker *c = arg;
    return i < c->n ? c->options[i].field.name : NULL;
}

static void tell_unknown(struct checker *c, const struct yaml_pair *pair, const char *dotted)
{
    const char *hint = field_hint(c->f->report->arena, dotted, option_at, c);
    struct buf list = {0};

    for (uint32_t i = 0; i < c->n && i < LISTED_MAX; i++)
        buf_printf(&list, "%s%s", i ? ", " : "; it has ", c->options[i].field.name);
    if (c->n > LISTED_MAX)
        buf_puts(&list, " and more ('salver inspect' lists them)");
    report_error(c->f->report, pair->at, "plugin '%s' has no option '%s'%s", c->d->plugin, dotted,
                 *hint ? hint : buf_cstr(&list));
    buf_finish(&list);
}

static void walk(struct checker *c, const struct yaml_node *map, const char *prefix)
{
    for (uint32_t i = 0; i < map->n; i++) {
        const struct yaml_pair *pair = &map->pairs[i];
        char dotted[DOTTED_MAX];
        snprintf(dotted, sizeof dotted, "%s%s%s", prefix, *prefix ? "." : "", pair->key);
        struct option *o = find_option(c, dotted);
        if (o)
            take(c, o, pair);
        else if (pair->value->kind == YAML_MAP && has_below(c, dotted))
            walk(c, pair->value, dotted);
        else
            tell_unknown(c, pair, dotted);
    }
}

static void use_fallback(struct checker *c, const struct option *o)
{
    struct place at = {arena_printf(&c->f->arena, "plugin '%s': fallback of option '%s'",
                                    c->d->plugin, o->field.name),
                       0, 0};
    struct yaml_node *node =
        o->type == SV_JSON ? yaml_parse(at.file, o->fallback, strlen(o->fallback), c->f->report)
                           : yaml_scalar(&c->f->arena, at, o->fallback);

    if (node && node->kind == YAML_NULL && o->field.type == FIELD_TEXT)
        node->kind = YAML_TEXT; // "" as a C text is an empty text
    struct yaml_node *value = node ? convert(c, o, node) : NULL;
    if (value)
        put(c, o->field.name, value);
}

static void fill_in(struct checker *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const struct option *o = &c->options[i];
        if (o->seen)
            continue;
        if (o->fallback)
            use_fallback(c, o);
        else if (o->required)
            report_error(c->f->report, c->d->config_where,
                         "plugin '%s' needs the option '%s' under 'config:'%s%s", c->d->plugin,
                         o->field.name, o->help ? ": " : "", o->help ? o->help : "");
    }
}
