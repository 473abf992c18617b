// SPDX-License-Identifier: Apache-2.0
#include "control/record.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "conf/yaml.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/probe.h"
#include "control/store.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char key_desired[] = "desired";

static cJSON *get(const cJSON *j, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(j, key);
}

static const char *text_of(const cJSON *j, const char *key)
{
    return cJSON_GetStringValue(get(j, key));
}

static uint64_t whole(const cJSON *j, const char *key)
{
    const cJSON *v = get(j, key);
    return cJSON_IsNumber(v) && v->valuedouble > 0 ? (uint64_t)v->valuedouble : 0;
}

uint64_t record_order(uint64_t seq, uint32_t place)
{
    return seq * CONF_APPS_MAX + place + 1;
}

/* ---- changes ---- */

// What one change writes. Keys and texts live until it is over.
struct change {
    struct store_op ops[RECORD_SWEEP_MAX + 4];
    char keys[RECORD_SWEEP_MAX + 4][STORE_KEY_MAX + 1];
    uint32_t n;
    const cJSON *next; // desired
};

static struct store_op *add_op(struct change *ch, const char *prefix, const char *name)
{
    struct store_op *op = &ch->ops[ch->n];
    snprintf(ch->keys[ch->n], sizeof ch->keys[0], "%s%s", prefix, name);
    *op = (struct store_op){.key = ch->keys[ch->n++], .if_revision = STORE_ANY};
    return op;
}

static bool is_named(const cJSON *desired, const char *sha)
{
    const cJSON *app;
    static const char *const keys[] = {"doc", "server"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (text_of(desired, keys[i]) && strcmp(sha, text_of(desired, keys[i])) == 0)
            return true;
    cJSON_ArrayForEach(app, get(desired, "apps"))
    {
        const char *doc = text_of(app, "doc");
        if (doc && strcmp(doc, sha) == 0)
            return true;
    }
    return false;
}

struct sweep {
    struct control *control;
    struct change *change;
};

// A text is kept while the store's good version is of it.
static bool is_good_for(struct control *c, const cJSON *desired, const char *sha)
{
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (strcmp(d->good_doc, sha) == 0 && get(get(desired, "apps"), d->name))
            return true;
    }
    return false;
}

static int sweep_one(void *ctx, const struct store_kv *kv)
{
    struct sweep *s = ctx;
    const char *name = strchr(kv->key, '/');
    if (!name || s->change->n >= RECORD_SWEEP_MAX)
        return 0;
    bool of_app = strncmp(kv->key, "good/", 5) == 0 || strncmp(kv->key, "failed/", 7) == 0;
    bool keep = strncmp(kv->key, "docs/", 5) == 0
                    ? is_named(s->change->next, name + 1) ||
                          is_good_for(s->control, s->change->next, name + 1)
                    : !of_app || get(get(s->change->next, "apps"), name + 1) != NULL;
    if (!keep)
        add_op(s->change, "", kv->key)->remove = true;
    return 0;
}

static int sweep(struct control *c, struct change *ch, struct err *err)
{
    struct sweep s = {c, ch};
    return store_list(c->store, "", sweep_one, &s, NULL, err); // each prefix would cost a walk
}

// Takes `next` over: it holds from then on, or nothing has changed.
static int commit(struct control *c, cJSON *next, const struct doc *doc, struct err *err)
{
    struct change *ch = xcalloc(1, sizeof *ch);
    ch->next = next;
    char *text = cJSON_PrintUnformatted(next);
    struct store_op *op = add_op(ch, key_desired, "");
    op->value = (struct bytes){text, strlen(text)};
    op->if_revision = (int64_t)c->desired_revision;
    if (doc) {
        op = add_op(ch, "docs/", doc->sha);
        op->value = (struct bytes){doc->record, strlen(doc->record)};
    }
    uint64_t revision = 0;
    int rc = sweep(c, ch, err);
    if (rc == 0)
        rc = store_txn(c->store, ch->ops, ch->n, &revision, err);
    cJSON_free(text);
    xfree(ch);
    if (rc < 0) {
        cJSON_Delete(next);
        err_ctx(err, "nothing was changed");
        return rc;
    }
    cJSON_Delete(c->desired);
    c->desired = next;
    c->desired_revision = revision;
    c->seq = whole(next, "seq");
    return 0;
}

static void set_text(cJSON *j, const char *key, const char *text)
{
    cJSON_DeleteItemFromObjectCaseSensitive(j, key);
    cJSON_AddStringToObject(j, key, text);
}

static cJSON *base_of(struct control *c)
{
    cJSON *next = c->desired ? cJSON_Duplicate(c->desired, true) : cJSON_CreateObject();
    cJSON_DeleteItemFromObjectCaseSensitive(next, "seq");
    cJSON_AddNumberToObject(next, "seq", (double)(c->seq + 1));
    return next;
}

// A text of applications alone leaves the server what it is, also the next time it starts.
static bool speaks_of_server(const struct doc *doc)
{
    static const char *const keys[] = {"http_options", "admin", "logging_config",
                                       "orphan_timeout_s"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (yaml_get(doc->conf.root, keys[i]))
            return true;
    return false;
}

int record_put(struct control *c, struct doc *doc, struct err *err)
{
    cJSON *next = base_of(c), *apps = cJSON_CreateObject();
    for (uint32_t i = 0; i < doc->conf.n_apps; i++) {
        const char *name = doc->conf.apps[i].name;
        uint64_t order = whole(get(get(next, "apps"), name), "order");
        cJSON *one = cJSON_AddObjectToObject(apps, name);
        cJSON_AddStringToObject(one, "doc", doc->sha);
        cJSON_AddNumberToObject(one, "order",
                                (double)(order ? order : record_order(c->seq + 1, i)));
        cJSON_AddNumberToObject(one, "seq", (double)(c->seq + 1));
        cJSON_AddNumberToObject(one, "deployed_s", (double)clock_wall_ns() / 1e9);
    }
    cJSON_DeleteItemFromObjectCaseSensitive(next, "apps");
    cJSON_AddItemToObject(next, "apps", apps);
    if (!text_of(next, "doc") || speaks_of_server(doc))
        set_text(next, "doc", doc->sha);
    if (doc == c->server || !text_of(next, "server"))
        set_text(next, "server", doc->sha);
    return commit(c, next, doc, err);
}

int record_delete(struct control *c, const char *app, struct err *err)
{
    cJSON *next = base_of(c);
    if (app)
        cJSON_DeleteItemFromObjectCaseSensitive(get(next, "apps"), app);
    else
        cJSON_DeleteItemFromObjectCaseSensitive(next, "apps");
    return commit(c, next, NULL, err);
}

// What `over` held of it is not true any more.
static int note(struct control *c, const char *prefix, const char *over, const char *app,
                cJSON *own_json, struct err *err)
{
    char key[STORE_KEY_MAX + 1], old[STORE_KEY_MAX + 1];
    char *text = cJSON_PrintUnformatted(own_json);
    snprintf(key, sizeof key, "%s%s", prefix, app);
    snprintf(old, sizeof old, "%s%s", over ? over : "", app);
    const struct store_op ops[] = {
        {.key = key, .value = {text, strlen(text)}, .if_revision = STORE_ANY},
        {.key = old, .remove = true, .if_revision = STORE_ANY}};
    int rc = c->store ? store_txn(c->store, ops, over ? 2 : 1, NULL, err)
                      : err_set(err, SV_E_UNAVAILABLE, "%s", c->store_why);
    cJSON_free(text);
    cJSON_Delete(own_json);
    return rc;
}

int record_note_good(struct deploy *d, struct err *err)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "order", (double)d->order);
    cJSON_AddStringToObject(j, "doc", d->good->doc->sha);
    cJSON_AddItemReferenceToObject(j, "probed", d->good->probed);
    int rc = note(d->control, "good/", d->rolled_back ? NULL : "failed/", d->name, j, err);
    if (rc == 0)
        memcpy(d->good_doc, d->good->doc->sha, sizeof d->good_doc);
    return rc;
}

int record_note_failed(struct deploy *d, struct err *err)
{
    char stamp[24];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "seq", (double)d->seq);
    cJSON_AddStringToObject(j, "message", d->failed);
    cJSON_AddBoolToObject(j, "file", d->failed_file);
    snprintf(stamp, sizeof stamp, "%016llx", (unsigned long long)d->stamp_tried);
    cJSON_AddStringToObject(j, "stamp", stamp);
    return note(d->control, "failed/", NULL, d->name, j, err);
}

/* ---- back ---- */

// 1: there is none.
static int read_json(struct control *c, const char *prefix, const char *name, cJSON **ret,
                     uint64_t *ret_revision, struct err *err)
{
    struct buf text = {0};
    char key[STORE_KEY_MAX + 1];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    int rc = store_get(c->store, key, &text, ret_revision, err);
    if (rc == 0 && !(*ret = cJSON_Parse(buf_cstr(&text))))
        rc = err_set(err, SV_E_INTERNAL, "the store's '%s' is not JSON", key);
    buf_finish(&text);
    return rc == SV_E_NOT_FOUND ? 1 : rc;
}

static int read_doc(struct control *c, const char *sha, struct doc **ret, struct err *err)
{
    struct buf text = {0};
    char key[STORE_KEY_MAX + 1];
    if (strcmp(c->server->sha, sha) == 0) {
        *ret = doc_ref(c->server);
        return 0;
    }
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        const struct version *of[] = {d->next, d->good};
        for (size_t i = 0; i < ARRAY_LEN(of); i++) {
            if (!of[i] || strcmp(of[i]->doc->sha, sha) != 0)
                continue;
            *ret = doc_ref(of[i]->doc);
            return 0;
        }
    }
    snprintf(key, sizeof key, "docs/%s", sha);
    int rc = store_get(c->store, key, &text, NULL, err);
    if (rc == 0)
        rc = doc_from_record(buf_cstr(&text), ret, err);
    if (rc == 0)
        doc_warn(*ret, true); // its first reader has said them
    buf_finish(&text);
    return rc;
}

// What stands under good/ or failed/: {NAME: note}. One walk over the store for all of them, since
// a key that is not there costs one, too.
static int add_note(void *ctx, const struct store_kv *kv)
{
    cJSON *all = ctx, *j = cJSON_ParseWithLength(kv->value.p, kv->value.n);
    const char *slash = strchr(kv->key, '/');
    if (j && slash)
        cJSON_AddItemToObject(all, slash + 1, j);
    else
        LOGW("the store's '%s' is not JSON", kv->key);
    return 0;
}

static cJSON *recall_notes(struct control *c, const char *prefix)
{
    struct err err;
    cJSON *all = cJSON_CreateObject();
    if (store_list(c->store, prefix, add_note, all, NULL, &err) < 0)
        LOGW("%s; what stands under '%s' in the store is not known", err.msg, prefix);
    return all;
}

static void recall_good(struct deploy *d, const cJSON *j)
{
    struct err err;
    struct doc *doc = NULL;
    int rc = 0;
    if (j && whole(j, "order") == d->order && text_of(j, "doc"))
        rc = read_doc(d->control, text_of(j, "doc"), &doc, &err);
    if (rc < 0)
        LOGW("%s; application %s has no version to go back to", err.msg, d->name);
    if (doc && doc_app(doc, d->name)) {
        struct version *v = version_create(d, doc);
        memcpy(d->good_doc, doc->sha, sizeof d->good_doc);
        if (probe_restore(v, get(j, "probed")))
            d->good = v;
        else
            version_unref(v);
    }
    doc_unref(doc);
}

static void recall_failed(struct deploy *d, const cJSON *j)
{
    if (j && whole(j, "seq") == d->seq && d->good) {
        const char *message = text_of(j, "message");
        const char *stamp = text_of(j, "stamp");
        snprintf(d->failed, sizeof d->failed, "%s", message ? message : "");
        d->stamp_tried = stamp ? strtoull(stamp, NULL, 16) : 0;
        d->failed_file = cJSON_IsTrue(get(j, "file"));
        d->rolled_back = true;
    }
}

struct notes {
    cJSON *good, *failed; // owned: {NAME: note}
};

static int recall_app(struct control *c, const cJSON *app, const struct notes *notes,
                      struct err *err)
{
    struct doc *doc = NULL;
    const char *sha = text_of(app, "doc");
    if (!sha)
        return err_set(err, SV_E_INTERNAL, "the store names no text for application '%s'",
                       app->string);
    int rc = read_doc(c, sha, &doc, err);
    if (rc < 0) {
        err_ctx(err, "application '%s' of the store", app->string);
        return rc;
    }
    if (doc_app(doc, app->string)) {
        struct deploy *d = deploy_create(c, app->string);
        d->order = whole(app, "order");
        d->seq = whole(app, "seq");
        d->deployed_wall_ns = (uint64_t)(cJSON_GetNumberValue(get(app, "deployed_s")) * 1e9);
        d->next = version_create(d, doc);
        recall_good(d, get(notes->good, d->name));
        recall_failed(d, get(notes->failed, d->name));
    }
    doc_unref(doc);
    return 0;
}

int record_recall(struct control *c, struct err *err)
{
    int rc = read_json(c, key_desired, "", &c->desired, &c->desired_revision, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    c->seq = whole(c->desired, "seq");
    const char *last = text_of(c->desired, "doc"), *holds = text_of(c->desired, "server");
    const char *sha = c->generation > 0 && holds ? holds : last;
    struct doc *server = NULL;
    if (sha && (rc = read_doc(c, sha, &server, err)) < 0)
        return rc;
    if (server) {
        doc_unref(c->server);
        c->server = server;
    }
    bool other = sha && holds && strcmp(sha, holds) != 0; // a server started with it
    char *own_sha = other ? xstrdup(sha) : NULL;
    const cJSON *app;
    struct notes notes = {recall_notes(c, "good/"), recall_notes(c, "failed/")};
    cJSON_ArrayForEach(app, get(c->desired, "apps"))
    {
        if (rc == 0)
            rc = recall_app(c, app, &notes, err);
    }
    cJSON_Delete(notes.good);
    cJSON_Delete(notes.failed);
    if (rc == 0 && other) { // only now it is known which texts the good versions need
        cJSON *next = cJSON_Duplicate(c->desired, true);
        set_text(next, "server", own_sha);
        rc = commit(c, next, NULL, err);
    }
    xfree(own_sha);
    return rc;
}

static int read_last(struct store *s, struct doc **ret, struct err *err)
{
    struct buf text = {0};
    int rc = store_get(s, key_desired, &text, NULL, err);
    cJSON *j = rc == 0 ? cJSON_Parse(buf_cstr(&text)) : NULL;
    const char *sha = text_of(j, "doc");
    if (rc == 0 && sha) {
        char *key = xasprintf("docs/%s", sha);
        rc = store_get(s, key, &text, NULL, err);
        xfree(key);
    } else if (rc == 0) {
        rc = SV_E_NOT_FOUND;
    }
    if (rc == 0)
        rc = doc_from_record(buf_cstr(&text), ret, err);
    cJSON_Delete(j);
    buf_finish(&text);
    return rc == SV_E_NOT_FOUND ? 1 : rc;
}

int record_last(const char *state_dir, struct doc **ret, struct err *err)
{
    char *path = xasprintf("%s/store.db", state_dir);
    bool exists = access(path, F_OK) == 0;
    struct store *s;
    xfree(path);
    if (!exists)
        return 1;
    int rc = store_open(state_dir, &s, err);
    if (rc < 0)
        return rc;
    rc = read_last(s, ret, err);
    store_close(s);
    return rc;
}

/* ---- as it was written ---- */

static cJSON *tree(const struct yaml_node *node, uint32_t depth)
{
    if (node->secret)
        return cJSON_CreateString("***");
    if (depth == CONF_DEPTH_MAX)
        return cJSON_CreateNull();
    if (node->kind == YAML_MAP) {
        cJSON *j = cJSON_CreateObject();
        for (uint32_t i = 0; i < node->n; i++)
            cJSON_AddItemToObject(j, node->pairs[i].key, tree(node->pairs[i].value, depth + 1));
        return j;
    }
    if (node->kind == YAML_SEQ) {
        cJSON *j = cJSON_CreateArray();
        for (uint32_t i = 0; i < node->n; i++)
            cJSON_AddItemToArray(j, tree(node->items[i], depth + 1));
        return j;
    }
    struct buf text = {0};
    yaml_json(node, &text);
    cJSON *j = cJSON_Parse(buf_cstr(&text));
    buf_finish(&text);
    return j ? j : cJSON_CreateNull();
}

cJSON *record_config(const struct doc *doc, const char *app)
{
    const struct yaml_node *all = yaml_get(doc->conf.root, "applications");
    const struct conf_app *a = doc_app(doc, app);
    if (all && all->kind == YAML_SEQ && a && a >= doc->conf.apps &&
        (uint32_t)(a - doc->conf.apps) < all->n)
        return tree(all->items[a - doc->conf.apps], 0);
    cJSON *j = cJSON_CreateObject(); // of --plugin
    cJSON_AddStringToObject(j, "name", app);
    if (a)
        cJSON_AddStringToObject(j, "plugin", a->deployments[a->active].plugin);
    return j;
}
